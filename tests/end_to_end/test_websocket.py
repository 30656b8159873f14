"""A real WebSocket client and a real MCP server of the SDK, on uvicorn as `mcp-guard serve` sets it up, and others."""

import json
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from typing import Any

import anyio
import mcp_types
import pytest
from mcp.shared._context_streams import create_context_streams
from mcp.shared.message import SessionMessage
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from mcp_guard import StaticKeys, TrustedIssuer, guard, standard
from mcp_guard.asgi import ASGIApp, Receive, Scope, Send
from mcp_guard.auditlog import AuditLog, MemorySink
from mcp_guard.demo_server import demo_tools
from mcp_guard.facts import Resource
from mcp_guard.serving import configuration
from mcp_guard.sockets import SocketTerms
from tests.benchmarks.peers import ISSUER, Keys
from tests.guard.asgi import polled
from tests.guard.servers import SERVERS, Build
from tests.support.serving import Serving, serving

WITHIN_SECONDS = 10
INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    },
}
INITIALIZED = {"jsonrpc": "2.0", "method": "notifications/initialized"}


async def speaking(scope: Scope, receive: Receive, send: Send) -> None:
    """The demo server of the SDK on a WebSocket, as the SDK runs one on the standard streams."""
    # Nothing may be open yet when the scope is that of the lifespan, which this app does not have.
    assert scope["type"] == "websocket", scope["type"]
    server = demo_tools()._lowlevel_server
    heard, inward = create_context_streams[SessionMessage | Exception](0)
    outward, said = create_context_streams[SessionMessage](0)
    await receive()
    await send({"type": "websocket.accept", "subprotocol": "mcp" if "mcp" in scope["subprotocols"] else None})

    async def hear() -> None:
        async with heard:
            while (message := await receive())["type"] == "websocket.receive":
                parsed = mcp_types.jsonrpc_message_adapter.validate_json(message["text"], by_name=False)
                await heard.send(SessionMessage(parsed))

    async def say() -> None:
        async with said:
            async for message in said:
                text = message.message.model_dump_json(by_alias=True, exclude_unset=True)
                await send({"type": "websocket.send", "text": text})

    async with inward, outward, anyio.create_task_group() as tasks:
        tasks.start_soon(hear)
        tasks.start_soon(say)
        await server.run(inward, outward, server.create_initialization_options())
        tasks.cancel_scope.cancel()


class Live:
    """The server behind the complete stack, and clients of it."""

    def __init__(self) -> None:
        self.keys, self.sink, self.url = Keys(), MemorySink(), ""

    def build(self, origin: str) -> ASGIApp:
        self.url = f"{origin}/mcp"
        layers = standard(
            resources=[Resource(self.url, "/mcp")],
            issuers=[TrustedIssuer(ISSUER, StaticKeys(self.keys.jwks()))],
            websocket=SocketTerms(hello=True),
            audit=AuditLog(self.sink),
        )
        return guard(speaking, *layers)

    def connect(self, token: str | None = None, **settings: Any) -> ClientConnection:
        fields = {} if token is None else {"Authorization": f"Bearer {token}"}
        url = self.url.replace("http://", "ws://")
        return connect(url, additional_headers=fields, subprotocols=["mcp"], proxy=None, **settings)  # type: ignore[list-item]


def served(build: Build) -> AbstractContextManager[Serving]:
    """Serve with the settings of `mcp-guard serve`."""
    chosen = configuration("x:y")
    return serving(build, http=chosen.http, ws=chosen.ws, ws_max_size=chosen.ws_max_size)


@pytest.fixture(
    scope="module", params=[served, SERVERS["h11"], SERVERS["hypercorn"]], ids=["serve", "h11", "hypercorn"]
)
def live(request: pytest.FixtureRequest) -> Iterator[Live]:
    made = Live()
    with request.param(made.build):
        yield made


def ask(socket: ClientConnection, message: object) -> Any:
    socket.send(json.dumps(message))
    return json.loads(socket.recv(WITHIN_SECONDS))


def use(socket: ClientConnection) -> str:
    """A handshake of MCP and a call; answers what the tool says."""
    assert ask(socket, INITIALIZE)["result"]["protocolVersion"] == "2025-11-25"
    socket.send(json.dumps(INITIALIZED))
    answer = ask(
        socket, {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "whoami", "arguments": {}}}
    )
    text: str = answer["result"]["content"][0]["text"]
    return text


def closed(socket: ClientConnection, within_seconds: float = WITHIN_SECONDS) -> int:
    """The code that the server closes with."""
    with suppress(ConnectionClosed):
        while True:
            socket.recv(within_seconds)
    assert socket.close_code is not None
    return socket.close_code


def test_a_token_in_the_handshake_opens_a_socket_and_the_tools_see_the_principal(live: Live) -> None:
    with live.connect(live.keys.token(live.url)) as socket:
        assert socket.subprotocol == "mcp"
        assert json.loads(use(socket))["user"]


def test_a_token_in_a_first_message_opens_a_socket_and_the_tools_see_the_principal(live: Live) -> None:
    with live.connect() as socket:
        assert ask(socket, {"op": "hello", "token": live.keys.token(live.url)}) == {"op": "welcome"}
        assert json.loads(use(socket))["user"]


def test_a_bad_token_is_refused_with_a_response_that_has_a_challenge(live: Live) -> None:
    with pytest.raises(InvalidStatus) as caught:
        live.connect("nonsense")
    assert caught.value.response.status_code == 401
    assert "Bearer" in ", ".join(caught.value.response.headers.get_all("WWW-Authenticate"))


def test_a_bad_token_in_a_first_message_closes_the_socket(live: Live) -> None:
    with live.connect() as socket:
        socket.send(json.dumps({"op": "hello", "token": "nonsense"}))
        assert closed(socket) == 4401


def test_ws_05_the_socket_is_closed_at_most_five_seconds_after_its_token_expires(live: Live) -> None:
    ends = time.time() + 3
    with live.connect(live.keys.token(live.url, exp=ends)) as socket:
        assert json.loads(use(socket))["user"]
        assert closed(socket, ends + 5 - time.time()) == 1008
    assert ends <= time.time()
    # The record is written when the app has ended too.
    polled(lambda: any(b'"reason":"the token expired"' in line for line in live.sink.lines), WITHIN_SECONDS)


def test_ws_05_a_frame_of_16_mb_closes_the_socket(live: Live) -> None:
    with live.connect(live.keys.token(live.url)) as socket:
        # The server may close while the client still sends.
        with suppress(ConnectionClosed):
            socket.send("x" * (16 * 1024 * 1024))
        assert closed(socket) == 1009


def test_ws_05_tiny_fragments_and_floods_of_pings_make_one_message(live: Live) -> None:
    with live.connect(live.keys.token(live.url)) as socket:
        text = json.dumps(INITIALIZE)
        padded = text + " " * (10_000 - len(text))
        socket.send(iter(padded))
        for _ in range(2_000):
            socket.ping()
        assert json.loads(socket.recv(WITHIN_SECONDS))["id"] == 1
