"""Presets of providers, each against a local issuer that has the provider's documents, headers and claims."""

import json
from typing import Any

import pytest

from mcp_guard import presets
from mcp_guard.clock import ManualClock
from mcp_guard.failures import ConfigurationError
from mcp_guard.keysources import RemoteKeys, StaticKeys
from mcp_guard.presets import Provider
from mcp_guard.protocol.jwt import AccessToken, Fault, TokenError
from mcp_guard.tokens import Verification
from tests.guard.introspecting import endpoint
from tests.guard.signing import NOW, RESOURCE, SigningKey, jwk_set

RS256, ES256 = SigningKey.new("RS256"), SigningKey.new("ES256", kid="k2")
KEYS = jwk_set(RS256, ES256)
TENANT = "aaaabbbb-0000-cccc-1111-dddd2222eeee"
API = "11112222-bbbb-3333-cccc-4444dddd5555"
TIMES = {"iat": NOW - 10, "exp": NOW + 300}

AUTH0 = presets.auth0("example.eu.auth0.com", rfc9068=False)
AUTH0_9068 = presets.auth0("example.eu.auth0.com")
KEYCLOAK = presets.keycloak("https://sso.example.com/realms/main")
ENTRA = presets.entra(TENANT)
SUPABASE = presets.supabase("https://abcdefgh.supabase.co")

AUTH0_CLAIMS = {
    "iss": "https://example.eu.auth0.com/",
    "sub": "auth0|123456",
    "aud": [RESOURCE, "https://example.eu.auth0.com/userinfo"],
    "azp": "my_client_id",
    "scope": "openid profile mcp:tools",
    "gty": "password",
    **TIMES,
}
AUTH0_9068_CLAIMS = {
    **{name: value for name, value in AUTH0_CLAIMS.items() if name not in ("azp", "gty")},
    "client_id": "my_client_id",
    "jti": "73WakrfVbNJBaAmhQtEeDv",
}
KEYCLOAK_CLAIMS = {
    "iss": "https://sso.example.com/realms/main",
    "sub": "f6a3c1c2-0000-4000-8000-000000000001",
    "aud": [RESOURCE, "account"],
    "typ": "Bearer",
    "azp": "mcp-client",
    "sid": "s1",
    "acr": "1",
    "jti": "onrtac:1",
    "allowed-origins": ["https://app.example.com"],
    "realm_access": {"roles": ["offline_access", "uma_authorization"]},
    "resource_access": {"account": {"roles": ["view-profile"]}},
    "scope": "openid email mcp:tools",
    **TIMES,
}
ENTRA_CLAIMS = {
    "iss": f"https://login.microsoftonline.com/{TENANT}/v2.0",
    "sub": "pairwise-subject",
    "aud": API,
    "azp": "22223333-cccc-4444-dddd-5555eeee6666",
    "azpacr": "0",
    "oid": "bbbbcccc-1111-dddd-2222-eeee3333ffff",
    "scp": "mcp:tools",
    "tid": TENANT,
    "ver": "2.0",
    "uti": "u1",
    "nbf": NOW - 10,
    **TIMES,
}
SUPABASE_CLAIMS = {
    "iss": "https://abcdefgh.supabase.co/auth/v1",
    "sub": "user-uuid",
    "aud": RESOURCE,
    "role": "authenticated",
    "user_id": "user-uuid",
    "email": "user@example.com",
    "client_id": "9a8b7c6d-5e4f-3a2b-1c0d-9e8f7a6b5c4d",
    "aal": "aal1",
    "amr": [{"method": "password", "timestamp": NOW - 100}],
    "session_id": "session-uuid",
    **TIMES,
}
GOOD: list[tuple[Provider, SigningKey, str, dict[str, Any]]] = [
    (AUTH0, RS256, "JWT", AUTH0_CLAIMS),
    (AUTH0_9068, RS256, "at+jwt", AUTH0_9068_CLAIMS),
    (KEYCLOAK, RS256, "JWT", KEYCLOAK_CLAIMS),
    (KEYCLOAK, ES256, "at+jwt", KEYCLOAK_CLAIMS),
    (ENTRA, RS256, "JWT", ENTRA_CLAIMS),
    (SUPABASE, ES256, "JWT", SUPABASE_CLAIMS),
    (SUPABASE, RS256, "JWT", SUPABASE_CLAIMS),
]


def token(key: SigningKey, typ: str, claims: dict[str, Any]) -> bytes:
    return key.token(claims, key.header(typ=typ))


async def verify(provider: Provider, given: bytes) -> AccessToken:
    trusted = provider.trusted(StaticKeys(KEYS))
    verification = Verification([trusted], ManualClock(), 10.0, 86_400.0)
    return (await verification.verify(given, frozenset({RESOURCE, API}))).token


@pytest.mark.parametrize(("provider", "key", "typ", "claims"), GOOD)
async def test_the_providers_own_tokens_are_accepted(
    provider: Provider, key: SigningKey, typ: str, claims: dict[str, Any]
) -> None:
    says = await verify(provider, token(key, typ, claims))
    assert says.issuer == claims["iss"] == provider.issuer
    assert says.subject == claims["sub"]
    assert says.client_id == claims.get("client_id", claims.get("azp"))
    assert says.tenant == claims.get("tid")
    assert ("mcp:tools" in says.scopes) is ("scope" in claims or "scp" in claims)


BAD: list[tuple[Provider, SigningKey, str, dict[str, Any], Fault]] = [
    (AUTH0, RS256, "JWT", {**AUTH0_CLAIMS, "aud": "my_client_id"}, Fault.AUDIENCE),
    (AUTH0, RS256, "JWT", {**AUTH0_CLAIMS, "nonce": "n"}, Fault.TYPE),
    (AUTH0, RS256, "JWT", {**AUTH0_CLAIMS, "iss": "https://example.eu.auth0.com"}, Fault.ISSUER),
    (AUTH0_9068, RS256, "JWT", AUTH0_CLAIMS, Fault.TYPE),
    (AUTH0, ES256, "JWT", AUTH0_CLAIMS, Fault.ALGORITHM),
    (KEYCLOAK, RS256, "JWT", {**KEYCLOAK_CLAIMS, "typ": "ID"}, Fault.CLAIMS),
    (KEYCLOAK, RS256, "JWT", {**KEYCLOAK_CLAIMS, "typ": "Refresh"}, Fault.CLAIMS),
    (KEYCLOAK, RS256, "JWT", {**KEYCLOAK_CLAIMS, "aud": "account"}, Fault.AUDIENCE),
    (ENTRA, RS256, "JWT", {**ENTRA_CLAIMS, "ver": "1.0"}, Fault.CLAIMS),
    (ENTRA, RS256, "JWT", {**ENTRA_CLAIMS, "tid": API}, Fault.CLAIMS),
    (ENTRA, RS256, "JWT", {**ENTRA_CLAIMS, "aud": "00000003-0000-0000-c000-000000000000"}, Fault.AUDIENCE),
    (SUPABASE, ES256, "JWT", {**SUPABASE_CLAIMS, "aud": "authenticated"}, Fault.AUDIENCE),
    (SUPABASE, ES256, "JWT", {**SUPABASE_CLAIMS, "client_id": None}, Fault.CLAIMS),
    (SUPABASE, ES256, "JWT", {**SUPABASE_CLAIMS, "role": "service_role"}, Fault.CLAIMS),
]


@pytest.mark.parametrize(("provider", "key", "typ", "claims", "fault"), BAD)
async def test_what_else_the_provider_signs_is_refused(
    provider: Provider, key: SigningKey, typ: str, claims: dict[str, Any], fault: Fault
) -> None:
    with pytest.raises(TokenError) as caught:
        await verify(provider, token(key, typ, {name: value for name, value in claims.items() if value is not None}))
    assert caught.value.fault is fault


@pytest.mark.parametrize("path", ["/realms/main", "/auth/v1", ""])
async def test_keys_are_found_where_the_providers_publish_their_metadata(path: str) -> None:
    async with endpoint() as one:
        issuer = f"{one.url}{path}"
        one.documents[f"{path}/.well-known/openid-configuration"] = {"issuer": issuer, "jwks_uri": f"{one.url}/jwks"}
        one.documents["/jwks"] = json.loads(json.dumps(KEYS))
        keys = RemoteKeys(issuer, clock=ManualClock())
        assert await keys.find("k1", "RS256") is not None
        await keys.close()


@pytest.mark.parametrize(
    ("preset", "provider"),
    [("auth0", AUTH0_9068), ("keycloak", KEYCLOAK), ("entra", ENTRA), ("supabase", SUPABASE)],
)
def test_a_preset_is_found_by_its_issuer(preset: presets.Preset, provider: Provider) -> None:
    assert presets.of_issuer(preset, provider.issuer) == provider


@pytest.mark.parametrize(
    ("preset", "issuer"),
    [
        ("auth0", "https://example.eu.auth0.com"),
        ("auth0", "http://example.eu.auth0.com/"),
        ("keycloak", "http://sso.example.com/realms/main"),
        ("entra", "https://login.microsoftonline.com/common/v2.0"),
        ("entra", "https://login.microsoftonline.com/organizations/v2.0"),
        ("entra", f"https://login.microsoftonline.com/{TENANT.replace('-', '')}/v2.0"),
        ("entra", f"https://sts.windows.net/{TENANT}/"),
        ("supabase", "https://abcdefgh.supabase.co"),
    ],
)
def test_an_issuer_that_is_not_the_providers_is_refused(preset: presets.Preset, issuer: str) -> None:
    with pytest.raises(ConfigurationError):
        presets.of_issuer(preset, issuer)


def test_what_a_provider_requires_stands() -> None:
    more = {"tid": frozenset({API}), "groups": frozenset({"staff"})}
    policy = ENTRA.trusted(StaticKeys(KEYS), required_claims=more).policy
    assert policy.required_claims == {"ver": {"2.0"}, "tid": {TENANT}, "groups": {"staff"}}
