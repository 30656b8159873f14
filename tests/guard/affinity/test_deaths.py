"""The session of a dead worker is not found; one that cannot be reached now is unavailable."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest

from mcp_guard.affinity import Worker, worker
from mcp_guard.affinity.homes import Home
from mcp_guard.affinity.peers import heartbeat
from mcp_guard.asgi import Receive, Scope, Send
from mcp_guard.check import Check
from mcp_guard.failures import ConfigurationError, StoreUnavailable, Unavailable
from mcp_guard.keyring import KeyRing
from mcp_guard.layers.affinity import Affinity
from mcp_guard.stack import guard
from mcp_guard.stores.base import Delete, Get, Put
from tests.guard.affinity.workers import Member, Workers, ask, left_in, until, workers
from tests.guard.asgi import Client, CountingApp, Lifespan, body, start
from tests.guard.stubs import CountingStore, Facts, rpc

SOON = timedelta(seconds=0.2)
EVENTS = (b"content-type", b"text/event-stream")
UP = b"up"


class Holding:
    """Answers when `go` is set, and before that as much as `begun` says."""

    def __init__(self, *begun: Any) -> None:
        self.begun, self.go, self.asked = begun, anyio.Event(), anyio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        for message in self.begun:
            await send(message)
        self.asked.set()
        await self.go.wait()
        if not self.begun:
            await send(start(200, EVENTS))
        await send(body(b"done"))


@contextlib.asynccontextmanager
async def asking(running: Workers) -> AsyncIterator[Client]:
    """A request on its way from the first worker to the second, which holds it."""
    client = Client()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: ask(running.members[0], running.members[1], client=client))
        app = running.members[1].app
        assert isinstance(app, Holding)
        await app.asked.wait()
        yield client


def reason(member: Member) -> str:
    return str(json.loads(member.sink.lines[-1])["reason"])


@pytest.mark.parametrize("listen", ["unix", "tcp:127.0.0.1:0"])
async def test_the_session_of_a_worker_that_ended_is_not_found(folder: Path, listen: str) -> None:
    place: Path | str = folder if listen == "unix" else listen
    async with workers(place, CountingApp(), CountingApp()) as running:
        home = running.members[1].home
        await ask(running.members[0], home, rpc())
        await running.members[1].guarded.close()
        outcome = await ask(running.members[0], home, rpc(request_id=7))
        assert reason(running.members[0]) == f"worker {Home.parse(home).name}, which held the session, is dead"
    assert outcome.status == 404
    assert outcome.json()["id"] == 7


async def test_a_socket_on_which_nobody_listens_is_that_of_a_dead_worker(folder: Path) -> None:
    async with workers(folder, CountingApp()) as running:
        name = "f" * 32
        path = folder / f"{name}.sock"
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(path))
        assert (await ask(running.members[0], str(Home(name, path=str(path))), rpc())).status == 404


@pytest.mark.parametrize("home", ["", "x", f"{'f' * 32}@unix:/tmp/other.sock", f"{'f' * 32}@tcp:localhost:1"])
async def test_a_home_that_no_worker_has_is_not_looked_for(folder: Path, home: str) -> None:
    async with workers(folder, CountingApp()) as running:
        assert (await ask(running.members[0], home, rpc())).status == 404


@contextlib.contextmanager
def silent() -> Any:
    """The home of a worker that is frozen: connections to it are made, and nothing is ever answered."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield str(Home("f" * 32, host="127.0.0.1", port=listener.getsockname()[1]))


@pytest.mark.parametrize(("alive", "status"), [(True, 503), (False, 404)])
async def test_a_worker_that_does_not_answer_is_dead_when_its_heartbeat_is_gone(
    folder: Path, alive: bool, status: int
) -> None:
    async with workers(folder, CountingApp(), within=SOON) as running:
        with silent() as home:
            if alive:
                await running.store.run([Put(heartbeat("f" * 32), UP, timedelta(seconds=10))])
            with anyio.fail_after(2):
                assert (await ask(running.members[0], home, rpc())).status == status


async def test_a_worker_that_does_not_answer_is_not_dead_while_the_store_is_silent(folder: Path) -> None:
    async with workers(folder, CountingApp(), within=SOON) as running:
        running.store.fault = StoreUnavailable("down")
        with silent() as home:
            assert (await ask(running.members[0], home, rpc())).status == 503


async def test_a_worker_that_cannot_be_reached_is_not_dead_while_its_heart_beats(folder: Path) -> None:
    unreachable = str(Home("f" * 32, path=str(folder / "no" / f"{'f' * 32}.sock")))
    async with workers(folder, CountingApp()) as running:
        (folder / "no").write_text("")
        await running.store.run([Put(heartbeat("f" * 32), UP, timedelta(seconds=10))])
        assert (await ask(running.members[0], unreachable, rpc())).status == 503


async def test_a_request_that_was_accepted_by_a_worker_that_then_dies_is_not_found(folder: Path) -> None:
    async with workers(folder, CountingApp(), Holding(), grace=timedelta(0)) as running:
        async with asking(running) as client:
            await running.members[1].guarded.close()
        assert client.outcome.status == 404


async def test_a_request_whose_connection_breaks_is_unavailable_while_the_worker_lives(folder: Path) -> None:
    async with workers(folder, CountingApp(), Holding()) as running:
        async with asking(running) as client:
            for peer in running.members[0].worker.peers.known.values():
                [link] = peer.busy
                link.abort()
        assert client.outcome.status == 503
        assert reason(running.members[0]) == "the worker that holds the session broke off"
        app = running.members[1].app
        assert isinstance(app, Holding)
        app.go.set()


async def test_a_response_of_a_worker_that_dies_is_cut(folder: Path) -> None:
    app = Holding(start(200, EVENTS), body(b"data: 1\n\n", more=True))
    async with workers(folder, CountingApp(), app, grace=timedelta(0)) as running:
        async with asking(running) as client:
            await until(lambda: client.outcome.chunks)
            await running.members[1].guarded.close()
        assert (client.outcome.status, client.outcome.complete) == (200, False)


async def test_a_response_is_cut_when_the_heartbeat_of_its_worker_stays_away(folder: Path) -> None:
    app = Holding(start(200, EVENTS), body(b"data: 1\n\n", more=True))
    async with workers(folder, CountingApp(), app) as running:
        async with asking(running) as client:
            peers, name = running.members[0].worker.peers, Home.parse(running.members[1].home).name
            await running.store.run([Delete(heartbeat(name))])
            await peers.look()
            await running.store.run([Put(heartbeat(name), UP, timedelta(seconds=10))])
            await peers.look()
            await running.store.run([Delete(heartbeat(name))])
            await peers.look()
            await anyio.sleep(0.05)
            assert peers.busy == 1
            await peers.look()
            await until(lambda: peers.busy == 0)
        assert not client.outcome.complete
        app.go.set()


async def test_connections_that_nobody_needs_are_closed(folder: Path) -> None:
    async with workers(folder, CountingApp(), CountingApp()) as running:
        peers = running.members[0].worker.peers
        await ask(running.members[0], running.members[1], rpc())
        await peers.look()
        await ask(running.members[0], running.members[1], rpc())
        await peers.look()
        assert sum(len(peer.idle) for peer in peers.known.values()) == 1
        await peers.look()
        assert sum(len(peer.idle) for peer in peers.known.values()) == 0
        assert peers.known == {}
        assert (await ask(running.members[0], running.members[1], rpc())).status == 200


async def test_a_connection_that_the_other_side_closed_is_not_used(folder: Path) -> None:
    async with workers(folder, CountingApp(), CountingApp()) as running:
        await ask(running.members[0], running.members[1], rpc())
        for peer in running.members[0].worker.peers.known.values():
            [link] = peer.idle
            link.abort()
        assert (await ask(running.members[0], running.members[1], rpc())).status == 200


async def test_a_worker_that_closes_lets_requests_in_flight_end(folder: Path) -> None:
    app = Holding()
    async with workers(folder, CountingApp(), app) as running:
        async with asking(running) as client, anyio.create_task_group() as tasks:
            home = running.members[1].home
            tasks.start_soon(running.members[1].guarded.close)
            await anyio.sleep(0.05)
            assert (await ask(running.members[0], home, rpc())).status == 404
            app.go.set()
        assert (client.outcome.body, client.outcome.complete) == (b"done", True)


async def test_a_worker_that_drains_takes_nothing_new_and_ends_what_it_has(folder: Path) -> None:
    app = Holding()
    async with workers(folder, CountingApp(), app) as running:
        async with asking(running) as client:
            running.members[1].worker.drain()
            assert (await ask(running.members[0], running.members[1], rpc())).status == 404
            app.go.set()
        assert client.outcome.body == b"done"
        running.members[1].worker.drain()


async def test_a_worker_says_that_it_lives_until_it_ends(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "BEAT_SECONDS", 0.01)
    async with workers(folder, CountingApp()) as running:
        home = running.members[0].home
        key, store = heartbeat(Home.parse(home).name), running.store
        assert await store.run([Get(key)]) == [home.encode()]
        store.batches.clear()
        await until(lambda: len(store.batches) > 2)
        assert store.batches[0] == [Put(key, home.encode(), worker.HEARTBEAT_TTL)]
        store.fault = StoreUnavailable("down")
        store.batches.clear()
        await until(lambda: len(store.batches) > 2)
        store.fault = RuntimeError("a defect")
        store.batches.clear()
        await until(lambda: len(store.batches) > 2)
        store.fault = None
        await running.members[0].guarded.close()
        assert await store.run([Get(key)]) == [None]


async def test_a_worker_that_ends_while_the_store_is_down_says_so_and_ends(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with workers(folder, CountingApp()) as running:
        running.store.fault = StoreUnavailable("down")
        await running.members[0].guarded.close()
    assert "heartbeat stays" in caplog.text


async def test_a_worker_does_not_start_without_the_store(folder: Path) -> None:
    store = CountingStore(fault=StoreUnavailable("down"))
    one = Worker(listen=f"unix:{folder}", ring=KeyRing.generate(), store=store)
    guard(CountingApp(), Facts(), Affinity(one))
    with pytest.raises(StoreUnavailable):
        await one.start()
    assert left_in(folder) == []
    store.fault = None
    await one.start()
    await one.start()
    await one.close()
    await one.close()


async def test_each_start_has_a_name_of_its_own(folder: Path) -> None:
    async with workers(folder, CountingApp()) as running:
        first = running.members[0].home
        await running.members[0].guarded.close()
        await running.members[0].guarded.start()
        assert Home.parse(running.members[0].home).name != Home.parse(first).name


async def test_a_worker_that_does_not_run_has_no_home(folder: Path) -> None:
    one = Worker(listen=f"unix:{folder}", ring=KeyRing.generate(), store=CountingStore())
    with pytest.raises(Unavailable):
        one.home()
    with pytest.raises(Unavailable):
        _ = one.peers
    one.drain()
    await one.settle()
    with pytest.raises(ConfigurationError, match="affinity layer"):
        await one.start()


def test_a_worker_belongs_to_one_stack(folder: Path) -> None:
    one = Worker(listen=f"unix:{folder}", ring=KeyRing.generate(), store=CountingStore())
    layer: Check = Affinity(one)
    guard(CountingApp(), Facts(), layer)
    with pytest.raises(ConfigurationError, match="another stack"):
        guard(CountingApp(), Facts(), layer)


@pytest.mark.parametrize("settings", [{"within": timedelta(0)}, {"grace": timedelta(seconds=-1)}])
def test_durations_that_make_no_sense_are_refused(folder: Path, settings: dict[str, timedelta]) -> None:
    [name] = settings
    with pytest.raises(ConfigurationError, match=f"^{name}"):
        Worker(listen=f"unix:{folder}", ring=KeyRing.generate(), store=CountingStore(), **settings)  # type: ignore[arg-type]


async def test_a_request_is_not_carried_when_what_it_asks_is_too_large(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mcp_guard.affinity.forward.MAX_CONTENT_BYTES", 1000)
    async with workers(folder, CountingApp(), CountingApp()) as running:
        outcome = await ask(running.members[0], running.members[1], rpc(), headers=[(b"x-large", b"x" * 1000)])
    assert outcome.status == 413


async def test_a_client_whose_request_cannot_be_read_on_is_not_answered_by_half(folder: Path) -> None:
    class Failing(Client):
        async def receive(self) -> Any:
            if self.received == len(self.chunks):
                await asyncio.sleep(0)
                raise RuntimeError("the server failed")
            return await super().receive()

    app = Holding()
    async with workers(folder, CountingApp(), app) as running:
        outcome = await ask(running.members[0], running.members[1], client=Failing())
        app.go.set()
    assert outcome.status == 503


async def test_a_worker_that_ends_breaks_off_what_it_carries_to_others(folder: Path) -> None:
    app = Holding()
    async with workers(folder, CountingApp(), app) as running:
        async with asking(running) as client:
            await running.members[0].guarded.close()
        app.go.set()
    assert client.outcome.status == 503


async def test_an_app_is_told_to_shut_down_when_the_requests_of_others_have_ended(folder: Path) -> None:
    held, order = Holding(), []

    async def living(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await held(scope, receive, send)
            order.append("answered")
            return
        for said in ("startup", "shutdown"):
            order.append((await receive())["type"])
            await send({"type": f"lifespan.{said}.complete"})

    async with workers(folder, CountingApp(), living) as running:
        at, holder = running.members
        await holder.guarded.close()
        lifespan, client = Lifespan(), Client()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lifespan.run, holder.guarded)
            await lifespan.up.wait()
            tasks.start_soon(lambda: ask(at, holder.home, client=client))
            await held.asked.wait()
            lifespan.ending.set()
            await anyio.sleep(0.05)
            held.go.set()
    assert order == ["lifespan.startup", "answered", "lifespan.shutdown"]
    assert client.outcome.body == b"done"
