"""Databases with the schema of the store, on the server of this test process."""

import functools
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg import sql

from mcp_guard.stores.postgres_admin import migrations
from tests.support import postgres_server


@functools.cache
def template(port: int, encoding: str) -> str:
    """The name of a database in which the migrations were applied, on the server of this port."""
    server, name = postgres_server.shared(), f"mcp_{encoding.lower()}"
    make = sql.SQL("CREATE DATABASE {} TEMPLATE template0 ENCODING {}")
    server.execute(make.format(sql.Identifier(name), sql.Literal(encoding)))
    with psycopg.connect(server.url(name), autocommit=True) as connection:
        connection.execute("CREATE TABLE mcp_schema (version integer PRIMARY KEY, applied_at timestamptz NOT NULL)")
        for one in migrations():
            connection.execute(one.statements.encode())
            connection.execute("INSERT INTO mcp_schema VALUES (%s, now())", [one.version])
    return name


@contextmanager
def migrated(encoding: str = "UTF8") -> Iterator[str]:
    """The URL of an empty store."""
    server = postgres_server.shared()
    with server.database(template(server.port, encoding)) as url:
        yield url
