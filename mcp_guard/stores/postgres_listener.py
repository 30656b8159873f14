"""Hears announcements: one connection that listens, opened anew after a failure.

What is announced while there is no connection is not heard, as the contract says.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from mcp_guard.failures import StoreUnavailable
from mcp_guard.secret import Secret
from mcp_guard.stores import postgres_batch as batches
from mcp_guard.stores.base import Hear
from mcp_guard.stores.postgres_admin import connected

logger = logging.getLogger("mcp_guard")

FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 2.0


@dataclass(eq=False)
class Listener:
    """Who hears what. It connects when it is started and somebody listens."""

    url: Secret
    _hearers: dict[str, list[Hear]] = field(default_factory=dict, init=False, repr=False)
    _task: asyncio.Task[None] | None = field(default=None, init=False, repr=False)
    _started: bool = field(default=False, init=False, repr=False)

    def listen(self, topic: str, hear: Hear) -> Callable[[], None]:
        """See the contract of stores."""
        hearers = self._hearers.setdefault(topic, [])
        hearers.append(hear)
        self._begin()

        def stop() -> None:
            with contextlib.suppress(ValueError):
                hearers.remove(hear)

        return stop

    def start(self) -> None:
        """Begin to listen, now or with the first listener."""
        self._started = True
        self._begin()

    async def close(self) -> None:
        """Stop listening; who listens stays known."""
        self._started = False
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def _begin(self) -> None:
        if self._started and self._hearers and self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._listen())

    async def _listen(self) -> None:
        pause = FIRST_PAUSE_SECONDS
        while True:
            try:
                async with connected(self.url) as connection:
                    await connection.execute(f"LISTEN {batches.CHANNEL}".encode())
                    pause = FIRST_PAUSE_SECONDS
                    async for notification in connection.notifies():
                        self._hear(notification.payload)
            except StoreUnavailable as fault:
                logger.warning("announcements are not heard for now: %s", fault)
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    def _hear(self, payload: str) -> None:
        try:
            topic, message = batches.heard(payload)
        except ValueError:
            logger.warning("a notification on %s is not of mcp-guard", batches.CHANNEL)
            return
        for hear in tuple(self._hearers.get(topic, ())):
            try:
                hear(message)
            except Exception:
                logger.exception("a listener of %s failed", topic)
