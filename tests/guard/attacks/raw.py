"""Raw HTTP/1.1: what is written here is what goes over the wire, byte for byte."""

import json
import socket
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import HTTPException, HTTPResponse
from typing import Any

TIMEOUT_SECONDS = 5.0


@dataclass(frozen=True)
class Observation:
    """What one request got back. Status 499 stands for a connection that was closed without a response."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""

    def values(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def value(self, name: str) -> str:
        return ", ".join(self.values(name))

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Request:
    """One request as bytes. `target` is the request target; `headers` are sent in order, repeated ones included."""

    method: bytes = b"POST"
    target: bytes = b"/mcp"
    headers: tuple[tuple[bytes, bytes], ...] = ()
    body: bytes = b""
    chunked: bool = False
    trailers: tuple[tuple[bytes, bytes], ...] = ()
    version: bytes = b"HTTP/1.1"
    with_length: bool = field(default=True)

    def encoded(self) -> bytes:
        lines = [b"%s %s %s" % (self.method, self.target, self.version)]
        lines += [b"%s: %s" % pair for pair in self.headers]
        if self.chunked:
            lines.append(b"Transfer-Encoding: chunked")
            body = b"%x\r\n%s\r\n0\r\n" % (len(self.body), self.body)
            body += b"".join(b"%s: %s\r\n" % pair for pair in self.trailers) + b"\r\n"
        else:
            body = self.body
            if self.with_length and (body or self.method == b"POST"):
                lines.append(b"Content-Length: %d" % len(body))
        return b"\r\n".join(lines) + b"\r\n\r\n" + body


def send(port: int, data: bytes, *, ended: bool = False) -> Observation:
    """Write `data` on a new connection and read one response; a stream is read until its first event.

    `ended` says to the server that nothing more will come.
    """
    with socket.create_connection(("127.0.0.1", port), TIMEOUT_SECONDS) as connection:
        connection.settimeout(TIMEOUT_SECONDS)
        # The server may refuse and close before it has read everything; its answer is still to be read.
        with suppress(OSError):
            connection.sendall(data)
            if ended:
                connection.shutdown(socket.SHUT_WR)
        response = HTTPResponse(connection, method=data.split(b" ", 1)[0].decode("latin-1"))
        try:
            response.begin()
            headers = tuple(response.getheaders())
            streaming = "text/event-stream" in (response.getheader("content-type") or "")
            body = _first_event(response) if streaming else response.read()
        except (HTTPException, OSError):
            return Observation(499)
        finally:
            response.close()
        return Observation(response.status, headers, body)


def _first_event(response: HTTPResponse) -> bytes:
    """The stream up to its first event with data, or its end."""
    lines: list[bytes] = []
    while True:
        line = response.readline()
        lines.append(line)
        if not line or (line in (b"\n", b"\r\n") and any(one.startswith(b"data:") for one in lines)):
            return b"".join(lines)
