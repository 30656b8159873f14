"""One worker among several: its name, its private listener, its heartbeat, and its connections to the others."""

import asyncio
import logging
import secrets
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from mcp_guard.affinity.homes import Home
from mcp_guard.affinity.owner import Owner
from mcp_guard.affinity.peers import Peers, heartbeat
from mcp_guard.affinity.places import BACKLOG, Place, remove
from mcp_guard.asgi import ASGIApp
from mcp_guard.failures import ConfigurationError, StoreUnavailable, Unavailable
from mcp_guard.keyring import KeyRing
from mcp_guard.stores.base import Delete, Put, Store

logger = logging.getLogger("mcp_guard")

HEARTBEAT_TTL = timedelta(seconds=10)
BEAT_SECONDS = 3.0


@dataclass(eq=False, kw_only=True)
class Worker:
    """`listen` is `unix:<directory>` on one host, or `tcp:<IP address>:<port>` across hosts; port 0 is any free one.

    `ring` and `store` are those of all workers. `advertise` is the IP address under which the others reach a TCP
    listener, where that is not the one it listens on. `within` is how long a connection to another worker may take,
    `grace` how long a request of another worker may still take when this one closes.

    Raises:
        ConfigurationError: naming the setting that cannot work.
    """

    listen: str
    ring: KeyRing
    store: Store
    advertise: str | None = None
    within: timedelta = timedelta(seconds=2)
    grace: timedelta = timedelta(seconds=3)
    place: Place = field(init=False)
    inward: ASGIApp | None = field(default=None, init=False, repr=False)
    state: dict[str, Any] | None = field(default=None, init=False, repr=False)
    running: "Running | None" = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        self.place = Place.parse(self.listen, self.advertise)
        if self.within <= timedelta(0):
            raise ConfigurationError(f"within must be positive, not {self.within}")
        if self.grace < timedelta(0):
            raise ConfigurationError(f"grace must not be negative, not {self.grace}")

    def home(self) -> str:
        """What goes into the record of a session that this worker holds.

        Raises:
            Unavailable: the worker is not running.
        """
        return str(self._running().home)

    @property
    def peers(self) -> Peers:
        """The other workers.

        Raises:
            Unavailable: the worker is not running.
        """
        return self._running().peers

    def join(self, inward: ASGIApp) -> None:
        """What runs the requests that others carry here.

        Raises:
            ConfigurationError: there is something already.
        """
        if self.inward is not None:
            raise ConfigurationError("worker: it belongs to another stack already; make one for each")
        self.inward = inward

    def inhabit(self, state: dict[str, Any] | None) -> None:
        """See `mcp_guard.layer.Inhabiting`."""
        self.state = state

    async def start(self) -> None:
        """Take a new name, listen, and say so in the store.

        Raises:
            ConfigurationError: the directory of the sockets is not ours alone, or the worker is in no stack.
            Unavailable: the address cannot be had, or the store does not answer.
        """
        if self.running is not None:
            return
        if self.inward is None:
            raise ConfigurationError("worker: an affinity layer must stand in the stack")
        name = secrets.token_hex(16)
        owner = Owner(name=name, ring=self.ring, inward=self.inward, state=self.state)
        listener, home = self.place.open(name)
        peers = Peers(name=name, ring=self.ring, store=self.store, within=self.within)
        loop = asyncio.get_running_loop()
        serve = loop.create_server if home.path is None else loop.create_unix_server
        server = await serve(owner.accept, sock=listener, backlog=BACKLOG)
        running = Running(home, self.store, owner, peers, server)
        try:
            await running.beat()
        except BaseException:
            await running.close(0.0)
            raise
        running.beating = asyncio.create_task(running.live())
        self.running = running

    def drain(self) -> None:
        """Take no more requests in from others. To them this worker is dead from now on, as its sessions soon are."""
        if self.running is not None:
            self.running.drain()

    async def settle(self) -> None:
        """Do so, and wait until the requests of others have ended, for at most `grace`."""
        if self.running is not None:
            await self.running.settle(self.grace.total_seconds())

    async def close(self) -> None:
        """Do so, cut what has not ended, and take the heartbeat away."""
        running, self.running = self.running, None
        if running is not None:
            await running.close(self.grace.total_seconds())

    def _running(self) -> "Running":
        if self.running is None:
            raise Unavailable("the worker is not running")
        return self.running


@dataclass(eq=False)
class Running:
    """A worker between its start and its end."""

    home: Home
    store: Store
    owner: Owner
    peers: Peers
    server: asyncio.Server
    beating: asyncio.Task[None] | None = None
    settled: bool = False

    async def beat(self) -> None:
        """Say in the store that this worker lives."""
        await self.store.run([Put(heartbeat(self.home.name), str(self.home).encode(), HEARTBEAT_TTL)])

    async def live(self) -> None:
        """Say so again and again, and look after the others."""
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            try:
                await self.beat()
                await self.peers.look()
            except StoreUnavailable as fault:
                logger.warning("this worker's heartbeat is not renewed: %s", fault.reason)
            except Exception:
                logger.exception("this worker's heartbeat is not renewed")

    def drain(self) -> None:
        """See `Worker.drain`."""
        self.server.close()
        remove(self.home)
        self.owner.drain()

    async def settle(self, within_seconds: float) -> None:
        """See `Worker.settle`."""
        if not self.settled:
            self.settled = True
            self.drain()
            await self.owner.settle(within_seconds)

    async def close(self, within_seconds: float) -> None:
        """See `Worker.close`."""
        await self.settle(within_seconds)
        await self.owner.cut()
        self.peers.close()
        if self.beating is not None:
            self.beating.cancel()
            await asyncio.wait([self.beating])
        try:
            await self.store.run([Delete(heartbeat(self.home.name))])
        except StoreUnavailable as fault:
            logger.warning("this worker's heartbeat stays for a while: %s", fault.reason)
