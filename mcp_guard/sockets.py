"""The server's side of one WebSocket, and the terms on which a deployment takes them.

An `Exchange` speaks http. A `Line` says its response on a socket: 101 accepts it, the events after it are its
messages, and any other status refuses it.
"""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from types import MappingProxyType
from typing import Any, Final

from mcp_guard.asgi import Message, RawHeaders, Receive, Scope, Send
from mcp_guard.closes import Close, of_status
from mcp_guard.facts import Socket
from mcp_guard.failures import ConfigurationError
from mcp_guard.protocol.event_stream import Blocks, data_of, read_fields

MCP_SUBPROTOCOL: Final = "mcp"
"""The one subprotocol that is spoken. Others are not handed to the app: clients put credentials there, of any form."""
SWITCHING: Final = 101
WELCOME: Final = '{"op":"welcome"}'
"""What a socket that was accepted before its token came is answered with when the app takes it."""
EVENT_STREAM: Final = (b"content-type", b"text/event-stream")
CLOSING_SECONDS: Final = 1.0
"""How long the server may take to send the end of a socket whose client does not read."""
DENIAL: Final = "websocket.http.response"
"""The ASGI extension by which a handshake is refused with a response of its own."""

SCHEMES: Final[Mapping[str, str]] = MappingProxyType({"ws": "http", "wss": "https"})
OFFER: Final = b"sec-websocket-protocol"
LEFT_OUT: Final = frozenset({b"content-length", b"content-type", b"last-event-id", b"mcp-session-id", OFFER})
"""What a handshake has no use for: it has no body, and a socket is a session of its own. The offer is written anew."""


@dataclass(frozen=True, kw_only=True)
class SocketTerms:
    """How sockets are opened and what is taken on them.

    With `hello`, a client that cannot send header fields may give its token in its first message, within
    `hello_deadline`; `waiting_per_address` and `waiting` are how many sockets may be open without one, of one address
    and in all. `max_message_bytes` is for one message, `max_in_flight` for unanswered requests of one socket, and
    `max_refused` is how many messages in a row may be refused before the socket is closed.
    """

    hello: bool = False
    hello_deadline: timedelta = timedelta(seconds=5)
    waiting_per_address: int = 16
    waiting: int = 256
    max_message_bytes: int = 4 * 1024 * 1024
    max_in_flight: int = 64
    max_refused: int = 32

    def __post_init__(self) -> None:
        for name in ("waiting_per_address", "waiting", "max_message_bytes", "max_in_flight", "max_refused"):
            if getattr(self, name) < 1:
                raise ConfigurationError(f"{name} must be at least 1, not {getattr(self, name)}")
        if not timedelta(0) < self.hello_deadline <= timedelta(minutes=1):
            raise ConfigurationError(f"hello_deadline must be longer than 0, up to 1 minute, not {self.hello_deadline}")


@dataclass(eq=False, slots=True)
class Line:
    """One socket. `subprotocol` and `headers` go out with its acceptance; `socket` learns how it was closed."""

    outer_receive: Receive
    outer_send: Send
    denies: bool
    socket: Socket = field(default_factory=Socket)
    subprotocol: str | None = None
    headers: RawHeaders = field(default_factory=list)
    accepted: bool = False
    denied: bool = False
    over: bool = False
    decided: Close | None = None
    blocks: Blocks = field(default_factory=Blocks)

    async def receive(self) -> Message:
        """The next message of the client."""
        message = await self.outer_receive()
        if message["type"] == "websocket.disconnect":
            self.gone(message.get("code"))
        return message

    def gone(self, code: object) -> None:
        """The client has left."""
        self.over = True
        self.socket.close(code if isinstance(code, int) else 1005, "the client left")

    async def send(self, message: Message) -> None:
        """The `send` of the exchange that opens the socket."""
        if self.over:
            return
        if message["type"] == "http.response.start":
            if message["status"] == SWITCHING:
                await self._open(message["headers"])
            elif self.accepted:
                await self.close(of_status(message["status"]))
            else:
                await self._deny(message)
        elif self.accepted:
            for block in self.blocks.feed(message.get("body", b"")):
                data = data_of(read_fields(block))
                if data is not None:
                    await self.say(data.decode("utf-8", "replace"))
        elif self.denies:
            await self.outer_send({**message, "type": f"{DENIAL}.body"})

    async def say(self, text: str) -> None:
        """Send a message, unless the socket is closed."""
        if not self.over:
            await self.outer_send({"type": "websocket.send", "text": text})

    def decide(self, close: Close, reason: str | None = None) -> None:
        """Say how the socket is to be closed, unless that is known already. `reason` is for the audit."""
        if self.decided is None:
            self.decided = close
            self.socket.close(close.code, reason or close.description)

    async def close(self, close: Close, reason: str | None = None) -> None:
        """Close the socket, once."""
        self.decide(close, reason)
        await self.finish(close)

    async def finish(self, close: Close) -> None:
        """Close the socket as was decided, or else as `close` says. Does not wait for long."""
        if self.over or self.denied:
            return
        self.over = True
        said = self.decided or close
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSING_SECONDS):
                await self.outer_send({"type": "websocket.close", "code": said.code, "reason": said.slug})

    async def _open(self, headers: RawHeaders) -> None:
        if not self.accepted:
            self.accepted = True
            said = [pair for pair in headers if pair[0].lower() not in LEFT_OUT]
            message = {"type": "websocket.accept", "subprotocol": self.subprotocol, "headers": said}
            await self.outer_send(message)
        else:
            # The guard accepted it to hear the token; now the app does.
            await self.say(WELCOME)

    async def _deny(self, message: Message) -> None:
        """Refuse the handshake: with the response as it is where the server can, with its own otherwise."""
        self.denied = True
        if self.denies:
            await self.outer_send({**message, "type": f"{DENIAL}.start"})
        else:
            await self.outer_send({"type": "websocket.close", "code": 1008, "reason": ""})


def as_request(scope: Scope, subprotocols: Sequence[str]) -> dict[str, Any]:
    """The handshake as the GET that it is (RFC 6455 §4.1), with `subprotocols` on offer."""
    members = {name: value for name, value in scope.items() if name not in {"subprotocols", "extensions"}}
    headers = [(name, value) for name, value in scope["headers"] if name not in LEFT_OUT]
    headers += [(OFFER, one.encode()) for one in subprotocols]
    scheme = scope.get("scheme", "ws")
    extensions = {name: value for name, value in scope.get("extensions", {}).items() if name != DENIAL}
    return {
        **members,
        "type": "http",
        "method": "GET",
        "scheme": SCHEMES.get(scheme, scheme),
        "headers": headers,
        "extensions": extensions,
    }


async def no_body() -> Message:
    """The `receive` of a handshake."""
    return {"type": "http.request", "body": b"", "more_body": False}
