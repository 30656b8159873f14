"""The other workers, from the side of the one that asks: connections to them, kept for a while, and who is still alive.

A worker is dead when its listener refuses, when its socket is gone, or when another answers in its place. Where that
cannot be seen (nothing answers in time, a connection broke) the store is asked for its heartbeat.
"""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from mcp_guard import rejections
from mcp_guard.affinity.handshake import HandshakeFailed, KeysDiffer, ask
from mcp_guard.affinity.homes import Home
from mcp_guard.affinity.link import Link
from mcp_guard.failures import Unavailable
from mcp_guard.keyring import KeyRing
from mcp_guard.rejections import Rejection
from mcp_guard.stores.base import Get, Store

logger = logging.getLogger("mcp_guard")

MAX_IDLE = 64
"""Connections to one worker that are kept while nobody needs them."""
MISSES = 2
"""A heartbeat that is missing so many times in a row is that of a dead worker; once may be the store coming back."""


def heartbeat(name: str) -> str:
    """The key of a worker's heartbeat in the store; its value is the worker's home."""
    return f"mcp:worker:{name}"


@dataclass(eq=False)
class Peer:
    """One other worker. `spare` is how many connections were idle all the time since they were last looked at."""

    home: Home
    idle: list[Link] = field(default_factory=list)
    busy: set[Link] = field(default_factory=set)
    spare: int = 0
    missed: int = 0


@dataclass(eq=False, kw_only=True)
class Peers:
    """`name` is this worker's own; `within` is how long a connection may take, both sides' proofs included."""

    name: str
    ring: KeyRing
    store: Store
    within: timedelta
    known: dict[Home, Peer] = field(default_factory=dict, init=False)

    @property
    def busy(self) -> int:
        """How many connections carry a request."""
        return sum(len(peer.busy) for peer in self.known.values())

    async def link_to(self, home: Home) -> Link:
        """A connection to a worker, for one request; to be given back.

        Raises:
            Rejection: the worker is dead.
            Unavailable: it cannot be reached now.
        """
        link = self._idle(self.known.get(home)) or await self._dial(home)
        self.known.setdefault(home, Peer(home)).busy.add(link)
        return link

    def give_back(self, home: Home, link: Link, *, free: bool) -> None:
        """The request is over; `free` says that the connection is fit for another."""
        peer = self.known.get(home)
        if peer is not None:
            peer.busy.discard(link)
        if free and peer is not None and len(peer.idle) < MAX_IDLE:
            peer.idle.append(link)
        else:
            link.abort()

    async def fate(self, home: Home) -> Rejection | Unavailable:
        """Why a worker broke off: it is dead, or something else happened to the connection."""
        try:
            link = await self._dial(home)
        except (Rejection, Unavailable) as fault:
            return fault
        link.abort()
        return Unavailable("the worker that holds the session broke off")

    async def look(self) -> None:
        """End spare connections, and those to workers whose heartbeat is gone. To be called again and again.

        Raises:
            StoreUnavailable: the store does not know.
        """
        for peer in list(self.known.values()):
            abort(peer.idle[: peer.spare])
            del peer.idle[: peer.spare]
            peer.spare = len(peer.idle)
            if not peer.idle and not peer.busy:
                del self.known[peer.home]
        peers = list(self.known.values())
        if not peers:
            return
        found = await self.store.run([Get(heartbeat(peer.home.name)) for peer in peers])
        for peer, value in zip(peers, found, strict=True):
            peer.missed = 0 if value is not None else peer.missed + 1
            if peer.missed >= MISSES:
                logger.warning("worker %s is dead; its connections are cut", peer.home.name)
                abort([*peer.idle, *peer.busy])

    def close(self) -> None:
        """End all connections."""
        for peer in list(self.known.values()):
            abort([*peer.idle, *peer.busy])
        self.known.clear()

    async def _dial(self, home: Home) -> Link:
        """A new connection to the worker.

        Raises:
            Rejection: it is dead.
            Unavailable: it cannot be reached now.
        """
        try:
            async with asyncio.timeout(self.within.total_seconds()):
                link = await self._greet(home)
        except (ConnectionRefusedError, FileNotFoundError):
            link = None
        except KeysDiffer:
            logger.error("worker %s has another key ring; no request can be carried to it", home.name)
            raise Unavailable("the worker that holds the session has another key ring") from None
        except (OSError, TimeoutError, HandshakeFailed):
            if (await self.store.run([Get(heartbeat(home.name))]))[0] is not None:
                raise Unavailable("the worker that holds the session does not answer") from None
            link = None
        if link is None:
            raise rejections.SESSION_NOT_FOUND.because(f"worker {home.name}, which held the session, is dead")
        return link

    async def _greet(self, home: Home) -> Link | None:
        """A connection on which both sides have proved themselves; None when it leads to another worker."""
        link = await _connect(home)
        try:
            found = await ask(link, self.ring, self.name)
        except BaseException:
            link.abort()
            raise
        if found == home.name:
            return link
        link.abort()
        return None

    @staticmethod
    def _idle(peer: Peer | None) -> Link | None:
        """A connection that is free, the one that was used last."""
        while peer is not None and peer.idle:
            link = peer.idle.pop()
            peer.spare = min(peer.spare, len(peer.idle))
            if not link.ended:
                return link
        return None


def abort(links: Sequence[Link]) -> None:
    """End links at once."""
    for link in links:
        link.abort()


async def _connect(home: Home) -> Link:
    loop = asyncio.get_running_loop()
    if home.path is not None:
        _, link = await loop.create_unix_connection(Link, home.path)
    else:
        _, link = await loop.create_connection(Link, home.host, home.port)
    return link
