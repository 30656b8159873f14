"""Whose tokens are accepted."""

from dataclasses import dataclass

from mcp_guard.failures import ConfigurationError
from mcp_guard.keysources import KeySource


@dataclass(frozen=True)
class TrustedIssuer:
    """An issuer whose tokens are accepted, and its keys, which no other issuer's tokens are verified with.

    `issuer` is compared with `iss` as it stands. `tenant_claim` is the claim that names the tenant, then required.
    `insecure_accept_untyped` also accepts tokens without `typ` or with `JWT`, from issuers that know nothing better:
    what keeps their ID tokens out is then the audience, and claims that only ID tokens have.
    """

    issuer: str
    keys: KeySource
    tenant_claim: str | None = None
    insecure_accept_untyped: bool = False

    def __post_init__(self) -> None:
        if not self.issuer:
            raise ConfigurationError("issuer must not be empty")
        if self.tenant_claim == "":
            raise ConfigurationError("tenant_claim must be the name of a claim")
