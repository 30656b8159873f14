"""Limits of principals, tools and connections, whatever token, session or spelling they come with."""

import json
import re
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, cast

import anyio
import pytest

from mcp_guard.facts import Principal
from mcp_guard.failures import ConfigurationError
from mcp_guard.layers.rate_limit import Limit, RateLimit, ToolLimit
from mcp_guard.layers.session import Session
from mcp_guard.stack import guard
from mcp_guard.stores.base import Operation, Result, Spend
from tests.guard.asgi import CountingApp, Outcome, drive, http_scope
from tests.guard.stubs import PEOPLE, CountingStore, Facts, principal, rpc

MINUTE = timedelta(minutes=1)
WIDE = Limit(10_000, MINUTE)


class Place:
    """A guarded app with limits, wide where nothing else is said, and people to ask it."""

    def __init__(self, store: CountingStore, people: dict[bytes, Principal] = PEOPLE, **limits: Any) -> None:
        self.app = CountingApp()
        settings: dict[str, Any] = {
            "principal": WIDE,
            "tool": WIDE,
            "connections": WIDE,
            "address_connections": WIDE,
            **limits,
        }
        self.limits = RateLimit(store=store, **settings)
        self.guarded = guard(self.app, Facts(people), self.limits)

    async def ask(
        self,
        data: bytes = rpc("tools/list"),
        *,
        who: bytes = b"alice",
        headers: tuple[tuple[bytes, bytes], ...] = (),
        address: str = "192.0.2.7",
        method: str = "POST",
    ) -> Outcome:
        scope = http_scope(method, headers=[(b"x-as", who), *headers], client=(address, 1))
        return await drive(self.guarded, scope, data if method == "POST" else b"")

    async def passing(self, count: int, **request: Any) -> int:
        """How many of `count` requests pass."""
        return sum([(await self.ask(**request)).status == 200 for _ in range(count)])


async def test_exactly_the_burst_passes_and_waiting_as_told_is_enough(store: CountingStore) -> None:
    place = Place(store, principal=Limit(100, MINUTE))
    assert await place.passing(101) == 100
    held = store.held

    refused = await place.ask()
    assert refused.status == 429
    assert store.held == held
    store.clock.advance(int(refused.value(b"retry-after") or b"0"))
    assert (await place.ask()).status == 200
    store.clock.advance(60)
    assert await place.passing(101) == 100


@pytest.mark.parametrize("seconds", [-3600, 3600])
async def test_a_step_of_the_clock_gives_nothing_away_and_takes_nothing(store: CountingStore, seconds: int) -> None:
    place = Place(store, principal=Limit(5, MINUTE))
    assert await place.passing(3) == 3
    store.clock.step(seconds)
    assert await place.passing(5) == 2
    store.clock.step(-seconds)
    assert await place.passing(1) == 0
    store.clock.advance(12)
    assert await place.passing(5) == 1


async def test_of_many_at_once_exactly_the_burst_passes(store: CountingStore) -> None:
    place = Place(store, principal=Limit(20, MINUTE))
    async with anyio.create_task_group() as group:
        for _ in range(60):
            group.start_soon(place.ask)
    assert place.app.calls == 20


async def test_a_refusal_carries_the_id_of_the_request_and_says_when_to_come_back(store: CountingStore) -> None:
    place = Place(store, principal=Limit(1, timedelta(seconds=30)))
    await place.ask()
    refused = await place.ask(rpc("tools/list", request_id="req-9"))

    assert refused.status == 429
    assert refused.value(b"content-type") == b"application/json"
    assert refused.json() == {
        "jsonrpc": "2.0",
        "id": "req-9",
        "error": {"code": -32010, "message": "Too many requests", "data": {"retryAfterMs": 30_000}},
    }
    assert refused.value(b"retry-after") == b"30"
    assert refused.value(b"ratelimit-policy") == b'"principal";q=1;w=30'
    assert refused.value(b"ratelimit") == b'"principal";r=0;t=30'


async def test_retry_after_is_rounded_up_to_whole_seconds(store: CountingStore) -> None:
    place = Place(store, principal=Limit(1, timedelta(seconds=90.5)))
    await place.ask()
    refused = await place.ask()
    assert refused.value(b"retry-after") == b"91"
    assert refused.value(b"ratelimit-policy") == b'"principal";q=1;w=91'
    store.clock.advance(90)
    assert (await place.ask()).value(b"retry-after") == b"1"


async def test_every_response_states_the_limit_and_what_is_left_of_it(store: CountingStore) -> None:
    place = Place(store, principal=Limit(60, MINUTE))
    for left in (59, 58, 57):
        outcome = await place.ask()
        assert outcome.value(b"ratelimit-policy") == b'"principal";q=60;w=60'
        assert outcome.value(b"ratelimit") == f'"principal";r={left};t={60 - left}'.encode()
        # RFC 9651: a list of strings with parameters whose values are integers.
        assert re.fullmatch(rb'"[a-z-]+"(;[a-z]=\d{1,15})+', outcome.value(b"ratelimit") or b"")


async def test_the_limit_of_a_principal_holds_over_its_tokens_sessions_and_addresses(store: CountingStore) -> None:
    tokens = {f"t{number}".encode(): principal("alice", token=f"{number:016x}") for number in range(200)}
    place = Place(store, tokens, principal=Limit(50, MINUTE))
    outcomes = [
        await place.ask(who=who, headers=((b"mcp-session-id", b"s%d" % (number % 50)),), address=f"10.0.0.{number}")
        for number, who in enumerate(tokens)
    ]
    assert [outcome.status for outcome in outcomes] == [200] * 50 + [429] * 150


@pytest.mark.parametrize(
    "other",
    [
        principal("bob"),
        principal("alice", client="client-2"),
        principal("alice", issuer="https://other.example"),
        principal("alice", tenant="acme"),
    ],
)
async def test_principals_are_apart(store: CountingStore, other: Principal) -> None:
    place = Place(store, {b"alice": principal("alice"), b"other": other}, principal=Limit(5, MINUTE))
    assert await place.passing(10) == 5
    assert await place.passing(10, who=b"other") == 5


async def test_every_message_of_a_batch_counts(store: CountingStore) -> None:
    place = Place(store, principal=Limit(10, MINUTE))
    batch = json.dumps([{"jsonrpc": "2.0", "id": n, "method": "tools/list"} for n in range(4)]).encode()
    assert await place.passing(3, data=batch) == 2
    assert await place.passing(3) == 2


async def test_a_batch_larger_than_the_burst_never_passes(store: CountingStore) -> None:
    place = Place(store, principal=Limit(3, MINUTE))
    batch = json.dumps([{"jsonrpc": "2.0", "id": n, "method": "tools/list"} for n in range(4)]).encode()
    refused = await place.ask(batch)
    assert refused.status == 429
    assert refused.json()["id"] is None
    assert refused.value(b"retry-after") == b"60"
    assert await place.passing(1) == 0, "it took what there was"


async def test_a_request_without_a_body_counts_as_one(store: CountingStore) -> None:
    place = Place(store, principal=Limit(3, MINUTE))
    assert await place.passing(5, method="DELETE") == 3


async def test_the_calls_of_one_tool_are_limited_apart_from_others(store: CountingStore) -> None:
    place = Place(
        store, tool=Limit(3, MINUTE), tools={"dear": ToolLimit(Limit(1, MINUTE)), "cheap": ToolLimit(Limit(6, MINUTE))}
    )
    passing = [await place.passing(8, data=rpc(name=name)) for name in ("a", "b", "dear", "cheap")]
    assert passing == [3, 3, 1, 6]
    assert await place.passing(8, data=rpc(name="a"), who=b"bob") == 3
    refused = await place.ask(rpc(name="dear"))
    assert refused.value(b"ratelimit-policy") == b'"tool";q=1;w=60'


async def test_only_calls_of_tools_count_as_such(store: CountingStore) -> None:
    place = Place(store, tool=Limit(1, MINUTE))
    assert await place.passing(3, data=rpc("prompts/get", name="a")) == 3
    assert await place.passing(3, data=rpc("tools/call")) == 3


async def test_the_calls_of_one_tool_in_a_batch_are_counted_together(store: CountingStore) -> None:
    place = Place(store, tool=Limit(3, MINUTE))
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "a"}}
    other = {**call, "params": {"name": "b"}}
    assert await place.passing(2, data=json.dumps([call, other, call]).encode()) == 1
    assert await place.passing(2, data=json.dumps([call]).encode()) == 1


async def test_a_refused_call_takes_from_no_limit(store: CountingStore) -> None:
    place = Place(store, principal=Limit(4, MINUTE), tool=Limit(1, MINUTE))
    assert await place.passing(10, data=rpc(name="a")) == 1
    assert await place.passing(10) == 3


@pytest.mark.parametrize("name", ["x" * 100_000, "a:b", "\ud800", "mcp:limit:principal:", "", "a\r\nb"])
async def test_the_name_of_a_tool_goes_into_no_key_as_it_came(store: CountingStore, name: str) -> None:
    place = Place(store, tool=Limit(1, MINUTE))
    assert await place.passing(2, data=rpc(name=name)) == 1
    spend = store.batches[0][0]
    assert isinstance(spend, Spend)
    for bucket in spend.buckets:
        assert re.fullmatch(r"mcp:limit:[a-z-]+:[0-9a-f]{64}(:[0-9a-f]{16})?", bucket.key)


# Connections


INITIALIZE = rpc("initialize")


@pytest.mark.parametrize(
    "request_", [{"data": INITIALIZE}, {"method": "GET"}, {"method": "HEAD"}], ids=["initialize", "stream", "head"]
)
async def test_new_connections_of_a_principal_are_limited(store: CountingStore, request_: dict[str, Any]) -> None:
    place = Place(store, connections=Limit(10, MINUTE))
    assert await place.passing(15, **request_) == 10
    assert await place.passing(15, who=b"bob", **request_) == 10
    assert await place.passing(15) == 15
    refused = await place.ask(**request_)
    assert refused.value(b"ratelimit-policy") == b'"connections";q=10;w=60'


async def test_new_connections_of_an_address_are_limited_over_all_principals(store: CountingStore) -> None:
    people = {f"p{number}".encode(): principal(f"user-{number}") for number in range(80)}
    place = Place(store, people, address_connections=Limit(50, MINUTE))
    statuses = [(await place.ask(INITIALIZE, who=who)).status for who in people]
    assert statuses == [200] * 50 + [429] * 30
    assert (await place.ask(INITIALIZE, who=b"p0", address="192.0.2.8")).status == 200
    assert (await place.ask(INITIALIZE, who=b"p0", address="::ffff:192.0.2.7")).status == 429


async def test_a_64_counts_as_one_address(store: CountingStore) -> None:
    people = {f"p{number}".encode(): principal(f"user-{number}") for number in range(20)}
    place = Place(store, people, address_connections=Limit(5, MINUTE))
    statuses = [
        (await place.ask(INITIALIZE, who=who, address=f"2001:db8::{number:x}")).status
        for number, who in enumerate(people)
    ]
    assert statuses.count(200) == 5


async def test_requests_in_a_session_and_of_the_stateless_era_open_no_connection(store: CountingStore) -> None:
    place = Place(store, connections=Limit(1, MINUTE))
    session = ((b"mcp-session-id", b"s1"),)
    modern = ((b"mcp-protocol-version", b"2026-07-28"),)
    assert await place.passing(5, method="GET", headers=session) == 5
    assert await place.passing(5, headers=modern) == 5
    assert await place.passing(5, data=INITIALIZE, headers=modern) == 5
    assert await place.passing(5, data=INITIALIZE) == 1


@pytest.mark.parametrize("session", [(), ((b"mcp-session-id", b"s1"),)])
async def test_a_stream_that_calls_itself_modern_is_a_connection_all_the_same(
    store: CountingStore, session: tuple[tuple[bytes, bytes], ...]
) -> None:
    place = Place(store, connections=Limit(2, MINUTE))
    modern = (b"mcp-protocol-version", b"2026-07-28")
    assert await place.passing(5, method="GET", headers=(modern, *session)) == 2


async def test_an_initialize_hidden_in_a_batch_is_a_connection(store: CountingStore) -> None:
    place = Place(store, connections=Limit(1, MINUTE))
    batch = b"[" + rpc("tools/list") + b"," + INITIALIZE + b"]"
    assert await place.passing(3, data=batch) == 1


# With other checks


async def test_a_malformed_session_id_still_counts(store: CountingStore) -> None:
    app = CountingApp()
    limits = RateLimit(store=store, principal=Limit(3, MINUTE))
    guarded = guard(app, Facts(), limits, Session(store=store))
    scope = http_scope(headers=[(b"mcp-session-id", b"not valid")])
    statuses = [(await drive(guarded, scope, rpc())).status for _ in range(5)]
    assert statuses == [404, 404, 404, 429, 429]


async def test_limits_and_sessions_cost_one_round_trip(store: CountingStore) -> None:
    guarded = guard(CountingApp(), Facts(), RateLimit(store=store), Session(store=store))
    await drive(guarded, http_scope(headers=[(b"mcp-session-id", b"s1")]), rpc())
    assert len(store.batches) == 1
    assert len(store.batches[0]) > 1


async def test_a_store_that_answers_something_else_lets_nothing_through() -> None:
    class Odd(CountingStore):
        async def run(self, operations: Any) -> Any:
            return [None for _ in operations]

    place = Place(Odd())
    assert (await place.ask()).status == 503
    assert place.app.calls == 0


@pytest.mark.parametrize(
    ("burst", "period", "message"),
    [
        (0, MINUTE, "burst must be at least 1, not 0"),
        (-1, MINUTE, "burst must be at least 1"),
        (1, timedelta(0), "period must be at least one second"),
        (1, timedelta(milliseconds=999), "period must be at least one second"),
    ],
)
def test_a_limit_that_cannot_work_is_refused(burst: int, period: timedelta, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Limit(burst, period)


async def test_a_tool_with_a_long_name_is_limited_and_its_name_not_kept(store: CountingStore) -> None:
    place = Place(store, tool=Limit(2, MINUTE))
    name = "x" * 10_000
    assert await place.passing(3, data=rpc(name=name)) == 2
    assert await place.passing(3, data=rpc(name="y" * 10)) == 2
    assert cast(Any, place.limits.kept_bill).cache_info().currsize == 1


async def test_a_store_that_leaves_a_limit_unanswered_refuses(store: CountingStore) -> None:
    class Forgetful(CountingStore):
        async def run(self, operations: Sequence[Operation]) -> list[Result]:
            (levels,) = await super().run(operations)
            return [levels[:1] if isinstance(levels, tuple) else levels]

    place = Place(Forgetful())
    assert (await place.ask(rpc(name="add"))).status == 503
    assert place.app.calls == 0
