"""How many requests are in flight at once, and that every one of them leaves, however it ends."""

import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import anyio
import pytest

from mcp_guard.asgi import ASGIApp, Receive, Scope, Send
from mcp_guard.check import Layer
from mcp_guard.delivery import Delivery
from mcp_guard.facts import Principal
from mcp_guard.failures import ConfigurationError, Unavailable
from mcp_guard.layer import Admission, RequestHead
from mcp_guard.layers.concurrency import Concurrency, InFlight, ToolConcurrency
from mcp_guard.layers.intake import Intake
from mcp_guard.stack import guard
from tests.guard.asgi import Client, Outcome, body, drive, http_scope, start
from tests.guard.stubs import PEOPLE, Facts, Says, Watching, principal, rpc

EVENTS = (b"content-type", b"text/event-stream; charset=utf-8")
CROWD = {f"p{number}".encode(): principal(f"user-{number}") for number in range(40)}


@dataclass
class Slow:
    """An app whose responses begin at once and end when they are told to."""

    headers: tuple[tuple[bytes, bytes], ...] = ((b"content-type", b"application/json"),)
    ending: anyio.Event = field(default_factory=anyio.Event)
    calls: int = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.calls += 1
        await send(start(200, *self.headers))
        await send(body(b"{", more=True))
        await self.ending.wait()
        await send(body(b"}"))


class Place:
    """A guarded app of which requests are held open."""

    def __init__(self, app: ASGIApp, *layers: Layer, people: dict[bytes, Principal] = PEOPLE) -> None:
        self.guarded = guard(app, Facts(people), *layers)

    async def ask(self, data: bytes = rpc("tools/list"), who: bytes = b"alice", method: str = "POST") -> Outcome:
        return await drive(
            self.guarded, http_scope(method, headers=[(b"x-as", who)]), data if method == "POST" else b""
        )

    @contextlib.asynccontextmanager
    async def holding(self, app: Slow, count: int, **request: Any) -> AsyncIterator[None]:
        """`count` requests are in flight within the block, and have ended after it."""
        async with anyio.create_task_group() as group:
            expected = app.calls + count
            for _ in range(count):
                group.start_soon(lambda: self.ask(**request))
            with anyio.fail_after(5):
                while app.calls < expected:
                    await anyio.lowlevel.checkpoint()
            yield
            app.ending.set()
        app.ending = anyio.Event()


def flight(limits: Concurrency | ToolConcurrency) -> InFlight:
    return limits.in_flight


async def test_a_principal_has_so_many_requests_in_flight_and_no_more() -> None:
    app, limits = Slow(), Concurrency(principal=3, total=100)
    place = Place(app, limits)
    async with place.holding(app, 3):
        refused = await place.ask(rpc("tools/list", request_id="r1"))
        assert refused.status == 429
        assert refused.json() == {
            "jsonrpc": "2.0",
            "id": "r1",
            "error": {"code": -32010, "message": "Too many requests", "data": {"retryAfterMs": 1000}},
        }
        assert refused.value(b"retry-after") == b"1"
        assert app.calls == 3
        async with place.holding(app, 2, who=b"bob"):
            assert flight(limits).total == 5
    assert flight(limits).counts == {}
    app.ending.set()
    assert (await place.ask()).status == 200


async def test_when_the_worker_has_all_it_can_take_others_are_told_to_come_back() -> None:
    app, limits = Slow(), Concurrency(principal=5, total=8)
    place = Place(app, limits, people=CROWD)
    async with place.holding(app, 5, who=b"p0"), place.holding(app, 3, who=b"p1"):
        shed = await place.ask(who=b"p2")
        assert shed.status == 503
        assert shed.value(b"retry-after") == b"1"
        assert (await place.ask(who=b"p0")).status == 429, "who has too many is told so"
    app.ending.set()
    assert (await place.ask(who=b"p2")).status == 200


async def test_a_body_that_arrives_slowly_takes_its_senders_place() -> None:
    """The layer stands before the body is read."""

    class Known(Says):
        adds = (Principal,)

    who = Known(lambda request: Admission(facts=(PEOPLE[request.value(b"x-as") or b"alice"],)))
    limits = Concurrency(principal=2, total=10)
    app = Slow()
    app.ending.set()
    guarded = guard(app, who, limits, Intake())
    headers = [(b"content-type", b"application/json"), (b"content-length", b"100")]
    slow = [Client(()) for _ in range(2)]
    async with anyio.create_task_group() as group:
        for client in slow:
            group.start_soon(guarded, http_scope(headers=headers), client.receive, client.send)
        with anyio.fail_after(5):
            while flight(limits).total < 2:
                await anyio.lowlevel.checkpoint()
        assert (await drive(guarded, http_scope(headers=headers), rpc())).status == 429
        bobs = [headers[0], (b"x-as", b"bob")]
        assert (await drive(guarded, http_scope(headers=bobs), rpc("tools/list"))).status == 200
        for client in slow:
            client.gone.set()
    assert flight(limits).total == 0
    assert app.calls == 1


# Everybody leaves


async def raising(scope: Scope, receive: Receive, send: Send) -> None:
    raise RuntimeError("the app fails")


async def cutting(scope: Scope, receive: Receive, send: Send) -> None:
    await send(start(200))
    await send(body(b"half", more=True))
    raise RuntimeError("the app fails")


async def silent(scope: Scope, receive: Receive, send: Send) -> None:
    """Returns without a response."""


@pytest.mark.parametrize(
    ("app", "layers"),
    [
        (raising, ()),
        (cutting, ()),
        (silent, ()),
        (silent, (Says(fault=Unavailable("away")),)),
        (silent, (Says(fault=RuntimeError("a defect")),)),
        (silent, (Says(Admission(watch=Watching(at_start=RuntimeError("a defect")))),)),
        (cutting, (Says(Admission(watch=Watching(at_start=Unavailable("away")))),)),
        (cutting, (Says(Admission(watch=Watching(at_body=Unavailable("away")))),)),
        (cutting, (Says(Admission(watch=Watching(at_end=RuntimeError("a defect")))),)),
    ],
)
async def test_a_request_leaves_however_it_ends(app: ASGIApp, layers: tuple[Layer, ...]) -> None:
    limits, tools = Concurrency(), ToolConcurrency({"a": 1})
    place = Place(app, limits, tools, *layers)
    for _ in range(3):
        with contextlib.suppress(RuntimeError):
            await place.ask(rpc(name="a"))
    assert flight(limits).counts == flight(tools).counts == {}
    assert flight(limits).total == flight(tools).total == 0


async def test_a_request_that_is_cancelled_leaves() -> None:
    app, limits = Slow(), Concurrency()
    place = Place(app, limits)
    async with anyio.create_task_group() as group:
        group.start_soon(place.ask)
        with anyio.fail_after(5):
            while app.calls < 1:
                await anyio.lowlevel.checkpoint()
        assert flight(limits).total == 1
        group.cancel_scope.cancel()
    assert flight(limits).total == 0


# Streams


@pytest.mark.parametrize(
    ("request_", "headers", "in_flight"),
    [
        ({"method": "GET"}, EVENTS, 0),
        ({"data": rpc("subscriptions/listen")}, EVENTS, 0),
        ({"data": rpc("tools/call")}, EVENTS, 1),
        ({"data": b"[" + rpc("subscriptions/listen") + b"," + rpc("tools/call") + b"]"}, EVENTS, 1),
        ({"method": "GET"}, (b"content-type", b"text/html"), 1),
        ({"method": "DELETE"}, EVENTS, 1),
        ({"data": rpc("subscriptions/listen")}, (b"content-type", b"application/json"), 1),
    ],
    ids=["stream", "listen", "streamed answer", "streamed batch", "page", "delete", "no stream"],
)
async def test_a_stream_that_only_listens_leaves_when_it_begins(
    request_: dict[str, Any], headers: tuple[bytes, bytes], in_flight: int
) -> None:
    app, limits = Slow((headers,)), Concurrency()
    place = Place(app, limits)
    async with place.holding(app, 1, **request_):
        assert flight(limits).total == in_flight
    assert flight(limits).total == 0


async def test_a_stream_that_only_listens_counts_until_it_begins() -> None:
    begun = anyio.Event()

    async def late(scope: Scope, receive: Receive, send: Send) -> None:
        await begun.wait()
        await send(start(200, EVENTS))
        await send(body())

    limits = Concurrency(principal=1, total=1)
    place = Place(late, limits)
    async with anyio.create_task_group() as group:
        group.start_soon(lambda: place.ask(method="GET"))
        with anyio.fail_after(5):
            while flight(limits).total < 1:
                await anyio.lowlevel.checkpoint()
        assert (await place.ask(method="GET")).status == 429
        begun.set()
    assert (await place.ask(method="GET")).status == 200


async def test_a_stream_that_left_when_it_began_does_not_leave_again_when_it_ends() -> None:
    app, limits = Slow((EVENTS,)), Concurrency()
    place = Place(app, limits)
    async with place.holding(app, 1, data=rpc(name="a")):
        async with anyio.create_task_group() as group:
            group.start_soon(lambda: place.ask(method="GET"))
            with anyio.fail_after(5):
                while app.calls < 2:
                    await anyio.lowlevel.checkpoint()
            group.cancel_scope.cancel()
        assert flight(limits).total == 1
        assert list(flight(limits).counts.values()) == [1]


# Tools


async def test_the_calls_of_a_tool_have_a_limit_of_their_own() -> None:
    app, limits = Slow(), ToolConcurrency({"report": 2})
    place = Place(app, limits)
    async with place.holding(app, 2, data=rpc(name="report")):
        refused = await place.ask(rpc(name="report", request_id=9))
        assert refused.status == 429
        assert refused.json()["id"] == 9
    async with (
        place.holding(app, 2, data=rpc(name="report")),
        place.holding(app, 2, data=rpc(name="report"), who=b"bob"),
        place.holding(app, 3, data=rpc(name="other")),
        place.holding(app, 3, data=rpc("prompts/get", name="report")),
    ):
        assert sorted(flight(limits).counts.values()) == [2, 2]
    assert flight(limits).counts == {}
    assert flight(limits).total == 0


async def test_every_call_of_a_batch_counts_and_all_or_none_begin() -> None:
    app, limits = Slow(), ToolConcurrency({"report": 2})
    place = Place(app, limits)
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "report"}}
    unnamed = {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {}}
    assert (await place.ask(json.dumps([call] * 3).encode())).status == 429
    assert flight(limits).total == 0
    async with place.holding(app, 1, data=json.dumps([call, unnamed, call]).encode()):
        assert flight(limits).total == 2
        assert (await place.ask(rpc(name="report"))).status == 429
    assert flight(limits).total == 0


async def test_a_subscription_beside_calls_in_a_batch_does_not_make_them_leave_early() -> None:
    app, limits = Slow((EVENTS,)), ToolConcurrency({"report": 2})
    place = Place(app, limits)
    batch = b"[" + rpc("subscriptions/listen") + b"," + rpc(name="report", request_id=2) + b"]"
    async with place.holding(app, 2, data=batch):
        assert flight(limits).total == 2
        assert (await place.ask(batch)).status == 429
    assert flight(limits).total == 0


async def test_what_a_response_says_is_none_of_its_business() -> None:
    limits = Concurrency()
    request = RequestHead(http_scope(), {Principal: PEOPLE[b"alice"]}, Client().receive, Delivery(Client().send))  # type: ignore[arg-type]
    watch = (await limits.admit(request)).watch
    assert watch is not None
    assert not watch.wants_body
    assert not watch.on_body(b"{}")


# Settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"principal": 0}, "principal must be at least 1, not 0"),
        ({"principal": 10, "total": 9}, "total must be at least principal, 10, not 9"),
    ],
)
def test_a_setting_that_cannot_work_is_refused(settings: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Concurrency(**settings)


def test_a_tool_that_could_never_be_called_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="limits: 'report' must be at least 1, not 0"):
        ToolConcurrency({"report": 0})
