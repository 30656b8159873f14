"""Authorization server metadata (RFC 8414) and the issuer identifier it hangs on.

The issuer is compared byte for byte by clients (RFC 8414 §3.3), so it is used exactly as it was configured; it only has
to be a URL with one reading.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mcp_guard.protocol.redirects import LOOPBACK_HOSTS, RedirectError, parse_redirect

WELL_KNOWN = "/.well-known/oauth-authorization-server"

_ISSUER = re.compile(r"(https?)://([^/]+)(/.*)?")
_PATH = re.compile(r"(?:/[A-Za-z0-9\-._~]+)*/?")


class IssuerError(ValueError):
    """The issuer identifier cannot be used. The message says what it must be."""


@dataclass(frozen=True, slots=True)
class Issuer:
    """An issuer identifier taken apart. `identifier` is what clients compare; `origin` is scheme and authority.

    `path` has no slash at its end; it is empty for an issuer without a path.
    """

    identifier: str
    origin: str
    path: str

    @property
    def is_secure(self) -> bool:
        return self.origin.startswith("https:")

    @property
    def well_known_path(self) -> str:
        """Where its metadata is: the well-known name is put between host and path (RFC 8414 §3.1)."""
        return f"{WELL_KNOWN}{self.path}"

    def endpoint(self, name: str) -> str:
        """The URL of the endpoint called `name`, such as `token`."""
        return f"{self.origin}{self.path}/{name}"


def parse_issuer(identifier: str) -> Issuer:
    """Take apart an issuer identifier (RFC 8414 §2): https, or http on a loopback host; no query, no fragment.

    Raises:
        IssuerError: it is anything else, or its path would not survive a router.
    """
    match = _ISSUER.fullmatch(identifier)
    if match is None:
        raise IssuerError("an issuer is an https URL without query or fragment")
    path = match[3] or ""
    try:
        parsed = parse_redirect(identifier)
    except RedirectError as fault:
        raise IssuerError(f"an issuer is an https URL, or http on {_loopback()}: {fault}") from None
    if "?" in identifier or _PATH.fullmatch(path) is None:
        raise IssuerError("an issuer has no query, and its path has only letters, digits, '-', '.', '_' and '~'")
    if parsed.host is None or match[2] != match[2].lower():
        raise IssuerError("the host of an issuer is in lower case")
    return Issuer(identifier, f"{match[1]}://{match[2]}", path.removesuffix("/"))


def _loopback() -> str:
    return ", ".join(sorted(LOOPBACK_HOSTS))


def document(issuer: Issuer, *, scopes: Sequence[str], resources: Sequence[str]) -> dict[str, Any]:
    """The metadata document (RFC 8414 §2, RFC 9207 §3, RFC 9728 §4): only what is served, and no empty member."""
    members: dict[str, Any] = {
        "issuer": issuer.identifier,
        "authorization_endpoint": issuer.endpoint("authorize"),
        "token_endpoint": issuer.endpoint("token"),
        "registration_endpoint": issuer.endpoint("register"),
        "jwks_uri": issuer.endpoint("jwks"),
        "scopes_supported": list(scopes),
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": ["authorization_code", "refresh_token"],
        "token_endpoint_auth_methods_supported": ["none", "client_secret_basic"],
        "code_challenge_methods_supported": ["S256"],
        "authorization_response_iss_parameter_supported": True,
        "protected_resources": list(resources),
    }
    return {name: value for name, value in members.items() if value != []}
