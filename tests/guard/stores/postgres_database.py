"""Databases with the schema of the store, on the server of this test process, and stores in them."""

import asyncio
import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from typing import Any

import psycopg
from psycopg import AsyncConnection, sql

from mcp_guard.stores.postgres import PostgresStore
from mcp_guard.stores.postgres_admin import migrations
from tests.support import postgres_server

PATIENT = timedelta(seconds=5)
"""A deadline for a machine on which other tests run."""


def apply_schema(url: str) -> None:
    """What `mcp-guard db migrate` does to an empty database, in any encoding."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE mcp_schema (version integer PRIMARY KEY, applied_at timestamptz NOT NULL)")
        for one in migrations():
            connection.execute(one.statements.encode())
            connection.execute("INSERT INTO mcp_schema VALUES (%s, now())", [one.version])


@functools.cache
def template(encoding: str) -> str:
    """The name of a database in which the migrations were applied."""
    server, name = postgres_server.shared(), f"mcp_{encoding.lower()}"
    make = sql.SQL("CREATE DATABASE {} TEMPLATE template0 ENCODING {}")
    server.execute(make.format(sql.Identifier(name), sql.Literal(encoding)))
    apply_schema(server.url(name))
    return name


@contextmanager
def migrated(encoding: str = "UTF8") -> Iterator[str]:
    """The URL of an empty store."""
    with postgres_server.shared().database(template(encoding)) as url:
        yield url


@asynccontextmanager
async def started(url: str, **settings: Any) -> AsyncIterator[PostgresStore]:
    """A store that runs, without a cleanup unless `settings` says otherwise."""
    store = PostgresStore(url, **{"deadline": PATIENT, "cleanup_every": None, **settings})
    await store.start()
    try:
        yield store
    finally:
        await store.close()


async def value_of(connection: AsyncConnection[Any], query: str) -> Any:
    """The first column of the first row; None when there is no row."""
    cursor = await connection.execute(query.encode())
    row = await cursor.fetchone()
    return None if row is None else row[0]


async def until(condition: Callable[[], Awaitable[Any]]) -> None:
    """Wait for something to hold."""
    async with asyncio.timeout(10):
        while True:
            if await condition():
                return
            await asyncio.sleep(0.005)
