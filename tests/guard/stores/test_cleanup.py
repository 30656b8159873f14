"""The cleanup: when it runs, what it says of itself, and what it removes from PostgreSQL."""

import asyncio
import json
import logging
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import timedelta
from typing import Any

import pytest
from psycopg import AsyncConnection

from mcp_guard.clock import ManualClock, SystemClock
from mcp_guard.failures import ConfigurationError, StoreUnavailable
from mcp_guard.stores import postgres_admin as admin
from mcp_guard.stores.base import Bucket, Claim, Enter, Operation, Put, Spend
from mcp_guard.stores.cleanup import CHUNK, Cleanup, Statistics
from tests.guard.stores.postgres_database import migrated, started, until, value_of

MINUTE = timedelta(minutes=1)
SHORT = timedelta(milliseconds=5)


class Swept:
    """A store that answers each sweep with the next of `answers`, and then with nothing removed."""

    def __init__(self, clock: ManualClock, *answers: Mapping[str, int] | Exception | None) -> None:
        self.clock = clock
        self.answers = list(answers)
        self.limits: list[int] = []

    async def sweep(self, limit: int) -> Mapping[str, int] | None:
        self.limits.append(limit)
        self.clock.advance(2)
        answer = self.answers.pop(0) if self.answers else {}
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def url() -> Iterator[str]:
    """An empty store of one's own."""
    with migrated() as url:
        yield url


@pytest.fixture
async def other(url: str) -> AsyncIterator[AsyncConnection[Any]]:
    """Another connection to it."""
    async with await AsyncConnection.connect(url, autocommit=True) as connection:
        yield connection


# Settings


@pytest.mark.parametrize("every", [timedelta(0), timedelta(seconds=-1)])
def test_a_pause_that_is_none_is_refused(clock: ManualClock, every: timedelta) -> None:
    with pytest.raises(ConfigurationError, match="every must be longer than 0 s"):
        Cleanup(Swept(clock), every)


@pytest.mark.parametrize("jitter", [-0.01, 1.01, float("nan")])
def test_a_jitter_that_is_no_share_is_refused(clock: ManualClock, jitter: float) -> None:
    with pytest.raises(ConfigurationError, match="jitter must be from 0 to 1"):
        Cleanup(Swept(clock), jitter=jitter)


@pytest.mark.parametrize(("jitter", "least", "most"), [(0.0, 300, 300), (0.1, 270, 330), (1.0, 0, 600)])
def test_pauses_are_spread_over_the_jitter_and_never_beyond(
    clock: ManualClock, jitter: float, least: float, most: float
) -> None:
    cleanup = Cleanup(Swept(clock), timedelta(minutes=5), jitter)
    pauses = [cleanup.pause_seconds() for _ in range(500)]
    assert least <= min(pauses) <= max(pauses) <= most
    assert max(pauses) - min(pauses) >= (most - least) * 0.8


# Runs


async def test_runs_follow_each_other_until_it_is_closed(clock: ManualClock) -> None:
    store = Swept(clock)
    cleanup = Cleanup(store, SHORT, clock=clock)
    await cleanup.start()
    await cleanup.start()

    async def ran() -> bool:
        return cleanup.statistics.runs >= 3

    await until(ran)
    await cleanup.close()
    await cleanup.close()
    count = len(store.limits)
    await asyncio.sleep(0.05)
    assert len(store.limits) == count
    assert set(store.limits) == {CHUNK}


async def test_a_run_that_fails_does_not_stop_the_next(clock: ManualClock, caplog: pytest.LogCaptureFixture) -> None:
    store = Swept(clock, StoreUnavailable("away"), RuntimeError("a defect"), {"mcp_values": 4})
    cleanup = Cleanup(store, SHORT, clock=clock)
    await cleanup.start()

    async def ran() -> bool:
        return cleanup.statistics.runs >= 1

    await until(ran)
    await cleanup.close()
    assert cleanup.statistics.failures == 2
    assert cleanup.statistics.removed == {"mcp_values": 4}
    assert caplog.text.count("a cleanup failed; the next one follows") == 2


async def test_the_statistics_add_up_and_each_run_is_one_line(
    clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    cleanup = Cleanup(Swept(clock, {"a": 1, "b": 2}, None, {"a": 3}), clock=clock)
    assert cleanup.statistics == Statistics()
    with caplog.at_level(logging.INFO, "mcp_guard"):
        await cleanup.run_once()
        await cleanup.run_once()
        last = clock.wall()
        await cleanup.run_once()
    assert cleanup.statistics == Statistics(2, 0, 1, {"a": 4, "b": 2}, 2.0, last)
    assert [record.getMessage() for record in caplog.records] == [
        "cleanup: removed 3 in 2.000 s (a 1, b 2)",
        "cleanup: another worker is sweeping",
        "cleanup: removed 3 in 2.000 s (a 3)",
    ]


EXPORTS = """
import asyncio, json
from opentelemetry import metrics

class Counter(metrics.NoOpCounter):
    def add(self, amount, attributes=None, context=None):
        said.append([self.name, amount, attributes])

class Meter(metrics.NoOpMeter):
    def create_counter(self, name, unit="", description=""):
        counter = Counter(name, unit=unit, description=description)
        counter.name = name
        return counter

class Provider(metrics.NoOpMeterProvider):
    def get_meter(self, name, version=None, schema_url=None, attributes=None):
        return Meter(name)

said = []
metrics.set_meter_provider(Provider())
from mcp_guard.stores.cleanup import Cleanup

class Store:
    answers = [{"a": 2, "b": 0}, None, {"a": 1, "b": 5}]
    async def sweep(self, limit):
        return self.answers.pop(0)

cleanup = Cleanup(Store())
for _ in range(4):
    asyncio.run(cleanup.run_once())
print(json.dumps(said))
"""

WITHOUT = """
import asyncio, sys
sys.modules["opentelemetry"] = None
from mcp_guard.stores.cleanup import Cleanup

class Store:
    async def sweep(self, limit):
        return {"a": 1}

cleanup = Cleanup(Store())
asyncio.run(cleanup.run_once())
print(cleanup.statistics.runs)
"""


def printed(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=60)
    return done.stdout


def test_what_is_done_is_counted_for_opentelemetry() -> None:
    assert json.loads(printed(EXPORTS)) == [
        ["mcp_guard.cleanup.runs", 1, {"outcome": "swept"}],
        ["mcp_guard.cleanup.removed", 2, {"kind": "a"}],
        ["mcp_guard.cleanup.removed", 0, {"kind": "b"}],
        ["mcp_guard.cleanup.runs", 1, {"outcome": "skipped"}],
        ["mcp_guard.cleanup.runs", 1, {"outcome": "swept"}],
        ["mcp_guard.cleanup.removed", 1, {"kind": "a"}],
        ["mcp_guard.cleanup.removed", 5, {"kind": "b"}],
        ["mcp_guard.cleanup.runs", 1, {"outcome": "failed"}],
    ]


def test_it_cleans_without_opentelemetry() -> None:
    assert printed(WITHOUT) == "1\n"


# In PostgreSQL


def everything(name: str, ttl: timedelta) -> list[Operation]:
    """One row in each table."""
    return [
        Put(f"mcp:session:{name}", b"{}", ttl),
        Put(f"v{name}", b"v", ttl),
        Spend((Bucket(f"b{name}", 1, ttl),)),
        Enter(f"s{name}", "m", ttl, 1),
        Claim(f"c{name}", ttl, SystemClock().wall() + 60),
    ]


async def test_a_cleanup_removes_exactly_what_has_expired(url: str, other: AsyncConnection[Any]) -> None:
    async with started(url) as store:
        for n in range(30):
            await store.run(everything(f"old{n}", timedelta(milliseconds=1)))
            await store.run(everything(f"new{n}", MINUTE))
        await asyncio.sleep(0.01)
        assert await store.sweep(7) == dict.fromkeys(admin.TABLES, 30)
        assert await store.sweep(7) == dict.fromkeys(admin.TABLES, 0)
    for table in admin.TABLES:
        key = "session_id" if table == "mcp_sessions" else "key"
        counts = f"SELECT array[count(*), count(*) FILTER (WHERE {key} LIKE '%new%')] FROM {table}"  # noqa: S608
        assert await value_of(other, counts) == [30, 30]


async def test_a_cleanup_removes_a_bounded_number_of_rows_at_a_time(url: str, other: AsyncConnection[Any]) -> None:
    async with started(url) as store:
        await store.run([Put(f"v{n}", b"v", timedelta(milliseconds=1)) for n in range(20)])
        await asyncio.sleep(0.01)
        await other.execute(
            "CREATE TABLE chunks (size bigint); CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN INSERT INTO chunks SELECT count(*) FROM gone; RETURN NULL; END $$; "
            "CREATE TRIGGER note AFTER DELETE ON mcp_values REFERENCING OLD TABLE AS gone "
            "FOR EACH STATEMENT EXECUTE FUNCTION note()"
        )
        await store.sweep(8)
    assert await value_of(other, "SELECT array_agg(size) FROM chunks") == [8, 8, 4]
    assert await value_of(other, "SELECT count(DISTINCT xmin::text) FROM chunks") == 3, "each in its own transaction"


async def test_a_cleanup_passes_over_rows_that_somebody_works_on(url: str, other: AsyncConnection[Any]) -> None:
    async with started(url) as store:
        await store.run([Put(f"v{n}", b"v", timedelta(milliseconds=1)) for n in range(3)])
        await asyncio.sleep(0.01)
        async with await AsyncConnection.connect(url) as holder:
            await holder.execute("UPDATE mcp_values SET expires_at = now() + interval '1 hour' WHERE key = 'v1'")
            async with asyncio.timeout(5):
                assert (await store.sweep(CHUNK) or {})["mcp_values"] == 2
            await holder.commit()
        assert (await store.sweep(CHUNK) or {})["mcp_values"] == 0
    assert await value_of(other, "SELECT string_agg(key, ',') FROM mcp_values") == "v1"


async def test_of_two_workers_one_sweeps_at_a_time(url: str, other: AsyncConnection[Any]) -> None:
    async with started(url) as left, started(url) as right:
        await left.run([Put("v", b"v", timedelta(milliseconds=1))])
        async with await AsyncConnection.connect(url) as holder:
            # The sweep of the left worker is held up by whoever reads the table exclusively.
            await holder.execute("LOCK TABLE mcp_values IN ACCESS EXCLUSIVE MODE")
            first = asyncio.create_task(left.sweep(CHUNK))
            held = (
                "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database"
            )
            await until(lambda: value_of(other, f"{held} WHERE datname = current_database())"))
            async with asyncio.timeout(5):
                assert await right.sweep(CHUNK) is None
            await holder.commit()
        assert (await first or {})["mcp_values"] == 1
        assert await right.sweep(CHUNK) is not None, "the lock was let go"
    assert await value_of(other, "SELECT count(*) FROM mcp_cleanup_runs") == 2


async def test_only_the_last_runs_are_kept(url: str, other: AsyncConnection[Any]) -> None:
    await other.execute(
        "INSERT INTO mcp_cleanup_runs (began_at, ended_at, removed) "
        "SELECT now(), now(), '{}' FROM generate_series(1, 200)"
    )
    async with started(url) as store:
        await store.sweep(CHUNK)
    assert await value_of(other, "SELECT count(*) FROM mcp_cleanup_runs") == admin.RUNS_KEPT


async def test_a_started_store_is_swept_now_and_then(url: str, other: AsyncConnection[Any]) -> None:
    async with started(url, cleanup_every=timedelta(milliseconds=20)) as store:
        await store.run(everything("old", timedelta(milliseconds=1)))
        cleanup = store.cleanup
        assert cleanup is not None

        async def clean() -> bool:
            return cleanup.statistics.removed == dict.fromkeys(admin.TABLES, 1)

        await until(clean)
    assert await value_of(other, "SELECT count(*) FROM mcp_values") == 0


async def test_a_store_without_a_cleanup_has_none(url: str) -> None:
    async with started(url) as store:
        assert store.cleanup is None
