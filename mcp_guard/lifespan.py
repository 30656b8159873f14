"""The lifespan of a guarded app: what its layers depend on starts before the first request and ends after the last.

Without a lifespan, as under a mount that passes none on, the first request starts it. Nothing is served unguarded:
while it cannot be started, every request is refused with 503.
"""

import logging
from dataclasses import dataclass, field

import anyio

from mcp_guard.asgi import ASGIApp, Message, Receive, Scope, Send
from mcp_guard.failures import ConfigurationError, Unavailable
from mcp_guard.handshake import Handshakes
from mcp_guard.layer import Draining, Inhabiting, Managed, Settling
from mcp_guard.pipeline import Pipeline

logger = logging.getLogger("mcp_guard")


@dataclass(eq=False)
class Guard:
    """A guarded app; itself an ASGI app. Made by `guard` and by `Layer.wrap`."""

    pipeline: Pipeline
    app: ASGIApp
    managed: tuple[Managed, ...]
    sockets: Handshakes | None = None
    started: bool = field(default=False, init=False)
    draining: bool = field(default=False, init=False)
    running: list[Managed] = field(default_factory=list, init=False)
    starting: anyio.Lock = field(default_factory=anyio.Lock, init=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.live(scope, receive, send)
            return
        if self.draining:
            await self.pipeline.refuse(Unavailable("the server is about to stop"), scope, receive, closing(scope, send))
            return
        if not self.started and not await self.started_late(scope, receive, send):
            return
        if scope["type"] == "websocket" and self.sockets is not None:
            await self.sockets(scope, receive, send)
            return
        await self.pipeline(scope, receive, send)

    async def start(self) -> None:
        """Start what the layers depend on and is not running yet.

        Raises:
            ConfigurationError: something cannot work as it is set up.
            Unavailable: something cannot be reached now.
        """
        async with self.starting:
            for one in self.managed[len(self.running) :]:
                await one.start()
                self.running.append(one)
            self.started, self.draining = True, False

    def drain(self) -> None:
        """Serve nothing new, and end the streams that are open; calls in flight go on. For a server about to stop."""
        self.draining = True
        for one in self.running:
            if isinstance(one, Draining):
                one.drain()

    async def settle(self) -> None:
        """Wait for what still needs the app, before it is told to shut down."""
        for one in self.running:
            if isinstance(one, Settling):
                await one.settle()

    async def close(self) -> None:
        """Close what was started, in reverse order; a failure of one does not keep the others open."""
        self.started = False
        while self.running:
            one = self.running.pop()
            try:
                await one.close()
            except Exception:
                logger.exception("closing %s failed", type(one).__name__)

    async def started_late(self, scope: Scope, receive: Receive, send: Send) -> bool:
        """Start without a lifespan. Answers False after refusing the request."""
        try:
            await self.start()
        except Unavailable as fault:
            await self.pipeline.refuse(fault, scope, receive, send)
            return False
        except Exception:
            logger.exception("the guard cannot be started; the request is refused")
            await self.pipeline.refuse(Unavailable("the guard cannot be started"), scope, receive, send)
            return False
        return True

    async def live(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the lifespan: ours around the app's, or ours alone when the app has none."""
        startup = await receive()
        for one in self.managed:
            if isinstance(one, Inhabiting):
                one.inhabit(scope.get("state"))
        try:
            await self.start()
        except Exception as fault:
            if not isinstance(fault, ConfigurationError | Unavailable):
                logger.exception("the guard cannot be started")
            await self.close()
            await send({"type": "lifespan.startup.failed", "message": str(fault)})
            return
        try:
            if not await self.live_with_app(startup, scope, receive, send):
                await send({"type": "lifespan.startup.complete"})
                await receive()
                await self.close()
                await send({"type": "lifespan.shutdown.complete"})
        finally:
            await self.close()

    async def live_with_app(self, startup: Message, scope: Scope, receive: Receive, send: Send) -> bool:
        """Pass the lifespan on. Answers False when the app ended it without a word: it has none."""
        unheard = [startup]
        spoken = False

        async def receive_replayed() -> Message:
            if unheard:
                return unheard.pop()
            message = await receive()
            await self.settle()
            return message

        async def send_spoken(message: Message) -> None:
            nonlocal spoken
            spoken = True
            if message["type"].startswith("lifespan.shutdown"):
                await self.close()
            await send(message)

        try:
            await self.app(scope, receive_replayed, send_spoken)
        except Exception:
            # ASGI lifespan: an app that raises before it answers has no lifespan and is served all the same.
            if spoken:
                raise
            logger.debug("the app has no lifespan", exc_info=True)
        return spoken


def closing(scope: Scope, send: Send) -> Send:
    """A `send` that tells an HTTP/1 client to ask elsewhere next time (RFC 9112 §9.6); HTTP/2 has no such field."""
    if not scope.get("http_version", "1.1").startswith("1"):
        return send

    async def send_last(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]}
        await send(message)

    return send_last
