"""The web servers that the guard must be sound on, each in a thread of the test process, on a loopback port.

All of them run the app in one event loop of their own, so that a test can look at what the app was handed.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

from mcp_guard.serving import with_h11, with_httptools
from tests.support.serving import (
    START_WITHIN_SECONDS,
    STOP_WITHIN_SECONDS,
    Application,
    ServerDidNotStart,
    Serving,
    listen,
    serving,
)

Build = Callable[[str], Application]


@contextlib.contextmanager
def on_hypercorn(build: Build) -> Iterator[Serving]:
    """Serve `build(url)` on hypercorn, HTTP/2 with prior knowledge included.

    Raises:
        ServerDidNotStart: the server was not ready in time.
    """
    from hypercorn.asyncio import serve
    from hypercorn.config import Config

    with listen() as bound:
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        app, config = build(url), Config()
        config.bind = [f"fd://{bound.fileno()}"]
        config.errorlog = None
        config.graceful_timeout = 1.0

        async def run(stop: asyncio.Event) -> None:
            # Type parameters of ASGI differ between the two; the values do not.
            served: Any = app
            await serve(served, config, shutdown_trigger=stop.wait)

        with in_a_thread(run, url, app) as running:
            yield running
        bound.detach()


@contextlib.contextmanager
def on_granian(build: Build) -> Iterator[Serving]:
    """Serve `build(url)` on granian, embedded in a loop of ours, HTTP/2 with prior knowledge included.

    Raises:
        ServerDidNotStart: the server was not ready in time.
    """
    from granian.constants import Interfaces
    from granian.server.embed import Server

    with listen() as bound:
        port: int = bound.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    app = build(url)

    async def run(stop: asyncio.Event) -> None:
        # Its WebSockets can end the whole process: with the layer `websocket`, attack http-25 did (2.8.7, ws.rs:87).
        server: Any = Server(app, port=port, interface=Interfaces.ASGI, websockets=False, log_enabled=False)
        server.workers_kill_timeout = 2
        stopping = asyncio.create_task(stop.wait())
        stopping.add_done_callback(lambda _: server.stop())
        await server.serve()

    with in_a_thread(run, url, app) as running:
        yield running


@contextlib.contextmanager
def in_a_thread(run: Callable[[asyncio.Event], Awaitable[None]], url: str, app: Application) -> Iterator[Serving]:
    """Run a server in a loop of its own until the block ends; `run` ends when it is told to stop.

    Raises:
        ServerDidNotStart: the server was not ready in time.
    """
    stop, begun = asyncio.Event(), threading.Event()
    loops: list[asyncio.AbstractEventLoop] = []

    async def main() -> None:
        loops.append(asyncio.get_running_loop())
        begun.set()
        await run(stop)

    thread = threading.Thread(target=lambda: asyncio.run(main()), daemon=True, name=f"serving {url}")
    thread.start()
    try:
        begun.wait(START_WITHIN_SECONDS)
        deadline = time.monotonic() + START_WITHIN_SECONDS
        while not answers(url):
            if time.monotonic() > deadline or not thread.is_alive():
                raise ServerDidNotStart(f"nothing was ready at {url} within {START_WITHIN_SECONDS:g} seconds")
            time.sleep(0.01)
        yield Serving(url, app)
    finally:
        with contextlib.suppress(RuntimeError):
            loops[0].call_soon_threadsafe(stop.set)
        thread.join(STOP_WITHIN_SECONDS)


def answers(url: str) -> bool:
    """Whether anybody listens there."""
    host, _, port = url.removeprefix("http://").rpartition(":")
    try:
        socket.create_connection((host, int(port)), 1).close()
    except OSError:
        return False
    return True


def on_uvicorn(http: Callable[[], type[asyncio.Protocol]] | str, build: Build) -> AbstractContextManager[Serving]:
    """Serve `build(url)` on uvicorn, with one of our classes for HTTP/1.1 or one of its own by name."""
    return serving(build, http=http if isinstance(http, str) else http(), proxy_headers=False)


SERVERS: Mapping[str, Callable[[Build], AbstractContextManager[Serving]]] = {
    "httptools": partial(on_uvicorn, with_httptools),
    "h11": partial(on_uvicorn, with_h11),
    "hypercorn": on_hypercorn,
    "granian": on_granian,
}
"""The first two are what `mcp-guard serve` runs on."""

PLAIN: Mapping[str, Callable[[Build], AbstractContextManager[Serving]]] = {
    **SERVERS,
    "httptools": partial(on_uvicorn, "httptools"),
    "h11": partial(on_uvicorn, "h11"),
}
"""The same as they come, without what `mcp_guard.serving` adds to uvicorn."""
