"""The commands `mcp-guard db …` from end to end: a process, a real database, what is printed."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator

import psycopg
import pytest

from mcp_guard.stores.postgres_admin import CLEANUP_LOCK, migrations
from tests.support import postgres_server

VERSION = migrations()[-1].version


@pytest.fixture
def url() -> Iterator[str]:
    """A database without a schema."""
    with postgres_server.shared().database() as url:
        yield url


def db(command: str, url: str | None) -> "subprocess.CompletedProcess[str]":
    environment = {name: value for name, value in os.environ.items() if name != "MCP_DATABASE_URL"}
    if url is not None:
        environment["MCP_DATABASE_URL"] = url
    return subprocess.run(
        [sys.executable, "-m", "mcp_guard.cli", "db", command],
        check=False,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_database_is_migrated_looked_at_and_cleaned(url: str) -> None:
    applied = "".join(f"applied {one.name}\n" for one in migrations())
    assert db("migrate", url).stdout == f"{applied}the schema has version {VERSION}\n"
    assert db("migrate", url).stdout == f"the schema has version {VERSION}\n"

    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("INSERT INTO mcp_values SELECT 'old' || n, '', now() FROM generate_series(1, 3) AS n")
        connection.execute("INSERT INTO mcp_values SELECT 'new', '', now() + interval '1 hour'")
    status = db("status", url).stdout
    assert f"the schema has version {VERSION}\n" in status
    assert re.search(r"^mcp_values +4 rows +3 expired$", status, re.MULTILINE)
    assert status.endswith("\nno cleanup has run yet\n")

    assert re.search(r"^mcp_values +3 removed$", db("cleanup", url).stdout, re.MULTILINE)
    status = db("status", url).stdout
    assert re.search(r"^mcp_values +1 rows +0 expired$", status, re.MULTILINE)
    assert re.search(r"^last cleanup \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+\d\d:\d\d: removed 3$", status, re.MULTILINE)


def test_a_cleanup_beside_another_one_does_nothing(url: str) -> None:
    db("migrate", url)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SELECT pg_advisory_lock(%s)", [CLEANUP_LOCK])
        assert db("cleanup", url).stdout == "another cleanup is running; nothing was done\n"


@pytest.mark.parametrize("command", ["status", "cleanup"])
def test_a_database_without_a_schema_is_told_what_to_run(url: str, command: str) -> None:
    done = db(command, url)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "mcp-guard: the database has no schema of mcp-guard; run: mcp-guard db migrate\n"


@pytest.mark.parametrize("command", ["migrate", "status", "cleanup"])
@pytest.mark.parametrize(
    ("url", "said"),
    [
        (None, "MCP_DATABASE_URL must be set"),
        ("", "MCP_DATABASE_URL must be set"),
        ("words that are hidden", "url must be a PostgreSQL connection string"),
        ("postgresql://mcp:hidden@127.0.0.1:1/mcp", "PostgreSQL cannot be reached"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(command: str, url: str | None, said: str) -> None:
    done = db(command, url)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"mcp-guard: {said}")
    assert done.stderr.count("\n") == 1
    assert "hidden" not in done.stderr
