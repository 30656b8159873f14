"""PostgreSQL is killed while a cleanup removes rows; requests are refused, and the next cleanup goes on."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta

import anyio
import psycopg
import pytest

from mcp_guard.failures import StoreUnavailable
from mcp_guard.stores.base import Get, Put
from mcp_guard.stores.postgres import PostgresStore
from tests.guard.faults.rows import found
from tests.guard.stores.postgres_database import apply_schema
from tests.support.postgres_server import PostgresServer

ROWS = 50_000
LIVE = 1_000
WITHIN_SECONDS = 60


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    server = PostgresServer()
    server.start()
    yield server
    server.remove()


@asynccontextmanager
async def swept_often(url: str) -> AsyncIterator[PostgresStore]:
    store = PostgresStore(url, deadline=timedelta(seconds=2), cleanup_every=timedelta(milliseconds=200))
    await store.start()
    try:
        yield store
    finally:
        await store.close()


def fill(url: str) -> None:
    """Many rows that have expired, and some that have not."""
    with psycopg.connect(url, autocommit=True) as connection:
        for mark, age, count in (("-", "-1 hour", ROWS), ("+", "1 hour", LIVE)):
            connection.execute(
                "INSERT INTO mcp_values (key, value, expires_at) "
                "SELECT 'k' || n || %s, 'v'::bytea, now() + %s::interval FROM generate_series(1, %s) AS n",
                [mark, age, count],
            )


def left(url: str) -> tuple[int, int]:
    """How many rows there are that have expired, and that have not."""
    with psycopg.connect(url) as connection:
        row = connection.execute(
            "SELECT count(*) FILTER (WHERE expires_at <= now()), count(*) FILTER (WHERE expires_at > now()) "
            "FROM mcp_values WHERE key LIKE 'k%'"
        ).fetchone()
    assert row is not None
    return int(row[0]), int(row[1])


async def test_a_cleanup_that_is_killed_is_taken_up_by_the_next(
    server: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    url = server.url()
    apply_schema(url)
    fill(url)
    refused = answered = 0
    async with swept_often(url) as store:
        cleanup = store.cleanup
        assert cleanup is not None
        with anyio.fail_after(WITHIN_SECONDS):
            while (remaining := (await asyncio.to_thread(left, url))[0]) == ROWS:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0)
            await asyncio.to_thread(server.kill)
            while not (cleanup.statistics.failures and refused):
                try:
                    await store.run([Get("k")])
                except StoreUnavailable:
                    refused += 1
                await asyncio.sleep(0.05)
            await asyncio.to_thread(server.start)
            while (await asyncio.to_thread(left, url))[0]:
                with contextlib.suppress(StoreUnavailable):
                    answered += await store.run([Put("own", b"v", timedelta(seconds=60))]) == [True]
                await asyncio.sleep(0.05)
        statistics = cleanup.statistics
    expired, live = await asyncio.to_thread(left, url)
    assert remaining > 0, "it was killed in the middle"
    assert refused > 0
    assert answered > 0
    assert (expired, live) == (0, LIVE)
    assert statistics.failures >= 1
    assert statistics.runs >= 1
    assert "a cleanup failed; the next one follows" in caplog.text
    found(
        "cleanup",
        rows_left_when_killed=remaining,
        failed_runs=statistics.failures,
        expired_rows_left=expired,
        others_lost=LIVE - live,
        requests_refused_meanwhile=refused,
    )
