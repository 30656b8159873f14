"""Operations at random have the same answers on the Valkey store, single and cluster, as on the store in memory."""

import asyncio
import itertools
from collections.abc import Sequence
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_guard.clock import SystemClock
from mcp_guard.stores.base import (
    Announce,
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
from mcp_guard.stores.valkey import ValkeyStore
from tests.guard.stores.valkey_stores import PATIENT
from tests.support.valkey_server import shared_cluster, shared_server

KEYS = st.sampled_from(["a", "b", "c:{d}"])
VALUES = st.sampled_from([b"", b"1", b"12", b" \n", bytes(range(256))])
MEMBERS = st.sampled_from(["m", "n", "o"])
TTLS = st.sampled_from([timedelta(hours=1), timedelta(seconds=100.0005)])
PERIODS = {"a": (1, timedelta(hours=1)), "b": (3, timedelta(hours=2)), "c:{d}": (7, timedelta(hours=7))}
"""Nothing refills while a test runs."""


def bucket(key: str, cost: int) -> Bucket:
    burst, period = PERIODS[key]
    return Bucket(key, burst, period, min(cost, burst))


SPENDS = st.lists(st.tuples(KEYS, st.integers(1, 3)), max_size=3, unique_by=lambda pair: pair[0]).map(
    lambda pairs: Spend(tuple([bucket(key, cost) for key, cost in pairs]))
)
OPERATIONS: st.SearchStrategy[Operation] = st.one_of(
    st.builds(Get, KEYS),
    st.builds(Put, KEYS, VALUES, TTLS),
    st.builds(Put, KEYS, VALUES, TTLS, only_if_absent=st.just(True)),
    st.builds(Put, KEYS, VALUES, TTLS, only_if_equal=VALUES),
    st.builds(Take, KEYS),
    st.builds(Delete, KEYS),
    st.builds(Renew, KEYS, VALUES, TTLS),
    SPENDS,
    st.builds(Enter, KEYS, MEMBERS, TTLS, st.integers(0, 3)),
    st.builds(Stay, KEYS, MEMBERS, TTLS),
    st.builds(Leave, KEYS, MEMBERS),
    st.builds(Members, KEYS),
    st.builds(Claim, KEYS, TTLS, st.sampled_from([0.0, 4e9])),
    st.builds(Announce, KEYS, VALUES),
)
NUMBERS = itertools.count()


def comparable(result: Result) -> object:
    """A result without what depends on the instant or on an order that nothing promises."""
    if not isinstance(result, tuple):
        return result
    return sorted(
        [
            (one.allowed, one.remaining, round(one.reset_seconds / 60)) if isinstance(one, Level) else one
            for one in result
        ]
    )


async def answers(store: MemoryStore | ValkeyStore, batches: Sequence[Sequence[Operation]]) -> list[list[object]]:
    await store.start()
    results = [[comparable(result) for result in await store.run(batch)] for batch in batches]
    await store.close()
    return results


@settings(max_examples=50)
@given(st.lists(st.lists(OPERATIONS, max_size=8), max_size=8))
def test_batches_at_random_have_the_answers_of_the_store_in_memory(batches: list[list[Operation]]) -> None:
    store = ValkeyStore(shared_server().url, PATIENT, prefix=f"x{next(NUMBERS)}:")
    expected = asyncio.run(answers(MemoryStore(clock=SystemClock()), batches))
    assert asyncio.run(answers(store, batches)) == expected


@pytest.mark.slow
@settings(max_examples=20)
@given(st.lists(OPERATIONS, max_size=30))
def test_operations_at_random_on_a_cluster_have_the_answers_of_the_store_in_memory(
    operations: list[Operation],
) -> None:
    batches = [[operation] for operation in operations]
    store = ValkeyStore(f"cluster://127.0.0.1:{shared_cluster()[0].port}", PATIENT, prefix=f"x{next(NUMBERS)}:")
    expected = asyncio.run(answers(MemoryStore(clock=SystemClock()), batches))
    assert asyncio.run(answers(store, batches)) == expected
