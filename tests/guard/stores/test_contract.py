"""The contract of stores. One test over every implementation: an implementation is added to `STORES`."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

import anyio
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from mcp_guard.clock import ManualClock, SystemClock
from mcp_guard.failures import ConfigurationError, StoreUnavailable
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
    Store,
    Take,
    levels_of,
    members_of,
)
from mcp_guard.stores.memory import SWEEP_STEP_AT_BOUND, MemoryStore
from mcp_guard.stores.postgres import PostgresStore
from mcp_guard.stores.valkey import ValkeyStore
from tests.guard.stores.postgres_database import migrated
from tests.support.valkey_server import ValkeyServer, shared_cluster, shared_server

TTL = timedelta(seconds=10)
MINUTE = timedelta(minutes=1)


class Wait(Protocol):
    """Lets time pass by the store's clock."""

    async def __call__(self, seconds: float) -> None: ...


@dataclass
class Subject:
    """A store under test. `slack_seconds` is by how much `wait` and the store's clock may disagree.

    `now` is its idea of the seconds since 1970.
    """

    store: Store
    wait: Wait
    slack_seconds: float
    now: Callable[[], float]

    async def one(self, operation: Operation) -> Result:
        (result,) = await self.store.run([operation])
        return result

    async def spend(self, *buckets: Bucket) -> tuple[Level, ...]:
        return levels_of(await self.one(Spend(buckets)))


@asynccontextmanager
async def memory() -> AsyncIterator[Subject]:
    clock = ManualClock()

    async def wait(seconds: float) -> None:
        clock.advance(seconds)

    yield Subject(MemoryStore(clock=clock), wait, 0.0, clock.wall)


@asynccontextmanager
async def postgres() -> AsyncIterator[Subject]:
    with migrated() as url:
        # A deadline for a machine on which other tests run.
        store = PostgresStore(url, deadline=timedelta(seconds=5))

        async def wait(seconds: float) -> None:
            await anyio.sleep(seconds)

        yield Subject(store, wait, 0.3, SystemClock().wall)


def valkey(servers: Sequence[ValkeyServer], url: str) -> Subject:
    for server in servers:
        server.command("FLUSHALL")
    # A deadline for a machine on which other tests run.
    store = ValkeyStore(url, deadline=timedelta(seconds=5))

    async def wait(seconds: float) -> None:
        await anyio.sleep(seconds)

    return Subject(store, wait, 0.3, SystemClock().wall)


@asynccontextmanager
async def valkey_single() -> AsyncIterator[Subject]:
    yield valkey([shared_server()], shared_server().url)


@asynccontextmanager
async def valkey_cluster() -> AsyncIterator[Subject]:
    nodes = shared_cluster()
    yield valkey(nodes, f"cluster://127.0.0.1:{nodes[0].port}")


STORES: dict[str, Callable[[], AbstractAsyncContextManager[Subject]]] = {
    "memory": memory,
    "postgres": postgres,
    "valkey": valkey_single,
    "valkey-cluster": valkey_cluster,
}


@pytest.fixture(params=list(STORES))
async def subject(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    """A started, empty store of each kind."""
    async with STORES[request.param]() as subject:
        await subject.store.start()
        yield subject
        await subject.store.close()


# Values


async def test_an_absent_key_is_absent_to_every_operation(subject: Subject) -> None:
    operations: list[Operation] = [
        Get("k"),
        Take("k"),
        Delete("k"),
        Renew("k", b"v", TTL),
        Put("k", b"v", TTL, only_if_equal=b"v"),
    ]
    assert await subject.store.run(operations) == [None, None, False, None, False]
    assert await subject.one(Get("k")) is None


async def test_an_empty_batch_answers_nothing(subject: Subject) -> None:
    assert await subject.store.run([]) == []


@pytest.mark.parametrize("value", [b"", b"v", bytes(range(256)), b"x" * 65_536])
async def test_a_value_is_read_as_it_was_written(subject: Subject, value: bytes) -> None:
    assert await subject.store.run([Put("k", value, TTL), Get("k"), Get("other")]) == [True, value, None]


async def test_a_batch_is_carried_out_in_order(subject: Subject) -> None:
    operations: list[Operation] = [Put("k", b"1", TTL), Get("k"), Put("k", b"2", TTL), Take("k"), Get("k"), Delete("k")]
    assert await subject.store.run(operations) == [True, b"1", True, b"2", None, False]


async def test_a_value_is_taken_once(subject: Subject) -> None:
    await subject.one(Put("k", b"v", TTL))
    assert [await subject.one(Take("k")) for _ in range(3)] == [b"v", None, None]


async def test_a_key_is_deleted_once(subject: Subject) -> None:
    await subject.one(Put("k", b"v", TTL))
    assert [await subject.one(Delete("k")) for _ in range(2)] == [True, False]


async def test_only_if_absent_leaves_a_present_value_and_its_time_alone(subject: Subject) -> None:
    await subject.one(Put("k", b"1", timedelta(seconds=2)))
    assert await subject.one(Put("k", b"2", MINUTE, only_if_absent=True)) is False
    assert await subject.one(Get("k")) == b"1"
    await subject.wait(2.1)
    assert await subject.one(Get("k")) is None
    assert await subject.one(Put("k", b"2", MINUTE, only_if_absent=True)) is True
    assert await subject.one(Get("k")) == b"2"


async def test_only_if_equal_writes_over_exactly_that_value(subject: Subject) -> None:
    await subject.one(Put("k", b"1", TTL))
    assert await subject.one(Put("k", b"2", TTL, only_if_equal=b"")) is False
    assert await subject.one(Put("k", b"2", TTL, only_if_equal=b"1 ")) is False
    assert await subject.one(Put("k", b"2", TTL, only_if_equal=b"1")) is True
    assert await subject.one(Put("k", b"3", TTL, only_if_equal=b"1")) is False
    assert await subject.one(Get("k")) == b"2"


async def test_an_empty_value_is_present(subject: Subject) -> None:
    await subject.one(Put("k", b"", TTL))
    assert await subject.one(Put("k", b"x", TTL, only_if_absent=True)) is False
    assert await subject.one(Renew("k", b"", TTL)) == b""
    assert await subject.one(Put("k", b"y", TTL, only_if_equal=b"")) is True
    assert await subject.one(Take("k")) == b"y"


async def test_writing_again_restarts_the_time_to_live(subject: Subject) -> None:
    await subject.one(Put("k", b"1", timedelta(seconds=2)))
    await subject.wait(1.2)
    await subject.one(Put("k", b"2", timedelta(seconds=2)))
    await subject.wait(1.2)
    assert await subject.one(Get("k")) == b"2"


async def test_reading_does_not_restart_the_time_to_live(subject: Subject) -> None:
    await subject.one(Put("k", b"1", timedelta(seconds=2)))
    await subject.wait(1.2)
    assert await subject.one(Get("k")) == b"1"
    await subject.wait(1.2)
    assert await subject.one(Get("k")) is None


async def test_a_value_is_renewed_by_what_it_begins_with(subject: Subject) -> None:
    await subject.one(Put("k", b'{"owner":"me","more":1}', timedelta(seconds=2)))
    await subject.wait(1.2)
    assert await subject.one(Renew("k", b'{"owner":"me",', MINUTE)) == b'{"owner":"me","more":1}'
    assert await subject.one(Renew("k", b'{"owner":"m",', MINUTE)) == b'{"owner":"me","more":1}'
    await subject.wait(1.2)
    assert await subject.one(Get("k")) == b'{"owner":"me","more":1}'


@pytest.mark.parametrize("side", ["just before", "at", "just after"])
@pytest.mark.parametrize("operation", [Get("k"), Take("k"), Delete("k"), Renew("k", b"v", TTL)])
async def test_a_value_is_absent_from_the_instant_it_expires(subject: Subject, side: str, operation: Operation) -> None:
    moment = {"just before": -1e-6 - subject.slack_seconds, "at": subject.slack_seconds, "just after": 1e-6}[side]
    await subject.one(Put("k", b"v", timedelta(seconds=1)))
    await subject.wait(1 + moment + (subject.slack_seconds if side == "just after" else 0))
    assert bool(await subject.one(operation)) is (side == "just before")


@pytest.mark.parametrize("condition", [{"only_if_absent": True}, {"only_if_equal": b"v"}])
async def test_an_expired_value_is_absent_to_conditions_too(subject: Subject, condition: dict[str, bool]) -> None:
    await subject.one(Put("k", b"v", timedelta(seconds=1)))
    await subject.wait(1.1)
    written = await subject.one(Put("k", b"v", TTL, **condition))  # type: ignore[arg-type]
    assert written is ("only_if_absent" in condition)


async def test_renewing_ones_own_value_restarts_its_time_to_live(subject: Subject) -> None:
    await subject.one(Put("k", b"mine", timedelta(seconds=2)))
    await subject.wait(1.2)
    assert await subject.one(Renew("k", b"mine", timedelta(seconds=2))) == b"mine"
    await subject.wait(1.2)
    assert await subject.one(Get("k")) == b"mine"
    await subject.wait(1.2)
    assert await subject.one(Renew("k", b"mine", MINUTE)) is None


async def test_renewing_anothers_value_does_not_keep_it_alive(subject: Subject) -> None:
    await subject.one(Put("k", b"theirs", timedelta(seconds=2)))
    await subject.wait(1.2)
    assert await subject.one(Renew("k", b"mine", MINUTE)) == b"theirs"
    await subject.wait(1.2)
    assert await subject.one(Get("k")) is None


# Winners


@pytest.mark.parametrize("operation", [Take("k"), Delete("k"), Put("k", b"w", TTL, only_if_equal=b"v")])
async def test_of_fifty_at_once_one_wins_a_present_key(subject: Subject, operation: Operation) -> None:
    await subject.one(Put("k", b"v", TTL))
    assert sum(bool(result) for result in await at_once(subject, operation, 50)) == 1


async def test_of_fifty_at_once_one_claims_an_absent_key(subject: Subject) -> None:
    claim = Put("k", b"v", TTL, only_if_absent=True)
    assert sum(bool(result) for result in await at_once(subject, claim, 50)) == 1


async def test_of_two_hundred_at_once_exactly_the_burst_passes(subject: Subject) -> None:
    results = await at_once(subject, Spend((Bucket("b", 100, timedelta(hours=1)),)), 200)
    assert sum(levels_of(result)[0].allowed for result in results) == 100


async def at_once(subject: Subject, operation: Operation, count: int) -> list[Result]:
    """The results of `count` tasks that run the same operation."""
    results: list[Result] = []

    async def run() -> None:
        await anyio.lowlevel.checkpoint()
        results.append(await subject.one(operation))

    async with anyio.create_task_group() as group:
        for _ in range(count):
            group.start_soon(run)
    return results


# Buckets


async def test_exactly_the_burst_passes_and_after_retry_after_one_more(subject: Subject) -> None:
    bucket = Bucket("b", 100, MINUTE)
    # In one batch, so that nothing refills meanwhile on a machine that is busy.
    levels = [levels_of(result)[0] for result in await subject.store.run([Spend((bucket,))] * 100)]
    assert all(level.allowed and level.retry_after == timedelta(0) for level in levels)
    assert [level.remaining for level in levels] == list(range(99, -1, -1))

    (refused,) = await subject.spend(bucket)
    assert not refused.allowed
    assert refused.remaining == 0
    assert timedelta(0) < refused.retry_after <= timedelta(seconds=0.6001)
    await subject.wait(refused.retry_after.total_seconds())
    assert (await subject.spend(bucket))[0].allowed
    assert not (await subject.spend(bucket))[0].allowed


async def test_a_bucket_is_full_again_after_its_reset(subject: Subject) -> None:
    bucket = Bucket("b", 5, timedelta(seconds=2), cost=5)
    (level,) = await subject.spend(bucket)
    assert (level.allowed, level.remaining) == (True, 0)
    assert timedelta(seconds=1.5) < level.reset <= timedelta(seconds=2)
    await subject.wait(level.reset.total_seconds() + 0.05)
    assert (await subject.spend(bucket))[0].allowed


async def test_a_cost_is_taken_whole_or_not_at_all(subject: Subject) -> None:
    (first,) = await subject.spend(Bucket("b", 5, MINUTE, cost=3))
    (second,) = await subject.spend(Bucket("b", 5, MINUTE, cost=3))
    (third,) = await subject.spend(Bucket("b", 5, MINUTE, cost=2))
    assert [first.allowed, second.allowed, third.allowed] == [True, False, True]
    assert [first.remaining, second.remaining, third.remaining] == [2, 2, 0]


async def test_a_cost_above_the_burst_never_fits(subject: Subject) -> None:
    (level,) = await subject.spend(Bucket("b", 5, MINUTE, cost=6))
    assert not level.allowed


@pytest.mark.parametrize("exhausted_first", [True, False])
async def test_when_one_bucket_is_exhausted_nothing_is_taken_from_any(subject: Subject, exhausted_first: bool) -> None:
    small, large = Bucket("small", 1, MINUTE), Bucket("large", 10, MINUTE)
    order = (small, large) if exhausted_first else (large, small)
    assert all(level.allowed for level in await subject.spend(*order))
    for _ in range(3):
        levels = await subject.spend(*order)
        assert [level.allowed for level in levels] == [bucket is large for bucket in order]
        assert levels[order.index(large)].retry_after == timedelta(0)
    (level,) = await subject.spend(large)
    assert level.remaining == 8


async def test_buckets_of_different_keys_are_apart(subject: Subject) -> None:
    one, two = Bucket("one", 1, MINUTE), Bucket("two", 1, MINUTE)
    assert [(await subject.spend(bucket))[0].allowed for bucket in (one, one, two, two)] == [True, False, True, False]


async def test_a_spend_without_buckets_answers_no_levels(subject: Subject) -> None:
    assert await subject.spend() == ()


async def test_values_and_buckets_do_not_meet(subject: Subject) -> None:
    await subject.one(Put("k", b"v", TTL))
    assert (await subject.spend(Bucket("k", 1, MINUTE)))[0].allowed
    await subject.one(Delete("k"))
    assert not (await subject.spend(Bucket("k", 1, MINUTE)))[0].allowed
    assert await subject.one(Get("k")) is None


async def test_a_store_can_be_started_and_closed_again(subject: Subject) -> None:
    await subject.store.start()
    await subject.store.close()
    await subject.store.close()
    await subject.store.start()
    assert await subject.store.run([Put("k", b"v", TTL)]) == [True]


# A model of the contract


@pytest.mark.parametrize("result", [None, True, b"v", ("member",), (1,)])
def test_only_levels_are_read_as_levels(result: Result) -> None:
    with pytest.raises(TypeError, match="levels"):
        levels_of(result)


@pytest.mark.parametrize("result", [None, False, b"v", (Level(True, 1, 0.0, 0.0),)])
def test_only_members_are_read_as_members(result: Result) -> None:
    with pytest.raises(TypeError, match="texts"):
        members_of(result)


# Sets


async def test_a_set_takes_its_limit_and_puts_nobody_out(subject: Subject) -> None:
    assert [await subject.one(Enter("s", name, MINUTE, 2)) for name in "abc"] == [True, True, False]
    assert set(await members(subject, "s")) == {"a", "b"}
    assert await subject.one(Enter("s", "a", MINUTE, 2)) is True, "a member is not counted against itself"
    assert await subject.one(Enter("s", "c", MINUTE, 3)) is True
    assert await subject.one(Enter("other", "c", MINUTE, 1)) is True, "sets are apart"


async def test_a_set_with_no_room_at_all_takes_nobody(subject: Subject) -> None:
    assert await subject.one(Enter("s", "a", MINUTE, 0)) is False
    assert await members(subject, "s") == ()


async def test_each_member_expires_by_itself(subject: Subject) -> None:
    await subject.one(Enter("s", "long", MINUTE, 2))
    await subject.one(Enter("s", "short", timedelta(seconds=1), 2))
    assert await subject.one(Enter("s", "new", MINUTE, 2)) is False
    await subject.wait(1.1)
    assert await members(subject, "s") == ("long",)
    assert await subject.one(Stay("s", "short", MINUTE)) is False, "an expired member is not inside"
    assert await subject.one(Leave("s", "short")) is False
    assert await subject.one(Enter("s", "new", MINUTE, 2)) is True
    assert await subject.one(Enter("s", "short", MINUTE, 2)) is False, "an expired member has no claim to a place"


async def test_staying_and_entering_again_restart_the_time(subject: Subject) -> None:
    two = timedelta(seconds=2)
    for name in ("stays", "enters", "goes"):
        await subject.one(Enter("s", name, two, 3))
    await subject.wait(1.2)
    assert await subject.one(Stay("s", "stays", two)) is True
    assert await subject.one(Enter("s", "enters", two, 3)) is True
    await subject.wait(1.2)
    assert set(await members(subject, "s")) == {"stays", "enters"}


async def test_nobody_stays_who_is_not_inside(subject: Subject) -> None:
    assert await subject.one(Stay("s", "a", MINUTE)) is False
    await subject.one(Enter("s", "b", MINUTE, 1))
    assert await subject.one(Stay("s", "a", MINUTE)) is False
    assert await members(subject, "s") == ("b",)


async def test_a_member_leaves_once(subject: Subject) -> None:
    await subject.one(Enter("s", "a", MINUTE, 1))
    assert await subject.one(Leave("s", "a")) is True
    assert await subject.one(Leave("s", "a")) is False
    assert await subject.one(Enter("s", "b", MINUTE, 1)) is True


async def test_of_fifty_at_once_a_set_takes_its_limit(subject: Subject) -> None:
    results: list[Result] = []

    async def enter(number: int) -> None:
        results.append(await subject.one(Enter("s", f"m{number}", MINUTE, 7)))

    async with anyio.create_task_group() as group:
        for number in range(50):
            group.start_soon(enter, number)
    assert results.count(True) == 7
    assert len(await members(subject, "s")) == 7


async def members(subject: Subject, key: str) -> tuple[str, ...]:
    return members_of(await subject.one(Members(key)))


# Claims


async def test_a_claim_succeeds_once_until_it_is_forgotten(subject: Subject) -> None:
    claim = Claim("c", timedelta(seconds=2), subject.now() + 1)
    assert await subject.one(claim) is True
    assert await subject.one(claim) is False
    await subject.wait(2.1)
    assert await subject.one(claim) is True


async def test_of_fifty_at_once_one_claims(subject: Subject) -> None:
    results = await at_once(subject, Claim("c", MINUTE, subject.now() + 1), 50)
    assert results.count(True) == 1


async def test_what_was_issued_before_the_stores_memory_began_is_refused(subject: Subject) -> None:
    assert await subject.one(Claim("old", MINUTE, subject.now() - 3600)) is False
    assert await subject.one(Claim("new", MINUTE, subject.now() + 1)) is True


async def test_values_sets_and_claims_of_one_name_do_not_meet(subject: Subject) -> None:
    assert await subject.one(Put("k", b"v", MINUTE)) is True
    assert await subject.one(Enter("k", "m", MINUTE, 1)) is True
    assert await subject.one(Claim("k", MINUTE, subject.now() + 1)) is True
    assert await subject.one(Delete("k")) is True
    assert await members(subject, "k") == ("m",)
    assert await subject.one(Claim("k", MINUTE, subject.now() + 1)) is False


# Announcements


async def test_an_announcement_reaches_those_who_listen_to_its_topic(subject: Subject) -> None:
    heard: list[bytes] = []
    others: list[bytes] = []
    stop = subject.store.listen("mcp:topic", heard.append)
    subject.store.listen("mcp:other", others.append)
    await subject.one(Get("connects"))

    async def announced(message: bytes) -> None:
        # Listening begins when the store gets round to it, so the message is repeated until it is heard.
        with anyio.fail_after(5):
            while message not in heard:
                assert await subject.one(Announce("mcp:topic", message)) is True
                await anyio.sleep(0.01)

    await announced(b"one")
    await announced(bytes(range(256)))
    stop()
    stop()
    count = len(heard)
    await subject.one(Announce("mcp:topic", b"unheard"))
    await anyio.sleep(0.05)
    assert b"unheard" not in heard[count:]
    assert not others


async def test_a_listener_that_fails_disturbs_nobody(subject: Subject) -> None:
    heard: list[bytes] = []

    def fails(message: bytes) -> None:
        raise RuntimeError("a listener of a test fails")

    subject.store.listen("mcp:topic", fails)
    subject.store.listen("mcp:topic", heard.append)
    with anyio.fail_after(5):
        while not heard:
            assert await subject.one(Announce("mcp:topic", b"m")) is True
            await anyio.sleep(0.01)


KEYS = st.sampled_from(["a", "b", "c"])
VALUES = st.sampled_from([b"", b"1", b"2"])
TTLS = st.integers(1, 20).map(lambda seconds: timedelta(seconds=seconds))


class AgainstAModel(RuleBasedStateMachine):
    """Operations at random against a dictionary of (value, instant of expiry)."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock()
        self.store = MemoryStore(clock=self.clock)
        self.model: dict[str, tuple[bytes, float]] = {}

    def run_one(self, operation: Operation) -> Result:
        (result,) = anyio.run(self.store.run, [operation])
        return result

    def present(self, key: str) -> bytes | None:
        value, expires = self.model.get(key, (b"", 0.0))
        return value if self.clock.ticks < expires else None

    def write(self, key: str, value: bytes, ttl: timedelta) -> None:
        self.model[key] = (value, self.clock.ticks + ttl.total_seconds())

    @rule(seconds=st.integers(0, 12))
    def time_passes(self, seconds: int) -> None:
        self.clock.advance(seconds)

    @rule(key=KEYS)
    def get(self, key: str) -> None:
        assert self.run_one(Get(key)) == self.present(key)

    @rule(key=KEYS)
    def take(self, key: str) -> None:
        assert self.run_one(Take(key)) == self.present(key)
        self.model.pop(key, None)

    @rule(key=KEYS)
    def delete(self, key: str) -> None:
        assert self.run_one(Delete(key)) is (self.present(key) is not None)
        self.model.pop(key, None)

    @rule(key=KEYS, value=VALUES, ttl=TTLS)
    def put(self, key: str, value: bytes, ttl: timedelta) -> None:
        assert self.run_one(Put(key, value, ttl)) is True
        self.write(key, value, ttl)

    @rule(key=KEYS, value=VALUES, ttl=TTLS)
    def claim(self, key: str, value: bytes, ttl: timedelta) -> None:
        absent = self.present(key) is None
        assert self.run_one(Put(key, value, ttl, only_if_absent=True)) is absent
        if absent:
            self.write(key, value, ttl)

    @rule(key=KEYS, value=VALUES, expected=VALUES, ttl=TTLS)
    def swap(self, key: str, value: bytes, expected: bytes, ttl: timedelta) -> None:
        equal = self.present(key) == expected
        assert self.run_one(Put(key, value, ttl, only_if_equal=expected)) is equal
        if equal:
            self.write(key, value, ttl)

    @rule(key=KEYS, expected=VALUES, ttl=TTLS)
    def renew(self, key: str, expected: bytes, ttl: timedelta) -> None:
        present = self.present(key)
        assert self.run_one(Renew(key, expected, ttl)) == present
        if present is not None and present.startswith(expected):
            self.write(key, present, ttl)

    @invariant()
    def nothing_is_kept_for_long(self) -> None:
        assert self.store.held <= 3


AgainstAModel.TestCase.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
TestMemoryAgainstAModel = AgainstAModel.TestCase


# What is particular to the memory store


async def test_at_its_bound_the_memory_store_refuses_new_keys_and_evicts_nothing() -> None:
    clock = ManualClock()
    store = MemoryStore(clock=clock, max_entries=3)
    await store.run([Put("a", b"1", TTL), Put("b", b"2", TTL), Spend((Bucket("c", 2, MINUTE),))])

    for operation in (
        Put("d", b"3", TTL),
        Put("d", b"3", TTL, only_if_absent=True),
        Spend((Bucket("d", 1, MINUTE),)),
        Spend((Bucket("c", 2, MINUTE), Bucket("d", 1, MINUTE))),
    ):
        with pytest.raises(StoreUnavailable, match="bound of 3"):
            await store.run([operation])

    assert await store.run([Get("a"), Get("b"), Get("d")]) == [b"1", b"2", None]
    assert await store.run([Put("a", b"9", TTL), Renew("b", b"2", TTL)]) == [True, b"2"]
    (spent,) = await store.run([Spend((Bucket("c", 2, MINUTE),))])
    assert levels_of(spent)[0].allowed, "the refused spend took from a bucket"
    assert await store.run([Delete("a"), Put("d", b"3", TTL)]) == [True, True]


async def test_a_spend_that_does_not_fit_takes_from_no_bucket() -> None:
    store = MemoryStore(clock=ManualClock(), max_entries=1)
    with pytest.raises(StoreUnavailable):
        await store.run([Spend((Bucket("a", 1, MINUTE), Bucket("b", 1, MINUTE)))])
    assert store.held == 0


@pytest.mark.parametrize("entries", [1, 10, 2 * SWEEP_STEP_AT_BOUND])
async def test_a_full_store_is_usable_again_when_its_entries_have_expired(entries: int) -> None:
    clock = ManualClock()
    store = MemoryStore(clock=clock, max_entries=entries)
    for number in range(entries):
        operation = Spend((Bucket(f"k{number}", 1, TTL),)) if number % 2 else Put(f"k{number}", b"v", TTL)
        await store.run([operation])
    with pytest.raises(StoreUnavailable):
        await store.run([Put("new", b"v", TTL)])
    clock.advance(10)
    assert await store.run([Put("new", b"v", TTL)]) == [True]


@pytest.mark.parametrize("per_batch", [1, 40])
async def test_the_memory_of_a_store_is_flat_under_churn(per_batch: int) -> None:
    clock = ManualClock()
    store = MemoryStore(clock=clock)
    alive_seconds, peak = 5, 0
    for second in range(200):
        await store.run([Put(f"v{second}-{n}", b"v", timedelta(seconds=alive_seconds)) for n in range(per_batch)])
        await store.run([Spend(tuple(Bucket(f"b{second}-{n}", 1, TTL) for n in range(per_batch)))])
        clock.advance(1)
        peak = max(peak, store.held)
    assert peak < 5 * (5 + 10) * per_batch
    clock.advance(60)
    for _ in range(store.held):
        await store.run([])
    assert store.held == 0


async def test_what_is_no_operation_is_an_error_and_never_an_answer() -> None:
    with pytest.raises(TypeError, match="'k' is no operation"):
        await MemoryStore(clock=ManualClock()).run(["k"])  # type: ignore[list-item]


async def test_a_step_of_the_wall_clock_moves_no_time_to_live() -> None:
    clock = ManualClock()
    store = MemoryStore(clock=clock)
    await store.run([Put("k", b"v", TTL)])
    clock.step(3600)
    assert await store.run([Get("k")]) == [b"v"]
    clock.step(-7200)
    clock.advance(10)
    assert await store.run([Get("k")]) == [None]


@pytest.mark.parametrize("bound", [0, -1])
def test_a_bound_below_one_is_refused(bound: int) -> None:
    with pytest.raises(ConfigurationError, match="max_entries must be at least 1"):
        MemoryStore(max_entries=bound)
