"""http-10: what a proxy may have taken for the body of a request is not executed as a request of its own."""

import socket
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from tests.guard.attacks.raw import TIMEOUT_SECONDS
from tests.guard.fuzz.views import Views
from tests.guard.servers import SERVERS
from tests.guard.wire.rows import get, post

SEES_BOTH = sorted(set(SERVERS) - {"granian"})
"""granian leaves the length out before it asks the guard; docs/reference/servers.md says what that asks of a proxy."""


@pytest.fixture(params=SEES_BOTH)
def served(request: pytest.FixtureRequest) -> Iterator[tuple[int, Views]]:
    made: list[Views] = []

    def build(url: str) -> Any:
        made.append(Views.of(url))
        return made[0].guarded

    with SERVERS[request.param](build) as running:
        yield int(running.url.rpartition(":")[2]), made[0]


def converse(port: int, data: bytes) -> bytes:
    """Everything that the server says until it closes the connection, or says nothing more."""
    said = b""
    with socket.create_connection(("127.0.0.1", port), TIMEOUT_SECONDS) as connection:
        connection.settimeout(TIMEOUT_SECONDS)
        connection.sendall(data.replace(b"HOST", b"127.0.0.1:%d" % port))
        connection.shutdown(socket.SHUT_WR)
        with suppress(ConnectionResetError):
            while chunk := connection.recv(65536):
                said += chunk
    return said


INNER = get(fields=b"Connection: close\r\n")


def test_a_request_behind_one_of_two_lengths_is_not_executed(served: tuple[int, Views]) -> None:
    port, views = served
    ending = b"0\r\n\r\n" + INNER
    fields = b"Content-Length: %d\r\nTransfer-Encoding: chunked\r\n" % len(ending)
    said = converse(port, post(fields, ending))
    assert said.startswith(b"HTTP/1.1 400 ")
    assert said.count(b"HTTP/1.1 ") == 1
    assert views.compare() == 0


def test_a_request_behind_chunks_of_another_version_is_not_executed(served: tuple[int, Views]) -> None:
    port, views = served
    said = converse(port, post(b"Transfer-Encoding: chunked\r\n", b"0\r\n\r\n" + INNER, b"HTTP/1.0"))
    assert said.startswith(b"HTTP/1.1 400 ")
    assert said.count(b"HTTP/1.1 ") == 1
    assert views.compare() == 0


def test_requests_one_after_the_other_are_both_executed(served: tuple[int, Views]) -> None:
    """Without it, the tests above would show nothing."""
    port, views = served
    said = converse(port, get() + INNER)
    assert said.count(b"HTTP/1.1 200 ") == 2
    assert views.compare() == 2
