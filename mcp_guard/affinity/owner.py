"""The side of the worker that holds the session: takes requests in from other workers and runs the app for them.

Other workers have judged the request, so that the layers further in, around the app, are all that it passes here; a
request that was carried once can therefore not be carried on.
"""

import asyncio
import logging
from contextvars import Context
from dataclasses import dataclass, field
from typing import Any

from mcp_guard.affinity.carried import read_request, write_start
from mcp_guard.affinity.frames import Frame, Kind, parts
from mcp_guard.affinity.handshake import HandshakeFailed, Left, welcome
from mcp_guard.affinity.link import Link
from mcp_guard.asgi import ASGIApp, Message, Scope
from mcp_guard.facts import facts_of
from mcp_guard.keyring import KeyRing
from mcp_guard.rejections import Rejection

logger = logging.getLogger("mcp_guard")

HANDSHAKE_SECONDS = 2.0
"""How long a stranger may take to prove that it is a worker."""
MAX_STRANGERS = 1024
"""Connections at once that have not proved it yet; one more takes the place of the oldest, for a worker is quick."""


@dataclass(eq=False, kw_only=True)
class Owner:
    """Serves the links of other workers; `accept` makes one for each connection.

    `state` is that of the lifespan here, of which each request has a copy, as those have that arrive by themselves.
    """

    name: str
    ring: KeyRing
    inward: ASGIApp
    state: dict[str, Any] | None = None
    strangers: dict[Link, None] = field(default_factory=dict, init=False)
    closing: bool = field(default=False, init=False)
    serving: dict[asyncio.Task[None], Link] = field(default_factory=dict, init=False)
    busy: set[Link] = field(default_factory=set, init=False)

    def accept(self) -> Link:
        """The protocol of a new connection."""
        return Link(made=self._begin)

    def drain(self) -> None:
        """End the links that are idle, and each of the others when its request is done."""
        self.closing = True
        for link in set(self.serving.values()) - self.busy:
            link.abort()

    async def settle(self, within_seconds: float) -> None:
        """Wait until all links have ended, but not for ever."""
        if self.serving:
            await asyncio.wait(self.serving, timeout=within_seconds)

    async def cut(self) -> None:
        """End the links that are left."""
        late = list(self.serving)
        if late:
            logger.warning("%d requests of other workers did not end in time and are cut", len(late))
            for task in late:
                task.cancel()
            await asyncio.wait(late)

    def _begin(self, link: Link) -> None:
        if self.closing:
            link.abort()
            return
        # Counted here and not by the task, which runs when many more may have come.
        if len(self.strangers) >= MAX_STRANGERS:
            oldest = next(iter(self.strangers))
            del self.strangers[oldest]
            oldest.abort()
        self.strangers[link] = None
        # In a context of its own: what is current here is not for the requests that will come.
        task = asyncio.get_running_loop().create_task(self._serve(link), context=Context())
        self.serving[task] = link
        task.add_done_callback(self.serving.pop)

    async def _serve(self, link: Link) -> None:
        try:
            if await self._knows(link):
                while not self.closing and (frame := await link.next()) is not None:
                    # What the app did not read of the body of the request before is passed over.
                    if frame.kind not in (Kind.BODY, Kind.BODY_END):
                        await self._answer(link, frame)
        except Exception:
            logger.exception("a request of another worker failed; its connection is closed")
        finally:
            link.abort()

    async def _knows(self, link: Link) -> bool:
        """Whether the other side proves to be a worker in time."""
        try:
            async with asyncio.timeout(HANDSHAKE_SECONDS):
                await welcome(link, self.ring, self.name)
        except TimeoutError:
            logger.warning("a connection to the workers' listener is refused: it says nothing")
            return False
        except Left:
            logger.debug("a connection to the workers' listener was only tried")
            return False
        except HandshakeFailed as fault:
            logger.warning("a connection to the workers' listener is refused: %s", fault)
            return False
        finally:
            self.strangers.pop(link, None)
        return True

    async def _answer(self, link: Link, frame: Frame) -> None:
        """Run the app for one request."""
        if frame.kind != Kind.OPEN:
            raise ValueError(f"a frame of kind {frame.kind} does not open a request")
        request = Carried(link, read_request(frame.content))
        if self.state is not None:
            request.scope["state"] = dict(self.state)
        self.busy.add(link)
        try:
            # In a task of its own, so that what the app makes current is gone with it.
            await asyncio.create_task(self._run(request))
        finally:
            self.busy.discard(link)
            request.over = True
            link.wake()
        link.write(Frame(Kind.END, b""))
        if self.closing:
            link.close()

    async def _run(self, request: "Carried") -> None:
        await self.inward(request.scope, request.receive, request.send)


@dataclass(eq=False, slots=True)
class Carried:
    """One request of another worker, as the app sees it."""

    link: Link
    scope: Scope
    more: bool = True
    over: bool = False

    async def receive(self) -> Message:
        """The parts of the body, and then, when there is nobody to answer any more, that the client is gone."""
        while not self.over:
            frame = self.link.take() if self.more else None
            if frame is not None:
                self.more = frame.kind != Kind.BODY_END
                return {"type": "http.request", "body": frame.content, "more_body": self.more}
            if self.link.ended:
                break
            await self.link.change()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """Send a part of the response back. The layers around the app see to the order."""
        if message["type"] == "http.response.start":
            refusal = facts_of(self.scope).get(Rejection)
            self.link.write(Frame(Kind.START, write_start(message["status"], list(message["headers"]), refusal)))
        elif message["type"] == "http.response.body":
            more = message.get("more_body", False)
            for frame in parts(message.get("body", b""), more, Kind.CHUNK, Kind.CHUNK_END):
                self.link.write(frame)
                await self.link.drain()
            if not more:
                self.over = True
                self.link.wake()
