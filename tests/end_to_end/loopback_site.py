"""A web site on a loopback port: the listener of a native app, or a page that somebody else wrote."""

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

HTML = "<!doctype html><title>a site</title><body>{}</body>"


@dataclass(frozen=True)
class Received:
    """A request: its path, its query and its header fields by lower-case name."""

    path: str
    query: dict[str, str]
    headers: dict[str, str]


@dataclass
class Site:
    """`pages` maps a path to the HTML of a body; other paths have a page too."""

    port: int
    pages: dict[str, str] = field(default_factory=dict)
    received: list[Received] = field(default_factory=list)

    def at(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"

    def answers(self) -> list[Received]:
        """The authorization responses that came to the callback."""
        return [request for request in self.received if request.path == "/callback"]


@contextlib.contextmanager
def loopback_site() -> Iterator[Site]:
    """A site on 127.0.0.1 that is gone when the block ends."""

    class Handler(BaseHTTPRequestHandler):
        def handle(self) -> None:
            with contextlib.suppress(ConnectionError):
                super().handle()

        def do_GET(self) -> None:
            asked = urlsplit(self.path)
            headers = {name.lower(): value for name, value in self.headers.items()}
            site.received.append(Received(asked.path, dict(parse_qsl(asked.query)), headers))
            body = HTML.format(site.pages.get(asked.path, "Back at the app.")).encode()
            self.send_response(200)
            self.send_header("content-type", "text/html; charset=utf-8")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    site = Site(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
