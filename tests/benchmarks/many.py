"""B5: what many principals, sessions and limits cost: whether one request gets dearer, and how much memory each takes.

The stack is that of the layers that share a store call, behind one that knows the principals by number: to sign so many
tokens would take longer than all the rest. Each principal has a session of its own and has spent of its limits. The
calls are asked of one principal alone in its store, of the same one among `MANY`, and of one after the other of them.
"""

import gc
import itertools
import tracemalloc
from collections.abc import Awaitable, Callable

from mcp_guard.asgi import ASGIApp
from mcp_guard.clock import SystemClock
from mcp_guard.facts import Principal, Resource
from mcp_guard.keyring import KeyRing
from mcp_guard.keysources import StaticKeys
from mcp_guard.layers.rate_limit import PER_PRINCIPAL, RateLimit
from mcp_guard.layers.revocation import Revocation
from mcp_guard.layers.session import Session, nowhere
from mcp_guard.layers.token import Token
from mcp_guard.sessions import Sessions, SessionTerms
from mcp_guard.stack import guard
from mcp_guard.stores.base import Bucket, Spend
from mcp_guard.stores.memory import MemoryStore
from mcp_guard.tokens import TrustedIssuer
from tests.benchmarks.in_process import AUTHORITY, URL, Row
from tests.benchmarks.peers import (
    ISSUER,
    LEGACY_CALL,
    PLENTY,
    Exchange,
    Keys,
    bare,
    headers,
    legacy_headers,
)
from tests.benchmarks.timing import microseconds
from tests.guard.stubs import MCP, Facts, principal

MANY = 100_000
CALLS = 500
ASKED = 10_000
"""How many of them are asked one after the other: as many as any layer remembers answers for, or more."""
STRIDE = MANY // ASKED
KEPT = 5_000
TOKENS = 1_000


async def measure() -> list[Row]:
    """Measure B5."""
    few, many = Crowd(1), Crowd(MANY)
    costs = await microseconds({"alone": few.first, "among": many.first, "each": many.next}, CALLS)
    unbounded = float("inf")
    rows = [
        Row("B5 a call in a session, of one principal alone", costs["alone"], "µs", unbounded),
        Row(f"B5 of one among {MANY:,} / alone", costs["among"] / costs["alone"], "×", 1.1),
        Row(f"B5 of each of {MANY:,} in turn / alone", costs["each"] / costs["alone"], "×", 1.1),
    ]
    del few, many
    return [
        *rows,
        Row("B5 memory of a token that is remembered", await _bytes_of(_tokens(), TOKENS), "B", 400.0),
        Row("B5 memory of a session", await _bytes_of(_sessions, KEPT), "B", 300.0),
        Row("B5 memory of a limit key", await _bytes_of(_limits, KEPT), "B", 160.0),
    ]


class Crowd:
    """A stack whose store knows so many principals: each has a session and has spent of its limits."""

    def __init__(self, number: int) -> None:
        people = [principal(f"person-{place}", token=f"{place:016x}") for place in range(number)]
        store = MemoryStore(max_entries=10 * MANY)
        limits, session = RateLimit(store=store, principal=PLENTY, tool=PLENTY), Session(store=store)
        for place, who in enumerate(people):
            spend = limits.kept_bill((who.key, who.identity, 1, ("add",), "", False)).spend
            store.run_now([spend, *session.sessions.bind(handle(place), who, MCP)])
        known = Facts({b"%d" % place: who for place, who in enumerate(people)})
        self.guarded: ASGIApp = guard(bare, known, Revocation(store=store), limits, session)
        self.first = self._call(0)
        self.others = itertools.cycle([self._call(place) for place in range(0, number, STRIDE)])

    def _call(self, place: int) -> Exchange:
        fields = [(b"x-as", b"%d" % place), *legacy_headers(AUTHORITY, "", LEGACY_CALL, handle(place))]
        return Exchange(self.guarded, fields, 200, LEGACY_CALL)

    async def next(self) -> None:
        """A call of the next one."""
        await next(self.others)()


def handle(place: int) -> str:
    """The id of a principal's session."""
    return f"{place:032x}"


async def _bytes_of(fill: Callable[[int], Awaitable[object]], number: int) -> float:
    """What `fill` leaves in memory for each of `number` entries, in bytes; what it returns is kept until then."""
    tracemalloc.start()
    try:
        gc.collect()
        before, _ = tracemalloc.get_traced_memory()
        kept = await fill(number)
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
        del kept
    finally:
        tracemalloc.stop()
    return (after - before) / number


def _tokens() -> Callable[[int], Awaitable[object]]:
    """Tokens of as many principals, each remembered as verified."""
    keys = Keys()
    fields = [headers(AUTHORITY, keys.token(URL, sub=f"person-{place}")) for place in range(TOKENS)]
    layer = Token((Resource(URL, "/mcp"),), (TrustedIssuer(ISSUER, StaticKeys(keys.jwks())),), cached_tokens=2 * TOKENS)
    guarded = layer.wrap(bare)

    async def fill(number: int) -> object:
        for one in fields:
            await Exchange(guarded, one, 200)()
        return None

    return fill


async def _sessions(number: int) -> object:
    """Sessions of as many principals."""
    store = MemoryStore()
    sessions = Sessions(SessionTerms(), KeyRing.generate(), SystemClock(), nowhere)
    for place in range(number):
        who: Principal = principal(f"person-{place}")
        store.run_now(sessions.bind(handle(place), who, MCP))
    return store


async def _limits(number: int) -> object:
    """What as many principals have spent of one limit: all of it, so that nothing is forgotten meanwhile."""
    store = MemoryStore()
    for place in range(number):
        key = f"mcp:limit:principal:{principal(f'person-{place}').key}"
        store.run_now([Spend((Bucket(key, PER_PRINCIPAL.burst, PER_PRINCIPAL.period, PER_PRINCIPAL.burst),))])
    return store
