"""The commands `mcp-guard db …`: each works on the database at `MCP_DATABASE_URL` and answers what there is to say.

The URL may hold a password, so it is never an argument: arguments are visible to every user of the machine.
"""

import asyncio
import os
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from mcp_guard.failures import ConfigurationError
from mcp_guard.secret import Secret
from mcp_guard.stores import postgres_admin as admin
from mcp_guard.stores.cleanup import CHUNK

VARIABLE = "MCP_DATABASE_URL"


def url() -> Secret:
    """Where the database is.

    Raises:
        ConfigurationError: the environment does not say.
    """
    given = os.environ.get(VARIABLE)
    if not given:
        raise ConfigurationError(f"{VARIABLE} must be set, such as postgresql://user@host/database")
    return Secret(given)


async def migrate(place: Secret) -> str:
    """Bring the schema to the version of this release."""
    async with admin.connected(place) as connection:
        applied = await admin.migrate(connection)
        version = await admin.version_of(connection)
    lines = [f"applied {one.name}" for one in applied]
    return "\n".join([*lines, f"the schema has version {version}"])


async def status(place: Secret) -> str:
    """What is in the database: the version, rows by table, the last cleanup."""
    async with admin.connected(place) as connection:
        await admin.check_schema(connection)
        found = await admin.status(connection)
    lines = [f"{one.name:<14}{one.rows:>10} rows{one.expired:>10} expired" for one in found.tables]
    if found.last_run is None:
        last = "no cleanup has run yet"
    else:
        ended = found.last_run.ended.isoformat(timespec="seconds")
        last = f"last cleanup {ended}: removed {sum(found.last_run.removed.values())}"
    return "\n".join([f"the schema has version {found.version}", *lines, last])


async def cleanup(place: Secret) -> str:
    """Run one cleanup."""
    async with admin.connected(place) as connection:
        await admin.check_schema(connection)
        removed = await admin.sweep(connection, CHUNK)
    if removed is None:
        return "another cleanup is running; nothing was done"
    return "\n".join([f"{name:<14}{count:>10} removed" for name, count in removed.items()])


COMMANDS: Mapping[str, Callable[[Secret], Coroutine[Any, Any, str]]] = {
    "migrate": migrate,
    "status": status,
    "cleanup": cleanup,
}


def run(command: str) -> str:
    """Carry out one of `COMMANDS`. Answers what it says.

    Raises:
        ConfigurationError: the URL, or the schema of the database, is not usable.
        StoreUnavailable: the database cannot be reached, or failed.
    """
    return asyncio.run(COMMANDS[command](url()))
