"""The redirect URI of a login by a person: a loopback listener that takes one answer."""

from __future__ import annotations

import contextlib
import http.server
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

PATH = "/callback"


@dataclass
class Callback:
    """`url` is the redirect URI. `landed` is the URL a browser came back to, empty until then."""

    url: str
    landed: str = ""
    arrived: threading.Event = field(default_factory=threading.Event)

    def wait(self, seconds: float) -> str:
        """The URL the browser came back to; empty when it did not in time."""
        self.arrived.wait(seconds)
        return self.landed


@contextlib.contextmanager
def listening() -> Iterator[Callback]:
    """Listen on a port of 127.0.0.1 chosen by the system until the block ends."""
    callback = Callback("")

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = self.path.partition("?")[0] == PATH
            self.send_response(200 if known else 404)
            self.send_header("Content-Type", "text/plain")
            self.end_headers()
            self.wfile.write(b"Logged in. You can close this page.\n" if known else b"")
            if known and not callback.arrived.is_set():
                callback.landed = f"{origin}{self.path}"
                callback.arrived.set()

        def log_message(self, *args: object) -> None:
            """Say nothing: the request line holds the code."""

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        origin = f"http://127.0.0.1:{server.server_port}"
        callback.url = origin + PATH
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True, name="callback")
        thread.start()
        try:
            yield callback
        finally:
            server.shutdown()
            thread.join()
