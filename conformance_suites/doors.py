"""A port on loopback that nobody should knock at, and notices who does."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

KNOCK_SECONDS = 0.3
"""How long after a request a connection may still come."""


class Door:
    """`port` is open on 127.0.0.1 and, where there is IPv6, on ::1; `knocked` is set by the first connection."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.knocked = threading.Event()

    def was_tried(self) -> bool:
        """Whether somebody connected since `forget`; waits a moment for those on their way."""
        return self.knocked.wait(KNOCK_SECONDS)

    def forget(self) -> None:
        self.knocked.clear()


@contextmanager
def door() -> Iterator[Door]:
    """An open port; whoever connects is noticed and sent away."""
    with contextlib.ExitStack() as until_closed:
        first = until_closed.enter_context(socket.create_server(("127.0.0.1", 0)))
        listeners, found = [first], Door(first.getsockname()[1])
        with contextlib.suppress(OSError):
            second = socket.create_server(("::1", found.port), family=socket.AF_INET6)
            listeners.append(until_closed.enter_context(second))
        ended = threading.Event()
        threads = [threading.Thread(target=_watch, args=(one, found, ended), daemon=True) for one in listeners]
        for thread in threads:
            thread.start()
        try:
            yield found
        finally:
            ended.set()
            for thread in threads:
                thread.join()


def _watch(listener: socket.socket, found: Door, ended: threading.Event) -> None:
    listener.settimeout(0.05)
    while not ended.is_set():
        with contextlib.suppress(TimeoutError):
            connection, _ = listener.accept()
            found.knocked.set()
            connection.close()
