"""A proof is good for one request, at whatever worker."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import anyio
import pytest

from mcp_guard import rejections
from mcp_guard.check import Check
from mcp_guard.clock import ManualClock
from mcp_guard.facts import NO_PROOF, Principal, Proof, Resource
from mcp_guard.failures import ConfigurationError, StoreUnavailable
from mcp_guard.layer import Admission, RequestHead
from mcp_guard.layers.replay import Replay
from mcp_guard.stack import guard
from mcp_guard.stores.base import Claim, Operation
from mcp_guard.stores.memory import MemoryStore
from tests.guard.asgi import CountingApp, Outcome, drive, http_scope
from tests.guard.stubs import ALICE, BOB, MCP, CountingStore

NOW = 1_800_000_000.0


@dataclass(frozen=True)
class Proven(Check):
    """Adds the proof that the layer further out would have found good."""

    adds = (Principal, Resource, Proof)

    clock: ManualClock

    async def admit(self, request: RequestHead) -> Admission:
        who = BOB if request.value(b"x-as") == b"bob" else ALICE
        name = request.value(b"x-proof")
        if name is None:
            return Admission(facts=(who, MCP, NO_PROOF))
        made = self.clock.wall() + float(request.value(b"x-made") or b"0")
        return Admission(facts=(who, MCP, Proof("jkt", name.rjust(32, b"."), made, made + 60)))


@dataclass
class Place:
    """The layer on a store of its own, in front of an app that counts its calls."""

    settings: dict[str, Any] = field(default_factory=dict)
    clock: ManualClock = field(default_factory=lambda: ManualClock(now=NOW))
    app: CountingApp = field(default_factory=CountingApp)

    def __post_init__(self) -> None:
        self.store = CountingStore(self.clock)
        replay = Replay(store=self.store, clock=self.clock, **self.settings)
        self.stack = guard(self.app, Proven(self.clock), replay)

    async def send(self, name: str | None, who: str = "alice", made: float = 0) -> Outcome:
        fields = {"x-as": who, "x-made": str(made)} | ({} if name is None else {"x-proof": name})
        return await drive(self.stack, http_scope(headers=[(key.encode(), fields[key].encode()) for key in fields]))

    @property
    def asked(self) -> Sequence[Operation]:
        return self.store.batches[-1]


@pytest.fixture
def place() -> Place:
    return Place()


async def test_a_proof_is_taken_once(place: Place) -> None:
    assert (await place.send("a")).status == 200
    outcome = await place.send("a")
    kind = rejections.PROOF_REPLAYED
    assert outcome.status == kind.status == 401
    assert outcome.json() == {"error": "invalid_dpop_proof", "error_description": kind.description}
    challenge = outcome.value(b"www-authenticate") or b""
    assert challenge.startswith(b'DPoP error="invalid_dpop_proof", ')
    assert place.app.calls == 1
    assert (await place.send("b")).status == 200


async def test_of_many_at_once_one_is_let_through(place: Place) -> None:
    statuses: list[int | None] = []

    async def one() -> None:
        statuses.append((await place.send("a")).status)

    async with anyio.create_task_group() as group:
        for _ in range(50):
            group.start_soon(one)
    assert sorted(statuses, key=str) == [200, *[401] * 49]
    assert place.app.calls == 1


async def test_a_bearer_token_costs_the_store_nothing(place: Place) -> None:
    for _ in range(3):
        assert (await place.send(None)).status == 200
    assert place.store.batches == []


@pytest.mark.parametrize("made", [-60.0, -30.0, 0.0, 10.0])
async def test_a_proof_is_remembered_until_after_it_could_be_accepted(made: float, place: Place) -> None:
    place.clock.advance(100)
    assert (await place.send("a", made=made)).status == 200
    (claim,) = place.asked
    assert claim == Claim(
        f"mcp:proof:{b'a'.rjust(32, b'.').hex()}", timedelta(seconds=60 + made + 30), NOW + 100 + made
    )


async def test_a_proof_that_is_past_its_end_when_it_is_claimed_is_remembered_all_the_same(place: Place) -> None:
    place.clock.advance(100)
    assert (await place.send("a", made=-70)).status == 200
    (claim,) = place.asked
    assert isinstance(claim, Claim)
    assert claim.ttl == timedelta(seconds=30)


async def test_a_proof_from_before_the_stores_memory_is_refused(place: Place) -> None:
    assert (await place.send("a", made=-0.001)).status == 401
    assert (await place.send("b", made=0)).status == 200
    assert place.app.calls == 1


async def test_without_the_store_nothing_is_let_through(place: Place) -> None:
    place.store.fault = StoreUnavailable("the store is down")
    outcome = await place.send("a")
    assert outcome.status == 503
    assert outcome.value(b"retry-after") is not None
    place.store.fault = None
    assert (await place.send("a")).status == 200


async def test_a_flood_is_refused_before_it_writes_and_puts_out_nobody() -> None:
    place = Place({"burst": 5, "period": timedelta(seconds=50)})
    assert (await place.send("victims", who="bob")).status == 200
    statuses = [(await place.send(str(number))).status for number in range(100)]
    assert statuses == [*[200] * 5, *[429] * 95]
    assert place.store.held == 6
    outcome = await place.send("late")
    assert outcome.status == 429
    assert outcome.value(b"retry-after") == b"10"
    assert (await place.send("victims", who="bob")).status == 401
    assert (await place.send("another", who="bob")).status == 200
    place.clock.advance(10)
    assert (await place.send("later")).status == 200


async def test_a_full_store_refuses_and_forgets_nothing() -> None:
    place = Place()
    place.store.max_entries = 2
    assert [(await place.send(name)).status for name in "abc"] == [200, 200, 503]
    assert (await place.send("a")).status == 401


async def test_who_cannot_be_counted_any_more_is_refused() -> None:
    place = Place()
    layer = Replay(store=place.store, clock=place.clock)
    object.__setattr__(layer, "counted", MemoryStore(place.clock, max_entries=1))
    stack = guard(place.app, Proven(place.clock), layer)
    for who, status in ((b"alice", 200), (b"bob", 503)):
        assert (await drive(stack, http_scope(headers=[(b"x-as", who), (b"x-proof", who)]))).status == status


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("burst", 0),
        ("period", timedelta(seconds=0.5)),
        ("clocks_apart", timedelta(0)),
        ("clocks_apart", timedelta(minutes=11)),
    ],
)
def test_a_setting_that_cannot_be_is_named(setting: str, value: object) -> None:
    settings: dict[str, Any] = {setting: value}
    with pytest.raises(ConfigurationError, match=f"{setting} must be"):
        Replay(store=MemoryStore(), **settings)
