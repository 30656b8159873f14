"""The store on Valkey: one connection for what is asked and one for what is announced, made when they are first needed.

Each batch is one call of one script, and calls that are asked for at the same time share a round trip. Every instant
and every time to live is the server's. What fails, and what an unknown outcome means, is in docs/reference/store.md.
"""

import asyncio
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from valkey.exceptions import ValkeyError

from mcp_guard.failures import ConfigurationError, StoreUnavailable
from mcp_guard.secret import Secret
from mcp_guard.stores.base import Hear, Operation, Result
from mcp_guard.stores.valkey.address import Address, parse
from mcp_guard.stores.valkey.announcements import Hearers, Subscriber
from mcp_guard.stores.valkey.cluster import Cluster
from mcp_guard.stores.valkey.encoding import Names
from mcp_guard.stores.valkey.link import class_of, drop
from mcp_guard.stores.valkey.primary import Primary
from mcp_guard.stores.valkey.selfcheck import check

CLAIM_PARTITIONS = 64
"""Over how many hash slots a cluster spreads claims; the memory of each began at an instant of its own."""
START_SECONDS = 5.0
"""How long the self-check may take."""


@dataclass(eq=False, slots=True)
class _Running:
    """What belongs to one event loop."""

    loop: asyncio.AbstractEventLoop
    servers: Primary | Cluster
    subscriber: Subscriber


@dataclass(eq=False)
class ValkeyStore:
    """`url` is described in `address`. `deadline` is how long a batch may take from asking to its answer.

    With `replicas`, what is of single use (a `Take`, a conditional `Put`, a `Claim`) is answered only when that many
    replicas have it. `prefix` stands before every key. `insecure_allow_eviction` accepts a server that may forget.

    Raises:
        ConfigurationError: a setting cannot work.
    """

    url: Secret | str = field(repr=False)
    deadline: timedelta = timedelta(milliseconds=100)
    replicas: int = 0
    prefix: str = ""
    insecure_allow_eviction: bool = False
    _address: Address = field(init=False, repr=False)
    _hearers: Hearers = field(default_factory=Hearers, init=False, repr=False)
    _running: _Running | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        self._address = parse(self.url.reveal() if isinstance(self.url, Secret) else self.url)
        if not timedelta(milliseconds=1) <= self.deadline <= timedelta(seconds=60):
            raise ConfigurationError(f"deadline must be 1 ms to 60 s, not {self.deadline}")
        if self.replicas < 0:
            raise ConfigurationError(f"replicas must be at least 0, not {self.replicas}")
        if not re.fullmatch(r"[A-Za-z0-9:._-]{0,64}", self.prefix):
            raise ConfigurationError("prefix must be at most 64 letters, digits, and : . _ -")

    async def start(self) -> None:
        """See the contract."""
        running = self._here()
        try:
            async with asyncio.timeout(START_SECONDS):
                links = await running.servers.connect_all()
                try:
                    for link in links:
                        await check(link, allow_eviction=self.insecure_allow_eviction)
                finally:
                    for link in links:
                        await drop(link, wait=True)
        except (ValkeyError, OSError) as error:
            raise StoreUnavailable(f"valkey: {class_of(error)}") from None

    async def run(self, operations: Sequence[Operation]) -> list[Result]:
        """See the contract."""
        if not operations:
            return []
        return await self._here().servers.run(operations)

    def listen(self, topic: str, hear: Hear) -> Callable[[], None]:
        """See the contract."""
        stop = self._hearers.add(self._names().value(topic), hear)
        running = self._running
        if running is not None and running.loop.is_running():
            running.loop.call_soon(running.subscriber.refresh)
        return stop

    async def close(self) -> None:
        """See the contract."""
        running, self._running = self._running, None
        if running is not None and running.loop is asyncio.get_running_loop():
            await running.subscriber.close()
            await running.servers.close()

    def _names(self) -> Names:
        return Names(self.prefix, CLAIM_PARTITIONS if self._address.kind == "cluster" else 1)

    def _here(self) -> _Running:
        """What belongs to the event loop that runs."""
        loop = asyncio.get_running_loop()
        running = self._running
        if running is None or running.loop is not loop:
            kind = Cluster if self._address.kind == "cluster" else Primary
            servers = kind(self._address, self._names(), self.deadline.total_seconds(), self.replicas)
            running = self._running = _Running(loop, servers, Subscriber(servers.connect_to_hear, self._hearers))
            running.subscriber.refresh()
        return running
