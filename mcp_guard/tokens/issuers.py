"""Whose tokens are accepted, how they are verified, and what they have to say."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Literal, TypeAlias

from mcp_guard.failures import ConfigurationError
from mcp_guard.introspection import Introspection
from mcp_guard.keysources import KeySource
from mcp_guard.protocol.jose import ALGORITHMS

Fallback: TypeAlias = Literal["refuse", "local"]
"""What becomes of tokens while their issuer cannot be asked: refused with 503, or decided by its keys."""


@dataclass(frozen=True)
class IssuerPolicy:
    """What an issuer's tokens have to say beyond what all access tokens do.

    `required_claims` must be there, each with one of the values, or any when there are none. `maximum_age` is counted
    from `iat`. `single_audience` refuses tokens that are for another resource too. `algorithms` narrows the signatures
    that are accepted. `client_claim` names the client in place of `client_id` and `azp`. A token that lives longer than
    the layer's `maximum_lifetime` is refused, or logged with `over_lifetime="warn"`.
    """

    required_claims: Mapping[str, frozenset[str]] = field(default_factory=dict)
    maximum_age: timedelta | None = None
    single_audience: bool = False
    algorithms: frozenset[str] = ALGORITHMS
    client_claim: str | None = None
    over_lifetime: Literal["refuse", "warn"] = "refuse"

    def __post_init__(self) -> None:
        if self.maximum_age is not None and self.maximum_age <= timedelta(0):
            raise ConfigurationError(f"maximum_age must be longer than nothing, not {self.maximum_age}")
        if not self.algorithms or not ALGORITHMS.issuperset(self.algorithms):
            raise ConfigurationError(f"algorithms must be some of {', '.join(sorted(ALGORITHMS))}")
        if self.client_claim == "" or "" in self.required_claims:
            raise ConfigurationError("client_claim and required_claims must be names of claims")
        if self.over_lifetime not in ("refuse", "warn"):
            raise ConfigurationError(f"over_lifetime must be refuse or warn, not {self.over_lifetime!r}")


NO_ISSUER_POLICY = IssuerPolicy()


@dataclass(frozen=True)
class TrustedIssuer:
    """An issuer whose tokens are accepted, and its keys, which no other issuer's tokens are verified with.

    `issuer` is compared with `iss` as it stands. `tenant_claim` is the claim that names the tenant, then required.
    `insecure_accept_untyped` also accepts tokens without `typ` or with `JWT`, from issuers that know nothing better:
    what keeps their ID tokens out is then the audience, and claims that only ID tokens have.

    With `introspection` the issuer is asked about each token (RFC 7662). With keys as well, it is asked first; with
    `fallback="local"` the keys decide while it cannot be reached, and only then. Tokens that are no JWT are accepted
    from the one issuer without keys, or with `opaque`. `insecure_accept_missing_audience` takes an answer without `aud`
    for one about this resource.
    """

    issuer: str
    keys: KeySource | None = None
    tenant_claim: str | None = None
    insecure_accept_untyped: bool = False
    introspection: Introspection | None = None
    fallback: Fallback = "refuse"
    opaque: bool = False
    policy: IssuerPolicy = NO_ISSUER_POLICY
    insecure_accept_missing_audience: bool = False

    def __post_init__(self) -> None:
        if not self.issuer:
            raise ConfigurationError("issuer must not be empty")
        if self.tenant_claim == "":
            raise ConfigurationError("tenant_claim must be the name of a claim")
        if self.keys is None and self.introspection is None:
            raise ConfigurationError(f"issuer {self.issuer!r} needs keys, introspection or both")
        if self.opaque and self.introspection is None:
            raise ConfigurationError("opaque needs introspection")
        if self.insecure_accept_missing_audience and self.introspection is None:
            raise ConfigurationError("insecure_accept_missing_audience needs introspection")
        if self.fallback not in ("refuse", "local"):
            raise ConfigurationError(f"fallback must be refuse or local, not {self.fallback!r}")
        if self.fallback == "local" and (self.keys is None or self.introspection is None):
            raise ConfigurationError("fallback needs keys and introspection")

    @property
    def issues_opaque(self) -> bool:
        """Whether a token that is no JWT is taken to this issuer."""
        return self.introspection is not None and (self.opaque or self.keys is None)

    @property
    def sources(self) -> Sequence[KeySource | Introspection]:
        """What has to be started."""
        return [one for one in (self.keys, self.introspection) if one is not None]
