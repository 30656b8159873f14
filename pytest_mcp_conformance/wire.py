"""One HTTP/1.1 client on sockets: writes exactly the bytes it is given, reads what comes back.

No redirects, no cookies.
"""

from __future__ import annotations

import http.client
import json
import queue
import socket
import ssl
import threading
import time
from collections.abc import Sequence
from urllib.parse import urlsplit

from pytest_mcp_conformance.egress import Address
from pytest_mcp_conformance.exchange import Event, Header, Request, Response, parse_events

USER_AGENT = "pytest-mcp-conformance/0.1"
BODY_CAP_BYTES = 1 << 20
TIMEOUT_SECONDS = 10.0
STREAM_SECONDS = 3.0


class NoAnswer(Exception):
    """No HTTP response came: refused, reset, timed out, not HTTP, or the certificate did not verify."""


def connect(url: str, addresses: Sequence[Address], timeout_seconds: float = TIMEOUT_SECONDS) -> socket.socket:
    """A connected socket, over TLS with the certificate verified against the URL's host for https.

    Raises:
        NoAnswer: none of the addresses could be connected to, or the certificate is not valid.
    """
    parts = urlsplit(url)
    trouble: OSError | None = None
    for address in addresses:
        try:
            connected = socket.create_connection(address, timeout_seconds)
        except OSError as error:
            trouble = error
            continue
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if parts.scheme != "https":
            return connected
        try:
            return ssl.create_default_context().wrap_socket(connected, server_hostname=parts.hostname)
        except OSError as error:
            connected.close()
            raise NoAnswer(f"TLS failed: {error}") from error
    raise NoAnswer(str(trouble) if trouble else "the name has no address")


def encode(request: Request) -> bytes:
    """The bytes of `request`; only Host, User-Agent, Content-Length or Transfer-Encoding are added, when absent."""
    parts = urlsplit(request.url)
    target = request.raw_target
    if target is None:
        target = ((parts.path or "/") + (f"?{parts.query}" if parts.query else "")).encode("utf-8")
    headers: list[Header] = list(request.headers)
    present = {name.lower() for name, _ in headers} | request.omit
    if "host" not in present:
        headers.insert(0, ("Host", parts.netloc))
    if "user-agent" not in present:
        headers.append(("User-Agent", USER_AGENT))
    body = request.body if request.chunks is None else _chunked(request.chunks)
    if request.chunks is not None and "transfer-encoding" not in present:
        headers.append(("Transfer-Encoding", "chunked"))
    if (
        request.chunks is None
        and "content-length" not in present
        and (body is not None or request.method in {"POST", "PUT"})
    ):
        headers.append(("Content-Length", str(len(body or b""))))
    lines = [request.method.encode("latin-1") + b" " + target + b" HTTP/1.1"]
    lines += [name.encode("latin-1") + b": " + _bytes(value) for name, value in headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + (body or b"")


class Connection:
    """A connection that may carry several requests, one after the other."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self.reusable = True

    def exchange(
        self, request: Request, *, head_only: bool = False, stream_seconds: float = STREAM_SECONDS
    ) -> Response:
        """Send and read one response. An event stream is read until a JSON-RPC response is in it, or for
        `stream_seconds`.

        Raises:
            NoAnswer: there was no HTTP response.
        """
        reply = self.start(request)
        try:
            body, cut = (b"", "not read") if head_only else _read_body(reply, self._socket, stream_seconds)
        finally:
            is_read = reply.isclosed() or reply.length == 0
            self.reusable = self.reusable and is_read and not reply.will_close
            reply.close()
        return _response(reply, body, cut)

    def start(self, request: Request) -> http.client.HTTPResponse:
        """Send and read the response's head.

        Raises:
            NoAnswer: there was no HTTP response.
        """
        reply = http.client.HTTPResponse(self._socket, method=request.method)
        try:
            self._socket.settimeout(TIMEOUT_SECONDS)
            _send(self._socket, encode(request))
            reply.begin()
        except (OSError, http.client.HTTPException, ValueError) as error:
            reply.close()
            self.reusable = False
            raise NoAnswer(_words(error)) from error
        return reply

    def close(self) -> None:
        self._socket.close()

    def abort(self) -> None:
        """Close under a reader in another thread, which then sees the end of the stream."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            self.reusable = False
        self._socket.close()


class EventStream:
    """An open event stream, read by a thread of its own so that waiting has a deadline. Close it when done."""

    def __init__(self, connection: Connection, request: Request) -> None:
        """Raises: NoAnswer when no HTTP response comes."""
        self._connection = connection
        self._reply = connection.start(request)
        self.response = _response(self._reply, b"", "stream")
        self._events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True, name="event stream")
        self._reader.start()

    def next_event(self, within_seconds: float = STREAM_SECONDS) -> Event | None:
        """The next event; None when none came in time or the stream ended."""
        try:
            return self._events.get(timeout=within_seconds)
        except queue.Empty:
            return None

    @property
    def ended(self) -> bool:
        """Whether the server has closed the stream."""
        return not self._reader.is_alive()

    def close(self) -> None:
        self._connection.abort()
        self._reader.join(TIMEOUT_SECONDS)
        self._reply.close()

    def _read(self) -> None:
        lines: list[str] = []
        try:
            while line := self._reply.readline(BODY_CAP_BYTES):
                text = line.decode("utf-8", "replace").rstrip("\r\n")
                lines.append(text)
                if not text:
                    for event in parse_events(lines):
                        self._events.put(event)
                    lines.clear()
        except (OSError, http.client.HTTPException, ValueError):
            lines.clear()
        self._events.put(None)


def _send(connected: socket.socket, data: bytes) -> None:
    """A server may refuse and close while a large body is still being written: its answer is then worth reading."""
    try:
        connected.sendall(data)
    except (BrokenPipeError, ConnectionResetError):
        return


def _read_body(reply: http.client.HTTPResponse, connected: socket.socket, stream_seconds: float) -> tuple[bytes, str]:
    streaming = (reply.getheader("content-type") or "").lower().startswith("text/event-stream")
    deadline = time.monotonic() + (stream_seconds if streaming else TIMEOUT_SECONDS)
    body = bytearray()
    try:
        while len(body) < BODY_CAP_BYTES:
            connected.settimeout(max(deadline - time.monotonic(), 0.001))
            piece = reply.read1(65536)
            if not piece:
                return bytes(body), ""
            body += piece
            if streaming and _holds_an_answer(body):
                return bytes(body), "stream answered"
    except TimeoutError:
        return bytes(body), "deadline"
    except (OSError, http.client.HTTPException, ValueError) as error:
        return bytes(body), _words(error)
    return bytes(body), "cap"


def _holds_an_answer(body: bytearray) -> bool:
    for event in parse_events(body.decode("utf-8", "replace").splitlines()):
        try:
            message = json.loads(event.data)
        except ValueError:
            continue
        if isinstance(message, dict) and ("result" in message or "error" in message):
            return True
    return False


def _response(reply: http.client.HTTPResponse, body: bytes, cut: str) -> Response:
    headers = tuple((name, value) for name, value in reply.msg.items())
    return Response(reply.status, reply.reason, headers, body, cut)


def _chunked(chunks: Sequence[bytes]) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks if chunk) + b"0\r\n\r\n"


def _bytes(value: str | bytes) -> bytes:
    if isinstance(value, bytes):
        return value
    return value.encode("utf-8") if any(ord(c) > 255 for c in value) else value.encode("latin-1")


def _words(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return "the connection was closed without an answer" if isinstance(error, http.client.RemoteDisconnected) else text
