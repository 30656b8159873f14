"""A request that arrives at a worker that does not hold its session is answered by the one that does."""

import asyncio
import contextlib
import gc
import json
from collections.abc import AsyncIterator
from contextvars import ContextVar
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from mcp_guard.asgi import ASGIApp, Message, Receive, Scope, Send
from mcp_guard.facts import Call, ClientAddress, Principal, RequestId, Resource, SessionHandle, fact, facts_of
from tests.guard.affinity.workers import Workers, ask, left_in, open_files, until, workers
from tests.guard.asgi import Client, CountingApp, body, read_all, start
from tests.guard.stubs import ALICE, BOB, MCP, rpc

JSON = (b"content-type", b"application/json")
EVENTS = (b"content-type", b"text/event-stream")


async def test_a_request_is_answered_by_the_worker_that_holds_its_session(folder: Path) -> None:
    here, there = CountingApp(chunks=[b"here"]), CountingApp(status=201, chunks=[b"th", b"ere"])
    async with workers(folder, here, there) as running:
        outcome = await ask(running.members[0], running.members[1], rpc())
    assert (outcome.status, outcome.body) == (201, b"there")
    assert (here.calls, there.calls, there.bodies) == (0, 1, [rpc()])


async def test_a_request_of_its_own_session_or_of_none_stays(folder: Path) -> None:
    here, there = CountingApp(chunks=[b"here"]), CountingApp(chunks=[b"there"])
    async with workers(folder, here, there) as running:
        own = await ask(running.members[0], running.members[0], rpc())
        none = await ask(running.members[0], None, rpc())
    assert (own.body, none.body, there.calls) == (b"here", b"here", 0)


async def test_the_app_sees_the_request_as_it_was(folder: Path) -> None:
    local, carried = CountingApp(), CountingApp()
    headers = [JSON, (b"x-bytes", bytes(range(0x80, 0x100))), (b"x-two", b"1"), (b"x-two", b"2")]
    odd: dict[str, Any] = {
        "path": "/mcp/\u00e9\udcff",
        "query": b"a=%00&b=\xff",
        "root_path": "/mcp",
        "method": "DELETE",
    }
    async with workers(folder, local, carried) as running:
        for at in running.members:
            await ask(at, running.members[1], headers=headers, **odd)
        await ask(running.members[0], running.members[0], headers=headers, **odd)
    seen = [{**scope, "mcp_guard": None, "user": None, "auth": None, "state": None} for scope in carried.scopes]
    assert len(seen) == 2
    for scope in seen:
        scope.pop("asgi")
    assert seen[0] == seen[1]
    assert seen[0]["headers"] == headers


async def test_the_app_sees_the_facts_as_they_were_found(folder: Path) -> None:
    app = CountingApp()
    async with workers(folder, CountingApp(), app) as running:
        await ask(running.members[0], running.members[1], rpc(name="add"), headers=[(b"x-as", b"bob")])
        home = running.members[1].home
        record = json.loads(running.members[0].sink.lines[0])
    scope = app.scopes[0]
    assert fact(scope, Principal) == BOB
    assert fact(scope, Principal).claims == BOB.claims
    assert fact(scope, Resource) == MCP
    assert fact(scope, ClientAddress) == ClientAddress(ip_address("192.0.2.7"))
    assert fact(scope, SessionHandle) == SessionHandle("session-1", "f" * 16, home)
    assert fact(scope, RequestId).value == record["request_id"]
    message = fact(scope, Call).messages[0]
    assert (message.method, message.id, message.name, dict(message.params)) == ("tools/call", 1, "add", {})
    assert scope["user"].principal == BOB


FORGED = [
    (b"x-mcp-guard", b"alice"),
    (b"x-principal", b"alice"),
    (b"mcp_guard", b'{"Principal":["https://issuer.example","alice","client-1",null]}'),
    (b"facts", b'{"Principal":[]}'),
    (b"authorization", b"Bearer alice"),
    (b"x-forwarded-user", b"alice"),
]


async def test_nothing_that_a_client_says_becomes_its_identity(folder: Path) -> None:
    app = CountingApp()
    async with workers(folder, CountingApp(), app) as running:
        forged = json.dumps({"facts": {"Principal": ["x", "alice"]}, "id": 1, "method": "tools/call"}).encode()
        await ask(running.members[0], running.members[1], forged, headers=[(b"x-as", b"bob"), *FORGED])
    assert fact(app.scopes[0], Principal).subject == "bob"
    assert [kind for kind in facts_of(app.scopes[0]) if kind is Principal] == [Principal]


async def test_a_request_that_was_carried_once_is_not_carried_on(folder: Path) -> None:
    app = CountingApp()
    async with workers(folder, CountingApp(), app, CountingApp()) as running:
        for member in running.members:
            await ask(member, running.members[1], rpc())
        busy = [member.worker.peers.busy for member in running.members]
    assert (app.calls, busy) == (3, [0, 0, 0])


class Whole:
    """Answers a body with itself."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        data = await read_all(receive)
        await send(start(200, JSON))
        await send(body(data))


@pytest.mark.parametrize("size", [0, 1, 64 * 1024 - 1, 64 * 1024, 64 * 1024 + 1, 4 * 1024 * 1024])
async def test_bodies_of_any_size_pass_both_ways(folder: Path, size: int) -> None:
    data = json.dumps({"method": "x", "id": 1, "params": {"a": ""}}).encode()
    data = data[:-3] + b"y" * max(0, size - len(data)) + data[-3:] if size else b""
    async with workers(folder, CountingApp(), Whole()) as running:
        outcome = await ask(running.members[0], running.members[1], data)
    assert outcome.body == data


class Ticking:
    """An event stream that sends what the test says, when it says so, until its client leaves."""

    def __init__(self) -> None:
        self.events: asyncio.Queue[bytes] = asyncio.Queue()
        self.left = anyio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert (await receive())["type"] == "http.request"
        await send(start(200, EVENTS))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.watch, receive, tasks.cancel_scope)
            while event := await self.events.get():
                await send(body(event, more=True))
            await send(body())
            tasks.cancel_scope.cancel()

    async def watch(self, receive: Receive, scope: anyio.CancelScope) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.left.set()
        scope.cancel()


@contextlib.asynccontextmanager
async def open_stream(running: Workers) -> AsyncIterator[Client]:
    """A stream through the first worker from the second, and its client."""
    client = Client()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: ask(running.members[0], running.members[1], client=client, method="GET"))
        yield client


async def test_a_stream_arrives_event_by_event(folder: Path) -> None:
    app = Ticking()
    async with workers(folder, CountingApp(), app) as running, open_stream(running) as client:
        await until(lambda: client.outcome.starts)
        for number in range(3):
            await app.events.put(b"data: %d\n\n" % number)
            await until(lambda: client.outcome.chunks)
            assert client.outcome.chunks == [b"data: %d\n\n" % number]
            client.outcome.sent.clear()
        await app.events.put(b"")
    assert client.outcome.complete


async def test_a_client_that_leaves_is_seen_to_leave_by_the_app(folder: Path) -> None:
    app = Ticking()
    async with workers(folder, CountingApp(), app) as running:
        async with open_stream(running) as client:
            await until(lambda: client.outcome.starts)
            client.gone.set()
            with anyio.fail_after(5):
                await app.left.wait()
        await until(lambda: running.members[0].worker.peers.busy == 0)


async def test_a_slow_client_slows_the_app_down(folder: Path) -> None:
    sent = 0

    async def flood(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal sent
        await send(start(200, EVENTS))
        for _ in range(400):
            await send(body(b"x" * 65536, more=True))
            sent += 65536
        await send(body())

    held = anyio.Event()

    class Slow(Client):
        async def send(self, message: Message) -> None:
            await held.wait()
            await super().send(message)

    async with workers(folder, CountingApp(), flood) as running, anyio.create_task_group() as tasks:
        client = Slow()
        tasks.start_soon(lambda: ask(running.members[0], running.members[1], client=client, method="GET"))
        await until(lambda: sent > 0)
        before = -1
        while before != sent:
            before = sent
            await anyio.sleep(0.1)
        assert sent < 4 * 1024 * 1024
        held.set()
    assert len(client.outcome.body) == 400 * 65536


async def test_a_response_that_the_app_cuts_is_cut(folder: Path) -> None:
    async def cutting(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(200, EVENTS))
        await send(body(b"data: half", more=True))
        raise RuntimeError

    async with workers(folder, CountingApp(), cutting) as running:
        outcome = await ask(running.members[0], running.members[1], rpc())
    assert outcome.status == 200
    assert not outcome.complete


async def test_an_app_that_fails_is_answered_and_audited_as_at_home(folder: Path) -> None:
    async def failing(scope: Scope, receive: Receive, send: Send) -> None:
        raise RuntimeError

    async with workers(folder, CountingApp(), failing) as running:
        carried = await ask(running.members[0], running.members[1], rpc())
        local = await ask(running.members[1], running.members[1], rpc())
        records = [json.loads(member.sink.lines[0]) for member in running.members]
    assert (carried.status, carried.body) == (local.status, local.body) == (500, local.body)
    assert [record["verdict"] for record in records] == ["app_fault", "app_fault"]
    assert records[0]["reason"] == records[1]["reason"]


@pytest.mark.parametrize("size", [1, 500_000])
async def test_a_response_before_the_whole_body_is_passed_on_and_the_connection_is_used_again(
    folder: Path, size: int, caplog: pytest.LogCaptureFixture
) -> None:
    async def hasty(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(413, JSON))
        await send(body(b"{}"))

    async with workers(folder, CountingApp(), hasty) as running:
        outcomes = [await ask(running.members[0], running.members[1], rpc(name="n" * size)) for _ in range(5)]
        assert len(running.members[0].worker.peers.known) == 1
    assert [outcome.status for outcome in outcomes] == [413] * 5
    assert caplog.text == ""


async def test_an_app_that_reads_on_after_its_response_does_not_take_the_next_request(folder: Path) -> None:
    heard: list[str] = []
    tasks: set[asyncio.Task[None]] = set()

    async def lingering(scope: Scope, receive: Receive, send: Send) -> None:
        async def linger() -> None:
            heard.append((await receive())["type"])

        await read_all(receive)
        tasks.add(asyncio.create_task(linger()))
        await send(start(200, JSON))
        await send(body(b"{}"))

    async with workers(folder, CountingApp(), lingering) as running:
        outcomes = [await ask(running.members[0], running.members[1], rpc()) for _ in range(5)]
        await until(lambda: len(heard) == 5)
    assert [outcome.status for outcome in outcomes] == [200] * 5
    assert heard == ["http.disconnect"] * 5


async def test_an_app_that_answers_nothing_and_reads_on_does_not_take_the_next_request(folder: Path) -> None:
    heard: list[str] = []
    tasks: set[asyncio.Task[None]] = set()

    async def lingering(scope: Scope, receive: Receive, send: Send) -> None:
        async def linger() -> None:
            heard.append((await receive())["type"])

        if scope["method"] == "POST":
            tasks.add(asyncio.create_task(linger()))
            await until(lambda: heard == ["http.request"])
            tasks.add(asyncio.create_task(linger()))
            await anyio.sleep(0.01)
            return
        await send(start(200, JSON))
        await send(body(b"{}"))

    async with workers(folder, CountingApp(), lingering) as running:
        await ask(running.members[0], running.members[1], rpc())
        assert (await ask(running.members[0], running.members[1], method="GET")).status == 200
        assert heard == ["http.request", "http.disconnect"]


async def test_an_app_that_waits_for_its_client_to_leave_after_its_response_is_let_go(folder: Path) -> None:
    async def waiting(scope: Scope, receive: Receive, send: Send) -> None:
        await read_all(receive)
        await send(start(200, JSON))
        await send(body(b"{}"))
        assert (await receive())["type"] == "http.disconnect"

    async with workers(folder, CountingApp(), waiting) as running:
        with anyio.fail_after(5):
            assert (await ask(running.members[0], running.members[1], rpc())).complete


async def test_a_server_that_says_the_client_is_gone_when_it_is_answered_costs_no_connection(folder: Path) -> None:
    """As uvicorn does: `receive` answers with a disconnect as soon as the response is whole."""

    class Served(Client):
        async def send(self, message: Message) -> None:
            await super().send(message)
            if not message.get("more_body", True):
                self.gone.set()
                await anyio.sleep(0.01)

    async with workers(folder, CountingApp(), CountingApp()) as running:
        for _ in range(3):
            assert (await ask(running.members[0], running.members[1], client=Served())).complete
            [peer] = running.members[0].worker.peers.known.values()
            assert [link.ended for link in peer.idle] == [False]


current: ContextVar[str] = ContextVar("current", default="nobody")


async def test_what_an_app_makes_current_is_gone_with_the_next_request(folder: Path) -> None:
    found: list[str] = []

    async def careless(scope: Scope, receive: Receive, send: Send) -> None:
        found.append(current.get())
        current.set(fact(scope, Principal).subject)
        await send(start(200, JSON))
        await send(body(b"{}"))

    current.set("whoever started the test")
    async with workers(folder, CountingApp(), careless) as running:
        for who in (b"alice", b"bob"):
            await ask(running.members[0], running.members[1], rpc(), headers=[(b"x-as", who)])
    assert found == ["nobody", "nobody"]


async def test_two_hundred_requests_at_once_are_each_answered_with_their_own(folder: Path) -> None:
    async def echo(scope: Scope, receive: Receive, send: Send) -> None:
        data = await read_all(receive)
        await anyio.lowlevel.checkpoint()
        await send(start(200, JSON))
        await send(body(fact(scope, Principal).subject.encode() + data))

    async with workers(folder, echo, echo) as running:

        async def one(number: int) -> None:
            who = (ALICE, BOB)[number % 2].subject.encode()
            at, holder = running.members[number % 2], running.members[1 - number % 2]
            outcome = await ask(at, holder, rpc(request_id=number), headers=[(b"x-as", who)])
            assert outcome.body == who + rpc(request_id=number)

        async with anyio.create_task_group() as tasks:
            for number in range(200):
                tasks.start_soon(one, number)
        kept = [len(peer.idle) for member in running.members for peer in member.worker.peers.known.values()]
    assert kept == [64, 64]


async def test_nothing_is_left_open_when_the_workers_are_closed(folder: Path) -> None:
    apps: list[ASGIApp] = [CountingApp(), CountingApp()]
    before, tasks = open_files(), len(asyncio.all_tasks())
    async with workers(folder, *apps) as running:
        for _ in range(3):
            await ask(running.members[0], running.members[1], rpc())
            await ask(running.members[1], running.members[0], rpc())
    await until(lambda: len(asyncio.all_tasks()) == tasks)
    gc.collect()
    assert open_files() == before
    assert left_in(folder) == []


async def test_a_carried_request_is_freed_without_the_cycle_collector(folder: Path) -> None:
    app = CountingApp()
    async with workers(folder, CountingApp(), app) as running:
        await ask(running.members[0], running.members[1], rpc())
        gc.collect()
        gc.disable()
        try:
            before = sum(isinstance(one, Principal) for one in gc.get_objects())
            for _ in range(10):
                await ask(running.members[0], running.members[1], rpc())
                app.scopes.clear()
            assert sum(isinstance(one, Principal) for one in gc.get_objects()) <= before + 1
        finally:
            gc.enable()


async def test_no_more_requests_are_carried_at_once_than_are_allowed(folder: Path) -> None:
    app = Ticking()
    async with workers(folder, CountingApp(), app, max_forwards=1) as running, open_stream(running) as client:
        await until(lambda: client.outcome.starts)
        refused = await ask(running.members[0], running.members[1], rpc())
        assert refused.status == 503
        assert refused.value(b"retry-after") == b"1"
        await app.events.put(b"")


async def test_what_an_app_sends_besides_its_response_stays_with_its_worker(folder: Path) -> None:
    async def chatty(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(200, JSON))
        await send({"type": "http.response.debug", "info": {}})
        await send(body(b"{}"))

    async with workers(folder, CountingApp(), chatty) as running:
        outcome = await ask(running.members[0], running.members[1], rpc())
    assert [message["type"] for message in outcome.sent] == ["http.response.start", "http.response.body"]


async def test_an_app_that_answers_nothing_leaves_its_client_without_an_answer(folder: Path) -> None:
    async def mute(scope: Scope, receive: Receive, send: Send) -> None:
        await read_all(receive)

    async with workers(folder, mute, mute) as running:
        outcomes = [await ask(member, running.members[1], rpc()) for member in running.members]
    assert [outcome.sent for outcome in outcomes] == [[], []]
