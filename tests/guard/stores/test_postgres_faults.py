"""The PostgreSQL store while its server is killed, stopped, frozen, slow, full, and while callers go away."""

import asyncio
import logging
from collections.abc import Iterator
from datetime import timedelta

import psycopg
import pytest
from psycopg import AsyncConnection, sql

from mcp_guard.failures import StoreUnavailable
from mcp_guard.stores.base import Claim, Get, Operation, Put, Result
from mcp_guard.stores.postgres import PostgresStore
from tests.guard.stores.postgres_database import apply_schema, started, until, value_of
from tests.support.postgres_server import PostgresServer

MINUTE = timedelta(minutes=1)
DEADLINE = timedelta(milliseconds=250)
SLACK_SECONDS = 0.25
"""How much later than its deadline a failure may be noticed on a machine on which other tests run."""


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """A server that only these tests disturb."""
    server = PostgresServer()
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture
def url(server: PostgresServer) -> Iterator[str]:
    """An empty store on it; the server runs again when a test is over."""
    with server.database() as url:
        apply_schema(url)
        yield url
        if server.process is None:
            server.start()


async def failure(store: PostgresStore) -> tuple[float, StoreUnavailable]:
    """How long a batch took to fail, and with what."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(StoreUnavailable) as caught:
        await store.run([Put("k", b"v", MINUTE)])
    return loop.time() - began, caught.value


async def carried_out(store: PostgresStore, operation: Operation) -> tuple[float, Result]:
    """How long it takes until an operation is carried out, and with what result."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with asyncio.timeout(10):
        while True:
            try:
                (result,) = await store.run([operation])
            except StoreUnavailable:
                await asyncio.sleep(0.02)
            else:
                return loop.time() - began, result


async def recovered(store: PostgresStore) -> float:
    """How long it takes until a batch is carried out."""
    seconds, _ = await carried_out(store, Put("k", b"v", MINUTE))
    return seconds


@pytest.mark.parametrize("end", ["kill", "stop"])
async def test_a_dead_server_fails_batches_at_once_and_a_new_one_serves_them(
    server: PostgresServer, url: str, end: str
) -> None:
    async with started(url, deadline=DEADLINE) as store:
        await asyncio.gather(*(carried_out(store, Put(f"k{n}", b"v", MINUTE)) for n in range(20)))
        getattr(server, end)()
        one_by_one = [await failure(store) for _ in range(5)]
        assert max(seconds for seconds, _ in one_by_one) < DEADLINE.total_seconds() + SLACK_SECONDS
        assert one_by_one[-1][1].reason == "PostgreSQL refuses connections"
        together = await asyncio.gather(*(failure(store) for _ in range(100)))
        assert max(seconds for seconds, _ in together) < DEADLINE.total_seconds() + SLACK_SECONDS
        server.start()
        assert await recovered(store) < 1
        _, found = await carried_out(store, Get("k1"))
        assert found == b"v", "what was answered outlives a crash"


async def test_no_batch_fails_over_connections_that_a_restart_has_ended(server: PostgresServer, url: str) -> None:
    async with started(url, deadline=timedelta(seconds=5)) as store:
        await asyncio.gather(*(store.run([Get("k")]) for _ in range(50)))
        server.stop()
        server.start()
        results = await asyncio.gather(*(store.run([Put(f"k{n}", b"v", MINUTE)]) for n in range(20)))
    assert results == [[True]] * 20


async def test_batches_in_flight_at_a_crash_fail_or_are_done(server: PostgresServer, url: str) -> None:
    done: dict[int, Result] = {}

    async def put(store: PostgresStore, number: int) -> None:
        try:
            done[number] = (await store.run([Put(f"k{number}", b"v", MINUTE)]))[0]
        except StoreUnavailable:
            return

    async with started(url) as store:
        runs = [asyncio.create_task(put(store, number)) for number in range(400)]

        async def begun() -> bool:
            return len(done) >= 20

        await until(begun)
        server.kill()
        await asyncio.gather(*runs)
        assert len(done) < 400
        server.start()
        await recovered(store)
        held = [await store.run([Get(f"k{number}")]) for number in done]
    assert set(done.values()) == {True}
    assert held == [[b"v"]] * len(done)


async def test_a_frozen_server_costs_no_more_than_the_deadline(server: PostgresServer, url: str) -> None:
    async with started(url, pool_size=3, deadline=DEADLINE) as store:
        await recovered(store)
        before = asyncio.all_tasks()

        async def nothing_waits() -> bool:
            return asyncio.all_tasks() <= before

        with server.frozen():
            together = await asyncio.gather(*(failure(store) for _ in range(30)))
            assert max(seconds for seconds, _ in together) < DEADLINE.total_seconds() + SLACK_SECONDS
            assert {fault.reason for _, fault in together} == {"PostgreSQL did not answer within 250 ms"}
            await until(nothing_waits)
        assert await recovered(store) < 2


async def test_a_slow_statement_is_ended_by_the_server_too(url: str) -> None:
    """Who holds the lock of a key makes others wait no longer than their deadline, at both ends."""
    async with started(url, deadline=DEADLINE) as store, await AsyncConnection.connect(url) as holder:
        await holder.execute("SELECT mcp_lock(ARRAY['value k'])")
        seconds, _ = await failure(store)
        assert seconds < DEADLINE.total_seconds() + SLACK_SECONDS
        running = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%mcp_run%' AND wait_event = 'advisory'"

        async def ended() -> bool:
            return bool(await value_of(watcher, running) == 0)

        async with await AsyncConnection.connect(url, autocommit=True) as watcher:
            await until(ended)
        await holder.rollback()
        _, found = await carried_out(store, Get("k"))
        assert found is None, "a write that was given up happens later"


async def test_a_caller_that_goes_away_leaves_no_answer_to_the_next(url: str) -> None:
    async with started(url, pool_size=2, deadline=timedelta(seconds=5)) as store:
        await store.run([Put(f"k{n}", b"%d" % n, MINUTE) for n in range(50)])
        for round_number in range(40):
            tasks = [asyncio.create_task(store.run([Get(f"k{n}")])) for n in range(6)]
            for _ in range(round_number % 8):
                await asyncio.sleep(0)
            for task in tasks[::2]:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            for n in (1, 3, 5):
                assert results[n] == [b"%d" % n]


async def test_a_caller_that_goes_away_during_a_frozen_server_does_not_wait(server: PostgresServer, url: str) -> None:
    async with started(url, deadline=timedelta(seconds=30)) as store:
        await store.run([Get("k")])
        with server.frozen():
            task = asyncio.create_task(store.run([Get("k")]))
            await asyncio.sleep(0.05)
            task.cancel()
            async with asyncio.timeout(1):
                await asyncio.wait([task])
        assert task.cancelled()
        await recovered(store)


async def test_a_server_without_room_for_connections_is_unavailable(server: PostgresServer, url: str) -> None:
    name = sql.Identifier(str(psycopg.conninfo.conninfo_to_dict(url)["dbname"]))
    role = sql.Identifier("narrow")
    server.execute(sql.SQL("CREATE ROLE {} LOGIN SUPERUSER").format(role))
    async with await AsyncConnection.connect(url, autocommit=True) as other:
        # This one, the listener, one whose end the server has perhaps not seen yet, and at least one for batches.
        await other.execute(sql.SQL("ALTER DATABASE {} CONNECTION LIMIT 4").format(name))
        await other.execute(sql.SQL("ALTER ROLE {} NOSUPERUSER").format(role))
        await other.execute(sql.SQL("GRANT ALL ON ALL TABLES IN SCHEMA public TO {}").format(role))
        async with started(url.replace("//mcp@", "//narrow@"), deadline=timedelta(seconds=5)) as store:
            results = await asyncio.gather(*(store.run([Put(f"k{n}", b"v", MINUTE)]) for n in range(30)))
            assert results == [[True]] * 30, "the connections there are serve all who wait"


async def test_a_failure_is_named_by_its_class_and_by_no_value(url: str) -> None:
    async with started(url, deadline=DEADLINE) as store, await AsyncConnection.connect(url, autocommit=True) as other:
        await other.execute("ALTER TABLE mcp_values ADD CHECK (key <> 'hidden-key')")
        with pytest.raises(StoreUnavailable) as caught:
            await store.run([Put("hidden-key", b"hidden-value", MINUTE)])
        assert caught.value.reason == "PostgreSQL failed with SQLSTATE 23514 (constraint)"
        await other.execute("DROP TABLE mcp_claims")
        with pytest.raises(StoreUnavailable, match=r"SQLSTATE 42P01 \(missing object or privilege\)"):
            await store.run([Claim("k", MINUTE, 0.0)])


async def test_a_batch_that_fails_in_the_middle_has_done_nothing(url: str) -> None:
    async with started(url, deadline=DEADLINE) as store:
        with pytest.raises(StoreUnavailable, match="SQLSTATE 22008"):
            await store.run([Put("k", b"v", MINUTE), Put("l", b"v", timedelta.max)])
        assert await store.run([Get("k")]) == [None]


async def test_a_cleanup_of_a_dead_server_fails_and_the_next_one_works(
    server: PostgresServer, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with started(url, cleanup_every=timedelta(hours=1)) as store:
        cleanup = store.cleanup
        assert cleanup is not None
        server.kill()
        with caplog.at_level(logging.INFO, "mcp_guard"):
            await cleanup.run_once()
            server.start()
            await cleanup.run_once()
        assert (cleanup.statistics.failures, cleanup.statistics.runs) == (1, 1)
    assert "a cleanup failed; the next one follows" in caplog.text
