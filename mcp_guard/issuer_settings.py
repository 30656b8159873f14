"""The issuer that the environment's settings describe: how its tokens are verified, and by which provider's rules.

Several issuers, or ones with other rules, are described in code, with `TrustedIssuer`.
"""

from datetime import timedelta
from pathlib import Path
from typing import Final

from mcp_guard import presets
from mcp_guard.config import Settings, naming
from mcp_guard.failures import ConfigurationError
from mcp_guard.introspection import ClientAuthentication, ClientSecret, Introspection, PrivateKeyJwt
from mcp_guard.keysources import KeySource, RemoteKeys, StaticKeys
from mcp_guard.presets import Provider
from mcp_guard.secret import Secret
from mcp_guard.tokens import IssuerPolicy, TrustedIssuer

CLIENT: Final = "MCP_INTROSPECTION_CLIENT_ID"
WAYS: Final = (
    "MCP_INTROSPECTION_CLIENT_SECRET, MCP_INTROSPECTION_CLIENT_SECRET_FILE or MCP_INTROSPECTION_CLIENT_KEY_FILE"
)


def trusted_issuer(settings: Settings) -> TrustedIssuer:
    """The issuer.

    Raises:
        ConfigurationError: a setting cannot work; the message names it.
    """
    provider = Provider(settings.oauth_issuer, IssuerPolicy())
    if settings.oauth_preset is not None:
        with naming("MCP_OAUTH_ISSUER"):
            provider = presets.of_issuer(settings.oauth_preset, settings.oauth_issuer)
    keys = None if settings.oauth_mode == "opaque" else _keys(settings)
    introspection = None if settings.oauth_mode == "jwt" else _introspection(settings)
    if settings.oauth_mode == "jwt" and _asks(settings):
        raise ConfigurationError(
            "MCP_OAUTH_MODE is jwt, and MCP_INTROSPECTION_… says whom to ask: set opaque or hybrid"
        )
    if settings.oauth_mode != "hybrid" and settings.oauth_fallback != "refuse":
        raise ConfigurationError(f"MCP_OAUTH_FALLBACK is for hybrid, and MCP_OAUTH_MODE is {settings.oauth_mode}")
    if settings.oauth_mode == "opaque" and settings.oauth_jwks_file is not None:
        raise ConfigurationError("MCP_OAUTH_JWKS_FILE is for jwt and hybrid, and MCP_OAUTH_MODE is opaque")
    with naming("MCP_OAUTH_REQUIRED_CLAIMS or MCP_OAUTH_TENANT_CLAIM"):
        return provider.trusted(
            keys,
            introspection=introspection,
            fallback=settings.oauth_fallback,
            required_claims=dict(settings.oauth_required_claims),
            tenant_claim=settings.oauth_tenant_claim,
        )


def _keys(settings: Settings) -> KeySource:
    if settings.oauth_jwks_file is not None:
        with naming("MCP_OAUTH_JWKS_FILE"):
            return StaticKeys(settings.oauth_jwks_file)
    with naming("MCP_OAUTH_ISSUER"):
        # An issuer that is asked first may be away: what happens then is for the policy to say.
        return RemoteKeys(settings.oauth_issuer, required_at_start=settings.oauth_mode == "jwt")


def _asks(settings: Settings) -> bool:
    return settings.introspection_endpoint is not None or settings.introspection_client_id is not None


def _introspection(settings: Settings) -> Introspection:
    authentication = _authentication(settings)
    with naming("MCP_INTROSPECTION_ENDPOINT"):
        return Introspection(
            settings.oauth_issuer,
            authentication,
            settings.introspection_endpoint,
            positive=timedelta(seconds=settings.introspection_cache_seconds),
        )


def _authentication(settings: Settings) -> ClientAuthentication:
    client_id = settings.introspection_client_id
    if client_id is None:
        raise ConfigurationError(f"{CLIENT} is not set, and MCP_OAUTH_MODE is {settings.oauth_mode}")
    secret, secret_file = settings.introspection_client_secret, settings.introspection_client_secret_file
    key_file = settings.introspection_client_key_file
    if sum(way is not None for way in (secret, secret_file, key_file)) != 1:
        raise ConfigurationError(f"one of {WAYS} must be set")
    if key_file is not None:
        with naming("MCP_INTROSPECTION_CLIENT_KEY_FILE"):
            return PrivateKeyJwt(client_id, Secret(_read(key_file)))
    if secret_file is not None:
        with naming("MCP_INTROSPECTION_CLIENT_SECRET_FILE"):
            return ClientSecret(client_id, Secret(_read(secret_file).strip()))
    with naming(CLIENT):
        return ClientSecret(client_id, Secret("" if secret is None else secret.get_secret_value()))


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except OSError as fault:
        raise ConfigurationError(f"{path} cannot be read: {fault.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path} is not text") from None
