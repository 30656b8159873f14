"""The store in PostgreSQL, for several workers that have a database and no Valkey.

A batch is one call of one function on one pooled connection: one round trip, one transaction. The database's clock is
the only one that is asked. The schema is made by `mcp-guard db migrate`, never by the store.

What happens when it does not answer: a batch ends at its deadline, and its connection is cut and not used again,
because the answer may still arrive. Without any connection, batches fail as soon as the server has refused one.
"""

import asyncio
import contextlib
import os
import select
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import psycopg
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from mcp_guard.failures import ConfigurationError, StoreUnavailable
from mcp_guard.secret import Secret
from mcp_guard.stores import postgres_admin as admin
from mcp_guard.stores import postgres_batch as batches
from mcp_guard.stores.base import Hear, Operation, Result
from mcp_guard.stores.cleanup import DEFAULT_EVERY, Cleanup
from mcp_guard.stores.postgres_listener import Listener

Connection = AsyncConnection[Any]


@dataclass(eq=False)
class PostgresStore:
    """`url` is a connection string; the database holds this store alone.

    `pool_size` is the most connections of this process for batches, beside one for announcements and one while a
    cleanup runs. `deadline` bounds each batch, the wait for a connection included. `cleanup_every` is the time between
    two cleanups, None for none by this process.
    """

    url: Secret | str = field(repr=False)
    pool_size: int = 10
    deadline: timedelta = timedelta(milliseconds=250)
    cleanup_every: timedelta | None = DEFAULT_EVERY
    cleanup: Cleanup | None = field(default=None, init=False)
    _place: Secret = field(init=False, repr=False)
    _listener: Listener = field(init=False, repr=False)
    _pool: "_Pool | None" = field(default=None, init=False, repr=False)
    _users: int = field(default=0, init=False, repr=False)
    _starting: asyncio.Lock = field(default_factory=asyncio.Lock, init=False, repr=False)

    def __post_init__(self) -> None:
        self._place = self.url if isinstance(self.url, Secret) else Secret(self.url)
        admin.complete(self._place)
        if self.pool_size < 1:
            raise ConfigurationError(f"pool_size must be at least 1, not {self.pool_size}")
        if self.deadline < timedelta(milliseconds=1):
            raise ConfigurationError(f"deadline must be at least 1 ms, not {self.deadline.total_seconds() * 1000:g} ms")
        if self.cleanup_every is not None:
            self.cleanup = Cleanup(self, self.cleanup_every)
        self._listener = Listener(self._place)

    async def start(self) -> None:
        """See the contract. Each start wants a `close`: guards may share a store and end one by one."""
        async with self._starting:
            if self._pool is None:
                async with admin.connected(self._place) as connection:
                    await admin.check_schema(connection)
                self._pool = await _Pool.opened(admin.complete(self._place), self.pool_size, self.deadline)
                self._listener.start()
                if self.cleanup is not None:
                    await self.cleanup.start()
            self._users += 1

    async def close(self) -> None:
        """See the contract. The last of those who started it lets go of the connections."""
        async with self._starting:
            self._users = max(0, self._users - 1)
            pool = self._pool
            if self._users or pool is None:
                return
            self._pool = None
            if self.cleanup is not None:
                await self.cleanup.close()
            await self._listener.close()
            await pool.close()

    async def run(self, operations: Sequence[Operation]) -> list[Result]:
        """See the contract.

        Raises:
            StoreUnavailable: the batch may not have been carried out.
            TypeError: something is no operation, or a value under `mcp:session:` is not text.
        """
        if not operations:
            return []
        batch = batches.encode(operations)
        if self._pool is None:
            raise StoreUnavailable("the PostgreSQL store was not started")
        return batches.decode(operations, await self._pool.rows(batches.STATEMENT, batch))

    def listen(self, topic: str, hear: Hear) -> Callable[[], None]:
        """See the contract."""
        return self._listener.listen(topic, hear)

    async def sweep(self, limit: int) -> Mapping[str, int] | None:
        """Remove what has expired; see `cleanup.Sweepable`. Works without `start`.

        Raises:
            StoreUnavailable: the database cannot be reached, or failed; what was removed until then is removed.
        """
        async with admin.connected(self._place) as connection:
            return await admin.sweep(connection, limit)


@dataclass(eq=False, slots=True)
class _Trip:
    """One batch on its way; `connection` is None while it waits for one."""

    connection: Connection | None = None

    def cut(self, task: "asyncio.Task[Any]") -> None:
        """End it from outside.

        Cancelling a statement would wait for the server to agree. A socket that is shut down wakes whoever reads it,
        and the pool discards the connection.
        """
        if self.connection is None:
            task.cancel()
            return
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(self.connection.fileno())) as own:
            own.shutdown(socket.SHUT_RDWR)


@dataclass(eq=False, slots=True)
class _Pool:
    """The connections, and the deadline of everything that is done with them."""

    seconds: float
    pool: AsyncConnectionPool[Connection]
    refused: "asyncio.Future[None]"

    @classmethod
    async def opened(cls, place: str, size: int, deadline: timedelta) -> "_Pool":
        seconds = deadline.total_seconds()

        async def configure(connection: Connection) -> None:
            milliseconds = max(1, int(seconds * 1000))
            await connection.execute("SELECT set_config('statement_timeout', %s, false)", [str(milliseconds)])

        async def check(connection: Connection) -> None:
            # Nothing is ever pending on an idle connection but its end: the server was restarted, or cut it.
            if not _is_silent(connection):
                await connection.close()
                await self.pool.drain()
                raise psycopg.OperationalError("the connection has ended")

        async def refused(pool: AsyncConnectionPool[Connection]) -> None:
            if not pool.get_stats().get("pool_size", 0):
                self.refused.set_result(None)
                self.refused = asyncio.get_running_loop().create_future()

        pool = AsyncConnectionPool[Connection](
            place,
            kwargs={"autocommit": True, "prepare_threshold": 0},
            min_size=1,
            max_size=size,
            open=False,
            configure=configure,
            check=check,
            reconnect_timeout=0,
            reconnect_failed=refused,
        )
        self = cls(seconds, pool, asyncio.get_running_loop().create_future())
        await pool.open()
        return self

    async def close(self) -> None:
        await self.pool.close()

    async def rows(self, statement: str, arguments: Sequence[Any]) -> list[Any]:
        """The rows that a statement answers.

        Raises:
            StoreUnavailable: it failed, or was not done by the deadline.
        """
        trip = _Trip()
        task = asyncio.create_task(self._travel(trip, statement, arguments))
        task.add_done_callback(_look_at)
        try:
            await self._arrived(trip, task)
        finally:
            if not task.done():
                trip.cut(task)
        try:
            return task.result()
        except PoolTimeout:
            raise self._late() from None
        except psycopg.Error as error:
            raise admin.unavailable(error) from error

    async def _arrived(self, trip: _Trip, task: "asyncio.Task[Any]") -> None:
        """Wait for the end of a trip.

        Raises:
            StoreUnavailable: it did not end in time, or no connection can be had.
        """
        refused = self.refused
        timeout = asyncio.get_running_loop().time() + self.seconds
        while not task.done():
            left = timeout - asyncio.get_running_loop().time()
            if left <= 0:
                raise self._late()
            waited: set[asyncio.Future[Any]] = {task} if refused.done() else {task, refused}
            await asyncio.wait(waited, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if refused.done() and trip.connection is None and not task.done():
                raise StoreUnavailable("PostgreSQL refuses connections")

    def _late(self) -> StoreUnavailable:
        """Whether the wait for a connection or for the answer took the deadline is all one."""
        return StoreUnavailable(f"PostgreSQL did not answer within {self.seconds * 1000:g} ms")

    async def _travel(self, trip: _Trip, statement: str, arguments: Sequence[Any]) -> list[Any]:
        trip.connection = connection = await self.pool.getconn(timeout=self.seconds)
        try:
            cursor = await connection.execute(statement.encode(), arguments, binary=True)
            return await cursor.fetchall()
        finally:
            await self.pool.putconn(connection)


def _look_at(task: "asyncio.Task[Any]") -> None:
    """Take the failure of a trip that nobody waits for any more."""
    if not task.cancelled():
        task.exception()


def _is_silent(connection: Connection) -> bool:
    """Whether nothing waits to be read; not a round trip."""
    waiting = select.poll()
    waiting.register(connection.fileno(), select.POLLIN)
    return not waiting.poll(0)
