"""What is good for one use is used once, however many try at once at however many workers.

A hundred rounds of each kind run with every test run, ten thousand with `make races`.
"""

import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from mcp_guard.facts import RpcMessage
from mcp_guard.keyring import KeyRing, new_key
from mcp_guard.oauth import grants
from mcp_guard.oauth.records import BrowserSession, Transaction
from mcp_guard.protocol import pkce
from mcp_guard.protocol.sealed_state import binding, seal
from mcp_guard.stores.valkey import ValkeyStore
from tests.guard.oauth.flow import REDIRECT, RESOURCE, VERIFIER, Client, World
from tests.guard.soak.races import retry, server_on
from tests.guard.stubs import ALICE, MCP, parse
from tests.support.valkey_server import valkey_server

WORKERS = 2
TRIES = 50
KINDS = ["code", "refresh", "state", "proof", "session"]
ROUNDS = [pytest.param(100, id="some"), pytest.param(10_000, id="all", marks=pytest.mark.load)]
ROOT = Path(__file__).parents[3]


class Worker:
    """A process that races."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def line(self) -> str:
        assert self.process.stdout is not None
        line = await self.process.stdout.readline()
        assert line, "a worker died"
        return line.decode().strip()

    async def race(self, kind: str, item: Any, tries: int) -> int:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"kind": kind, "item": item, "tries": tries}).encode() + b"\n")
        return int(await self.line())


@contextlib.asynccontextmanager
async def workers(settings: dict[str, str]) -> AsyncIterator[list[Worker]]:
    """Processes that race, until the block ends."""
    line = [sys.executable, "-m", "tests.guard.soak.races", json.dumps(settings)]
    pipe = asyncio.subprocess.PIPE
    racing = [
        Worker(await asyncio.create_subprocess_exec(*line, stdin=pipe, stdout=pipe, cwd=ROOT)) for _ in range(WORKERS)
    ]
    try:
        for worker in racing:
            assert await worker.line() == "ready"
        yield racing
    finally:
        for worker in racing:
            if worker.process.returncode is None:
                worker.process.kill()
            await worker.process.communicate()


class Mint:
    """Makes what is good for one use."""

    def __init__(self, world: World, ring: KeyRing, client: Client) -> None:
        self.world, self.ring, self.client = world, ring, client
        self.made = 0
        self.make: dict[str, Callable[[], Awaitable[Any]]] = {
            "code": self.code,
            "refresh": self.refresh,
            "state": self.state,
            "proof": self.proof,
            "session": self.session,
        }

    async def code(self) -> str:
        transaction = Transaction(
            browser="",
            client_id=self.client.client_id,
            redirect_uri=REDIRECT,
            state=None,
            scopes=("mcp:read",),
            resource=RESOURCE,
            challenge=pkce.challenge_of(VERIFIER),
            query="",
            expires_at=time.time() + 600,
        )
        session = BrowserSession("u-alice", "Alice", None, None, time.time())
        return await grants.issue_code(self.world.server._deployment, transaction, session)

    async def refresh(self) -> str:
        answer = await self.world.redeem(self.client, await self.code())
        return str(answer.json()["refresh_token"])

    async def state(self) -> str:
        message: RpcMessage = parse(retry("")).messages[0]
        now = time.time()
        return seal(self.ring, "the app's", binding(ALICE, MCP, message), issued=now, expires=now + 600)

    async def proof(self) -> list[Any]:
        self.made += 1
        return [f"proof-{self.made}", time.time()]

    async def session(self) -> str:
        self.made += 1
        return f"session-{self.made}"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with valkey_server() as server:
        yield server.url


@pytest.mark.slow
@pytest.mark.parametrize("rounds", ROUNDS)
@pytest.mark.parametrize("kind", KINDS)
async def test_of_fifty_that_try_at_once_at_two_workers_one_succeeds(kind: str, rounds: int, url: str) -> None:
    store, ring = ValkeyStore(url, deadline=timedelta(seconds=10)), new_key().reveal()
    world = World(given_store=store)
    world.server = server_on(store)
    client = await world.register()
    mint = Mint(world, KeyRing.parse(ring), client)
    successes: list[int] = []
    async with workers({"store": url, "ring": ring, "client": client.client_id}) as racing:
        for _ in range(rounds):
            item = await mint.make[kind]()
            share = TRIES // WORKERS
            successes.append(sum(await asyncio.gather(*[worker.race(kind, item, share) for worker in racing])))
    await store.close()
    report(kind, rounds, successes)
    assert successes == [1] * rounds


def report(kind: str, rounds: int, successes: list[int]) -> None:
    """Print what came of it, and add it to the file that MCP_SOAK_REPORT names."""
    line = json.dumps(
        {
            "raced": kind,
            "rounds": rounds,
            "tries in each": TRIES,
            "workers": WORKERS,
            "double successes": sum(count > 1 for count in successes),
            "no success": sum(count == 0 for count in successes),
        }
    )
    print(line)
    place = os.environ.get("MCP_SOAK_REPORT")
    if place:
        with Path(place).open("a") as lines:
            lines.write(line + "\n")
