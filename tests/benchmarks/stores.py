"""What one batch costs on each store: `python -m tests.benchmarks.stores`.

The batch is that of an authorized request: a look-up, two limits, the session renewed. It is run one after the other
and by 50 tasks at once, each on keys of its own, on real servers on loopback. PostgreSQL writes to the disk as in
production; Valkey persists nothing. Figures are medians of `ROUNDS` rounds, in which the stores take turns, in
microseconds for one batch.
"""

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from datetime import timedelta

import psycopg

from mcp_guard.secret import Secret
from mcp_guard.stores.base import Bucket, Get, Operation, Put, Renew, Spend, Store
from mcp_guard.stores.memory import MemoryStore
from mcp_guard.stores.postgres import PostgresStore
from mcp_guard.stores.postgres_admin import connected, migrate
from mcp_guard.stores.valkey import ValkeyStore
from tests.support.postgres_server import PostgresServer
from tests.support.valkey_server import shared_server

ROUNDS = 7
BATCHES = 600
TASKS = 50
HOUR = timedelta(hours=1)
PATIENT = timedelta(seconds=5)
OWNER = b'{"owner":["https://login.example.com/","someone","client",null],'


@asynccontextmanager
async def memory() -> AsyncIterator[Store]:
    yield MemoryStore()


@asynccontextmanager
async def valkey() -> AsyncIterator[Store]:
    yield ValkeyStore(Secret(shared_server().url), deadline=PATIENT)


@asynccontextmanager
async def postgres() -> AsyncIterator[Store]:
    server = PostgresServer(durable=True)
    try:
        server.start()
        async with connected(Secret(server.url())) as connection:
            await migrate(connection)
        yield PostgresStore(server.url(), deadline=PATIENT)
    finally:
        server.remove()


STORES: dict[str, Callable[[], AbstractAsyncContextManager[Store]]] = {
    "memory": memory,
    "valkey": valkey,
    "postgres": postgres,
}


def batch(number: int) -> list[Operation]:
    limits = tuple([Bucket(f"mcp:limit:{kind}:{number}", 1_000_000, HOUR) for kind in ("principal", "tool")])
    return [Get(f"mcp:grant-revoked:{number}"), Spend(limits), Renew(f"mcp:session:{number}", OWNER, HOUR)]


async def one_by_one(store: Store) -> float:
    """Microseconds for one batch."""
    operations = batch(0)
    began = time.perf_counter()
    for _ in range(BATCHES):
        await store.run(operations)
    return (time.perf_counter() - began) / BATCHES * 1e6


async def at_once(store: Store) -> float:
    """Microseconds for one batch, of `TASKS` tasks together."""

    async def work(number: int) -> None:
        operations = batch(number)
        for _ in range(BATCHES // TASKS):
            await store.run(operations)

    began = time.perf_counter()
    await asyncio.gather(*(work(number) for number in range(TASKS)))
    return (time.perf_counter() - began) / BATCHES * 1e6


async def measure() -> dict[str, tuple[float, float]]:
    """By store: the medians one after the other and at once."""
    figures: dict[str, list[tuple[float, float]]] = {name: [] for name in STORES}
    async with AsyncExitStack() as stack:
        stores = {name: await stack.enter_async_context(make()) for name, make in STORES.items()}
        for store in stores.values():
            await store.start()
            stack.push_async_callback(store.close)
            sessions = [Put(f"mcp:session:{number}", OWNER + b'"more":1}', HOUR) for number in range(TASKS)]
            await store.run(sessions)
            await at_once(store)
        for _ in range(ROUNDS):
            for name, store in stores.items():
                figures[name].append((await one_by_one(store), await at_once(store)))
    return {
        name: (statistics.median(one for one, _ in rounds), statistics.median(two for _, two in rounds))
        for name, rounds in figures.items()
    }


def main() -> None:
    figures = asyncio.run(measure())
    print(f"{'store':<10}{'one by one, µs':>16}{f'{TASKS} at once, µs':>18}{'× memory':>12}{'× valkey':>12}")
    for name, (alone, together) in figures.items():
        ratios = [
            f"{alone / figures[other][0]:.1f} {together / figures[other][1]:.1f}" for other in ("memory", "valkey")
        ]
        print(f"{name:<10}{alone:>16.1f}{together:>18.1f}{ratios[0]:>12}{ratios[1]:>12}")
    print(f"PostgreSQL client {psycopg.__version__}, libpq {psycopg.pq.version_pretty(psycopg.pq.version())}")


if __name__ == "__main__":
    main()
