"""Limits that principals have in common, and tools whose calls cost more than one unit."""

import json
import re
from datetime import timedelta
from typing import Any

import pytest

from mcp_guard.facts import Principal
from mcp_guard.failures import ConfigurationError
from mcp_guard.layers.rate_limit import Limit, RateLimit, Shared, ToolLimit
from mcp_guard.stores.base import Spend
from tests.guard.layers.test_rate_limit import MINUTE, Place
from tests.guard.stubs import CountingStore, principal, rpc

CROWD = {f"p{number}".encode(): principal(f"user-{number}") for number in range(30)}
FIVE = Limit(5, MINUTE)


async def passing(place: Place, people: dict[bytes, Principal], **request: Any) -> int:
    """How many pass when each of the people asks once."""
    return sum([(await place.ask(who=who, **request)).status == 200 for who in people])


async def test_a_client_is_limited_over_all_its_users(store: CountingStore) -> None:
    others = {
        b"other": principal("user-0", client="client-2"),
        b"elsewhere": principal("user-0", issuer="https://other.example"),
    }
    place = Place(store, CROWD | others, shared=Shared(client=FIVE))
    assert await passing(place, CROWD) == 5
    assert [await place.passing(6, who=who) for who in others] == [5, 5]


async def test_a_client_of_two_tenants_is_limited_in_each_apart(store: CountingStore) -> None:
    tenants = {b"acme": principal("alice", tenant="acme"), b"beta": principal("alice", tenant="beta")}
    place = Place(store, tenants, shared=Shared(client=FIVE))
    assert [await place.passing(8, who=who) for who in tenants] == [5, 5]


async def test_a_tenant_is_limited_over_all_its_users_and_clients(store: CountingStore) -> None:
    acme = {b"a%d" % n: principal(f"user-{n}", client=f"client-{n}", tenant="acme") for n in range(20)}
    beta = {b"b%d" % n: principal(f"user-{n}", client=f"client-{n}", tenant="beta") for n in range(20)}
    elsewhere = {b"e0": principal("user-0", tenant="acme", issuer="https://other.example")}
    place = Place(store, acme | beta | elsewhere, shared=Shared(tenant=FIVE))
    assert await passing(place, acme) == 5
    assert await passing(place, beta) == 5
    assert await passing(place, elsewhere) == 1, "a tenant is known by its issuer's word alone"
    refused = await place.ask(who=b"a9")
    assert refused.value(b"ratelimit-policy") == b'"tenant";q=5;w=60'


async def test_who_has_no_tenant_shares_no_limit_of_one(store: CountingStore) -> None:
    place = Place(store, CROWD, shared=Shared(tenant=Limit(1, MINUTE)))
    assert await passing(place, CROWD) == len(CROWD)


async def test_an_address_is_limited_over_all_its_users(store: CountingStore) -> None:
    place = Place(store, CROWD, shared=Shared(address=FIVE))
    assert await passing(place, CROWD, address="192.0.2.1") == 5
    assert await passing(place, CROWD, address="::ffff:192.0.2.1") == 0
    assert await passing(place, CROWD, address="192.0.2.2") == 5
    assert await passing(place, CROWD, address="2001:db8::1") == 5
    assert await passing(place, CROWD, address="2001:db8::2") == 0


async def test_all_limits_are_taken_from_at_once_or_none_is(store: CountingStore) -> None:
    acme = {b"a": principal("a", tenant="acme"), b"b": principal("b", tenant="acme")}
    place = Place(store, acme, shared=Shared(Limit(50, MINUTE), Limit(4, MINUTE), Limit(50, MINUTE)))
    assert await place.passing(4, who=b"a") == 4
    held = store.held
    assert await place.passing(20, who=b"a") == 0
    assert store.held == held, "a refusal is remembered by nobody"
    assert all(len(batch) == 1 for batch in store.batches), "one operation, and so one round trip"
    store.clock.advance(60)
    assert await place.passing(1, who=b"b") == 1


async def test_the_limit_with_the_least_left_is_stated(store: CountingStore) -> None:
    place = Place(store, CROWD, principal=Limit(100, MINUTE), shared=Shared(client=Limit(60, MINUTE)))
    first = await place.ask(who=b"p0")
    assert first.value(b"ratelimit-policy") == b'"client";q=60;w=60'
    assert first.value(b"ratelimit") == b'"client";r=59;t=1'
    for _ in range(50):
        await place.ask(who=b"p0")
        store.clock.advance(1)
    later = await place.ask(who=b"p0")
    assert later.value(b"ratelimit-policy") == b'"client";q=60;w=60'
    crowded = Place(store, CROWD, principal=Limit(10, MINUTE), shared=Shared(client=Limit(60, MINUTE)))
    assert (await crowded.ask(who=b"p1")).value(b"ratelimit") == b'"principal";r=9;t=6'


async def test_of_equals_the_limit_of_the_principal_is_stated(store: CountingStore) -> None:
    place = Place(store, principal=FIVE, tool=FIVE)
    assert (await place.ask(rpc(name="a"))).value(b"ratelimit") == b'"principal";r=4;t=12'


@pytest.mark.parametrize("odd", ["mcp:limit:principal:", "x" * 10_000, "\ud800", 'a","b', "a\r\nb"])
async def test_no_client_or_tenant_goes_into_a_key_as_it_came(store: CountingStore, odd: str) -> None:
    people = {b"odd": principal("alice", client=odd, tenant=odd)}
    place = Place(store, people, shared=Shared(FIVE, FIVE, FIVE))
    assert (await place.ask(who=b"odd")).status == 200
    spend = store.batches[0][0]
    assert isinstance(spend, Spend)
    keys = [bucket.key for bucket in spend.buckets]
    assert keys[3] == "mcp:limit:address:192.0.2.7"
    assert all(re.fullmatch(r"mcp:limit:(principal|client|tenant):[0-9a-f]{64}", key) for key in keys[:3])


# Costs


async def test_a_dear_call_takes_more_of_every_limit(store: CountingStore) -> None:
    place = Place(store, principal=Limit(20, MINUTE), tool=Limit(100, MINUTE), tools={"dear": ToolLimit(cost=6)})
    assert await place.passing(9, data=rpc(name="dear")) == 3
    assert await place.passing(9, data=rpc(name="cheap")) == 2
    own = Place(CountingStore(), tool=Limit(12, MINUTE), tools={"dear": ToolLimit(cost=6)})
    assert await own.passing(9, data=rpc(name="dear")) == 2
    client = Place(CountingStore(), shared=Shared(client=Limit(12, MINUTE)), tools={"dear": ToolLimit(cost=6)})
    assert await client.passing(9, data=rpc(name="dear")) == 2


async def test_in_a_batch_each_call_costs_its_own(store: CountingStore) -> None:
    place = Place(store, principal=Limit(100, MINUTE), tools={"dear": ToolLimit(cost=10)})
    messages = [("tools/list", {}), *[("tools/call", {"name": name}) for name in ("dear", "cheap", "dear")]]
    batch = [{"jsonrpc": "2.0", "id": 1, "method": method, "params": params} for method, params in messages]
    outcome = await place.ask(json.dumps(batch).encode())
    assert outcome.value(b"ratelimit") == b'"principal";r=78;t=14'


async def test_only_a_call_of_the_tool_costs_what_it_costs(store: CountingStore) -> None:
    place = Place(store, principal=Limit(10, MINUTE), tools={"dear": ToolLimit(cost=10)})
    assert await place.passing(5, data=rpc("prompts/get", name="dear")) == 5


@pytest.mark.parametrize(
    "settings",
    [
        {"principal": FIVE},
        {"tool": FIVE},
        {"tools": {"dear": ToolLimit(FIVE, cost=6)}},
        {"shared": Shared(client=FIVE)},
        {"shared": Shared(tenant=FIVE)},
        {"shared": Shared(address=FIVE)},
    ],
    ids=["principal", "tool", "its own", "client", "tenant", "address"],
)
def test_a_cost_that_no_limit_has_room_for_is_refused(store: CountingStore, settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=r"tools: a call of 'dear' costs 6, but Limit\(burst=5"):
        RateLimit(store=store, **{"tools": {"dear": ToolLimit(cost=6)}, **settings})


def test_a_cost_fits_a_limit_of_the_same_size(store: CountingStore) -> None:
    RateLimit(store=store, tool=FIVE, tools={"dear": ToolLimit(cost=5)})


@pytest.mark.parametrize("cost", [0, -1])
def test_a_call_that_costs_nothing_is_refused(cost: int) -> None:
    with pytest.raises(ConfigurationError, match=f"cost must be at least 1, not {cost}"):
        ToolLimit(cost=cost)


async def test_an_hour_is_a_period_too(store: CountingStore) -> None:
    place = Place(store, tools={"report": ToolLimit(Limit(2, timedelta(hours=1)))})
    assert await place.passing(5, data=rpc(name="report")) == 2
    refused = await place.ask(rpc(name="report"))
    assert refused.value(b"retry-after") == b"1800"
    assert refused.json()["error"]["data"] == {"retryAfterMs": 1_800_000}
