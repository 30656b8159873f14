"""The schema of the PostgreSQL store: its migrations, and the plans of its functions."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from psycopg import AsyncConnection, sql
from psycopg.conninfo import conninfo_to_dict

from mcp_guard.failures import ConfigurationError, StoreUnavailable
from mcp_guard.secret import Secret
from mcp_guard.stores import postgres_admin as admin
from mcp_guard.stores import postgres_batch as batches
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
    Spend,
    Stay,
)
from tests.guard.stores.postgres_database import migrated, started, value_of
from tests.support import postgres_server

MINUTE = timedelta(minutes=1)
ROWS = 20_000


@pytest.fixture
def empty() -> Iterator[str]:
    """A database without a schema."""
    with postgres_server.shared().database() as url:
        yield url


# Migrations


async def test_the_files_are_numbered_without_a_gap() -> None:
    assert [one.version for one in admin.migrations()] == list(range(1, len(admin.migrations()) + 1))


async def test_an_empty_database_is_migrated_once(empty: str) -> None:
    async with admin.connected(Secret(empty)) as connection:
        assert await admin.version_of(connection) == 0
        assert await admin.migrate(connection) == list(admin.migrations())
        assert await admin.migrate(connection) == []
        assert await admin.version_of(connection) == admin.migrations()[-1].version
        await admin.check_schema(connection)


async def test_an_older_schema_gets_what_it_lacks(empty: str) -> None:
    first, *rest = admin.migrations()
    async with admin.connected(Secret(empty)) as connection:
        await connection.execute(first.statements.encode())
        await connection.execute(
            "CREATE TABLE mcp_schema (version integer PRIMARY KEY, applied_at timestamptz NOT NULL)"
        )
        await connection.execute("INSERT INTO mcp_schema VALUES (1, now())")
        assert await admin.migrate(connection) == rest


async def test_a_newer_schema_is_left_alone(empty: str) -> None:
    async with admin.connected(Secret(empty)) as connection:
        await admin.migrate(connection)
        await connection.execute("INSERT INTO mcp_schema VALUES (9999, now())")
        with pytest.raises(ConfigurationError, match="version 9999, newer than"):
            await admin.migrate(connection)


async def test_of_several_at_once_one_migrates(empty: str) -> None:
    async def migrate() -> list[admin.Migration]:
        async with admin.connected(Secret(empty)) as connection:
            return await admin.migrate(connection)

    applied = await asyncio.gather(*(migrate() for _ in range(5)))
    assert sorted(len(one) for one in applied) == [0, 0, 0, 0, len(admin.migrations())]


async def test_a_migration_that_fails_leaves_nothing_behind(empty: str) -> None:
    async def migrate() -> None:
        async with admin.connected(Secret(empty)) as connection:
            await connection.execute("CREATE TABLE mcp_claims ()")
            await admin.migrate(connection)

    with pytest.raises(StoreUnavailable, match="SQLSTATE 42P07"):
        await migrate()
    async with admin.connected(Secret(empty)) as connection:
        assert await admin.version_of(connection) == 0
        assert await value_of(connection, "SELECT to_regclass('mcp_sessions')") is None


async def test_whoever_owns_the_database_may_do_all_that_the_store_does(empty: str) -> None:
    role, name = sql.Identifier("plain"), sql.Identifier(str(conninfo_to_dict(empty)["dbname"]))
    postgres_server.shared().execute(sql.SQL("CREATE ROLE {} LOGIN").format(role))
    postgres_server.shared().execute(sql.SQL("ALTER DATABASE {} OWNER TO {}").format(name, role))
    url = empty.replace("//mcp@", "//plain@")
    async with admin.connected(Secret(url)) as connection:
        await admin.migrate(connection)
    async with started(url) as store:
        assert await store.run([Claim("c", MINUTE, 9e9), Announce("t", b"m"), Put("k", b"v", MINUTE)]) == [True] * 3
        assert await store.sweep(10) == dict.fromkeys(admin.TABLES, 0)


# Plans


FILL = """
INSERT INTO mcp_sessions SELECT 's' || n, '{}', 1, {until}, now(), now() FROM generate_series(1, {rows}) AS n;
INSERT INTO mcp_values SELECT 'v' || n, 'x', {until} FROM generate_series(1, {rows}) AS n;
INSERT INTO mcp_buckets SELECT 'b' || n, 0, {until} FROM generate_series(1, {rows}) AS n;
INSERT INTO mcp_members SELECT 'k' || n % 1000, 'm' || n, {until} FROM generate_series(1, {rows}) AS n;
INSERT INTO mcp_claims SELECT 'c' || n, {until} FROM generate_series(1, {rows}) AS n;
INSERT INTO mcp_cleanup_runs (began_at, ended_at, removed) SELECT now(), now(), '{}' FROM generate_series(1, {rows});
ANALYZE;
""".replace("{until}", "now() + (n - 2000) * interval '1 minute'").replace("{rows}", str(ROWS))

OPERATIONS: dict[str, Operation] = {
    "get": Get("v9999"),
    "get a session": Get("mcp:session:s9999"),
    "put": Put("v9999", b"", MINUTE),
    "put only if absent": Put("v9999", b"", MINUTE, only_if_absent=True),
    "put only if equal": Put("v9999", b"", MINUTE, only_if_equal=b"x"),
    "put a session": Put("mcp:session:s9999", b"", MINUTE),
    "delete": Delete("v9999"),
    "delete a session": Delete("mcp:session:s9999"),
    "renew": Renew("v9999", b"x", MINUTE),
    "renew anothers": Renew("v9999", b"y", MINUTE),
    "renew a session": Renew("mcp:session:s9999", b"{", MINUTE),
    "spend": Spend((Bucket("b9999", 9, MINUTE), Bucket("b9998", 9, MINUTE))),
    "enter": Enter("k999", "m0", MINUTE, 1_000),
    "stay": Stay("k999", "m9999", MINUTE),
    "leave": Leave("k999", "m9999"),
    "members": Members("k999"),
    "claim": Claim("c9999", MINUTE, 9e9),
}


@pytest.fixture(scope="module")
def large() -> Iterator[str]:
    """A store with many rows, of which a tenth have expired."""
    with migrated() as url:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(FILL.encode())
        yield url


@asynccontextmanager
async def explained(url: str) -> AsyncIterator[tuple[AsyncConnection[Any], list[dict[str, Any]]]]:
    """A connection, and the plan of every statement that runs on it, also inside functions."""
    plans: list[dict[str, Any]] = []

    def take(notice: psycopg.errors.Diagnostic) -> None:
        _, _, plan = str(notice.message_primary).partition("plan:\n")
        plans.append(json.loads(plan)["Plan"])

    async with await AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute("LOAD 'auto_explain'")
        for name, value in {
            "auto_explain.log_nested_statements": "on",
            "auto_explain.log_format": "json",
            "auto_explain.log_level": "notice",
            "auto_explain.log_min_duration": "0",
        }.items():
            await connection.execute("SELECT set_config(%s, %s, false)", [name, value])
        plans.clear()
        connection.add_notice_handler(take)
        yield connection, plans


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for below in plan.get("Plans", ()):
        yield from nodes(below)


def scans(plans: list[dict[str, Any]]) -> set[tuple[str, str]]:
    """How tables of ours were read: (table, index), or (table, kind of scan) where no index was used.

    `mcp_epoch` has one row, so it is left out.
    """
    found: set[tuple[str, str]] = set()
    for plan in plans:
        for node in nodes(plan):
            kind, table = node["Node Type"], str(node.get("Relation Name", ""))
            if table.startswith("mcp_") and table != "mcp_epoch" and kind.endswith("Scan"):
                indexes = [one["Index Name"] for one in nodes(node) if "Index Name" in one]
                found.update((table, index) for index in indexes or [kind])
    return found


@pytest.mark.parametrize("name", OPERATIONS)
async def test_each_operation_finds_its_rows_by_an_index(large: str, name: str) -> None:
    batch = batches.encode([OPERATIONS[name]])
    async with explained(large) as (connection, plans):
        await connection.execute("BEGIN")
        for _ in range(7):  # the sixth time a function may begin to use a plan that fits all arguments
            await connection.execute(batches.STATEMENT.encode(), batch)
        await connection.execute("ROLLBACK")
    used = scans(plans)
    assert all(index == f"{table}_pkey" for table, index in used), used
    assert used or name.startswith(("put", "claim")) or name == "enter"
    assert len(plans) > 7


async def test_an_insert_or_update_looks_for_its_row_in_an_index(large: str) -> None:
    """The plan of INSERT … ON CONFLICT names the index."""
    arbiters = set()
    for operation in (OPERATIONS["put"], OPERATIONS["spend"], OPERATIONS["claim"], OPERATIONS["enter"]):
        async with explained(large) as (connection, plans):
            await connection.execute("BEGIN")
            await connection.execute(batches.STATEMENT.encode(), batches.encode([operation]))
            await connection.execute("ROLLBACK")
        for plan in plans:
            for node in nodes(plan):
                arbiters.update(node.get("Conflict Arbiter Indexes", ()))
    assert arbiters >= {"mcp_values_pkey", "mcp_buckets_pkey", "mcp_claims_pkey", "mcp_members_pkey"}


async def test_the_cleanup_finds_what_has_expired_by_an_index(large: str) -> None:
    async with explained(large) as (connection, plans):
        await connection.execute("BEGIN")
        for _ in range(7):
            await connection.execute("SELECT * FROM mcp_cleanup(100)")
        await connection.execute("ROLLBACK")
    used = scans(plans)
    assert {(table, f"{table}_expiry") for table in admin.TABLES} <= used
    assert all(index in (f"{table}_expiry", f"{table}_pkey") for table, index in used), used


async def test_the_status_finds_the_last_cleanup_by_an_index(large: str) -> None:
    async with explained(large) as (connection, plans):
        await admin.status(connection)
    assert ("mcp_cleanup_runs", "mcp_cleanup_runs_pkey") in scans(plans)
