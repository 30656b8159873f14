"""The PostgreSQL store beyond the contract: one round trip, single winners, lost updates, what it refuses."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from psycopg import AsyncConnection

from mcp_guard.clock import SystemClock
from mcp_guard.failures import ConfigurationError, StoreUnavailable
from mcp_guard.secret import Secret
from mcp_guard.stores.base import (
    Announce,
    Bucket,
    Claim,
    Delete,
    Enter,
    Get,
    Leave,
    Members,
    Operation,
    Put,
    Renew,
    Result,
    Spend,
    Stay,
    Take,
    levels_of,
)
from mcp_guard.stores.postgres import PostgresStore
from tests.guard.stores.postgres_database import migrated, started, until, value_of
from tests.guard.stores.relay import Relay

MINUTE = timedelta(minutes=1)
SESSION = "mcp:session:one"


@pytest.fixture
def url() -> Iterator[str]:
    """An empty store of one's own."""
    with migrated() as url:
        yield url


@pytest.fixture
async def store(url: str) -> AsyncIterator[PostgresStore]:
    async with started(url) as store:
        yield store


@pytest.fixture
async def other(url: str) -> AsyncIterator[AsyncConnection[Any]]:
    """Somebody else in the database, who takes no locks of ours."""
    connection = await AsyncConnection.connect(url, autocommit=True)
    async with connection:
        yield connection


async def one(store: PostgresStore, operation: Operation) -> Result:
    (result,) = await store.run([operation])
    return result


# The database's clock


async def test_a_bucket_written_before_the_clock_was_set_back_is_empty_and_refills(
    store: PostgresStore, other: AsyncConnection[Any]
) -> None:
    """What is left of an hour that the clock lost: no more than one period, and not the hour."""
    bucket = Bucket("b", 2, timedelta(seconds=1))
    await one(store, Spend((bucket,)))
    await other.execute("UPDATE mcp_buckets SET arrival = arrival + 3600, expires_at = expires_at + interval '1 hour'")
    (level,) = levels_of(await one(store, Spend((bucket,))))
    assert (level.allowed, level.remaining) == (False, 0)
    assert level.retry_after_seconds == pytest.approx(0.5, abs=0.01)
    assert level.reset_seconds == pytest.approx(1.0, abs=0.01)


# Settings


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"url": "postgresql://u:hidden@host/db?nonsense=1"}, "url must be"),
        ({"url": "hidden words"}, "url must be"),
        ({"pool_size": 0}, "pool_size must be at least 1, not 0"),
        ({"deadline": timedelta(0)}, "deadline must be at least 1 ms, not 0 ms"),
        ({"cleanup_every": timedelta(0)}, "every must be longer"),
    ],
)
def test_a_setting_that_cannot_work_is_refused_by_name(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named) as caught:
        PostgresStore(**{"url": "postgresql://host/db", **settings})
    assert "hidden" not in str(caught.value)


def test_the_url_is_never_shown() -> None:
    assert "hidden" not in repr(PostgresStore("postgresql://u:hidden@host/db"))
    assert "hidden" not in repr(PostgresStore(Secret("postgresql://u:hidden@host/db")))


# Batches


async def test_a_batch_of_everything_is_one_round_trip(url: str) -> None:
    now = SystemClock().wall()
    batch: list[Operation] = [
        Put("k", b"v", MINUTE),
        Get("k"),
        Renew("k", b"v", MINUTE),
        Put(SESSION, b"{}", MINUTE),
        Renew(SESSION, b"{", MINUTE),
        Spend((Bucket("a", 5, MINUTE), Bucket("b", 5, MINUTE))),
        Enter("s", "m", MINUTE, 1),
        Stay("s", "m", MINUTE),
        Members("s"),
        Leave("s", "m"),
        Claim("c", MINUTE, now + 1),
        Announce("t", b"m"),
        Take("k"),
        Delete(SESSION),
    ]
    async with Relay(url) as relay, started(relay.url, pool_size=1) as store:
        await store.run(batch)
        before = relay.round_trips
        await store.run(batch)
        assert relay.round_trips - before == 1


async def test_what_is_no_operation_is_an_error_and_never_an_answer(store: PostgresStore) -> None:
    with pytest.raises(TypeError, match="'k' is no operation"):
        await store.run(["k"])  # type: ignore[list-item]


@pytest.mark.parametrize("value", [b"\xff", b'{"a":"\0"}'])
async def test_a_session_that_is_no_text_is_an_error(store: PostgresStore, value: bytes) -> None:
    with pytest.raises(TypeError, match="the value of a session"):
        await store.run([Put(SESSION, value, MINUTE)])
    assert await one(store, Get(SESSION)) is None


async def test_a_session_obeys_the_contract_of_values(store: PostgresStore, other: AsyncConnection[Any]) -> None:
    text = '{"owner":"ü","n":1}'.encode()
    assert await store.run([Get(SESSION), Take(SESSION), Delete(SESSION), Renew(SESSION, b"", MINUTE)]) == [
        *(None, None, False, None)
    ]
    assert await one(store, Put(SESSION, text, MINUTE, only_if_equal=b"")) is False
    assert await one(store, Put(SESSION, text, MINUTE, only_if_absent=True)) is True
    assert await one(store, Put(SESSION, b"{}", MINUTE, only_if_absent=True)) is False
    assert await one(store, Put(SESSION, b"{}", MINUTE, only_if_equal=b"\xff")) is False
    assert await one(store, Renew(SESSION, '{"owner":"ü",'.encode(), MINUTE)) == text
    assert await one(store, Renew(SESSION, b'{"owner":"\xff', MINUTE)) == text
    assert await one(store, Put(SESSION, b"{}", MINUTE, only_if_equal=text)) is True
    assert await value_of(other, "SELECT session_id || ' ' || data FROM mcp_sessions") == "one {}"
    assert await value_of(other, "SELECT count(*) FROM mcp_values") == 0
    assert await one(store, Take(SESSION)) == b"{}"
    assert await one(store, Take(SESSION)) is None


async def test_an_expired_session_is_absent_before_it_is_swept(
    store: PostgresStore, other: AsyncConnection[Any]
) -> None:
    await store.run([Put(SESSION, b"{}", MINUTE), Put("mcp:session:two", b"{}", MINUTE)])
    await other.execute("UPDATE mcp_sessions SET expires_at = now() - interval '1 microsecond'")
    assert await store.run([Get(SESSION), Renew(SESSION, b"{", MINUTE), Delete("mcp:session:two")]) == [
        *(None, None, False)
    ]
    assert await one(store, Put(SESSION, b"2", MINUTE, only_if_equal=b"{}")) is False
    assert await one(store, Put(SESSION, b"2", MINUTE, only_if_absent=True)) is True
    assert await value_of(other, "SELECT created_at = updated_at FROM mcp_sessions") is True


@pytest.mark.parametrize(
    ("operations", "waits"),
    [
        ([Get("k"), Renew("k", b"v", MINUTE), Spend((Bucket("b", 9, MINUTE),)), Enter("s", "m", MINUTE, 9)], "off"),
        ([Get("k"), Put("k", b"v", MINUTE)], "on"),
        ([Take("k")], "on"),
        ([Claim("k", MINUTE, 0.0)], "on"),
    ],
)
async def test_only_what_can_be_lost_without_harm_does_not_wait_for_the_disk(
    store: PostgresStore, other: AsyncConnection[Any], operations: list[Operation], waits: str
) -> None:
    await other.execute("CREATE TABLE seen (what text)")
    await other.execute(
        """CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN INSERT INTO seen VALUES (current_setting('synchronous_commit')); RETURN NULL; END $$"""
    )
    for table in ("mcp_values", "mcp_buckets", "mcp_claims", "mcp_epoch"):
        event = "AFTER INSERT OR UPDATE OR DELETE"
        await other.execute(f"CREATE TRIGGER see {event} ON {table} EXECUTE FUNCTION see()".encode())
    await other.execute("DELETE FROM mcp_epoch")
    await other.execute("TRUNCATE seen")
    await store.run(operations)
    assert await value_of(other, "SELECT string_agg(DISTINCT what, ',') FROM seen") == waits


# Winners


@pytest.mark.parametrize("kind", ["take", "take a session", "claim", "spend", "enter"])
async def test_of_fifty_at_once_in_two_workers_exactly_those_win_who_may(
    url: str, other: AsyncConnection[Any], kind: str
) -> None:
    # Between reading and writing there is time for everybody else to read.
    await other.execute(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN PERFORM pg_sleep(0.05); RETURN NEW; END $$;"
        "CREATE TRIGGER slow BEFORE INSERT ON mcp_buckets FOR EACH ROW EXECUTE FUNCTION slow();"
        "CREATE TRIGGER slow BEFORE INSERT ON mcp_members FOR EACH ROW EXECUTE FUNCTION slow()"
    )
    now = SystemClock().wall()
    kinds: dict[str, Operation] = {
        "take": Take("k"),
        "take a session": Take(SESSION),
        "claim": Claim("k", MINUTE, now + 1),
        "spend": Spend((Bucket("b", 3, timedelta(hours=1)), Bucket("a", 7, timedelta(hours=1)))),
        "enter": Enter("s", "m", MINUTE, 1),
    }
    operation = kinds[kind]
    async with started(url) as left, started(url) as right:
        await left.run([Put("k", b"v", MINUTE), Put(SESSION, b"{}", MINUTE)])
        runs = [
            one((left, right)[n % 2], Enter("s", f"m{n}", MINUTE, 5) if kind == "enter" else operation)
            for n in range(50)
        ]
        results = await asyncio.gather(*runs)
    if kind == "spend":
        assert sum(all(level.allowed for level in levels_of(result)) for result in results) == 3
    else:
        assert sum(bool(result) for result in results) == (5 if kind == "enter" else 1)


async def test_batches_that_write_the_same_things_in_another_order_do_not_block_each_other(url: str) -> None:
    buckets = [Bucket(f"b{n}", 1_000, MINUTE) for n in range(4)]
    batch: list[Operation] = [
        Put("k", b"v", MINUTE),
        Put(SESSION, b"{}", MINUTE),
        Enter("s", "m", MINUTE, 9),
        Spend(tuple(buckets)),
        Renew("l", b"", MINUTE),
    ]
    turned: list[Operation] = [*reversed(batch[:3]), Spend(tuple(reversed(buckets))), Renew("l", b"", MINUTE)]
    async with started(url) as left, started(url) as right:
        runs = [(left if n % 2 else right).run(batch if n % 3 else turned) for n in range(200)]
        results = await asyncio.gather(*runs)
    assert len(results) == 200
    assert all(level.remaining >= 800 for level in levels_of(results[-1][3]))


# Lost updates: somebody writes who takes no locks of ours


async def overtaken(store: PostgresStore, url: str, operation: Operation, statement: str) -> Result:
    """The result of an operation that had to wait for a write of another, which was then committed."""
    async with await AsyncConnection.connect(url) as writer:
        await writer.execute(statement.encode())
        waiting = asyncio.create_task(one(store, operation))
        async with await AsyncConnection.connect(url, autocommit=True) as watcher:
            query = (
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
            await until(lambda: value_of(watcher, query))
        await writer.commit()
        return await waiting


CHANGE = "UPDATE mcp_sessions SET data = 'theirs', version = version + 1"


async def test_a_renewal_is_decided_again_on_what_another_wrote_meanwhile(
    store: PostgresStore, url: str, other: AsyncConnection[Any]
) -> None:
    await store.run([Put(SESSION, b"mine", timedelta(seconds=30))])
    until = await value_of(other, "SELECT expires_at FROM mcp_sessions")
    assert await overtaken(store, url, Renew(SESSION, b"mine", MINUTE), CHANGE) == b"theirs"
    assert await value_of(other, "SELECT expires_at FROM mcp_sessions") == until
    assert await value_of(other, "SELECT version FROM mcp_sessions") == 2


async def test_a_conditional_write_is_decided_again_on_what_another_wrote_meanwhile(
    store: PostgresStore, url: str
) -> None:
    await store.run([Put(SESSION, b"mine", MINUTE)])
    assert await overtaken(store, url, Put(SESSION, b"new", MINUTE, only_if_equal=b"mine"), CHANGE) is False
    assert await one(store, Get(SESSION)) == b"theirs"


async def test_a_first_write_loses_to_another_one_that_was_not_seen(store: PostgresStore, url: str) -> None:
    insert = "INSERT INTO mcp_sessions VALUES ('one', 'theirs', 1, now() + interval '1 minute', now(), now())"
    assert await overtaken(store, url, Put(SESSION, b"new", MINUTE, only_if_absent=True), insert) is False
    assert await one(store, Get(SESSION)) == b"theirs"


@pytest.mark.parametrize("operation", [Put(SESSION, b"new", MINUTE), Renew(SESSION, b"mine", MINUTE)])
async def test_an_update_that_is_lost_again_and_again_is_refused(
    store: PostgresStore, other: AsyncConnection[Any], operation: Operation
) -> None:
    await store.run([Put(SESSION, b"mine", MINUTE)])
    await other.execute(
        "CREATE FUNCTION lose() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;"
        "CREATE TRIGGER lose BEFORE UPDATE ON mcp_sessions FOR EACH ROW EXECUTE FUNCTION lose()"
    )
    with pytest.raises(StoreUnavailable, match="SQLSTATE 40001"):
        await store.run([operation])


# Claims


@pytest.mark.parametrize("loss", ["TRUNCATE mcp_claims", "TRUNCATE mcp_epoch", "UPDATE mcp_epoch SET lineage = 'x'"])
async def test_a_store_that_may_have_forgotten_refuses_what_was_issued_before(
    store: PostgresStore, other: AsyncConnection[Any], loss: str
) -> None:
    await store.run([Claim("first", MINUTE, SystemClock().wall() + 1)])
    await asyncio.sleep(0.01)
    issued = SystemClock().wall()
    assert await one(store, Claim("before", MINUTE, issued)) is True
    await asyncio.sleep(0.01)
    await other.execute(loss.encode())
    assert await one(store, Claim("after", MINUTE, issued)) is False
    assert await one(store, Claim("after", MINUTE, SystemClock().wall() + 1)) is True
    assert await one(store, Claim("after", MINUTE, SystemClock().wall() + 1)) is False
    assert await value_of(other, "SELECT count(*) FROM mcp_epoch") == 1


async def test_an_issue_time_that_is_no_number_is_refused(store: PostgresStore) -> None:
    with pytest.raises(StoreUnavailable, match="SQLSTATE 22P02"):
        await store.run([Claim("k", MINUTE, float("nan"))])


# Starting, sharing, closing


async def test_a_store_that_was_not_started_answers_nothing() -> None:
    store = PostgresStore("postgresql://127.0.0.1:1/none")
    with pytest.raises(StoreUnavailable, match="was not started"):
        await store.run([Get("k")])
    assert await store.run([]) == []
    await store.close()


async def test_a_store_that_guards_share_serves_until_the_last_one_closes_it(url: str) -> None:
    async with started(url) as store:
        await store.start()
        await store.close()
        assert await one(store, Put("k", b"v", MINUTE)) is True
    with pytest.raises(StoreUnavailable, match="was not started"):
        await store.run([Get("k")])
    await store.close()
    async with asyncio.timeout(5):
        await store.start()
        assert await one(store, Get("k")) == b"v"
        await store.close()


async def test_nothing_is_left_running_when_a_store_was_closed(url: str) -> None:
    before = asyncio.all_tasks()
    async with started(url, cleanup_every=MINUTE) as store:
        store.listen("t", print)
        await one(store, Get("k"))
        assert asyncio.all_tasks() > before
    assert asyncio.all_tasks() == before


async def test_the_tables_without_the_schema_are_asked_for_at_the_start(other: AsyncConnection[Any], url: str) -> None:
    async def refused(match: str) -> None:
        with pytest.raises(ConfigurationError, match=match):
            await PostgresStore(url).start()

    await other.execute("INSERT INTO mcp_schema VALUES (9999, now())")
    await refused("version 9999, newer than")
    await other.execute("DELETE FROM mcp_schema WHERE version > 1")
    await refused("version 1, older than .*; run: mcp-guard db migrate")
    await other.execute("DROP TABLE mcp_schema")
    await refused("no schema of mcp-guard; run: mcp-guard db migrate")


async def test_a_database_whose_text_is_not_utf8_is_refused() -> None:
    with migrated("SQL_ASCII") as url, pytest.raises(ConfigurationError, match="must be UTF8"):
        await PostgresStore(url).start()


@pytest.mark.parametrize("place", ["127.0.0.1:1/none", "127.0.0.1:{port}/none"])
async def test_a_database_that_is_not_there_is_unavailable(url: str, place: str) -> None:
    port = psycopg.conninfo.conninfo_to_dict(url)["port"]
    store = PostgresStore(f"postgresql://mcp:hidden@{place.format(port=port)}")
    with pytest.raises(StoreUnavailable, match="cannot be reached") as caught:
        await store.start()
    assert "hidden" not in str(caught.value)


async def test_a_read_only_database_is_unavailable(url: str) -> None:
    name = psycopg.conninfo.conninfo_to_dict(url)["dbname"]
    async with started(url) as store, await AsyncConnection.connect(url, autocommit=True) as other:
        assert await one(store, Put("k", b"v", MINUTE)) is True
        await other.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on".encode())
        with pytest.raises(StoreUnavailable, match="read-only"):
            await PostgresStore(url).start()
        assert await one(store, Put("k", b"v", MINUTE)) is True, "connections from before are not concerned"


# Announcements


async def test_a_notification_of_somebody_else_disturbs_nobody(
    store: PostgresStore, other: AsyncConnection[Any], caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[bytes] = []
    store.listen("t", heard.append)
    largest = b"\xff" * 4096

    async def passed_over() -> bool:
        await other.execute("NOTIFY mcp_announcements, 'not base64 at all!'")
        await one(store, Announce("t", largest))
        return largest in heard and "is not of mcp-guard" in caplog.text

    await until(passed_over)
    assert set(heard) == {largest}


async def test_listening_goes_on_after_its_connection_was_lost(
    store: PostgresStore, other: AsyncConnection[Any], caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[bytes] = []
    store.listen("t", heard.append)
    ends = (
        "SELECT bool_or(pg_terminate_backend(pid)) FROM pg_stat_activity"
        " WHERE datname = current_database() AND query LIKE 'LISTEN%'"
    )

    async def announced() -> bool:
        await one(store, Announce("t", b"m"))
        return bool(heard)

    with caplog.at_level(logging.WARNING, "mcp_guard"):
        await until(lambda: value_of(other, ends))
        await until(announced)
    assert "announcements are not heard for now" in caplog.text
