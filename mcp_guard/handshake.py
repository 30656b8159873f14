"""How a WebSocket is opened: the handshake is the GET that it is (RFC 6455 §4.1), and passes every layer as one.

A client whose handshake has no Authorization field may, where the terms say so, give its token in its first message,
`{"op": "hello", "token": "…"}`. The layers in front of the token then judge the handshake, the guard accepts the
socket, and all layers judge it again with the token. Nothing of it reaches the app before that.
"""

import asyncio
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from mcp_guard import closes, rejections
from mcp_guard.asgi import Receive, Scope, Send
from mcp_guard.clock import Clock
from mcp_guard.conversation import Conversation
from mcp_guard.exchange import Exchange
from mcp_guard.facts import FACTS_KEY, ClientAddress, Socket, facts_of
from mcp_guard.pipeline import Pipeline
from mcp_guard.protocol.strict_json import JsonError, loads
from mcp_guard.sockets import DENIAL, EVENT_STREAM, MCP_SUBPROTOCOL, SWITCHING, Line, SocketTerms, as_request, no_body

HELLO_BYTES: Final = 16 * 1024
HELLO_MEMBERS: Final = frozenset({"op", "token"})
RETRY_SECONDS: Final = 5
"""When to try again while too many sockets wait for a hello: none of them does so for long."""
NOTHING: Final[Mapping[type, Any]] = MappingProxyType({})


@dataclass(eq=False)
class Handshakes:
    """An ASGI app for the scope type `websocket`. `inner` are all layers, `outer` those in front of the token.

    `paths` are those of the resources: a socket is opened nowhere else.
    """

    terms: SocketTerms
    paths: Collection[str]
    clock: Clock
    outer: Pipeline
    inner: Pipeline
    waiting: Counter[str] = field(default_factory=Counter, init=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        line = Line(receive, send, DENIAL in scope.get("extensions", {}))
        offered = set(scope.get("subprotocols", ()))
        spoken = tuple(offered & {MCP_SUBPROTOCOL})
        request = as_request(scope, spoken)
        if routed(request) not in self.paths:
            await self._judged(line, request, Pipeline(self.inner.handshake_steps(), nowhere))
        elif self._awaits_hello(request, offered):
            await self._judged(line, request, Pipeline(self.outer.steps, Lobby(self, line, request, spoken)))
        else:
            await self.open(line, request, spoken)

    def _awaits_hello(self, request: Scope, offered: Collection[str]) -> bool:
        """Whether the token may come in a message: there is none where a client could put one in a handshake."""
        named = any(name == b"authorization" for name, _ in request["headers"])
        return self.terms.hello and not (named or request.get("query_string")) and set(offered) <= {MCP_SUBPROTOCOL}

    async def open(self, line: Line, request: Scope, subprotocols: tuple[str, ...]) -> None:
        """Judge a handshake that has its token, and serve the socket."""
        conversation = Conversation(self.terms, self.clock, line, request, subprotocols, self.inner)
        await self._judged(line, request, self.inner, {Conversation: conversation})

    async def _judged(self, line: Line, request: Scope, layers: Pipeline, facts: Mapping[type, Any] = NOTHING) -> None:
        scope = {**request, FACTS_KEY: {Socket: line.socket, **facts}}
        await Exchange(scope, no_body, line.send).run(layers.steps, layers.app)
        await line.finish(closes.FAILED)


async def nowhere(scope: Scope, receive: Receive, send: Send) -> None:
    """What stands in place of the app where no socket is opened."""
    raise rejections.NOT_FOUND.because("no WebSocket is opened at this path")


def routed(request: Scope) -> str:
    """The path of a handshake as the app's router sees it: without the prefix of the app's mount point."""
    root, path = request.get("root_path", ""), str(request["path"])
    return path[len(root) :] if root and path.startswith(f"{root}/") else path


@dataclass(eq=False, slots=True)
class Lobby:
    """The app behind the layers in front of the token: waits for the hello of one socket."""

    handshakes: Handshakes
    line: Line
    request: Scope
    subprotocols: tuple[str, ...]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        waiting, terms = self.handshakes.waiting, self.handshakes.terms
        address = facts_of(scope).get(ClientAddress)
        bucket = "" if address is None else address.bucket
        if waiting[bucket] >= terms.waiting_per_address or waiting.total() >= terms.waiting:
            raise rejections.limited("too many WebSockets wait for a hello", RETRY_SECONDS)
        waiting[bucket] += 1
        try:
            token = await self._token(send)
        finally:
            waiting[bucket] -= 1
            if not waiting[bucket]:
                del waiting[bucket]
        if token is not None:
            await self._open(token)

    async def _token(self, send: Send) -> str | None:
        """Accept the socket, and hear the token; None when it is closed instead."""
        self.line.subprotocol = MCP_SUBPROTOCOL if self.subprotocols else None
        await send({"type": "http.response.start", "status": SWITCHING, "headers": [EVENT_STREAM]})
        try:
            async with asyncio.timeout(self.handshakes.terms.hello_deadline.total_seconds()):
                message = await self.line.receive()
        except TimeoutError:
            await self.line.close(closes.HELLO_LATE)
            return None
        token = token_of(message.get("text"))
        if token is None:
            await self.line.close(closes.HELLO_MALFORMED)
        return token

    async def _open(self, token: str) -> None:
        """Have all layers judge the handshake as they would have with the token in its field."""
        headers = [*self.request["headers"], (b"authorization", f"Bearer {token}".encode())]
        await self.handshakes.open(self.line, {**self.request, "headers": headers}, self.subprotocols)


def token_of(text: str | None) -> str | None:
    """The token of a first message; None when it is no hello."""
    data = b"" if text is None else text.encode("utf-8", "surrogatepass")
    if not data or len(data) > HELLO_BYTES:
        return None
    try:
        hello = loads(data)
    except JsonError:
        return None
    if not isinstance(hello, dict) or set(hello) != HELLO_MEMBERS or hello["op"] != "hello":
        return None
    token = hello["token"]
    return token if isinstance(token, str) and token.isascii() and token.isprintable() else None
