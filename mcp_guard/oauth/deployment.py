"""What every endpoint is given: the settings of one authorization server, validated."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mcp_guard.clock import Clock
from mcp_guard.oauth.settings import Lifetimes, Limits, ProofTerms
from mcp_guard.oauth.signing import SigningKeys
from mcp_guard.oauth.users import UserDirectory
from mcp_guard.protocol.authorization_metadata import Issuer, document
from mcp_guard.protocol.jose import PROOF_ALGORITHMS
from mcp_guard.stores.base import Store


@dataclass(frozen=True, slots=True)
class Deployment:
    """One authorization server. `scopes` maps each offered scope to what it means for a person.

    `resources` are resource identifiers (RFC 9728 §1.2); the first is meant when a client names none. `name` is what
    pages call the service.
    """

    issuer: Issuer
    store: Store
    users: UserDirectory
    resources: tuple[str, ...]
    scopes: Mapping[str, str]
    keys: SigningKeys
    clock: Clock
    lifetimes: Lifetimes
    limits: Limits
    proofs: ProofTerms
    name: str

    @property
    def metadata(self) -> dict[str, Any]:
        """The metadata document (RFC 8414)."""
        return document(
            self.issuer,
            scopes=tuple(self.scopes),
            resources=self.resources,
            proof_algorithms=() if self.proofs.policy == "off" else sorted(PROOF_ALGORITHMS),
        )
