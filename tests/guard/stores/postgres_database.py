"""Databases with the schema of the store, on the server of this test process."""

import functools
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg import sql

from mcp_guard.stores.postgres_admin import migrations
from tests.support import postgres_server

TEMPLATE = "mcp_template"


@functools.cache
def template(server: str) -> str:
    """The name of a database in which the migrations were applied, on the server at this URL."""
    shared = postgres_server.shared()
    shared.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(TEMPLATE)))
    with psycopg.connect(shared.url(TEMPLATE), autocommit=True) as connection:
        connection.execute("CREATE TABLE mcp_schema (version integer PRIMARY KEY, applied_at timestamptz NOT NULL)")
        for one in migrations():
            connection.execute(one.statements.encode())
            connection.execute("INSERT INTO mcp_schema VALUES (%s, now())", [one.version])
    return TEMPLATE


@contextmanager
def migrated() -> Iterator[str]:
    """The URL of an empty store."""
    server = postgres_server.shared()
    with server.database(template(server.url())) as url:
        yield url
