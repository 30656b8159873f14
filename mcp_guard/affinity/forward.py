"""Carries one request to the worker that holds its session, and the response back, both as they come."""

import asyncio
import logging
from dataclasses import dataclass, field

from mcp_guard import rejections
from mcp_guard.affinity.carried import read_start, write_request
from mcp_guard.affinity.frames import MAX_CONTENT_BYTES, Frame, Kind, parts
from mcp_guard.affinity.homes import Home
from mcp_guard.affinity.link import Link
from mcp_guard.affinity.peers import Peers
from mcp_guard.asgi import Receive, Scope, Send
from mcp_guard.facts import facts_of
from mcp_guard.layer import ResponseCut
from mcp_guard.rejections import Rejection

logger = logging.getLogger("mcp_guard")


@dataclass(eq=False, slots=True)
class Forward:
    """An ASGI app for one request: the worker at `home`."""

    peers: Peers
    home: Home
    started: bool = field(default=False, init=False)
    gone: bool = field(default=False, init=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Carry the request.

        Raises:
            Rejection: the worker is dead.
            Unavailable: it cannot be reached now, or broke off before it responded.
            ResponseCut: it broke off in the middle of its response.
        """
        opening = write_request(scope)
        if len(opening) > MAX_CONTENT_BYTES:
            raise rejections.BODY_TOO_LARGE.because("what is asked is too large to be carried to another worker")
        link = await self.peers.link_to(self.home)
        free = False
        # The task runs in the next turn of the loop; what it writes first goes out together with the opening.
        asking = asyncio.create_task(self._ask(link, receive))
        try:
            link.write(Frame(Kind.OPEN, opening))
            free = await self._relay(link, asking, scope, send)
        finally:
            asking.cancel()
            self.peers.give_back(self.home, link, free=free)
        if not free and not self.gone:
            if self.started:
                raise ResponseCut("the worker that holds the session broke off")
            raise await self.peers.fate(self.home)

    async def _ask(self, link: Link, receive: Receive) -> None:
        """Send the body, and then wait for the client to leave; that ends the link, which tells the worker."""
        try:
            while True:
                message = await receive()
                if message["type"] != "http.request":
                    self.gone = True
                    link.abort()
                    return
                more = message.get("more_body", False)
                for frame in parts(message.get("body", b""), more, Kind.BODY, Kind.BODY_END):
                    link.write(frame)
                    await link.drain()
        except Exception:
            logger.exception("a request cannot be carried on; it is broken off")
            link.abort()

    async def _relay(self, link: Link, asking: "asyncio.Task[None]", scope: Scope, send: Send) -> bool:
        """Hand the response on. Answers True when it is whole, and the app that made it is done."""
        while (frame := await link.next()) is not None:
            if frame.kind == Kind.END:
                return True
            if frame.kind == Kind.START:
                status, headers, refusal = read_start(frame.content)
                if refusal is not None:
                    facts_of(scope).setdefault(Rejection, refusal)
                self.started = True
                await send({"type": "http.response.start", "status": status, "headers": headers})
            else:
                more = frame.kind != Kind.CHUNK_END
                if not more:
                    # The server says that the client is gone as soon as the response is whole; it is not.
                    asking.cancel()
                await send({"type": "http.response.body", "body": frame.content, "more_body": more})
        return False
