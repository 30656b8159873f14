"""The loopback listener of a native app: it takes one authorization response (RFC 8252 §7.3)."""

import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

PATH = "/callback"
IDLE_SECONDS = 10.0
_POLL_SECONDS = 0.05

_PAGE = b"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Back to the command line</title>
<p>You can close this window. The command line has the answer.</p>
</html>
"""
_HEADERS = (
    ("content-type", "text/html; charset=utf-8"),
    ("cache-control", "no-store"),
    ("referrer-policy", "no-referrer"),
    ("connection", "close"),
)


class Callback:
    """Listens on a free port of 127.0.0.1 while its block runs; `redirect_uri` leads there.

    Every connection has a thread of its own: browsers open some ahead of need and leave them silent.
    """

    def __init__(self) -> None:
        self._received: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self._received.put))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(_POLL_SECONDS,), daemon=True)
        self.redirect_uri = f"http://127.0.0.1:{self._server.server_address[1]}{PATH}"

    def __enter__(self) -> "Callback":
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def wait(self, timeout_seconds: float) -> str | None:
        """The path and query of the first response that comes; None when none came in time."""
        try:
            return self._received.get(timeout=timeout_seconds)
        except queue.Empty:
            return None


def _handler(receive: Callable[[str], None]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = IDLE_SECONDS

        def handle(self) -> None:
            with suppress(ConnectionError):
                super().handle()

        def do_GET(self) -> None:
            is_ours = urlsplit(self.path).path == PATH
            page = _PAGE if is_ours else b""
            try:
                self.send_response(200 if is_ours else 404)
                for name, value in _HEADERS:
                    self.send_header(name, value)
                self.send_header("content-length", str(len(page)))
                self.end_headers()
                self.wfile.write(page)
            finally:
                # Only after the page is out, since then the program may end.
                if is_ours:
                    receive(self.path)

        def log_message(self, *args: Any) -> None:
            """Say nothing: the request line holds the code."""

    return Handler
