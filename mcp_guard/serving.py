"""The web server that the command line runs: uvicorn, set up so that it changes nothing the guard decides on.

Its own reading of forwarding fields is off, it names no version, it keeps no log of requests (URLs can hold secrets),
and trailers stay trailers.
"""

import socket
from typing import Any

import uvicorn

from mcp_guard.asgi import ASGIApp

GRACE_SECONDS = 3
"""How long requests in flight may take to end after an interrupt; open streams are closed at once."""


def serve(app: ASGIApp, listener: socket.socket, **tls: Any) -> bool:
    """Serve on `listener` until interrupted. Answers whether the app started."""
    config = uvicorn.Config(
        app,
        http=http_protocol(),
        proxy_headers=False,
        server_header=False,
        access_log=False,
        log_level="warning",
        timeout_graceful_shutdown=GRACE_SECONDS,
        lifespan="on",
        **tls,
    )
    server = uvicorn.Server(config)
    try:
        server.run(sockets=[listener])
    except SystemExit:
        # The server has said why, and would end the process with a status of its own.
        return False
    return server.started


def http_protocol() -> Any:
    """The HTTP/1.1 implementation for uvicorn's `http` setting: httptools where it is installed, h11 otherwise.

    uvicorn's own class for httptools adds the fields of a trailer section (RFC 9112 §7.1.2) to the header fields of the
    request, and when the whole request comes in one segment it has done so before the app is called: a client could
    then say after a proxy what the proxy would not have passed on (RFC 9110 §6.5.1). Here they are dropped.
    """
    try:
        from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
    except ImportError:
        return "h11"

    class TrailersApart(HttpToolsProtocol):
        """Collects whatever comes after the header section in a list of its own, which nobody reads."""

        def on_headers_complete(self) -> None:
            super().on_headers_complete()
            self.headers = []

    return TrailersApart
