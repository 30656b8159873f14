"""http-29: clients that go away, within an answer or before their request is complete, leave nothing behind."""

import asyncio
import socket
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from mcp_guard.asgi import Receive, Scope, Send
from tests.guard.asgi import polled, read_all
from tests.guard.attacks.deployment import Deployment, deployed
from tests.guard.attacks.raw import TIMEOUT_SECONDS, Request
from tests.guard.attacks.state import KINDS
from tests.guard.servers import SERVERS
from tests.support.valkey_server import shared_server

ABORTED = 1_000
AT_ONCE = 20
WITHIN_SECONDS = 20.0
"""Bounds the test; what it takes is printed, and is far less."""
LISTEN = "subscriptions/listen"


@dataclass
class Endless:
    """Begins a stream and holds it open until its client is gone."""

    loop: asyncio.AbstractEventLoop | None = None
    opened: int = 0
    left: int = 0
    stayed: list[object] = field(default_factory=list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.loop = asyncio.get_running_loop()
        if scope["type"] == "lifespan":
            await live(receive, send)
            return
        await read_all(receive)
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"data: {}\n\n", "more_body": True})
        self.opened += 1
        try:
            message = await receive()
            if message["type"] != "http.disconnect":
                self.stayed.append(message)
        finally:
            self.left += 1


async def live(receive: Receive, send: Send) -> None:
    while True:
        kind = (await receive())["type"]
        await send({"type": f"{kind}.complete"})
        if kind == "lifespan.shutdown":
            return


@dataclass(frozen=True)
class Place:
    """A deployment, the app behind it, and how many connections its store has."""

    live: Deployment
    app: Endless
    connections: Callable[[], int]

    def tasks(self) -> int:
        """The tasks of the server's loop, but for the one that counts them."""
        assert self.app.loop is not None

        async def count() -> int:
            return len(asyncio.all_tasks()) - 1

        return asyncio.run_coroutine_threadsafe(count(), self.app.loop).result(TIMEOUT_SECONDS)


def clients_of_valkey() -> int:
    listed: bytes = shared_server().command("CLIENT", "LIST")
    return listed.count(b"\n")


@pytest.fixture(params=SERVERS)
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    app = Endless()
    kind = "valkey" if request.param == "httptools" else "memory"
    with deployed(KINDS[kind], server=request.param, app=lambda: app) as live:
        yield Place(live, app, clients_of_valkey if kind == "valkey" else lambda: 0)


def connect(place: Place, data: bytes) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", place.live.port), TIMEOUT_SECONDS)
    connection.sendall(data)
    return connection


def abort(connection: socket.socket) -> None:
    """Close the connection with a reset, as a process that dies does."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def stream(place: Place, data: bytes) -> socket.socket:
    """A stream that has begun. The place of one that has ended is free a little later: until then it is tried again."""
    deadline = time.monotonic() + WITHIN_SECONDS
    while True:
        connection = connect(place, data)
        read = connection.recv(65536)
        while read.startswith(b"HTTP/1.1 200 ") and b"data: {}" not in read:
            chunk = connection.recv(65536)
            assert chunk, read
            read += chunk
        if read.startswith(b"HTTP/1.1 200 "):
            return connection
        connection.close()
        assert read.startswith(b"HTTP/1.1 429 "), read
        assert time.monotonic() < deadline, "no place became free"


def nothing_is_left(place: Place, before: tuple[int, int], began: float) -> None:
    """No task, no stream and no connection more than before; and as many calls may be made as ever."""
    polled(lambda: place.app.left == place.app.opened, WITHIN_SECONDS)
    polled(lambda: place.tasks() <= before[0], WITHIN_SECONDS)
    print(f"all were gone {time.monotonic() - began:.2f} s after the last")
    assert place.connections() <= before[1] + 1
    assert place.app.stayed == []


def test_http_29_streams_that_are_aborted_leave_nothing(place: Place) -> None:
    """Half of them are streams that are counted for their principal, of which it may have 32."""
    token = place.live.token()
    call, listen = (place.live.call(token, method).encoded() for method in ("tools/call", LISTEN))
    warm(place, call)
    before = place.tasks(), place.connections()
    for _ in range(ABORTED // AT_ONCE):
        opened = [stream(place, call if number % 2 else listen) for number in range(AT_ONCE)]
        for connection in opened:
            abort(connection)
        polled(lambda: place.app.left == place.app.opened, WITHIN_SECONDS)
    nothing_is_left(place, before, time.monotonic())
    assert place.app.opened >= ABORTED
    warm(place, listen)


def test_http_29_requests_that_are_aborted_before_they_are_complete_leave_nothing(place: Place) -> None:
    """None of them reaches the app."""
    good = place.live.call(place.live.token())
    data = good.encoded()
    warm(place, data)
    before, calls = (place.tasks(), place.connections()), place.live.downstream.calls
    for _ in range(ABORTED // AT_ONCE):
        opened = [connect(place, part) for part in halves(good, AT_ONCE)]
        for connection in opened:
            abort(connection)
    nothing_is_left(place, before, time.monotonic())
    assert place.live.downstream.calls == calls
    warm(place, data)


def halves(request: Request, count: int) -> list[bytes]:
    """The beginning of a request, that ends everywhere in its body."""
    data = request.encoded()
    body = len(request.body)
    return [data[: len(data) - body + number * body // count] for number in range(count)]


def warm(place: Place, data: bytes) -> None:
    """One good stream, to its end."""
    abort(stream(place, data))
    polled(lambda: place.app.left == place.app.opened, WITHIN_SECONDS)
