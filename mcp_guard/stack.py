"""`guard(app, *layers)`: an app behind an ordered stack of layers.

The order is checked when the stack is built: every fact a layer needs must be added by a layer further out. The stack
owns the lifespan: what its layers depend on is started before the first request and closed after the last.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

import anyio

from mcp_guard.asgi import ASGIApp, Message, Receive, Scope, Send
from mcp_guard.check import Layer, compile_layers
from mcp_guard.exchange import Pipeline
from mcp_guard.failures import ConfigurationError, Unavailable
from mcp_guard.layer import Managed

logger = logging.getLogger("mcp_guard")


def guard(app: ASGIApp, *layers: Layer) -> "Guard":
    """`app` behind `layers`, outermost first.

    Raises:
        ConfigurationError: there is no layer, or a layer needs a fact that no layer further out adds.
    """
    if not layers:
        raise ConfigurationError("guard() needs at least one layer; see mcp_guard.profiles for complete stacks")
    check_order(layers)
    managed = tuple({id(one): one for layer in layers for one in layer.managed()}.values())
    return Guard(compile_layers(layers, app), app, managed)


def check_order(layers: Sequence[Layer]) -> None:
    """Check that every fact is known where it is needed.

    Raises:
        ConfigurationError: naming the layer, the fact and, if there is one, the layer that would have to stand first.
    """
    known: set[type] = set()
    for position, layer in enumerate(layers):
        name = type(layer).__name__
        for needed in layer.needs:
            if needed in known:
                continue
            later = next((type(other).__name__ for other in layers[position + 1 :] if needed in other.adds), None)
            if later is None:
                raise ConfigurationError(f"{name} needs {needed.__name__}, which no layer of the stack adds")
            raise ConfigurationError(
                f"{name} needs {needed.__name__}, which {later} adds: put {later} before {name} in the stack"
            )
        known.update(layer.adds)


@dataclass(eq=False)
class Guard:
    """A guarded app; itself an ASGI app. Made by `guard`."""

    pipeline: Pipeline
    app: ASGIApp
    managed: tuple[Managed, ...]
    started: bool = field(default=False, init=False)
    starting: anyio.Lock = field(default_factory=anyio.Lock, init=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.live(scope, receive, send)
            return
        if not self.started and not await self.started_late(scope, receive, send):
            return
        await self.pipeline(scope, receive, send)

    async def start(self) -> None:
        """Start what the layers depend on; does nothing when it has been started.

        Raises:
            ConfigurationError: something cannot work as it is set up.
            Unavailable: something cannot be reached now.
        """
        async with self.starting:
            if not self.started:
                for one in self.managed:
                    await one.start()
                self.started = True

    async def close(self) -> None:
        """Close what was started, in reverse order; a failure of one does not keep the others open."""
        self.started = False
        for one in reversed(self.managed):
            try:
                await one.close()
            except Exception:
                logger.exception("closing %s failed", type(one).__name__)

    async def started_late(self, scope: Scope, receive: Receive, send: Send) -> bool:
        """Start without a lifespan, as under a mount that has none. Answers False after refusing the request."""
        try:
            await self.start()
        except Unavailable as fault:
            await self.pipeline.refuse(fault, scope, receive, send)
            return False
        return True

    async def live(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the lifespan: ours around the app's, or ours alone when the app has none."""
        spoken = False

        async def receive_started() -> Message:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await self.start()
            return message

        async def send_spoken(message: Message) -> None:
            nonlocal spoken
            spoken = True
            if message["type"].startswith("lifespan.shutdown"):
                await self.close()
            await send(message)

        try:
            await self.app(scope, receive_started, send_spoken)
        except (ConfigurationError, Unavailable) as fault:
            if spoken:
                raise
            await send({"type": "lifespan.startup.failed", "message": str(fault)})
        except Exception:
            if spoken or not self.started:
                raise
            await self.live_alone(receive, send)

    async def live_alone(self, receive: Receive, send: Send) -> None:
        """The app raised without a word on its lifespan: it has none (ASGI lifespan §Scope)."""
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.close()
        await send({"type": "lifespan.shutdown.complete"})
