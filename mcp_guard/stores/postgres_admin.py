"""What is done to the database beside running batches: connecting, the schema, the cleanup, a look at what is there.

The schema is the numbered files in `migrations/`; the table `mcp_schema` says which of them were applied.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

import psycopg
from psycopg import AsyncConnection, sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.types.json import Jsonb

from mcp_guard.failures import ConfigurationError, StoreUnavailable
from mcp_guard.secret import Secret

CONNECT_SECONDS = 3

MIGRATION_LOCK = 0x6D63705F6D696772
CLEANUP_LOCK = 0x6D63705F73776570
"""Advisory locks of the database: one migrates, one sweeps, at a time."""

RUNS_KEPT = 100
"""Rows of `mcp_cleanup_runs`."""

DEFAULTS: Mapping[str, Any] = {
    "application_name": "mcp-guard",
    "connect_timeout": CONNECT_SECONDS,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "target_session_attrs": "read-write",
}
"""Parameters of a connection that the URL does not set. A standby is no store: it forgets what was just written."""

CLASSES: Mapping[str, str] = {
    "08": "connection",
    "22": "data",
    "23": "constraint",
    "25": "transaction state, such as read-only",
    "28": "authorization",
    "40": "rollback",
    "42": "missing object or privilege",
    "53": "insufficient resources",
    "54": "limit exceeded",
    "55": "object state",
    "57": "operator intervention, such as shutdown or a cancelled statement",
    "58": "system",
    "XX": "internal",
}
"""Classes of SQLSTATE that an operator can do something about (PostgreSQL, Appendix A)."""

TABLES = ("mcp_sessions", "mcp_values", "mcp_buckets", "mcp_members", "mcp_claims")

ADVICE = "run: mcp-guard db migrate"


class Migration(NamedTuple):
    """One file of `migrations/`."""

    version: int
    name: str
    statements: str


class TableStatus(NamedTuple):
    """How many rows a table has, and how many of them have expired and were not swept yet."""

    name: str
    rows: int
    expired: int


class LastRun(NamedTuple):
    """The last cleanup: when it ended, and how many rows it removed by table."""

    ended: datetime
    removed: Mapping[str, int]


class Status(NamedTuple):
    """What is in the database. `last_run` is None before the first cleanup."""

    version: int
    tables: tuple[TableStatus, ...]
    last_run: LastRun | None


def complete(url: Secret) -> str:
    """The connection string with the defaults added.

    Raises:
        ConfigurationError: it is none.
    """
    try:
        given = conninfo_to_dict(url.reveal())
        return make_conninfo(url.reveal(), **{name: value for name, value in DEFAULTS.items() if name not in given})
    except psycopg.Error:
        raise ConfigurationError(
            "url must be a PostgreSQL connection string, such as postgresql://user@host/database"
        ) from None


def unavailable(error: psycopg.Error) -> StoreUnavailable:
    """The failure of the database in words that contain no value of a request or a setting."""
    if error.sqlstate is None:
        return StoreUnavailable("the connection to PostgreSQL failed")
    kind = CLASSES.get(error.sqlstate[:2], "other")
    return StoreUnavailable(f"PostgreSQL failed with SQLSTATE {error.sqlstate} ({kind})")


@asynccontextmanager
async def connected(url: Secret) -> AsyncIterator[AsyncConnection[Any]]:
    """A connection of one's own, in autocommit.

    Raises:
        ConfigurationError: the URL is no connection string.
        StoreUnavailable: the database cannot be reached, is read-only, or fails.
    """
    place = complete(url)
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            connection = await AsyncConnection.connect(place, autocommit=True)
    except (psycopg.Error, TimeoutError):
        raise StoreUnavailable("PostgreSQL cannot be reached, refuses the login, or is read-only") from None
    try:
        yield connection
    except psycopg.Error as error:
        raise unavailable(error) from error
    finally:
        await connection.close()


@cache
def migrations() -> tuple[Migration, ...]:
    """The files of the schema, in order."""
    folder = files("mcp_guard.stores") / "migrations"
    found = sorted((entry for entry in folder.iterdir() if entry.name.endswith(".sql")), key=lambda entry: entry.name)
    return tuple([Migration(int(entry.name[:4]), entry.name, entry.read_text("utf-8")) for entry in found])


async def version_of(connection: AsyncConnection[Any]) -> int:
    """The version of the schema; 0 when there is none."""
    cursor = await connection.execute("SELECT to_regclass('mcp_schema') IS NOT NULL")
    (exists,) = await _one(cursor)
    if not exists:
        return 0
    (version,) = await _one(await connection.execute("SELECT coalesce(max(version), 0) FROM mcp_schema"))
    return int(version)


async def check_schema(connection: AsyncConnection[Any]) -> None:
    """See that the database is one that this release can work with.

    Raises:
        ConfigurationError: its encoding or its schema is another.
    """
    (is_utf8,) = await _one(await connection.execute("SELECT current_setting('server_encoding') = 'UTF8'"))
    if not is_utf8:
        raise ConfigurationError("the encoding of the database must be UTF8")
    found, wanted = await version_of(connection), migrations()[-1].version
    if found == 0:
        raise ConfigurationError(f"the database has no schema of mcp-guard; {ADVICE}")
    if found < wanted:
        raise ConfigurationError(f"the schema of the database has version {found}, older than {wanted}; {ADVICE}")
    _check_not_newer(found)


def _check_not_newer(found: int) -> None:
    known = migrations()[-1].version
    if found > known:
        raise ConfigurationError(
            f"the schema of the database has version {found}, newer than {known}: this mcp-guard is too old; "
            "install the release that ran mcp-guard db migrate"
        )


async def migrate(connection: AsyncConnection[Any]) -> list[Migration]:
    """Apply what is missing, all of it or nothing. Answers what was applied.

    Raises:
        ConfigurationError: the schema is newer than this release.
    """
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock(%s)", [MIGRATION_LOCK])
        found = await version_of(connection)
        _check_not_newer(found)
        if found == 0:
            await connection.execute(
                "CREATE TABLE IF NOT EXISTS mcp_schema (version integer PRIMARY KEY, applied_at timestamptz NOT NULL)"
            )
        missing = [one for one in migrations() if one.version > found]
        for one in missing:
            await connection.execute(one.statements.encode())
            await connection.execute("INSERT INTO mcp_schema VALUES (%s, clock_timestamp())", [one.version])
        return missing


async def status(connection: AsyncConnection[Any]) -> Status:
    """What is in the database. Counts rows, which takes a while in a large one."""
    tables = []
    for name in TABLES:
        query = sql.SQL("SELECT count(*), count(*) FILTER (WHERE expires_at <= clock_timestamp()) FROM {}")
        rows, expired = await _one(await connection.execute(query.format(sql.Identifier(name))))
        tables.append(TableStatus(name, rows, expired))
    cursor = await connection.execute("SELECT ended_at, removed FROM mcp_cleanup_runs ORDER BY run DESC LIMIT 1")
    run = await cursor.fetchone()
    return Status(await version_of(connection), tuple(tables), None if run is None else LastRun(*run))


async def sweep(connection: AsyncConnection[Any], chunk: int) -> dict[str, int] | None:
    """Remove what has expired, at most `chunk` rows of a table in one transaction. Answers how many, by table.

    None says that somebody else sweeps. The lock is let go with the connection at the latest.
    """
    (alone,) = await _one(await connection.execute("SELECT pg_try_advisory_lock(%s)", [CLEANUP_LOCK]))
    if not alone:
        return None
    (began,) = await _one(await connection.execute("SELECT clock_timestamp()"))
    removed = dict.fromkeys(TABLES, 0)
    more = True
    while more:
        more = False
        cursor = await connection.execute("SELECT swept, removed FROM mcp_cleanup(%s)", [chunk])
        for name, count in await cursor.fetchall():
            removed[name] += count
            more = more or count == chunk
    await _record(connection, began, removed)
    await connection.execute("SELECT pg_advisory_unlock(%s)", [CLEANUP_LOCK])
    return removed


async def _record(connection: AsyncConnection[Any], began: datetime, removed: Mapping[str, int]) -> None:
    async with connection.transaction():
        cursor = await connection.execute(
            "INSERT INTO mcp_cleanup_runs (began_at, ended_at, removed) "
            "VALUES (%s, clock_timestamp(), %s) RETURNING run",
            [began, Jsonb(removed)],
        )
        (run,) = await _one(cursor)
        await connection.execute("DELETE FROM mcp_cleanup_runs WHERE run <= %s", [run - RUNS_KEPT])


async def _one(cursor: psycopg.AsyncCursor[Any]) -> Any:
    """The row of a query that has one."""
    (row,) = await cursor.fetchall()
    return row
