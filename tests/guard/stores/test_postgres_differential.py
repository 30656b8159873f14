"""The PostgreSQL store against the memory store: the same batches, the same answers.

Times to live are either over at once or long, so that the two clocks need not agree; bucket levels are compared as far
as the time between the two runs allows.
"""

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_guard.clock import SystemClock
from mcp_guard.stores.base import (
    Bucket,
    Claim,
    Delete,
    Enter,
    Get,
    Leave,
    Level,
    Members,
    Operation,
    Put,
    Renew,
    Result,
    Spend,
    Stay,
    Take,
)
from mcp_guard.stores.memory import MemoryStore
from mcp_guard.stores.postgres import PostgresStore
from mcp_guard.stores.postgres_admin import TABLES
from tests.guard.stores.postgres_database import PATIENT, migrated

KEYS = st.sampled_from(["a", "mcp:session:a"])
MEMBERS = st.sampled_from(["m", "n", "o"])
VALUES = st.sampled_from([b"", b"x", b"xy", b"y"])
TTLS = st.sampled_from([timedelta(0), timedelta(hours=1)])
HOUR = 3600.0
NOW = SystemClock().wall()

BUCKETS = st.lists(
    st.builds(
        Bucket,
        key=st.sampled_from("pqr"),
        burst=st.integers(1, 7),
        period=st.sampled_from([timedelta(hours=100), timedelta(hours=700)]),
        cost=st.integers(1, 8),
    ),
    max_size=3,
    unique_by=lambda bucket: bucket.key,
).map(tuple)

OPERATIONS: st.SearchStrategy[Operation] = st.one_of(
    st.builds(Get, KEYS),
    st.builds(Put, KEYS, VALUES, TTLS),
    st.builds(Put, KEYS, VALUES, TTLS, only_if_absent=st.just(True)),
    st.builds(Put, KEYS, VALUES, TTLS, only_if_equal=VALUES),
    st.builds(Take, KEYS),
    st.builds(Delete, KEYS),
    st.builds(Renew, KEYS, VALUES, TTLS),
    st.builds(Spend, BUCKETS),
    st.builds(Enter, KEYS, MEMBERS, TTLS, st.integers(0, 3)),
    st.builds(Stay, KEYS, MEMBERS, TTLS),
    st.builds(Leave, KEYS, MEMBERS),
    st.builds(Members, KEYS),
    st.builds(Claim, KEYS, TTLS, st.sampled_from([NOW - HOUR, NOW + HOUR])),
)
BATCHES = st.lists(st.lists(OPERATIONS, max_size=6), max_size=6)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A store that is emptied before each example."""
    with migrated() as url:
        yield url


async def answers(url: str, batches: list[list[Operation]]) -> tuple[list[list[Result]], list[list[Result]]]:
    store, yardstick = PostgresStore(url, deadline=PATIENT, cleanup_every=None), MemoryStore()
    await store.start()
    try:
        return [await store.run(batch) for batch in batches], [await yardstick.run(batch) for batch in batches]
    finally:
        await store.close()


def comparable(result: Result) -> Any:
    """A result without what depends on when it was asked for; an hour is a hundredth of the shortest refill."""
    if isinstance(result, tuple):
        if any(isinstance(one, Level) for one in result):
            return [
                (one.allowed, one.remaining, round(one.retry_after_seconds / HOUR), round(one.reset_seconds / HOUR))
                for one in result
                if isinstance(one, Level)
            ]
        return sorted(str(one) for one in result)
    return result


@given(batches=BATCHES)
@settings(max_examples=150)
def test_every_batch_is_answered_as_by_the_memory_store(url: str, batches: list[list[Operation]]) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(";".join(f"DELETE FROM {table}" for table in TABLES).encode())  # noqa: S608
    found, wanted = asyncio.run(answers(url, batches))
    assert [[comparable(one) for one in batch] for batch in found] == [
        [comparable(one) for one in batch] for batch in wanted
    ]
