"""What is asked of one server: one round trip under way, and everything that is asked meanwhile goes into the next one.

One task drains what waits, and ends when nothing does. It alone touches the connection, so a caller that is cancelled
leaves no reply unread: what it asked is not sent any more, or its results are dropped. When an answer is late or the
connection fails, the connection is given up, and no reply of it is taken for another's.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from valkey.exceptions import ValkeyError

from mcp_guard.failures import StoreUnavailable
from mcp_guard.stores.base import Result
from mcp_guard.stores.valkey.breaker import Breaker
from mcp_guard.stores.valkey.encoding import Written, script
from mcp_guard.stores.valkey.link import Link, Unsent, class_of, drop
from mcp_guard.stores.valkey.trip import Asked, Group, Trip, fail, grouped

logger = logging.getLogger("mcp_guard")

RUN = script("run")
CALLERS_AT_ONCE = 256
"""How many callers share a round trip: it bounds how long the server is busy with them."""
CONNECT_SECONDS = 1.0
"""How long a connection may take to be made; callers do not wait for it longer than their deadline."""
LATE = "valkey: no answer within the deadline"


@dataclass(eq=False)
class Batcher:
    """`deadline` is in seconds, from asking to the answer; `replicas` is how many must have a write of single use."""

    connect: Callable[[], Awaitable[Link]]
    deadline: float
    replicas: int = 0
    _breaker: Breaker = field(default_factory=Breaker, init=False)
    _waiting: deque[Asked] = field(default_factory=deque, init=False)
    _outstanding: deque[Asked] = field(default_factory=deque, init=False)
    _alarm: asyncio.TimerHandle | None = field(default=None, init=False)
    _draining: asyncio.Task[None] | None = field(default=None, init=False)
    _link: Link | None = field(default=None, init=False)

    def ask(
        self, operations: Sequence[Written], slot: int = 0, *, asking: bool = False
    ) -> asyncio.Future[list[Result]]:
        """The results of operations whose keys are all in `slot`, as soon as they are there.

        The future raises `StoreUnavailable` when they may not have been carried out; when it is `Unsent`, they were
        not.

        Raises:
            Unsent: the breaker is open.
        """
        loop = asyncio.get_running_loop()
        now = loop.time()
        if not self._breaker.admits(now):
            raise Unsent("valkey: not asked, after failures in a row")
        asked = Asked(slot, asking, operations, loop.create_future(), now + self.deadline)
        if self.replicas:
            asked.single_use = any(written.single_use for written in operations)
        self._waiting.append(asked)
        self._outstanding.append(asked)
        if self._draining is None:
            self._draining = loop.create_task(self._drain(), name="mcp-guard: what is asked of Valkey")
        if self._alarm is None:
            self._alarm = loop.call_at(asked.deadline, self._expire)
        return asked.answer

    async def close(self) -> None:
        """Let those who wait have their answers, and let go of the connection. A later `ask` makes a new one."""
        if self._draining is not None:
            await asyncio.wait([self._draining], timeout=CONNECT_SECONDS + self.deadline)
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        self._outstanding.clear()
        await self._drop(wait=True)

    def _expire(self) -> None:
        """Fail who has waited too long; when it was for a connection, nobody else waits for it.

        Deadlines come in the order of asking, so one timer serves everyone.
        """
        loop = asyncio.get_running_loop()
        now = loop.time()
        while self._outstanding and (self._outstanding[0].deadline <= now or self._outstanding[0].answer.done()):
            asked = self._outstanding.popleft()
            if not asked.answer.done() and self._link is None:
                self._breaker.open(now)
            asked.fail(StoreUnavailable(LATE))
        self._alarm = loop.call_at(self._outstanding[0].deadline, self._expire) if self._outstanding else None

    async def _drain(self) -> None:
        try:
            while self._waiting:
                await self._serve()
        finally:
            self._draining = None
            fail(self._waiting, Unsent("valkey: the store's task was cancelled"))
            self._waiting.clear()

    async def _serve(self) -> None:
        """One exchange for those who wait. Whatever goes wrong, nobody of them is left without an answer."""
        batch: Group = []
        fault: StoreUnavailable = StoreUnavailable("valkey: the store's task was cancelled")
        try:
            await self._linked()
            batch = self._next()
            if batch:
                await self._exchange(batch)
        except StoreUnavailable as error:
            batch, fault = batch or self._next(), error
            self._breaker.failed(asyncio.get_running_loop().time())
            logger.warning("%s", fault.reason)
        except Exception:
            batch, fault = batch or self._next(), StoreUnavailable("valkey: the store failed")
            logger.exception("the Valkey store failed")
            await self._drop()
        finally:
            fail(batch, fault)

    def _next(self) -> Group:
        """Who is served next; who has left or waited too long is not."""
        batch: Group = []
        while self._waiting and len(batch) < CALLERS_AT_ONCE:
            asked = self._waiting.popleft()
            if not asked.answer.done():
                batch.append(asked)
        return batch

    async def _exchange(self, batch: Group) -> None:
        try:
            async with asyncio.timeout_at(batch[-1].deadline):
                answered = await self._trips(batch)
        except (ValkeyError, OSError) as error:
            # TimeoutError is an OSError.
            await self._drop()
            raise StoreUnavailable(LATE if isinstance(error, TimeoutError) else f"valkey: {class_of(error)}") from None
        except BaseException:
            await self._drop()
            raise
        if answered:
            self._breaker.succeeded()
        else:
            self._breaker.failed(asyncio.get_running_loop().time())

    async def _trips(self, batch: Group) -> bool:
        """The round trip for `batch`, and a second one for those of whom the first did nothing.

        Answers whether the server carried out anything.
        """
        trip = await self._made(grouped(batch), whole=False)
        if not trip.undone:
            return trip.answered
        second = await self._made(trip.undone, whole=True)
        fail(batch, Unsent("valkey: READONLY"))
        return trip.answered or second.answered

    async def _made(self, groups: Sequence[Group], *, whole: bool) -> Trip:
        """A round trip. When the server may not be the primary any more, the next one looks for it."""
        trip = Trip(groups, self.replicas)
        await trip.make(await self._linked(), RUN, whole=whole)
        if trip.moved_on:
            await self._drop()
        return trip

    async def _linked(self) -> Link:
        """The connection, made anew when there is none.

        Raises:
            Unsent: none can be made.
        """
        if self._link is not None and not self._link.lost:
            return self._link
        await self._drop()
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                self._link = await self.connect()
        except (ValkeyError, OSError) as error:
            raise Unsent(f"valkey: {class_of(error)}") from None
        return self._link

    async def _drop(self, *, wait: bool = False) -> None:
        link, self._link = self._link, None
        if link is not None:
            await drop(link, wait=wait)
