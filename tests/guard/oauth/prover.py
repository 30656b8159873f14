"""A client's key for DPoP (RFC 9449), and the proofs it makes at the token endpoint, right or wrong."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mcp_guard.clock import Clock
from mcp_guard.secret import mint_token
from tests.guard.oauth.flow import ISSUER
from tests.guard.signing import SigningKey, b64url, public_members


@dataclass(frozen=True)
class Prover:
    """Proves with one key, at the time of `clock`."""

    clock: Clock
    url: str = f"{ISSUER}/token"
    key: SigningKey = field(default_factory=SigningKey.new)

    @property
    def jkt(self) -> str:
        """RFC 7638 §3: the required members alone, sorted, without blanks."""
        text = json.dumps(public_members(self.key.private), sort_keys=True, separators=(",", ":"))
        return b64url(hashlib.sha256(text.encode()).digest())

    def proof(self, header: Mapping[str, Any] | None = None, **changes: Any) -> str:
        """A new proof for a token request. `header` and `changes` are what is otherwise; None leaves a member out."""
        members = {"typ": "dpop+jwt", "alg": self.key.alg, "jwk": public_members(self.key.private), **(header or {})}
        claims = {"jti": mint_token(), "htm": "POST", "htu": self.url, "iat": int(self.clock.wall()), **changes}
        return self.key.compact(_present(members), _present(claims)).decode()


def _present(members: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not None}
