"""Refuses tokens that were revoked before they expire (RFC 7009 §2).

Decides: whether the store holds a revocation of the token, of the person or the client it was issued to, or of the
grant it comes from. Refuses with `token_revoked` (401) and a challenge. Does not: revoke; `mcp_guard.revocation` and
the authorization server write the keys that are asked for. Needs the principal and the resource. Must stand after:
token.

While the store is silent, what this worker knows decides: the revocations it has heard of, for `outage_grace` after the
store's last answer. So a revocation counts no later than that even for a worker that lost the store. From then on
every request is refused (503) until the store answers again.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from mcp_guard import rejections, revocation
from mcp_guard.challenges import challenges, scheme_of
from mcp_guard.check import StatefulCheck
from mcp_guard.clock import Clock, SystemClock
from mcp_guard.facts import Principal, Resource
from mcp_guard.failures import ConfigurationError, StoreUnavailable
from mcp_guard.layer import ADMITTED, Admission, Managed, RequestHead
from mcp_guard.rejections import Rejection
from mcp_guard.stores.base import Operation, Result

MAX_HEARD = 10_000
"""Revocations that a worker remembers for an outage, the latest ones."""


@dataclass(eq=False, slots=True)
class Heard:
    """What is known without the store: keys of revocations, and when the store last answered."""

    keys: dict[str, None] = field(default_factory=dict)
    answered: float = -math.inf

    def hear(self, message: bytes) -> None:
        """A key was announced; ends of sessions, which are announced too, must not displace revocations."""
        key = message.decode("ascii", "replace")
        if key.startswith((revocation.PREFIX, revocation.GRANT_PREFIX)):
            self.note(key)

    def note(self, key: str) -> None:
        """Remember that a key is written."""
        self.keys[key] = None
        if len(self.keys) > MAX_HEARD:
            del self.keys[next(iter(self.keys))]


@dataclass(frozen=True, kw_only=True)
class Revocation(StatefulCheck):
    """`store` must be the one that revocations are written to. `outage_grace` may be zero: then nothing goes on without
    the store.
    """

    needs = (Principal, Resource)

    outage_grace: timedelta = timedelta(seconds=60)
    clock: Clock = field(default_factory=SystemClock)
    heard: Heard = field(default_factory=Heard, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not timedelta(0) <= self.outage_grace <= timedelta(hours=1):
            raise ConfigurationError(f"outage_grace must be from 0 to one hour, not {self.outage_grace}")

    def managed(self) -> Sequence[Managed]:
        return (self.store, revocation.Listening(self.store, self.heard.hear))

    def ask(self, request: RequestHead) -> Sequence[Operation]:
        return revocation.questions(request.fact(Principal))

    def answer(self, request: RequestHead, results: Sequence[Result]) -> Admission:
        self.heard.answered = self.clock.monotonic()
        found = revocation.refused(request.fact(Principal), results)
        if found is None:
            return ADMITTED
        self.heard.note(found.key)
        raise _refusal(request, f"the {found.kind} was revoked")

    def without_store(self, request: RequestHead, fault: StoreUnavailable) -> Admission:
        if self.clock.monotonic() - self.heard.answered > self.outage_grace.total_seconds():
            raise fault
        if any(question.key in self.heard.keys for question in revocation.questions(request.fact(Principal))):
            raise _refusal(request, "a revocation was heard of before the store fell silent")
        return ADMITTED


def _refusal(request: RequestHead, reason: str) -> Rejection:
    resource = request.fact(Resource)
    kind = rejections.TOKEN_REVOKED
    return kind.because(reason, challenges(resource.url, resource.scopes, [scheme_of(request)], kind))
