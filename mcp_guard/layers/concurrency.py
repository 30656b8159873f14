"""Limits how many requests are in flight at once in this worker.

Decides: whether one more request of a principal, or one more call of a tool, may begin before others have ended.
Refuses with `limit_exceeded` (429, RFC 6585 §4) who has as many as it may have, and with `unavailable` (503) everybody
while the worker has as many as it may have. Does not: count what was asked over time; that is `rate_limit`. Needs the
principal, `ToolConcurrency` the call too. Must stand after: token; `Concurrency` before intake, so that a body that
arrives slowly takes its sender's place and nobody else's, `ToolConcurrency` after intake, which tells the tools.

A request is in flight until its response has ended, however it ends. A stream that only listens (GET, and
`subscriptions/listen` of MCP 2026-07-28) leaves as soon as it begins: open streams are counted by a layer of their own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mcp_guard import rejections
from mcp_guard.asgi import RawHeaders
from mcp_guard.check import Check
from mcp_guard.facts import Call, Principal
from mcp_guard.failures import ConfigurationError, Unavailable
from mcp_guard.layer import ADMITTED, Admission, RequestHead
from mcp_guard.messages import is_event_stream
from mcp_guard.stores.base import Operation, Result

LISTEN = "subscriptions/listen"
RETRY_SECONDS = 1
"""When to come back: nobody knows when a request ends, and most end sooner."""
NO_PLACES: Mapping[str, int] = {}


@dataclass(eq=False, slots=True)
class InFlight:
    """How many requests are in flight for each key. A key without any is not kept."""

    counts: dict[str, int] = field(default_factory=dict)
    total: int = 0

    def has_room(self, key: str, more: int, limit: int) -> bool:
        """Whether `more` fit beside those of the key."""
        return self.counts.get(key, 0) + more <= limit

    def enter(self, key: str, more: int) -> None:
        self.counts[key] = self.counts.get(key, 0) + more
        self.total += more

    def leave(self, key: str, fewer: int) -> None:
        left = self.counts[key] - fewer
        if left:
            self.counts[key] = left
        else:
            del self.counts[key]
        self.total -= fewer


@dataclass(frozen=True)
class Concurrency(Check):
    """At most `principal` requests of one principal, and `total` of all principals together."""

    needs = (Principal,)

    principal: int = 64
    total: int = 1000
    in_flight: InFlight = field(default_factory=InFlight, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.principal < 1:
            raise ConfigurationError(f"principal must be at least 1, not {self.principal}")
        if self.total < self.principal:
            raise ConfigurationError(f"total must be at least principal, {self.principal}, not {self.total}")

    async def admit(self, request: RequestHead) -> Admission:
        key = request.fact(Principal).key
        if not self.in_flight.has_room(key, 1, self.principal):
            raise rejections.limited(f"more than {self.principal} requests of the principal at once", RETRY_SECONDS)
        if self.in_flight.total >= self.total:
            raise Unavailable(f"more than {self.total} requests at once", retry_after_seconds=RETRY_SECONDS)
        return Admission(watch=_Places(request, self.in_flight, {key: 1}))


@dataclass(frozen=True)
class ToolConcurrency(Check):
    """`limits` says for a tool how many of its calls one principal may have in flight; others have no such limit."""

    needs = (Principal, Call)

    limits: Mapping[str, int]
    in_flight: InFlight = field(default_factory=InFlight, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for tool, limit in self.limits.items():
            if limit < 1:
                raise ConfigurationError(f"limits: {tool!r} must be at least 1, not {limit}")

    async def admit(self, request: RequestHead) -> Admission:
        who = request.fact(Principal).key
        places: dict[str, int] = {}
        for message in request.fact(Call).messages:
            tool = message.name
            if message.method != "tools/call" or tool is None or tool not in self.limits:
                continue
            key = f"{who}:{tool}"
            places[key] = places.get(key, 0) + 1
            if not self.in_flight.has_room(key, places[key], self.limits[tool]):
                raise rejections.limited(f"more than {self.limits[tool]} calls of {tool!r} at once", RETRY_SECONDS)
        return Admission(watch=_Places(request, self.in_flight, places)) if places else ADMITTED


@dataclass(slots=True)
class _Places:
    """The places that one exchange takes, as a watch of its response: from now on until it leaves, once."""

    request: RequestHead | None
    in_flight: InFlight
    places: Mapping[str, int]
    wants_body: bool = False

    def __post_init__(self) -> None:
        for key, count in self.places.items():
            self.in_flight.enter(key, count)

    def on_start(self, status: int, headers: RawHeaders) -> Sequence[Operation]:
        request, self.request = self.request, None
        if request is not None and _only_listens(request) and is_event_stream(headers):
            self.on_end()
        return ()

    def on_body(self, chunk: bytes) -> Sequence[Operation]:
        return ()

    def settle(self, results: Sequence[Result]) -> None:
        """Nothing is asked of a store."""

    def on_end(self) -> None:
        places, self.places = self.places, NO_PLACES
        for key, count in places.items():
            self.in_flight.leave(key, count)


def _only_listens(request: RequestHead) -> bool:
    call = request.get(Call)
    messages = () if call is None else call.messages
    return request.method == "GET" or (bool(messages) and all(one.method == LISTEN for one in messages))
