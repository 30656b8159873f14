"""Authorization server metadata (RFC 8414) and the issuer identifier it hangs on.

The issuer is compared byte for byte by clients (RFC 8414 §3.3), so it is used exactly as it was configured; it only has
to be a URL with one reading.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mcp_guard.failures import ConfigurationError
from mcp_guard.protocol.uris import PublicUrl

WELL_KNOWN = "/.well-known/oauth-authorization-server"

_PATH = re.compile(r"(?:/[A-Za-z0-9\-._~]+)*/?")


@dataclass(frozen=True, slots=True)
class Issuer:
    """An issuer identifier. `identifier` is what clients compare, byte for byte; `url` is the same taken apart."""

    identifier: str
    url: PublicUrl

    @classmethod
    def parse(cls, identifier: str) -> "Issuer":
        """Take apart an issuer identifier (RFC 8414 §2): https, or http on a loopback host; no query, no fragment.

        Raises:
            ConfigurationError: it is anything else, or its path would need percent-encoding.
        """
        url = PublicUrl.parse(identifier, setting="issuer")
        if _PATH.fullmatch(url.path) is None:
            raise ConfigurationError(f"issuer: {identifier!r} has a path with more than letters, digits, -, ., _ and ~")
        return cls(identifier, url)

    @property
    def is_secure(self) -> bool:
        return self.url.is_secure

    @property
    def path(self) -> str:
        """Its path without a slash at the end."""
        return self.url.path.removesuffix("/")

    @property
    def well_known_path(self) -> str:
        """Where its metadata is: the well-known name is put between host and path (RFC 8414 §3.1)."""
        return f"{WELL_KNOWN}{self.path}"

    def endpoint(self, name: str) -> str:
        """The URL of the endpoint called `name`, such as `token`."""
        return f"{self.url.origin}{self.path}/{name}"


def document(
    issuer: Issuer, *, scopes: Sequence[str], resources: Sequence[str], proof_algorithms: Sequence[str] = ()
) -> dict[str, Any]:
    """The metadata document (RFC 8414 §2, RFC 9207 §3, RFC 9728 §4, RFC 9449 §5.1): only what is served, and no empty
    member.
    """
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
        "dpop_signing_alg_values_supported": list(proof_algorithms),
        "protected_resources": list(resources),
    }
    return {name: value for name, value in members.items() if value != []}
