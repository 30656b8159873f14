"""The web server that the command line runs: uvicorn, set up so that it changes nothing the guard decides on.

Its own reading of forwarding fields is off, it names no version, it keeps no log of requests (URLs can hold secrets),
and trailers stay trailers. It is given what it lacks: a bound on the time that the head of a request takes, an end for
connections of clients that do not read, a shutdown that the app hears of in time, certificates that are renewed while
it serves, and the client's certificate in the scope (ASGI TLS extension).

It has its process to itself. What is there when it has started stays, so Python's cycle collector is told to leave that
alone (`gc.freeze`): requests then wait less for collections. Cycles among it that come apart later are never freed.
"""

import asyncio
import gc
import socket
import ssl
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import uvicorn

from mcp_guard.asgi import ASGIApp, Receive, Scope, Send
from mcp_guard.encryption import Encryption, Handshakes
from mcp_guard.sockets import SocketTerms

GRACE_SECONDS = 7
"""How long calls in flight may take to end after an interrupt; open streams are ended at once."""

HEAD_SECONDS = 10.0
"""How long the head of a request may take: from the opening of its connection, or from its first byte on a used one."""

STALL_SECONDS = 30.0
"""How long a client may leave what was sent to it unread, open streams apart, which the guard watches over itself."""

STALL_BYTES = 4096
"""What a client reads at least in that time, of a response that is longer."""

UNSENT_BYTES = 64 * 1024
"""What the kernel takes of a response beyond what is on its way to the client, so that slow readers are seen."""

TCP_NOTSENT_LOWAT = {"linux": 25, "darwin": 0x201}.get(sys.platform)
"""The option that says so; Python names it from 3.12 on."""


def serve(app: ASGIApp, listener: socket.socket, **settings: Any) -> bool:
    """Serve on `listener` until interrupted; `settings` are those of `configuration`. Answers whether the app started.

    Raises:
        ConfigurationError: the encryption cannot work.
    """
    server = Server(configuration(app, **settings))
    try:
        server.run(sockets=[listener])
    except SystemExit:
        # The server has said why, and would end the process with a status of its own.
        return False
    return server.started


def configuration(app: ASGIApp | str, *, encryption: Encryption | None = None, **settings: Any) -> uvicorn.Config:
    """What `Server` is to be set up with for `app`; `settings` are further ones of uvicorn's.

    Raises:
        ConfigurationError: the encryption cannot work.
    """
    fixed: dict[str, Any] = {
        "http": http_protocol(),
        "ws": websocket_protocol(),
        "proxy_headers": False,
        "server_header": False,
        "access_log": False,
        "log_level": "warning",
        "timeout_graceful_shutdown": GRACE_SECONDS,
        "ws_max_size": SocketTerms.max_message_bytes,
        "lifespan": "on",
        "ssl_context_factory": None if encryption is None else Handshakes(encryption),
    }
    return uvicorn.Config(app, **{**fixed, **settings})


class Server(uvicorn.Server):
    """Tells the app that it is about to stop, before it waits for what the app still does.

    uvicorn alone says so after it has waited, and an open stream would be waited for in vain. `started_up` is called
    when the app has started and requests are taken.
    """

    def __init__(self, config: uvicorn.Config, started_up: Callable[[], None] | None = None) -> None:
        super().__init__(config)
        self.started_up = started_up
        self.renewing: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and self.started_up is not None:
            self.started_up()
        if isinstance(self.config.ssl_context_factory, Handshakes):
            self.renewing = asyncio.create_task(self.config.ssl_context_factory.follow())
        gc.collect()
        gc.freeze()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        drain = getattr(self.config.loaded_app, "drain", None)
        if drain is not None:
            drain()
        if self.renewing is not None:
            self.renewing.cancel()
        await super().shutdown(sockets)


if TYPE_CHECKING:
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol as _Protocol
else:
    _Protocol = object


class Bounded(_Protocol):
    """What both of uvicorn's implementations of HTTP/1.1 lack: bounds on what a slow client may hold.

    A connection on which no request has a complete head in time is closed. Nothing is kept for a client beyond what the
    kernel takes: the app waits for it, and a client that does not read is cut off, also after the app has left.
    """

    head_timer: asyncio.TimerHandle | None = None
    stall_timer: asyncio.TimerHandle | None = None
    unread: int = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        tell(self, transport)
        # With TLS, a limit of 0 would count an empty buffer as full.
        transport.set_write_buffer_limits(high=1, low=0)
        connection = transport.get_extra_info("socket")
        if TCP_NOTSENT_LOWAT is not None and connection.family in {socket.AF_INET, socket.AF_INET6}:
            connection.setsockopt(socket.IPPROTO_TCP, TCP_NOTSENT_LOWAT, UNSENT_BYTES)
        self.head_timer = self.loop.call_later(HEAD_SECONDS, transport.abort)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        cycle: Any = self.cycle
        if self.transport.get_protocol() is not self or (cycle is not None and not cycle.response_complete):
            # A head is complete: of a WebSocket, which has a class of its own from here on, or of a request.
            self._stop_head_timer()
        elif self.head_timer is None:
            # uvicorn has just stopped its own timer for the time between requests, whatever it was that came.
            self.head_timer = self.loop.call_later(HEAD_SECONDS, self.transport.abort)

    def _should_upgrade(self) -> bool:
        # Only GET opens a WebSocket (RFC 6455 §4.1); uvicorn would leave any other method without an answer.
        return self.scope["method"] == "GET" and super()._should_upgrade()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_head_timer()
        self._stop_stall_timer()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self.unread = self.transport.get_write_buffer_size()
        self.stall_timer = self.loop.call_later(STALL_SECONDS, self.look_at_reader)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_stall_timer()

    def look_at_reader(self) -> None:
        """Cut off a client that has read next to nothing since it was last looked at."""
        before, self.unread = self.unread, self.transport.get_write_buffer_size()
        if before - self.unread < STALL_BYTES:
            self.transport.abort()
        else:
            self.stall_timer = self.loop.call_later(STALL_SECONDS, self.look_at_reader)

    def _stop_head_timer(self) -> None:
        if self.head_timer is not None:
            self.head_timer.cancel()
            self.head_timer = None

    def _stop_stall_timer(self) -> None:
        if self.stall_timer is not None:
            self.stall_timer.cancel()
            self.stall_timer = None


def tls_extension(connection: ssl.SSLObject) -> dict[str, Any]:
    """What the app is told of an encrypted connection (ASGI TLS extension); certificates that do not verify end it."""
    der = connection.getpeercert(binary_form=True)
    chain = () if der is None else (ssl.DER_cert_to_PEM_cert(der),)
    return {"server_cert": None, "client_cert_chain": chain, "client_cert_name": None, "client_cert_error": None}


def tell(protocol: Any, transport: asyncio.BaseTransport) -> None:
    """Have the app of a connection told of its encryption, if it has any."""
    encrypted = transport.get_extra_info("ssl_object")
    if encrypted is not None:
        protocol.app = telling(protocol.app, tls_extension(encrypted))


def telling(app: Any, tls: dict[str, Any]) -> ASGIApp:
    """`app`, told of the encrypted connection that its requests come by."""

    async def told(scope: Scope, receive: Receive, send: Send) -> None:
        scope["extensions"] = {**scope.get("extensions", {}), "tls": tls}
        await app(scope, receive, send)

    return told


def http_protocol() -> type[asyncio.Protocol]:
    """The HTTP/1.1 implementation for uvicorn's `http` setting: httptools where it is installed, h11 otherwise."""
    try:
        return with_httptools()
    except ImportError:
        return with_h11()


def websocket_protocol() -> type[asyncio.Protocol] | None:
    """The implementation for uvicorn's `ws` setting on the library that is installed, None without one.

    uvicorn hands a connection on to it with an app of its own, which has to be told of the encryption again.
    """
    from uvicorn.protocols.websockets.auto import AutoWebSocketsProtocol

    if AutoWebSocketsProtocol is None:
        return None
    implementation: Any = AutoWebSocketsProtocol

    class Told(implementation):  # type: ignore[misc]
        """Nothing besides."""

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            tell(self, transport)

    return Told


def with_httptools() -> type[asyncio.Protocol]:
    """uvicorn's implementation on httptools, bounded, with trailers apart and targets whole.

    uvicorn's own class for httptools adds the fields of a trailer section (RFC 9112 §7.1.2) to the header fields of the
    request, and when the whole request comes in one segment it has done so before the app is called: a client could
    then say after a proxy what the proxy would not have passed on (RFC 9110 §6.5.1). Here they are dropped. It also
    drops the authority of an absolute target, though that goes before the Host field (RFC 9112 §3.2.2), and fragments:
    here such a target is handed on as it came, for the guard to refuse.

    Raises:
        ImportError: httptools is not installed.
    """
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

    class TrailersApart(Bounded, HttpToolsProtocol):
        """Collects whatever comes after the header section in a list of its own, which nobody reads."""

        opens_websocket: bool | None = None

        def on_message_begin(self) -> None:
            super().on_message_begin()
            self.opens_websocket = None

        def _should_upgrade(self) -> bool:
            # Asked first while the header section is there, and again when it is not.
            if self.opens_websocket is None:
                self.opens_websocket = super()._should_upgrade()
            return self.opens_websocket

        def on_headers_complete(self) -> None:
            super().on_headers_complete()
            if not self.url.startswith(b"/") or b"#" in self.url:
                # The app is called later, and has not seen the scope yet.
                self.scope["raw_path"] = self.url
            self.headers = []

    return TrailersApart


def with_h11() -> type[asyncio.Protocol]:
    """uvicorn's implementation on h11, bounded."""
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class BoundedH11(Bounded, H11Protocol):  # type: ignore[misc]
        """Nothing besides."""

    return BoundedH11
