"""ASGI without a server: scopes, a client that says what it likes and keeps what it is sent, and apps to guard."""

import json
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import anyio

from mcp_guard.asgi import ASGIApp, Message, RawHeaders, Receive, Scope, Send

Headers = Sequence[tuple[bytes, bytes]]


def http_scope(
    method: str = "POST", path: str = "/mcp", headers: Headers = (), query: bytes = b"", **members: Any
) -> Scope:
    """The scope of an HTTP request, as a server makes it."""
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode("utf-8", "surrogatepass"),
        "query_string": query,
        "root_path": "",
        "headers": list(headers),
        "client": ("192.0.2.7", 50123),
        "server": ("127.0.0.1", 8000),
        **members,
    }


def websocket_scope(path: str = "/mcp", headers: Headers = ()) -> Scope:
    """The scope of a WebSocket handshake."""
    return {
        "type": "websocket",
        "path": path,
        "query_string": b"",
        "headers": list(headers),
        "client": ("192.0.2.7", 1),
    }


@dataclass
class Outcome:
    """What a server was told to send, in order."""

    sent: list[Message] = field(default_factory=list)

    @property
    def starts(self) -> list[Message]:
        return [message for message in self.sent if message["type"] == "http.response.start"]

    @property
    def status(self) -> int | None:
        """The status of the one response; None when nothing was begun."""
        starts = self.starts
        assert len(starts) <= 1, "a response began twice"
        status: int | None = starts[0]["status"] if starts else None
        return status

    @property
    def headers(self) -> RawHeaders:
        return list(self.starts[0]["headers"])

    def values(self, name: bytes) -> list[bytes]:
        return [value for key, value in self.headers if key.lower() == name]

    def value(self, name: bytes) -> bytes | None:
        """The one value of a response field, None when it is absent."""
        values = self.values(name)
        assert len(values) <= 1, f"{name!r} was sent {len(values)} times"
        return values[0] if values else None

    @property
    def chunks(self) -> list[bytes]:
        return [message.get("body", b"") for message in self.sent if message["type"] == "http.response.body"]

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)

    @property
    def complete(self) -> bool:
        """Whether the response was brought to its end; otherwise a server closes the connection."""
        return any(m["type"] == "http.response.body" and not m.get("more_body", False) for m in self.sent)

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Client:
    """Sends a body in `chunks` and, when that is done and `gone` is set, disconnects. Keeps what it is sent."""

    chunks: Sequence[bytes] = (b"",)
    gone: anyio.Event = field(default_factory=anyio.Event)
    outcome: Outcome = field(default_factory=Outcome)
    received: int = 0

    async def receive(self) -> Message:
        if self.received < len(self.chunks):
            chunk = self.chunks[self.received]
            self.received += 1
            return {"type": "http.request", "body": chunk, "more_body": self.received < len(self.chunks)}
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        self.outcome.sent.append(message)


async def drive(app: ASGIApp, scope: Scope | None = None, *chunks: bytes) -> Outcome:
    """One request through `app`, with its body in `chunks`. The client stays until the app is done."""
    client = Client(chunks or (b"",))
    with anyio.fail_after(20):
        await app(scope if scope is not None else http_scope(), client.receive, client.send)
    return client.outcome


@dataclass
class CountingApp:
    """Reads the body, keeps what it was shown and answers. `chunks` is the response body."""

    status: int = 200
    headers: Headers = ((b"content-type", b"application/json"),)
    chunks: Sequence[bytes] = (b"{}",)
    calls: int = 0
    scopes: list[Scope] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError(f"this app serves http alone, not {scope['type']}")
        self.calls += 1
        self.scopes.append(scope)
        self.bodies.append(await read_all(receive))
        await send({"type": "http.response.start", "status": self.status, "headers": list(self.headers)})
        for chunk in self.chunks:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    def seen(self, name: bytes) -> list[bytes]:
        """The values of a request field in the last call."""
        return [value for key, value in self.scopes[-1]["headers"] if key == name]


async def read_all(receive: Receive) -> bytes:
    """A request body, read to its end."""
    parts = []
    while True:
        message = await receive()
        assert message["type"] == "http.request", message["type"]
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)


def sending(*messages: Mapping[str, Any]) -> ASGIApp:
    """An app that sends these messages and nothing else."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(dict(message))

    return app


def responding(
    respond: Callable[[Scope, Send], Awaitable[None]],
) -> ASGIApp:
    """An app made of what it does with `send`."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(scope, send)

    return app


def start(status: int = 200, *headers: tuple[bytes, bytes]) -> Message:
    """The message that begins a response."""
    return {"type": "http.response.start", "status": status, "headers": list(headers)}


def body(chunk: bytes = b"", *, more: bool = False) -> Message:
    """A message with part of a response body, the last one unless `more`."""
    return {"type": "http.response.body", "body": chunk, "more_body": more}


def split(data: bytes, sizes: Iterable[int]) -> list[bytes]:
    """`data` cut into pieces of the given sizes, and what is left of it."""
    pieces = []
    for size in sizes:
        pieces.append(data[:size])
        data = data[size:]
    return [*pieces, data]


@dataclass
class Lifespan:
    """The server's side of a lifespan: says startup at once, and shutdown when it is told to; `up` once answered."""

    up: anyio.Event = field(default_factory=anyio.Event)
    ending: anyio.Event = field(default_factory=anyio.Event)
    sent: list[Message] = field(default_factory=list)
    told: int = 0

    async def receive(self) -> Message:
        self.told += 1
        if self.told == 1:
            return {"type": "lifespan.startup"}
        await self.ending.wait()
        return {"type": "lifespan.shutdown"}

    async def send(self, message: Message) -> None:
        self.sent.append(message)
        self.up.set()

    @property
    def kinds(self) -> list[str]:
        return [message["type"].removeprefix("lifespan.") for message in self.sent]

    async def run(self, app: ASGIApp) -> None:
        """The whole lifespan, at most five seconds of it."""
        with anyio.fail_after(5):
            await app({"type": "lifespan"}, self.receive, self.send)

    async def pass_by(self, app: ASGIApp) -> list[str]:
        """A lifespan that ends as soon as it has begun. Answers the kinds of message that were sent."""
        self.ending.set()
        await self.run(app)
        return self.kinds


def served(app: ASGIApp) -> ASGIApp:
    """`app` as a plain function, for a server that asks nothing more of it."""

    async def plain(scope: Scope, receive: Receive, send: Send) -> None:
        await app(scope, receive, send)

    return plain


def polled(ready: Callable[[], bool], within_seconds: float = 5.0) -> None:
    """Wait until `ready`, for code that runs in another thread."""
    deadline = time.monotonic() + within_seconds
    while not ready():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.002)
