"""A TCP proxy on loopback in a thread of the test process, in front of a real server: it counts, delays and breaks.

What it does is set on the running proxy and holds for what passes from then on, on every connection:

    with TcpProxy(server.port) as proxy:
        proxy.delay_seconds = 0.05      each piece of what the server says comes later
        proxy.hole = True               nothing passes in either direction; connections stay open
        proxy.drop_replies = True       what the client says arrives, what the server says does not
        proxy.cut_after = 1             each connection is reset when so many bytes of the server's have passed
        proxy.rewrite = lambda data: …  what the server says is replaced, piece by piece
        proxy.reset()                   every connection is reset now

`sent` counts the pieces that clients sent and `commands` the RESP commands in them; `connections` counts connections.
"""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import threading
import time
from collections.abc import Callable
from types import TracebackType

POLL_SECONDS = 0.02
COMMAND = re.compile(rb"\*[0-9]+\r\n\$")


class TcpProxy:
    """Forwards 127.0.0.1:`port` to 127.0.0.1:`target`. A context manager."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.delay_seconds = 0.0
        self.hole = False
        self.drop_replies = False
        self.cut_after: int | None = None
        self.rewrite: Callable[[bytes], bytes] | None = None
        self.sent: list[bytes] = []
        self.connections = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._stopping = False

    @property
    def port(self) -> int:
        port: int = self._listener.getsockname()[1]
        return port

    @property
    def commands(self) -> int:
        """How many commands clients sent. A command must not be split over pieces and not contain another."""
        return sum(len(COMMAND.findall(data)) for data in self.sent)

    def forget(self) -> None:
        """Count anew."""
        self.sent.clear()
        self.connections = len(self._open) // 2

    def reset(self) -> None:
        """Reset every connection."""
        with self._lock:
            for one in list(self._open):
                _reset(one)

    def __enter__(self) -> TcpProxy:
        self._listener.settimeout(POLL_SECONDS)
        self._start(self._accept)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stopping = True
        self.reset()
        for thread in self._threads:
            thread.join(5)
        self._listener.close()

    def _start(self, run: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=run, args=arguments, daemon=True, name="tcp proxy")
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._stopping:
            try:
                client, _ = self._listener.accept()
            except TimeoutError:
                continue
            self.connections += 1
            try:
                server = socket.create_connection(("127.0.0.1", self.target), timeout=5)
            except OSError:
                _reset(client)
                continue
            for one in (client, server):
                one.settimeout(POLL_SECONDS)
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._open |= {client, server}
            self._start(self._pump, client, server, True)
            self._start(self._pump, server, client, False)

    def _pump(self, source: socket.socket, sink: socket.socket, outward: bool) -> None:
        passed = 0
        while not self._stopping:
            if self.hole:
                time.sleep(POLL_SECONDS)
                continue
            try:
                data = source.recv(1 << 20)
            except TimeoutError:
                continue
            except OSError:
                break
            if not data:
                break
            data = self._outward(data) if outward else self._inward(data)
            cut = not outward and self.cut_after is not None and passed + len(data) > self.cut_after
            if cut:
                data = data[: max(0, (self.cut_after or 0) - passed)]
            passed += len(data)
            with contextlib.suppress(OSError):
                sink.sendall(data)
            if cut:
                break
        with self._lock:
            self._open -= {source, sink}
        _reset(source)
        _reset(sink)

    def _outward(self, data: bytes) -> bytes:
        self._hold()
        self.sent.append(data)
        return data

    def _hold(self) -> None:
        while self.hole and not self._stopping:
            time.sleep(POLL_SECONDS)

    def _inward(self, data: bytes) -> bytes:
        if self.delay_seconds:
            time.sleep(self.delay_seconds)
        self._hold()
        if self.drop_replies:
            return b""
        return data if self.rewrite is None else self.rewrite(data)


def _reset(one: socket.socket) -> None:
    """Close so that the other side sees a reset and not an end."""
    with contextlib.suppress(OSError):
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    one.close()
