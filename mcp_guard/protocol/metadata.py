"""Protected resource metadata (RFC 9728): where the document is and what it says."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from mcp_guard.facts import Policy
from mcp_guard.protocol.jose import PROOF_ALGORITHMS
from mcp_guard.protocol.uris import PublicUrl

WELL_KNOWN: Final = "/.well-known/oauth-protected-resource"
"""RFC 9728 §3."""

NEVER_LISTED: Final = frozenset({"offline_access"})
"""Scopes that a resource does not ask for: whether there are refresh tokens is between client and issuer (SEP-2207)."""


def well_known_path(resource_url: str) -> str:
    """The path at which the resource's metadata is served (RFC 9728 §3.1).

    Raises:
        ConfigurationError: `resource_url` is not a URL that a resource can have.
    """
    path = PublicUrl.parse(resource_url, setting="resource").path
    return WELL_KNOWN if path == "/" else f"{WELL_KNOWN}{path}"


def well_known_url(resource_url: str) -> str:
    """The URL of the resource's metadata: the well-known segment between host and path (RFC 9728 §3.1).

    `https://mcp.example.com/a/mcp` has it at `https://mcp.example.com/.well-known/oauth-protected-resource/a/mcp`.

    Raises:
        ConfigurationError: `resource_url` is not a URL that a resource can have.
    """
    return f"{PublicUrl.parse(resource_url, setting='resource').origin}{well_known_path(resource_url)}"


def root_well_known(resource_url: str) -> str:
    """The well-known URL without a path, where MCP clients look when the one with the path does not answer.

    Raises:
        ConfigurationError: `resource_url` is not a URL that a resource can have.
    """
    return f"{PublicUrl.parse(resource_url, setting='resource').origin}{WELL_KNOWN}"


def document(
    resource: str,
    authorization_servers: Sequence[str],
    *,
    scopes_supported: Iterable[str] = (),
    resource_name: str | None = None,
    resource_documentation: str | None = None,
    dpop: Policy = "off",
    certificates: Policy = "off",
) -> dict[str, Any]:
    """The metadata of one resource (RFC 9728 §2). Members without a value are left out (§3.2).

    `resource` and the issuers stand as they are spelled: clients compare them code point by code point. Scopes are
    sorted, and those in `NEVER_LISTED` left out. Tokens are taken in the header alone. `dpop` is the policy for tokens
    that are bound to a key (RFC 9449), `certificates` that for those bound to a client certificate (RFC 8705 §3.3).
    """
    members: dict[str, Any] = {
        "resource": resource,
        "authorization_servers": list(authorization_servers),
        "scopes_supported": sorted(set(scopes_supported) - NEVER_LISTED),
        "bearer_methods_supported": ["header"],
        "resource_name": resource_name,
        "resource_documentation": resource_documentation,
        "tls_client_certificate_bound_access_tokens": certificates != "off",
        "dpop_signing_alg_values_supported": [] if dpop == "off" else sorted(PROOF_ALGORITHMS),
        "dpop_bound_access_tokens_required": dpop == "required",
    }
    return {name: value for name, value in members.items() if value}


def canonical_resource(identifier: str) -> str:
    """The identifier with scheme and host in lower case, everything else as it is spelled.

    MCP 2026-07-28 basic/authorization §Canonical Server URI asks for this much and no more: paths keep their case, and
    a final slash makes another resource.
    """
    scheme, mark, rest = identifier.partition("://")
    if not mark or not identifier.isascii():
        return identifier
    end = min((at for at in map(rest.find, "/?#") if at >= 0), default=len(rest))
    return f"{scheme.lower()}://{rest[:end].lower()}{rest[end:]}"
