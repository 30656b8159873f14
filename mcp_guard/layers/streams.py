"""Ends open streams when what they were opened with is no longer good, and bounds how many a principal has.

Decides: whether the principal may open another long stream: a GET, whatever it says it accepts, or a call of
`subscriptions/listen`. Refuses with `limit_exceeded` (429, RFC 6585 §4) with `Retry-After`; nobody's open stream is put
out to make room. Then, for every event stream, that of a call included, whether it may stay open: until the token
expires (RFC 9700 §4.10), is revoked, or the session is gone. A client that does not read is cut off. Does not: limit
calls; that is `rate_limit`. Needs the principal and the call. Must stand after: session, and right after the layers
that share a store call, since only a request for a stream pays for a call of its own.

A stream ends as if the app had ended it. It ends within one second of the expiry, within `recheck` and a second of a
revocation, at once when the revocation is announced. While the store is silent no new long stream is opened (503), and
open ones stay for `outage_grace`.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import lru_cache

from mcp_guard import rejections
from mcp_guard.asgi import RawHeaders
from mcp_guard.check import Check
from mcp_guard.clock import Clock, SystemClock
from mcp_guard.facts import Call, Principal, SessionHandle
from mcp_guard.failures import ConfigurationError
from mcp_guard.layer import Admission, Managed, RequestHead
from mcp_guard.messages import is_event_stream
from mcp_guard.revocation import Listening
from mcp_guard.sessions import session_key
from mcp_guard.stores.base import Enter, Operation, Result, Store
from mcp_guard.streams import LEASE, Keeper, OpenStream

LISTEN = "subscriptions/listen"
PER_PRINCIPAL = 32
RETRY_SECONDS = 5
"""When to try again for one more stream; one may end at any time."""


@dataclass(frozen=True, kw_only=True)
class Streams(Check):
    """`per_principal` bounds the long streams of one principal, over all workers on `store`.

    `leeway` is that of the token layer. `stall` is how long a client may leave a part of a stream unread.
    """

    needs = (Principal, Call)

    store: Store
    per_principal: int = PER_PRINCIPAL
    recheck: timedelta = timedelta(seconds=5)
    stall: timedelta = timedelta(seconds=30)
    leeway: timedelta = timedelta(seconds=10)
    outage_grace: timedelta = timedelta(seconds=60)
    clock: Clock = field(default_factory=SystemClock)
    keeper: Keeper = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.per_principal < 1:
            raise ConfigurationError(f"per_principal must be at least 1, not {self.per_principal}")
        for name in ("recheck", "stall"):
            if getattr(self, name) < timedelta(seconds=1):
                raise ConfigurationError(f"{name} must be at least one second, not {getattr(self, name)}")
        for name in ("leeway", "outage_grace"):
            if getattr(self, name) < timedelta(0):
                raise ConfigurationError(f"{name} must be at least 0, not {getattr(self, name)}")
        keeper = Keeper(
            store=self.store,
            clock=self.clock,
            recheck=self.recheck,
            stall=self.stall,
            leeway=self.leeway,
            outage_grace=self.outage_grace,
        )
        object.__setattr__(self, "keeper", keeper)

    def managed(self) -> Sequence[Managed]:
        return (self.store, Listening(self.store, self.keeper.hear), self.keeper)

    async def admit(self, request: RequestHead) -> Admission:
        if not _is_for_a_long_stream(request):
            return Admission(watch=_Response(self.keeper, request, None))
        place = Enter(_places(request.fact(Principal).key), secrets.token_urlsafe(16), LEASE, self.per_principal)
        if (await self.store.run([place]))[0] is not True:
            raise rejections.limited(f"the principal has {self.per_principal} streams", RETRY_SECONDS)
        return Admission(watch=_Response(self.keeper, request, place))


@lru_cache(4096)
def _places(principal: str) -> str:
    """The store key of a principal's places; one text for all its streams."""
    return f"mcp:streams:{principal}"


def _is_for_a_long_stream(request: RequestHead) -> bool:
    # Servers that answer HEAD as they answer GET, or do not look at Accept, are not to be used around the bound.
    if request.method in {"GET", "HEAD"}:
        return True
    return any(message.method == LISTEN for message in request.fact(Call).messages)


@dataclass(eq=False, slots=True)
class _Response:
    """Watches a response: an event stream is handed to the keeper, and any other gives its place back."""

    keeper: Keeper
    request: RequestHead | None
    place: Enter | None
    stream: OpenStream | None = None
    wants_body: bool = False

    def on_start(self, status: int, headers: RawHeaders) -> Sequence[Operation]:
        request, self.request = self.request, None
        if request is not None and is_event_stream(headers):
            session = request.get(SessionHandle)
            record = None if session is None else session_key(session.value)
            place, self.place = self.place, None
            self.stream = self.keeper.opened(request.outgoing, request.fact(Principal), record, place)
        elif self.place is not None:
            self.on_end()
        return ()

    def on_body(self, chunk: bytes) -> Sequence[Operation]:
        return ()

    def settle(self, results: Sequence[Result]) -> None:
        """Nothing is asked for."""

    def on_end(self) -> None:
        place, self.place = self.place, None
        stream, self.stream = self.stream, None
        if stream is not None:
            self.keeper.ended(stream)
        elif place is not None:
            self.keeper.leave(place)
