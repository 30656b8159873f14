"""Lets each proof of possession be used once (RFC 9449 §11.1).

Decides: whether the proof of the request was used before, at any worker. Refuses with `proof_replayed` (401), and with
`limit_exceeded` (429) the flood of one principal before it writes anything. Does not: judge the proof; that is `dpop`.
Needs the proof and the principal. Must stand after: dpop, and rate limit, whose refusal says more.

A proof is remembered in the store by the digest of its key and its jti, from its first use until `clocks_apart` after
the last instant at which it could be accepted. Nothing is evicted, so nobody's proof is forgotten to make room for
another's: a store that is full, like one that does not answer, refuses with `unavailable` (503). What is remembered is
bounded by how many proofs there can be: those of one principal at one worker by `burst` and what is refilled while a
proof is remembered.

A proof that was made before the store's memory began is refused, because it may have been used before that. When it was
made is told by the client's clock: after a store has lost its memory, the proof of a client whose clock is ahead may be
used once more, within the leeway of `dpop`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from mcp_guard import rejections
from mcp_guard.challenges import challenges
from mcp_guard.check import StatefulCheck
from mcp_guard.clock import Clock, SystemClock
from mcp_guard.facts import Principal, Proof, Resource
from mcp_guard.failures import ConfigurationError
from mcp_guard.layer import ADMITTED, Admission, RequestHead
from mcp_guard.protocol.authorization_header import DPOP
from mcp_guard.stores.base import Bucket, Claim, Operation, Result, Spend, levels_of
from mcp_guard.stores.memory import MemoryStore

MAX_PRINCIPALS = 100_000
"""Principals whose proofs a worker counts at once: about 16 MB."""


@dataclass(frozen=True, kw_only=True)
class Replay(StatefulCheck):
    """`store` is shared by all workers. `clocks_apart` is how far their clocks and the store's may differ.

    At each worker a principal may use `burst` proofs at once, refilled at `burst` per `period`. Where that is the limit
    that `rate_limit` keeps, it refuses nobody that is not refused there.
    """

    needs = (Principal, Resource, Proof)

    burst: int = 600
    period: timedelta = timedelta(minutes=1)
    clocks_apart: timedelta = timedelta(seconds=30)
    clock: Clock = field(default_factory=SystemClock)
    counted: MemoryStore = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.burst < 1:
            raise ConfigurationError(f"burst must be at least 1, not {self.burst}")
        if self.period < timedelta(seconds=1):
            raise ConfigurationError(f"period must be at least one second, not {self.period}")
        if not timedelta(seconds=1) <= self.clocks_apart <= timedelta(minutes=10):
            raise ConfigurationError(f"clocks_apart must be from one second to 10 minutes, not {self.clocks_apart}")
        object.__setattr__(self, "counted", MemoryStore(self.clock, MAX_PRINCIPALS))

    def ask(self, request: RequestHead) -> Sequence[Operation]:
        proof = request.fact(Proof)
        if proof.thumbprint is None:
            return ()
        self._count(request.fact(Principal))
        left = timedelta(seconds=max(0.0, proof.expires - self.clock.wall()))
        return (Claim(f"mcp:proof:{proof.digest.hex()}", left + self.clocks_apart, proof.issued),)

    def answer(self, request: RequestHead, results: Sequence[Result]) -> Admission:
        if not results or results[0] is True:
            return ADMITTED
        resource, kind = request.fact(Resource), rejections.PROOF_REPLAYED
        raise kind.because(
            "the proof was used before, or may have been before the store's memory began",
            challenges(resource.url, resource.scopes, (DPOP,), kind),
        )

    def _count(self, principal: Principal) -> None:
        """Count one more proof of a principal.

        Raises:
            Rejection: `limit_exceeded`: there were too many.
            StoreUnavailable: too many principals are counted already.
        """
        (spent,) = self.counted.run_now([Spend((Bucket(principal.key, self.burst, self.period),))])
        (level,) = levels_of(spent)
        if not level.allowed:
            reason = f"the principal used more than {self.burst} proofs per {self.period}"
            raise rejections.limited(reason, level.retry_after_seconds)
