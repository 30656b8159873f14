"""Hearing what is announced: one connection of its own, made when somebody listens and made again when it is lost."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from valkey.exceptions import ValkeyError

from mcp_guard.failures import StoreUnavailable
from mcp_guard.stores.base import Hear
from mcp_guard.stores.valkey.encoding import command
from mcp_guard.stores.valkey.link import Link, class_of, drop

logger = logging.getLogger("mcp_guard")

PING_SECONDS = 5.0
"""How long a silent connection is believed to be alive; without an answer after as long again it is made anew."""
CONNECT_SECONDS = 1.0
BACKOFF_SECONDS = (0.05, 0.1, 0.2, 0.5)
"""The pauses after failures in a row; the last one is repeated."""


@dataclass(eq=False)
class Hearers:
    """Who listens to what. It outlives connections and event loops; `changes` counts the topics that came."""

    topics: dict[bytes, list[Hear]] = field(default_factory=dict)
    changes: int = 0

    def add(self, topic: bytes, hear: Hear) -> Callable[[], None]:
        """Answers how to stop; stopping twice is as good as once."""
        if topic not in self.topics:
            self.changes += 1
        hearers = self.topics.setdefault(topic, [])
        hearers.append(hear)

        def stop() -> None:
            with contextlib.suppress(ValueError):
                hearers.remove(hear)

        return stop

    def hear(self, topic: bytes, message: bytes) -> None:
        for hear in tuple(self.topics.get(topic, ())):
            try:
                hear(message)
            except Exception:
                logger.exception("a listener of %s failed", topic.decode("ascii", "replace"))


@dataclass(eq=False)
class Subscriber:
    """The connection that hears, and the task that keeps it. `connect` makes a connection that nothing was asked on."""

    connect: Callable[[], Awaitable[Link]]
    hearers: Hearers
    _task: asyncio.Task[None] | None = field(default=None, init=False)
    _changes: int = field(default=0, init=False)

    def refresh(self) -> None:
        """Hear what is listened to by now. A topic that is new makes the connection anew."""
        if self._changes == self.hearers.changes:
            return
        if self._task is not None:
            self._task.cancel()
        self._changes = self.hearers.changes
        self._task = asyncio.get_running_loop().create_task(self._keep(), name="mcp-guard: what Valkey announces")

    async def close(self) -> None:
        """Stop hearing; `refresh` begins again."""
        task, self._task, self._changes = self._task, None, 0
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def _keep(self) -> None:
        failures = 0
        while True:
            try:
                async with asyncio.timeout(CONNECT_SECONDS):
                    link = await self.connect()
                failures = 0
                try:
                    await self._hear(link)
                finally:
                    await drop(link)
            except (ValkeyError, OSError, StoreUnavailable) as error:
                logger.info("valkey: announcements are not heard for now: %s", class_of(error))
            await asyncio.sleep(BACKOFF_SECONDS[min(failures, len(BACKOFF_SECONDS) - 1)])
            failures += 1

    async def _hear(self, link: Link) -> None:
        """Hear until the connection fails.

        Raises:
            ValkeyError, OSError: it did.
        """
        await link.send_packed_command([command(b"SUBSCRIBE", *self.hearers.topics)], check_health=False)
        asked = False
        while True:
            message = await link.read_response(disable_decoding=True, timeout=PING_SECONDS)
            asked = await self._took(link, message, asked)

    async def _took(self, link: Link, message: list[bytes] | None, asked: bool) -> bool:
        """Hand on what was heard. After a silence, ask whether anybody is there; answers whether that was asked."""
        if message is not None:
            if message[0] == b"message":
                self.hearers.hear(message[1], message[2])
            return False
        if asked:
            raise TimeoutError
        await link.send_packed_command([command(b"PING")], check_health=False)
        return True
