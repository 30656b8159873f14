"""A real Valkey is stopped and started again under a limiter: it grows stricter, answers soon, and comes back."""

import time
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import Any

import anyio
import pytest

from mcp_guard.layers.rate_limit import Limit, Local, RateLimit
from mcp_guard.stack import guard
from mcp_guard.stores.memory import MemoryStore
from mcp_guard.stores.valkey import ValkeyStore
from tests.guard.asgi import CountingApp, Outcome, drive, http_scope
from tests.guard.stubs import Facts, rpc
from tests.support.valkey_server import ValkeyServer, valkey_server

HOUR = timedelta(hours=1)
QUARTER, WHOLE = b'"principal";q=25;w=3600', b'"principal";q=100;w=3600'


@pytest.fixture(scope="module")
def server() -> Iterator[ValkeyServer]:
    with valkey_server() as running:
        yield running


@pytest.fixture
async def store(server: ValkeyServer) -> AsyncIterator[ValkeyStore]:
    if server.process is None:
        server.start()
    server.command("FLUSHALL")
    store = ValkeyStore(server.url, timedelta(milliseconds=500))
    await store.start()
    yield store
    await store.close()


class Place:
    """A guarded app on a store that comes and goes."""

    def __init__(self, store: ValkeyStore) -> None:
        self.app = CountingApp()
        local = Local(share=4, store=MemoryStore())
        limits = RateLimit(store=store, principal=Limit(100, HOUR), local=local)
        self.guarded = guard(self.app, Facts(), limits)
        self.slowest_seconds = 0.0

    async def ask(self) -> Outcome:
        began = time.monotonic()
        outcome = await drive(self.guarded, http_scope(headers=[(b"x-as", b"alice")]), rpc("tools/list"))
        self.slowest_seconds = max(self.slowest_seconds, time.monotonic() - began)
        return outcome

    async def statuses(self, count: int) -> dict[Any, int]:
        """How often each status is answered."""
        seen = [(await self.ask()).status for _ in range(count)]
        return {status: seen.count(status) for status in set(seen)}

    async def until(self, policy: bytes) -> None:
        """Ask until the answer states `policy`."""
        with anyio.fail_after(10):
            while True:
                if (await self.ask()).value(b"ratelimit-policy") == policy:
                    return
                await anyio.sleep(0.02)


async def test_an_outage_makes_the_limit_a_quarter_and_ends_with_it(server: ValkeyServer, store: ValkeyStore) -> None:
    place = Place(store)
    assert await place.statuses(10) == {200: 10}

    server.stop()
    assert await place.statuses(60) == {200: 25, 429: 35}
    refused = await place.ask()
    assert refused.value(b"ratelimit-policy") == QUARTER
    assert int(refused.value(b"retry-after") or b"") > 60
    assert place.slowest_seconds < 2

    server.start()
    await place.until(WHOLE)
    assert (await place.ask()).status == 200
    place.app.calls = 0
    await place.statuses(120)
    assert place.app.calls <= 100, "a server that forgot counts anew, up to the limit"

    server.stop()
    assert await place.statuses(20) == {429: 20}, "the second outage brings no second burst"


async def test_a_server_that_hangs_is_an_outage_too(server: ValkeyServer, store: ValkeyStore) -> None:
    place = Place(store)
    assert await place.statuses(5) == {200: 5}
    server.freeze()
    try:
        assert await place.statuses(40) == {200: 25, 429: 15}
        assert place.slowest_seconds < 3
    finally:
        server.thaw()
    await place.until(WHOLE)


async def test_of_many_at_once_in_an_outage_no_more_than_the_quarter_passes(
    server: ValkeyServer, store: ValkeyStore
) -> None:
    place = Place(store)
    await place.ask()
    server.kill()
    async with anyio.create_task_group() as group:
        for _ in range(100):
            group.start_soon(place.ask)
    assert place.app.calls == 1 + 25
