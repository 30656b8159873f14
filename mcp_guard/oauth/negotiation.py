"""What of a client's metadata this server can serve, and its own metadata: judged by Authlib.

Authlib has the tables of RFC 7591 §2 and RFC 8414 §2: which members go together, which must be URLs, which need others.
They run behind our own parser, which has already made sure of types, sizes and redirect URIs.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from authlib.oauth2 import rfc8414, rfc9207
from authlib.oauth2.rfc7591 import ClientMetadataClaims
from joserfc.errors import JoseError

from mcp_guard.failures import ConfigurationError
from mcp_guard.protocol.registration import INVALID_CLIENT_METADATA, ClientMetadata, RegistrationError


def settle(metadata: ClientMetadata, server: Mapping[str, Any]) -> ClientMetadata:
    """The metadata as it is registered with a server of this metadata: scopes that are not offered are left out.

    A client that asks for none of ours is registered as if it had asked for nothing, since several clients ask for
    OpenID scopes of their own accord; what it may have is settled again at each authorization.

    Raises:
        RegistrationError: the members contradict each other, or ask for what is not served.
    """
    if metadata.dpop_bound and "dpop_signing_alg_values_supported" not in server:
        raise RegistrationError(INVALID_CLIENT_METADATA, "Access tokens are not bound to keys by this server")
    # Redirect URIs were judged by our own parser: one of a private-use scheme has no host, which Authlib expects.
    # Keys of clients are not used, so they are not parsed either. Scopes are settled below.
    options = ClientMetadataClaims.get_claims_options({**server, "scopes_supported": None})
    judged = {name: value for name, value in metadata.members().items() if name not in {"redirect_uris", "scope"}}
    claims = ClientMetadataClaims(judged, {}, options, dict(server))
    try:
        claims.validate()
    except (JoseError, ValueError) as fault:
        name = getattr(fault, "claim", None)
        raise RegistrationError(
            INVALID_CLIENT_METADATA,
            f"{name} is not acceptable" if isinstance(name, str) else "A member is not acceptable",
        ) from None
    if metadata.scopes is None:
        return metadata
    kept = tuple(scope for scope in metadata.scopes if scope in server.get("scopes_supported", ()))
    return replace(metadata, scopes=kept or None)


def check_server_metadata(document: Mapping[str, Any]) -> None:
    """Whether our own metadata is sound by RFC 8414 §2 and RFC 9207 §3.

    Raises:
        ConfigurationError: a setting leads to a document that clients must refuse.
    """
    try:
        rfc8414.AuthorizationServerMetadata(document).validate(metadata_classes=[rfc9207.AuthorizationServerMetadata])
    except ValueError as fault:
        raise ConfigurationError(f"the authorization server's metadata would not be sound: {fault}") from None
