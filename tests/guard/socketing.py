"""WebSockets without a server: a guarded app that speaks MCP on them, and a client that says what it likes."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from mcp_guard.asgi import ASGIApp, Message, Receive, Scope, Send
from mcp_guard.auditlog import AuditLog, MemorySink
from mcp_guard.clock import ManualClock
from mcp_guard.facts import Principal, Resource, ScopePolicy, fact
from mcp_guard.keyring import KeyRing
from mcp_guard.keysources import StaticKeys
from mcp_guard.profiles import standard
from mcp_guard.sockets import DENIAL, SocketTerms
from mcp_guard.stack import Guard, guard
from mcp_guard.tokens import TrustedIssuer
from tests.guard.asgi import Headers
from tests.guard.signing import ISSUER, SigningKey, jwk_set
from tests.guard.stubs import CountingStore

WITHIN_SECONDS = 10.0
ORIGIN = "http://127.0.0.1:8000"
MCP = f"{ORIGIN}/mcp"
KEY = SigningKey.new()
META = {"io.modelcontextprotocol/protocolVersion": "2026-07-28"}
HELLO = SocketTerms(hello=True)


def token(**claims: Any) -> str:
    """A good token of Alice's, with other claims where they are given."""
    return KEY.token(**{"aud": MCP, **claims}).decode()


def bearer(**claims: Any) -> tuple[bytes, bytes]:
    """The field that carries it."""
    return (b"authorization", b"Bearer " + token(**claims).encode())


def asked(method: str, request_id: object = 1, **params: Any) -> dict[str, Any]:
    """A JSON-RPC request."""
    return {"jsonrpc": "2.0", "id": request_id, "method": method, "params": params}


def call(tool: str, request_id: object = 1) -> dict[str, Any]:
    """A call of a tool in the era of 2026-07-28."""
    return asked("tools/call", request_id, name=tool, _meta=META)


@dataclass
class SpeakingApp:
    """An MCP server on WebSockets. `heard` are the messages that reached it, `scopes` what it was shown."""

    subprotocol: str | None = None
    heard: list[dict[str, Any]] = field(default_factory=list)
    scopes: list[Scope] = field(default_factory=list)
    codes: list[int] = field(default_factory=list)
    hearing: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "websocket", scope["type"]
        self.scopes.append(scope)
        assert (await receive())["type"] == "websocket.connect"
        await send({"type": "websocket.accept", "subprotocol": self.subprotocol, "headers": [(b"x-app", b"1")]})
        while (message := await receive())["type"] == "websocket.receive":
            value = json.loads(message["text"])
            self.heard.append(value)
            self.hearing.set()
            if "id" in value and "method" in value:
                await self.answer(value, fact(scope, Principal).subject, send)
        self.codes.append(message["code"])
        self.ended.set()

    async def heard_one(self) -> None:
        """Wait until a message has reached the app."""
        async with asyncio.timeout(WITHIN_SECONDS):
            await self.hearing.wait()

    async def ended_one(self) -> None:
        """Wait until the app was told that a client has left."""
        async with asyncio.timeout(WITHIN_SECONDS):
            await self.ended.wait()

    async def answer(self, value: Mapping[str, Any], who: str, send: Send) -> None:
        """Answer a request, with what its method or its tool is made for."""
        name = value["params"].get("name")
        if name == "hang":
            return
        if name == "fail":
            raise RuntimeError("the tool failed")
        if name == "notify":
            await say(send, {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info"}})
        results: dict[str, Any] = {
            "initialize": {"protocolVersion": "2025-11-25", "capabilities": {}},
            "tools/list": {"tools": [{"name": "whoami"}, {"name": "admin"}]},
        }
        result = results.get(value["method"], {"content": [{"type": "text", "text": who}]})
        await say(send, {"jsonrpc": "2.0", "id": value["id"], "result": result})


async def say(send: Send, value: object) -> None:
    await send({"type": "websocket.send", "text": json.dumps(value)})


@dataclass
class SocketClient:
    """The server's side of one socket: what the client says, and what the guarded app sent."""

    said: "asyncio.Queue[Message]" = field(default_factory=asyncio.Queue)
    sent: "asyncio.Queue[Message]" = field(default_factory=asyncio.Queue)
    everything: list[Message] = field(default_factory=list)
    fault: Exception | None = None

    async def receive(self) -> Message:
        return await self.said.get()

    async def send(self, message: Message) -> None:
        fault, self.fault = self.fault, None
        if fault is not None:
            raise fault
        self.everything.append(message)
        self.sent.put_nowait(message)

    def say(self, value: object) -> None:
        """A text message: JSON of a value, or text as it is."""
        text = value if isinstance(value, str) else json.dumps(value)
        self.said.put_nowait({"type": "websocket.receive", "text": text})

    def leave(self, code: int = 1000) -> None:
        self.said.put_nowait({"type": "websocket.disconnect", "code": code})

    async def next(self) -> Message:
        """The next message of the guarded app."""
        async with asyncio.timeout(WITHIN_SECONDS):
            return await self.sent.get()

    async def hear(self) -> Any:
        """The next text message, read."""
        message = await self.next()
        assert message["type"] == "websocket.send", message
        return json.loads(message["text"])

    async def ask(self, value: object) -> Any:
        """Say something, and hear the next message."""
        self.say(value)
        return await self.hear()

    async def accepted(self) -> Message:
        message = await self.next()
        assert message["type"] == "websocket.accept", message
        return message

    async def closed(self) -> tuple[int, str]:
        """The code and reason with which the socket is closed, whatever else is sent before."""
        while (message := await self.next())["type"] != "websocket.close":
            pass
        return message["code"], message["reason"]

    async def denied(self) -> tuple[int, dict[bytes, bytes], bytes]:
        """The response that refuses the handshake."""
        begun, content = await self.next(), await self.next()
        assert (begun["type"], content["type"]) == (f"{DENIAL}.start", f"{DENIAL}.body")
        return begun["status"], dict(begun["headers"]), content["body"]


RESOURCE = Resource(
    MCP,
    "/mcp",
    scopes=frozenset({"mcp:tools"}),
    policy=ScopePolicy(tools={"admin": frozenset({"mcp:admin"})}),
)


@dataclass
class Place:
    """A complete stack in front of a speaking app, and clients of it."""

    clock: ManualClock = field(default_factory=ManualClock)
    sink: MemorySink = field(default_factory=MemorySink)
    app: Any = field(default_factory=SpeakingApp)
    terms: SocketTerms | None = field(default_factory=SocketTerms)
    settings: Mapping[str, Any] = field(default_factory=dict)
    resource: Resource = RESOURCE
    store: CountingStore = field(init=False)
    guarded: Guard = field(init=False)

    def __post_init__(self) -> None:
        self.store = CountingStore(clock=self.clock)
        layers = standard(
            resources=[self.resource],
            issuers=[TrustedIssuer(ISSUER, StaticKeys(jwk_set(KEY)))],
            store=self.store,
            ring=KeyRing.generate(),
            audit=AuditLog(self.sink),
            websocket=self.terms,
            clock=self.clock,
            **self.settings,
        )
        self.guarded = guard(self.app, *layers)

    def recorded(self) -> str:
        return b"".join(self.sink.lines).decode()

    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.sink.lines]

    @asynccontextmanager
    async def opened(
        self, *headers: tuple[bytes, bytes], before: ASGIApp | None = None, **members: Any
    ) -> AsyncIterator[SocketClient]:
        """A handshake with these fields; the client leaves at the end."""
        client = SocketClient()
        client.said.put_nowait({"type": "websocket.connect"})
        scope = socket_scope(headers, **members)
        task = asyncio.ensure_future((before or self.guarded)(scope, client.receive, client.send))
        try:
            yield client
        finally:
            client.leave()
            async with asyncio.timeout(WITHIN_SECONDS):
                await task

    @asynccontextmanager
    async def talking(self, *headers: tuple[bytes, bytes], **members: Any) -> AsyncIterator[SocketClient]:
        """A socket of Alice's that was accepted."""
        async with self.opened(bearer(), *headers, **members) as client:
            await client.accepted()
            yield client


def socket_scope(headers: Headers = (), **members: Any) -> Scope:
    """The scope of a handshake, as uvicorn makes it."""
    names = {name for name, _ in headers}
    host = [] if b"host" in names else [(b"host", b"127.0.0.1:8000")]
    subprotocols = members.get("subprotocols", [])
    offered = [(b"sec-websocket-protocol", ", ".join(subprotocols).encode())] if subprotocols else []
    path = members.get("path", "/mcp")
    return {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "scheme": "ws",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [*host, (b"upgrade", b"websocket"), (b"connection", b"Upgrade"), *offered, *headers],
        "client": ("127.0.0.1", 50123),
        "server": ("127.0.0.1", 8000),
        "subprotocols": subprotocols,
        "extensions": {DENIAL: {}},
        **members,
    }
