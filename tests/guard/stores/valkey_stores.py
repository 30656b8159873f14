"""Valkey stores for tests."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import anyio

from mcp_guard.stores.valkey import ValkeyStore

PATIENT = timedelta(seconds=5)
"""A deadline for a machine on which other tests run."""


@asynccontextmanager
async def running(url: str, deadline: timedelta = PATIENT, **settings: Any) -> AsyncIterator[ValkeyStore]:
    """A started store, closed in the end."""
    store = ValkeyStore(url, deadline, **settings)
    await store.start()
    try:
        yield store
    finally:
        await store.close()


async def until(true: Callable[[], object]) -> None:
    """Poll until something is true, for ten seconds at most."""
    with anyio.fail_after(10):
        while True:
            if true():
                return
            await asyncio.sleep(0.002)
