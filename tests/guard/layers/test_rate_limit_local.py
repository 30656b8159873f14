"""While the store is away each worker decides by itself, more strictly, and never not at all."""

from typing import Any

import pytest

from mcp_guard.clock import ManualClock
from mcp_guard.failures import ConfigurationError, StoreUnavailable
from mcp_guard.layers.rate_limit import LOCAL_ENTRIES, Limit, Local, RateLimit, Shared, ToolLimit
from mcp_guard.stores.memory import MemoryStore
from tests.guard.layers.test_rate_limit import INITIALIZE, MINUTE, Place
from tests.guard.stubs import CountingStore, principal, rpc

AWAY = StoreUnavailable("no connection")


@pytest.fixture
def local(clock: ManualClock) -> Local:
    """A quarter, on the clock of the store."""
    return Local(share=4, store=MemoryStore(clock=clock, max_entries=1_000))


async def during(store: CountingStore, place: Place, count: int, **request: Any) -> int:
    """How many of `count` requests pass while the store is away."""
    store.fault = AWAY
    passed = await place.passing(count, **request)
    store.fault = None
    return passed


async def test_a_quarter_passes_while_the_store_is_away(store: CountingStore, local: Local) -> None:
    place = Place(store, principal=Limit(100, MINUTE), local=local)
    assert await during(store, place, 50) == 25
    store.fault = AWAY
    refused = await place.ask(rpc("tools/list", request_id="r1"))
    assert refused.status == 429
    assert refused.json()["id"] == "r1"
    assert refused.value(b"ratelimit-policy") == b'"principal";q=25;w=60'
    assert refused.value(b"retry-after") == b"3"
    store.clock.advance(3)
    passed = await place.ask()
    assert passed.status == 200
    assert passed.value(b"ratelimit-policy") == b'"principal";q=25;w=60'


async def test_an_outage_ends_with_the_store_and_its_own_count(store: CountingStore, local: Local) -> None:
    place = Place(store, principal=Limit(100, MINUTE), local=local)
    assert await place.passing(90) == 90
    assert await during(store, place, 50) == 25
    assert await place.passing(50) == 10


async def test_a_store_that_comes_and_goes_gives_no_new_burst(store: CountingStore, local: Local) -> None:
    place = Place(store, principal=Limit(100, MINUTE), local=local)
    assert await during(store, place, 50) == 25
    for _ in range(20):
        assert await place.passing(1) == 1
        assert await during(store, place, 5) == 0
    store.clock.advance(60)
    assert await during(store, place, 50) == 25


@pytest.mark.parametrize(
    ("settings", "request_", "passing"),
    [
        ({"tool": Limit(12, MINUTE)}, {"data": rpc(name="a")}, 3),
        ({"tools": {"a": ToolLimit(Limit(8, MINUTE))}}, {"data": rpc(name="a")}, 2),
        ({"connections": Limit(10, MINUTE)}, {"data": INITIALIZE}, 2),
        ({"address_connections": Limit(12, MINUTE)}, {"data": INITIALIZE}, 3),
        ({"shared": Shared(client=Limit(16, MINUTE))}, {}, 4),
        ({"shared": Shared(address=Limit(20, MINUTE))}, {}, 5),
        ({"shared": Shared(tenant=Limit(24, MINUTE))}, {}, 6),
        ({"principal": Limit(3, MINUTE)}, {}, 1),
    ],
    ids=["tool", "its own", "connections", "address-connections", "client", "address", "tenant", "never none"],
)
async def test_every_limit_is_smaller(
    store: CountingStore, local: Local, settings: dict[str, Any], request_: dict[str, Any], passing: int
) -> None:
    people = {b"alice": principal("alice", tenant="acme")}
    assert await during(store, Place(store, people, local=local, **settings), 20, **request_) == passing


async def test_a_call_dearer_than_what_is_left_of_its_limit_waits_for_the_store(
    store: CountingStore, local: Local
) -> None:
    place = Place(store, tool=Limit(12, MINUTE), tools={"dear": ToolLimit(cost=4)}, local=local)
    assert await during(store, place, 3, data=rpc(name="dear")) == 0
    assert await place.passing(3, data=rpc(name="dear")) == 3


async def test_a_worker_that_can_remember_no_more_lets_nothing_through(store: CountingStore) -> None:
    people = {b"p%d" % number: principal(f"user-{number}") for number in range(20)}
    local = Local(store=MemoryStore(clock=store.clock, max_entries=10))
    place = Place(store, people, local=local)
    store.fault = AWAY
    statuses = [(await place.ask(who=who)).status for who in people]
    assert statuses == [200] * 10 + [503] * 10
    assert place.app.calls == 10
    assert (await place.ask(who=b"p0")).status == 200, "those that are remembered are served"
    store.clock.advance(60)
    assert (await place.ask(who=b"p15")).status == 200, "room is made when buckets are whole again"


async def test_a_failure_that_is_not_the_stores_silence_refuses(store: CountingStore) -> None:
    place = Place(store)
    store.fault = RuntimeError("a defect")
    assert (await place.ask()).status == 503
    assert place.app.calls == 0


async def test_a_share_of_one_is_the_limit_itself(store: CountingStore, clock: ManualClock) -> None:
    place = Place(store, principal=Limit(7, MINUTE), local=Local(1, MemoryStore(clock=clock)))
    assert await during(store, place, 20) == 7


def test_what_a_worker_remembers_is_bounded(store: CountingStore) -> None:
    assert RateLimit(store=store).local.store.max_entries == LOCAL_ENTRIES
    assert RateLimit(store=store).local.store is not RateLimit(store=store).local.store


@pytest.mark.parametrize("share", [0, -4])
def test_a_share_that_cannot_work_is_refused(share: int) -> None:
    with pytest.raises(ConfigurationError, match=f"local.share must be at least 1, not {share}"):
        Local(share)
