"""What an app keeps in the state of its lifespan is there for carried requests too, a copy for each."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from mcp_guard.affinity import Worker
from mcp_guard.affinity.handshake import Left, ask
from mcp_guard.affinity.link import Link
from mcp_guard.affinity.owner import Owner
from mcp_guard.auditlog import AuditLog, NullSink
from mcp_guard.keyring import KeyRing
from mcp_guard.layers.affinity import Affinity
from mcp_guard.layers.audit import Audit
from mcp_guard.layers.bridge import Bridge
from mcp_guard.stack import Guard, guard
from mcp_guard.stores.memory import MemoryStore
from tests.guard.affinity.workers import Held
from tests.guard.asgi import CountingApp, Lifespan
from tests.guard.stubs import Facts


def application(name: str) -> Starlette:
    """Says what it kept in the state of its lifespan, and how often it was seen in this request's copy."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[dict[str, Any]]:
        yield {"kept": name, "seen": 0}

    async def say(request: Request) -> JSONResponse:
        request.state.seen += 1
        return JSONResponse({"kept": request.state.kept, "seen": request.state.seen, "user": request.user.identity})

    return Starlette(routes=[Route("/mcp", say, methods=["POST"])], lifespan=lifespan)


class Living(Lifespan):
    """The server's side of a lifespan with a state."""

    def __init__(self) -> None:
        super().__init__()
        self.state: dict[str, Any] = {}

    async def serve(self, app: Guard) -> None:
        await app({"type": "lifespan", "state": self.state}, self.receive, self.send)


async def test_a_carried_request_has_a_copy_of_the_state_of_the_lifespan_there(folder: Path) -> None:
    store, ring = MemoryStore(), KeyRing.generate()
    workers = [Worker(listen=f"unix:{folder}", ring=ring, store=store) for _ in range(2)]
    guards = [
        guard(application(f"worker {number}"), Audit(AuditLog(NullSink())), Facts(), Held(), Affinity(worker), Bridge())
        for number, worker in enumerate(workers)
    ]
    lives = [Living() for _ in guards]
    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:
            for life, one in zip(lives, guards, strict=True):
                group.start_soon(life.serve, one)
                await life.up.wait()
            transport = httpx.ASGITransport(app=guards[0], client=("192.0.2.7", 1))
            async with httpx.AsyncClient(transport=transport, base_url="http://mcp.example") as http:
                for _ in range(2):
                    answer = await http.post("/mcp", headers={"x-home": workers[1].home()})
                    assert answer.json()["kept"] == "worker 1"
                    assert answer.json()["seen"] == 1, "what a request does to its state stays with it"
            for life in lives:
                life.ending.set()
    assert [life.state["kept"] for life in lives] == ["worker 0", "worker 1"]


async def test_a_worker_that_drains_greets_nobody_whose_connection_was_under_way(app: CountingApp) -> None:
    ring, name = KeyRing.generate(), "0" * 32
    owner = Owner(name=name, ring=ring, inward=app)
    loop = asyncio.get_running_loop()
    async with await loop.create_server(owner.accept, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        _, before = await loop.create_connection(Link, "127.0.0.1", port)
        assert await ask(before, ring, "1" * 32) == name
        owner.drain()
        _, late = await loop.create_connection(Link, "127.0.0.1", port)
        with anyio.fail_after(5), pytest.raises(Left):
            await ask(late, ring, "1" * 32)
        assert await before.next() is None
        await owner.settle(5.0)
        assert not owner.serving
