"""Bytes of a request to a guarded app and back, through real implementations of HTTP/1.1 and without a socket.

`Uvicorn` drives the classes that `mcp-guard serve` runs on. `Careless` stands for servers that nobody has met yet: it
splits at line ends, hands on what it finds, may say nothing of the raw path, and adds trailers to the live list.
"""

import asyncio
import re
import socket
from collections.abc import Callable
from typing import Any, Protocol, cast
from urllib.parse import unquote

from uvicorn import Config
from uvicorn.server import ServerState

from mcp_guard.asgi import ASGIApp, Message, Scope
from mcp_guard.serving import with_h11, with_httptools

ROUNDS = 200
"""Turns of the loop that a request may take, which has all of its bytes from the beginning."""


class Reader(Protocol):
    """Takes the bytes of a request to the app."""

    async def send(self, data: bytes) -> bytes:
        """The first line of the answer; empty when there is none."""

    def close(self) -> None:
        """Let go of what it holds."""


class Transport(asyncio.Transport):
    """A connection that takes everything at once and keeps what was written."""

    def __init__(self, connection: socket.socket) -> None:
        super().__init__({"socket": connection})
        self.written: list[bytes] = []
        self.closing = False
        self.protocol: asyncio.BaseProtocol | None = None

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """There is no buffer."""

    def get_write_buffer_size(self) -> int:
        return 0

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        return cast(asyncio.BaseProtocol, self.protocol)

    def write(self, data: "bytes | bytearray | memoryview[Any]") -> None:
        self.written.append(bytes(data))

    def pause_reading(self) -> None:
        """Everything was read already."""

    def resume_reading(self) -> None:
        """Everything was read already."""

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True

    abort = close


class Uvicorn:
    """One of the classes for HTTP/1.1 of `mcp_guard.serving`, a new connection for each request."""

    def __init__(self, app: ASGIApp, protocol: type[asyncio.Protocol]) -> None:
        self.made: Any = protocol
        self.config = Config(cast(Any, app), http=protocol, ws="none", log_config=None, proxy_headers=False)
        self.config.load()
        self.ends = socket.socketpair()

    async def send(self, data: bytes) -> bytes:
        state, transport = ServerState(), Transport(self.ends[0])
        connection: Any = self.made(config=self.config, server_state=state, app_state={})
        transport.protocol = connection
        connection.connection_made(transport)
        connection.data_received(data)
        await quiet(state)
        # The client leaves: whoever still waits for its body hears of it.
        connection.connection_lost(None)
        await quiet(state)
        assert not state.tasks, "the app did not end"
        return b"".join(transport.written).partition(b"\r\n")[0]

    def close(self) -> None:
        for end in self.ends:
            end.close()


async def quiet(state: ServerState) -> None:
    """Wait until the app is done, or waits for more than there is."""
    for _ in range(ROUNDS):
        if not state.tasks:
            return
        await asyncio.sleep(0)


class Careless:
    """A server that judges nothing. Without `says_raw_path` the app is not told what was on the request line."""

    def __init__(self, app: ASGIApp, *, says_raw_path: bool) -> None:
        self.app = app
        self.says_raw_path = says_raw_path

    async def send(self, data: bytes) -> bytes:
        head, _, rest = data.partition(b"\r\n\r\n")
        line, *lines = head.split(b"\r\n")
        method, _, target = line.partition(b" ")
        target, _, version = target.rpartition(b" ")
        fields = [self.field(one) for one in lines]
        scope = self.scope(method, target, version, fields)
        body, trailers = parts(rest, chunked=(b"transfer-encoding", b"chunked") in fields)
        sent: list[Message] = []

        async def receive() -> Message:
            scope["headers"].extend(self.field(one) for one in trailers)
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Message) -> None:
            sent.append(message)

        await self.app(scope, receive, send)
        return b"HTTP/1.1 %d" % sent[0]["status"] if sent else b""

    def close(self) -> None:
        """It holds nothing."""

    @staticmethod
    def field(line: bytes) -> tuple[bytes, bytes]:
        name, _, value = line.partition(b":")
        return name.lower(), value.removeprefix(b" ")

    def scope(self, method: bytes, target: bytes, version: bytes, fields: list[tuple[bytes, bytes]]) -> Scope:
        path, _, query = target.partition(b"?")
        made = {
            "type": "http",
            "http_version": version.decode("latin-1").removeprefix("HTTP/"),
            "method": method.decode("latin-1"),
            "path": unquote(path.decode("utf-8", "replace")),
            "query_string": query,
            "headers": fields,
            "client": ("127.0.0.1", 50123),
            "scheme": "http",
        }
        return {**made, "raw_path": path} if self.says_raw_path else made


def parts(rest: bytes, *, chunked: bool) -> tuple[bytes, list[bytes]]:
    """The body, and the lines of the trailer section: of one chunk, which is all that is ever sent."""
    size, _, chunk = rest.partition(b"\r\n")
    if not chunked or re.fullmatch(rb"[0-9a-f]+", size) is None:
        return rest, []
    length = int(size, 16)
    return chunk[:length], [line for line in chunk[length:].split(b"\r\n") if b":" in line]


READERS: dict[str, Callable[[ASGIApp], Reader]] = {
    "httptools": lambda app: Uvicorn(app, with_httptools()),
    "h11": lambda app: Uvicorn(app, with_h11()),
    "careless": lambda app: Careless(app, says_raw_path=True),
    "silent": lambda app: Careless(app, says_raw_path=False),
}
