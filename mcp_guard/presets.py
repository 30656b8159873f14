"""Issuers of four providers, by what their public documentation says of their tokens; the pages are named by title.

A preset says how a provider's tokens differ from RFC 9068, and no more: who is trusted is the tenant, realm or project
that is named. Whether a token is for this server is told by its audience, which each provider has to be made to set;
docs/how-to/external-issuers.md says where.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final, Literal, TypeAlias
from uuid import UUID

from mcp_guard.failures import ConfigurationError
from mcp_guard.introspection import Introspection
from mcp_guard.keysources import KeySource
from mcp_guard.protocol.authorization_metadata import Issuer
from mcp_guard.tokens import Fallback, IssuerPolicy, TrustedIssuer

Preset: TypeAlias = Literal["auth0", "keycloak", "entra", "supabase"]

ENTRA_HOST: Final = "https://login.microsoftonline.com"
_RSA: Final = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
_EC: Final = frozenset({"ES256", "ES384", "EdDSA", "Ed25519"})


@dataclass(frozen=True)
class Provider:
    """What of a `TrustedIssuer` follows from the provider."""

    issuer: str
    policy: IssuerPolicy
    tenant_claim: str | None = None
    insecure_accept_untyped: bool = False

    def trusted(
        self,
        keys: KeySource | None = None,
        *,
        introspection: Introspection | None = None,
        fallback: Fallback = "refuse",
        required_claims: Mapping[str, frozenset[str]] = MappingProxyType({}),
        tenant_claim: str | None = None,
    ) -> TrustedIssuer:
        """The issuer, trusted by its keys, by introspection, or both; `RemoteKeys(provider.issuer)` finds the keys.

        What the provider requires stands, whatever `required_claims` say.
        """
        return TrustedIssuer(
            self.issuer,
            keys,
            tenant_claim or self.tenant_claim,
            self.insecure_accept_untyped,
            introspection=introspection,
            fallback=fallback,
            policy=replace(self.policy, required_claims={**required_claims, **self.policy.required_claims}),
        )


def auth0(domain: str, *, rfc9068: bool = True) -> Provider:
    """The tenant at `domain`, such as `example.eu.auth0.com` or a custom domain ("Access Token Profiles").

    The API has the RFC 9068 profile; without `rfc9068` it is the Auth0 profile, whose tokens are of type JWT like ID
    tokens are and name the client in `azp`. Beside the API, `aud` names the tenant's userinfo endpoint when `openid`
    was asked for.
    """
    issuer = _issuer(f"https://{domain}/", "auth0 domain")
    return Provider(issuer, IssuerPolicy(algorithms=_RSA), insecure_accept_untyped=not rfc9068)


def keycloak(realm_url: str) -> Provider:
    """The realm at `realm_url`, such as `https://sso.example.com/realms/main` ("Server Administration Guide").

    Tokens are of type JWT, unless the client has "Use rfc9068 access token header type". The claim `typ` tells access
    tokens, `Bearer` or `DPoP`, from ID and refresh tokens. Neither could be checked against that guide, which does not
    speak of them.
    """
    issuer = _issuer(realm_url, "keycloak realm")
    types = {"typ": frozenset({"Bearer", "DPoP"})}
    return Provider(issuer, IssuerPolicy(required_claims=types, algorithms=_RSA | _EC), insecure_accept_untyped=True)


def entra(tenant_id: str, host: str = ENTRA_HOST) -> Provider:
    """The tenant `tenant_id`, a GUID, with tokens of version 2.0 ("Access token claims reference").

    Tokens are of type JWT and name the client in `azp`, their scopes in `scp`. `common`, `organizations` and
    `consumers` are refused: whoever has an account anywhere could sign in. `host` is that of a national cloud. That all
    signatures are RSA could not be checked: the reference gives RS256 as an example.

    Raises:
        ConfigurationError: the tenant is not a GUID.
    """
    try:
        tenant = str(UUID(tenant_id))
    except ValueError:
        raise ConfigurationError(f"entra tenant: {tenant_id!r} must be the GUID of one tenant") from None
    if tenant != tenant_id.lower():
        raise ConfigurationError(f"entra tenant: {tenant_id!r} must be spelled {tenant}")
    required = {"ver": frozenset({"2.0"}), "tid": frozenset({tenant})}
    policy = IssuerPolicy(required_claims=required, algorithms=_RSA, client_claim="azp")
    return Provider(_issuer(f"{host}/{tenant}/v2.0", "entra host"), policy, "tid", insecure_accept_untyped=True)


def supabase(project_url: str) -> Provider:
    """The project at `project_url`, such as `https://ref.supabase.co` ("Token Security and Row Level Security").

    Only tokens of its OAuth 2.1 server have `client_id`; those of a session of the project's own app are refused. The
    project has asymmetric signing keys ("JWT Signing Keys"). Its tokens name no scopes unless a hook adds them.
    """
    issuer = _issuer(f"{project_url.removesuffix('/')}/auth/v1", "supabase project")
    roles = {"role": frozenset({"authenticated"})}
    policy = IssuerPolicy(required_claims=roles, algorithms=_RSA | _EC, client_claim="client_id")
    return Provider(issuer, policy, insecure_accept_untyped=True)


def of_issuer(preset: Preset, issuer: str) -> Provider:
    """The provider that has this issuer, as its metadata spells it.

    Raises:
        ConfigurationError: the provider has no such issuer.
    """
    made = {"auth0": _auth0_of, "keycloak": keycloak, "entra": _entra_of, "supabase": _supabase_of}[preset](issuer)
    if made.issuer != issuer:
        raise ConfigurationError(f"{issuer!r} is not an issuer of {preset}; it would be {made.issuer!r}")
    return made


def _auth0_of(issuer: str) -> Provider:
    return auth0(issuer.removeprefix("https://").removesuffix("/"))


def _entra_of(issuer: str) -> Provider:
    host, _, tenant = issuer.removesuffix("/v2.0").rpartition("/")
    return entra(tenant, host)


def _supabase_of(issuer: str) -> Provider:
    return supabase(issuer.removesuffix("/auth/v1"))


def _issuer(identifier: str, setting: str) -> str:
    try:
        return Issuer.parse(identifier).identifier
    except ConfigurationError as fault:
        raise ConfigurationError(f"{setting}: {fault}") from None
