"""The web server bounds what slow clients hold, whichever implementation of HTTP/1.1 it runs on."""

import asyncio
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from typing import Any

import pytest

from mcp_guard import serving as web
from mcp_guard.asgi import Receive, Scope, Send
from tests.guard.asgi import body, polled, read_all, start
from tests.support.serving import Serving, serving

HEAD_SECONDS = 0.4
STALL_SECONDS = 0.6
LARGE = 8 * 1024 * 1024
REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


class App:
    """Answers `/` at once, `/slow` after longer than a head may take, `/large` with much; a WebSocket as `/slow`."""

    def __init__(self) -> None:
        self.left = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            raise RuntimeError("no lifespan")
        if scope["type"] == "websocket":
            await send({"type": "websocket.accept"})
            await asyncio.sleep(2 * HEAD_SECONDS)
            await send({"type": "websocket.send", "bytes": b"done"})
            return
        await read_all(receive)
        if scope["path"] == "/slow":
            await asyncio.sleep(2 * HEAD_SECONDS)
        await send(start(200, (b"content-type", b"text/plain")))
        try:
            if scope["path"] == "/large":
                await send(body(b"x" * LARGE, more=True))
            await send(body(b"done"))
        finally:
            self.left += 1


@pytest.fixture(params=["httptools", "h11"])
def served(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serving]:
    """The app, on each implementation, with little patience."""
    monkeypatch.setattr(web, "HEAD_SECONDS", HEAD_SECONDS)
    monkeypatch.setattr(web, "STALL_SECONDS", STALL_SECONDS)
    protocol: Any = web.with_httptools() if request.param == "httptools" else web.with_h11()
    with serving(lambda url: App(), http=protocol, timeout_keep_alive=30) as running:
        yield running


def connect(served: Serving, receive_buffer: int | None = None) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    if receive_buffer is not None:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    made.settimeout(10)
    made.connect(("127.0.0.1", int(served.url.rpartition(":")[2])))
    return made


def closed_after(connection: socket.socket) -> float:
    """How long it takes until the server closes the connection; it says nothing, or that it understood nothing."""
    began = time.monotonic()
    with suppress(ConnectionResetError):
        said = b"".join(iter(lambda: connection.recv(1024), b""))
        assert said == b"" or said.startswith(b"HTTP/1.1 400")
    return time.monotonic() - began


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost:", b"\r\n", b"\r\n\r\nG"])
def test_a_connection_without_a_complete_head_is_closed_in_time(served: Serving, sent: bytes) -> None:
    """dos-02"""
    with closing(connect(served)) as connection:
        connection.sendall(sent)
        assert closed_after(connection) < 10 * HEAD_SECONDS


@pytest.mark.parametrize("sent", [b"GET / HTTP/1.1\r\nHost:", b"\r\n"])
def test_a_later_head_that_is_not_completed_closes_the_connection_too(served: Serving, sent: bytes) -> None:
    """dos-02"""
    with closing(connect(served)) as connection:
        for _ in range(3):
            connection.sendall(REQUEST)
            until_done(connection)
        connection.sendall(sent)
        assert closed_after(connection) < 10 * HEAD_SECONDS


def until_done(connection: socket.socket) -> bytes:
    """An answer, to its end."""
    read = b""
    while not read.endswith((b"done\r\n0\r\n\r\n", b"4\r\ndone\r\n0\r\n\r\n")):
        chunk = connection.recv(65536)
        assert chunk, "the connection was closed within an answer"
        read += chunk
    return read


def test_a_head_that_drips_is_given_no_more_time(served: Serving) -> None:
    """dos-02"""
    began = time.monotonic()
    with closing(connect(served)) as connection:
        with suppress(BrokenPipeError, ConnectionResetError):
            for byte in REQUEST[:-4] * 10:
                connection.sendall(bytes([byte]))
                time.sleep(HEAD_SECONDS / 10)
        assert time.monotonic() - began < 10 * HEAD_SECONDS


def test_a_request_may_take_longer_than_its_head(served: Serving) -> None:
    with closing(connect(served)) as connection:
        for _ in range(2):
            connection.sendall(REQUEST.replace(b"/ ", b"/slow "))
            assert until_done(connection).startswith(b"HTTP/1.1 200")


def test_a_websocket_may_last_longer_than_its_head(served: Serving) -> None:
    with closing(connect(served)) as connection:
        connection.sendall(HANDSHAKE)
        said = b""
        while b"done" not in said:
            chunk = connection.recv(1024)
            assert chunk, said
            said += chunk
        assert said.startswith(b"HTTP/1.1 101 ")


def test_no_method_but_get_opens_a_websocket(served: Serving) -> None:
    """http-25: uvicorn on h11 would leave the client without an answer (RFC 6455 §4.1)."""
    with closing(connect(served)) as connection:
        connection.sendall(HANDSHAKE.replace(b"GET", b"HEAD"))
        assert connection.recv(1024).startswith(b"HTTP/1.1 200 ")
    with closing(connect(served)) as connection:
        connection.sendall(HANDSHAKE.replace(b"GET", b"POST").replace(b"\r\n\r\n", b"\r\nContent-Length: 0\r\n\r\n"))
        assert until_done(connection).startswith(b"HTTP/1.1 200 ")


def test_a_client_that_does_not_read_is_cut_off(served: Serving) -> None:
    """dos-08"""
    app = served.app
    assert isinstance(app, App)
    with closing(connect(served, receive_buffer=4096)) as connection:
        connection.sendall(REQUEST.replace(b"/ ", b"/large "))
        polled(lambda: app.left == 1, within_seconds=10 * STALL_SECONDS)


def test_a_client_that_reads_slowly_gets_all_of_it(served: Serving) -> None:
    with closing(connect(served, receive_buffer=65536)) as connection:
        connection.sendall(REQUEST.replace(b"/ ", b"/large "))
        began, size = time.monotonic(), 0
        while time.monotonic() < began + 3 * STALL_SECONDS:
            size += len(connection.recv(16384))
            time.sleep(STALL_SECONDS / 20)
        while size < LARGE:
            chunk = connection.recv(1024 * 1024)
            assert chunk, "the connection was closed within an answer"
            size += len(chunk)
        assert size >= LARGE


def test_h11_stands_in_where_httptools_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    from uvicorn.protocols.http.h11_impl import H11Protocol
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

    assert issubclass(web.http_protocol(), HttpToolsProtocol)
    monkeypatch.setitem(sys.modules, "uvicorn.protocols.http.httptools_impl", None)
    assert issubclass(web.http_protocol(), H11Protocol)
    assert issubclass(web.http_protocol(), web.Bounded)


FREEZING = """
import asyncio, gc
from mcp_guard.serving import Server, configuration

async def main():
    server = Server(configuration(lambda scope: None, lifespan="off", port=0))
    before = gc.get_freeze_count()
    running = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    print(before, gc.get_freeze_count())
    server.should_exit = True
    await running

asyncio.run(main())
"""


def test_what_is_there_when_the_server_has_started_is_no_work_for_the_collector() -> None:
    said = subprocess.run([sys.executable, "-c", FREEZING], capture_output=True, text=True, timeout=60, check=True)
    before, after = map(int, said.stdout.split())
    assert before == 0
    assert after > 10_000
