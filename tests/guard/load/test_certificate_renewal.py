"""A certificate is renewed under steady requests and open streams, and nobody notices (tls-09)."""

import http.client
import itertools
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import anyio
import pytest

from mcp_guard import encryption
from mcp_guard.asgi import Receive, Scope, Send
from tests.guard.asgi import body, polled, start
from tests.guard.encrypted import Issued, connected, encrypting, put, serial_seen
from tests.guard.load.clients import allow_open_files, report

REQUEST = b"GET /stream HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
WITHIN_SECONDS = 60.0
SENDERS = 4


@dataclass
class Streaming:
    """Answers at once; at `/stream` with an event every little while, until it is told to end."""

    ended: threading.Event = field(default_factory=threading.Event)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] != "/stream":
            await send(start(200, (b"content-length", b"4")))
            await send(body(b"done"))
            return
        await send(start(200, (b"content-type", b"text/event-stream")))
        while not self.ended.is_set():
            await send(body(b"data: x\n\n", more=True))
            await anyio.sleep(0.2)
        await send(body(b"data: end\n\n"))


@dataclass
class Steady:
    """Sends requests at a rate, each on a new connection or on one that stays, and counts those that fail."""

    port: int
    context: ssl.SSLContext
    per_second: float
    done: threading.Event = field(default_factory=threading.Event)
    sent: int = 0
    failures: list[str] = field(default_factory=list)

    def run(self, offset: float) -> None:
        kept = http.client.HTTPSConnection("127.0.0.1", self.port, context=self.context, timeout=30)
        pause, due = SENDERS / self.per_second, time.monotonic() + offset
        for number in itertools.count():
            if self.done.wait(max(0.0, due - time.monotonic())):
                break
            due += pause
            connection = kept
            if number % 2:
                connection = http.client.HTTPSConnection("127.0.0.1", self.port, context=self.context, timeout=30)
            self.ask(connection)
            if connection is not kept:
                connection.close()
        kept.close()

    def has_sent(self, count: int) -> bool:
        return self.sent >= count

    def ask(self, connection: http.client.HTTPSConnection) -> None:
        try:
            connection.request("GET", "/")
            answer = connection.getresponse()
            if (answer.status, answer.read()) != (200, b"done"):
                self.failures.append(f"answered {answer.status}")
        except (OSError, http.client.HTTPException) as fault:
            self.failures.append(repr(fault))
        self.sent += 1

    @contextmanager
    def sending(self) -> Iterator["Steady"]:
        threads = [
            threading.Thread(target=self.run, args=(index / self.per_second,), daemon=True) for index in range(SENDERS)
        ]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self.done.set()
            for thread in threads:
                thread.join(30)


@pytest.mark.parametrize(
    ("per_second", "streams", "renewals", "look_seconds"),
    [
        pytest.param(50, 20, 3, 0.05),
        pytest.param(200, 500, 5, None, marks=pytest.mark.load),
    ],
)
def test_tls_09_a_renewal_fails_no_request_and_no_stream(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    per_second: float,
    streams: int,
    renewals: int,
    look_seconds: float | None,
) -> None:
    if look_seconds is not None:
        monkeypatch.setattr(encryption, "LOOK_SECONDS", look_seconds)
    allow_open_files(4 * streams + 500)
    issued, app = Issued(tmp_path), Streaming()
    client = issued.client()
    with encrypting(app, issued.encryption()) as port, ExitStack() as open_streams:
        opened = [open_streams.enter_context(connected(port, client)) for _ in range(streams)]
        for stream in opened:
            stream.sendall(REQUEST)
        with Steady(port, client, per_second).sending() as steady:
            for renewal in range(renewals):
                renewed = issued.replace()
                polled(partial(is_shown, renewed, port, client), WITHIN_SECONDS)
                key = issued.key.read_bytes()
                caplog.clear()
                put(issued.key, b"broken")
                polled(lambda: "the old one stays" in caplog.text, WITHIN_SECONDS)
                assert serial_seen(port, client) == renewed
                put(issued.key, key)
                polled(partial(steady.has_sent, (renewal + 1) * int(per_second)), WITHIN_SECONDS)
        app.ended.set()
        assert all(came_to_its_end(stream) for stream in opened), "a stream was dropped"
    shape = {"requests": steady.sent, "a second": per_second, "streams": streams, "renewals": renewals}
    report("a certificate is renewed", {**shape, "failed": len(steady.failures)})
    assert steady.failures == []
    assert steady.sent >= renewals * int(per_second)


def is_shown(serial: str, port: int, client: ssl.SSLContext) -> bool:
    return serial_seen(port, client) == serial


def came_to_its_end(stream: ssl.SSLSocket) -> bool:
    said = b""
    while b"data: end" not in said:
        part = stream.recv(1 << 16)
        if not part:
            return False
        said = said[-16:] + part
    return True
