"""Run any ASGI application on uvicorn, in a thread of the test process, on a loopback port the kernel chose."""

from __future__ import annotations

import contextlib
import inspect
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from dataclasses import dataclass
from typing import Any

import uvicorn

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Application = Callable[[Scope, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]

START_WITHIN_SECONDS = 10.0
STOP_WITHIN_SECONDS = 10.0


class ServerDidNotStart(RuntimeError):
    """The server thread ended, or was not ready within START_WITHIN_SECONDS."""


@dataclass(frozen=True)
class Serving:
    """A server that answers at `url` (`http://127.0.0.1:PORT`, no trailing slash) until the context ends."""

    url: str
    app: Application


def listen() -> socket.socket:
    """A bound, not yet listening socket on 127.0.0.1 with a port chosen by the kernel."""
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind(("127.0.0.1", 0))
    return bound


@contextlib.contextmanager
def serving(build: Callable[[str], Application], **settings: Any) -> Iterator[Serving]:
    """Serve `build(url)` and stop it, open streams included, when the block ends.

    `settings` go to `uvicorn.Config` (for instance `ws`, `http`, `lifespan`).

    Raises:
        ServerDidNotStart: the server was not ready in time.
    """
    bound = listen()
    url = f"http://127.0.0.1:{bound.getsockname()[1]}"
    app = build(url)
    options: dict[str, Any] = {"log_level": "critical", "access_log": False, "timeout_graceful_shutdown": 1, **settings}
    server = uvicorn.Server(uvicorn.Config(app, **options))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True, name=f"serving {url}")
    thread.start()
    try:
        _wait(lambda: server.started or not thread.is_alive(), START_WITHIN_SECONDS)
        if not server.started:
            raise ServerDidNotStart(f"nothing was ready at {url} within {START_WITHIN_SECONDS:g} seconds")
        yield Serving(url, app)
    finally:
        server.should_exit = True
        close = getattr(app, "close", None)
        if callable(close) and not inspect.iscoroutinefunction(close):
            close()
        thread.join(STOP_WITHIN_SECONDS)
        bound.close()


def _wait(ready: Callable[[], bool], within_seconds: float) -> None:
    deadline = time.monotonic() + within_seconds
    while not ready() and time.monotonic() < deadline:
        time.sleep(0.005)
