"""A server that writes prepared bytes and keeps what it was sent."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

READ_SECONDS = 5.0


@dataclass
class Script:
    """`replies` are written one a request; None closes without an answer. `received` are the requests as they came."""

    replies: Sequence[bytes | None]
    url: str = ""
    received: list[bytes] = field(default_factory=list)
    connections: int = 0


@contextlib.contextmanager
def scripted(*replies: bytes | None) -> Iterator[Script]:
    """Serve the replies on 127.0.0.1, connections one after the other."""
    script = Script(replies)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        script.url = f"http://127.0.0.1:{listener.getsockname()[1]}/mcp"
        thread = threading.Thread(target=_serve, args=(listener, script), daemon=True)
        thread.start()
        yield script
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(READ_SECONDS)


def reply(status: str, *headers: str, body: bytes = b"") -> bytes:
    """A response with its Content-Length."""
    lines = [f"HTTP/1.1 {status}", *headers, f"Content-Length: {len(body)}"]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def _serve(listener: socket.socket, script: Script) -> None:
    left = iter(script.replies)
    while len(script.received) < len(script.replies):
        try:
            connected, _ = listener.accept()
        except OSError:
            return
        script.connections += 1
        connected.settimeout(READ_SECONDS)
        with connected, contextlib.suppress(OSError):
            while request := _read(connected):
                script.received.append(request)
                answer = next(left, None)
                if answer is None:
                    break
                connected.sendall(answer)


def _read(connected: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connected.recv(65536)
        if not piece:
            return b""
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    if b"chunked" in head.lower():
        while not body.endswith(b"0\r\n\r\n"):
            body += connected.recv(65536)
    length = next((int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0)
    while len(body) < length:
        body += connected.recv(65536)
    return head + b"\r\n\r\n" + body
