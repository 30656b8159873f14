"""Binds each session to the principal that opened it.

Decides: whether a session handle is the caller's own. Refuses with `session_not_found` (404): another's handle is
answered exactly like one that never existed, and only the audit tells them apart. Does not: authenticate (a handle is
never a credential), nor bind anything of the stateless era (2026-07-28 has no sessions). Needs the principal, the
resource and the call. Must stand after: token, intake.

Two kinds of handle are bound, when the app mints them and before the client can see them: the `Mcp-Session-Id` of
Streamable HTTP (2025-03-26 to 2025-11-25), and the message URL in the `endpoint` event of HTTP+SSE (2024-11-05),
whatever its parameter is called. The URL is compared as a whole, as it was sent, so that it has one spelling. A request
to any path that is not a resource's own is taken for such a message, whatever its method and revision: an endpoint the
app has besides is to be declared as a resource. A message URL with the path of its own stream could not be told from
the stream, so such a stream is cut before it is seen.

A request under the rules of 2026-07-28 has no session; a session id that it carries is not handed on.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from urllib.parse import unquote, urljoin, urlsplit

from mcp_guard import rejections
from mcp_guard.asgi import RawHeaders
from mcp_guard.check import StatefulCheck
from mcp_guard.clock import Clock, SystemClock
from mcp_guard.facts import Call, Principal, Resource, SessionHandle
from mcp_guard.failures import ConfigurationError
from mcp_guard.layer import ADMITTED, Admission, RequestHead
from mcp_guard.protocol.event_stream import FirstEvent
from mcp_guard.secret import fingerprint
from mcp_guard.stores.base import Delete, Operation, Put, Renew, Result

SESSION_FIELD = b"mcp-session-id"
DEFAULT_TTL = timedelta(seconds=1800)
PLAIN_ID = re.compile(r"[A-Za-z0-9._~+/=-]{1,128}")
"""A session id that goes into a store key as it is; any other is digested."""
VISIBLE_ASCII = re.compile(rb"[\x21-\x7e]{1,1024}")
"""What MCP 2025-11-25 allows in a session id, and a length no server needs."""
STATELESS = Admission(hide=frozenset({SESSION_FIELD}))


@dataclass(frozen=True, kw_only=True)
class Session(StatefulCheck):
    """`ttl` is how long a session lives without being used; an open stream counts as use."""

    needs = (Principal, Resource, Call)
    adds = (SessionHandle,)

    ttl: timedelta = DEFAULT_TTL
    clock: Clock = field(default_factory=SystemClock)

    def __post_init__(self) -> None:
        if self.ttl < timedelta(seconds=1):
            raise ConfigurationError(f"ttl must be at least one second, not {self.ttl}")

    def ask(self, request: RequestHead) -> Sequence[Operation]:
        handle = self._presented(request)
        if handle is None:
            return ()
        return (Renew(_key(handle), request.fact(Principal).owner, self.ttl),)

    def answer(self, request: RequestHead, results: Sequence[Result]) -> Admission:
        principal = request.fact(Principal)
        if not results:
            if request.fact(Call).modern:
                return STATELESS if SESSION_FIELD in request.fields else ADMITTED
            return Admission(watch=_Mint(self, principal, request.path))
        handle = self._presented(request) or ""
        if results[0] is None:
            raise rejections.SESSION_NOT_FOUND.because(f"session {fingerprint(handle)} is unknown")
        if results[0] != principal.owner:
            raise rejections.SESSION_NOT_FOUND.because(f"session {fingerprint(handle)} belongs to another principal")
        return Admission(
            facts=(SessionHandle(handle, fingerprint(handle)),),
            watch=_Use(self, principal, handle, ends=request.method == "DELETE"),
        )

    def _presented(self, request: RequestHead) -> str | None:
        """The handle that the request claims, None when it claims none.

        Raises:
            Rejection: it cannot be one that was ever minted.
        """
        if request.fact(Resource).path not in (request.routed_path, request.path):
            return _endpoint_handle(request.path, request.query.decode("latin-1"))
        if request.fact(Call).modern:
            return None
        values = request.values(SESSION_FIELD)
        if not values:
            return None
        if len(values) > 1 or VISIBLE_ASCII.fullmatch(values[0]) is None:
            raise rejections.SESSION_NOT_FOUND.because("the session id is malformed")
        return values[0].decode("ascii")


def _key(handle: str) -> str:
    """`mcp:session:<session id>`, or a digest of an id that is long or unusual."""
    if PLAIN_ID.fullmatch(handle):
        return f"mcp:session:{handle}"
    return f"mcp:session:sha256:{hashlib.sha256(handle.encode()).hexdigest()}"


def _endpoint_handle(path: str, query: str) -> str:
    # The blank keeps it apart from every session id.
    return f"POST {path}?{query}"


@dataclass(slots=True)
class _Use:
    """Watches a response in a session: forgets the session when it ends, keeps it while a stream is open."""

    layer: Session
    principal: Principal
    handle: str
    ends: bool
    wants_body: bool = False
    renewed: float = 0.0

    def on_start(self, status: int, headers: RawHeaders) -> Sequence[Operation]:
        if status == 404 or (self.ends and 200 <= status < 300):
            return (Delete(_key(self.handle)),)
        self.wants_body = _is_event_stream(headers)
        self.renewed = self.layer.clock.monotonic()
        return ()

    def on_body(self, chunk: bytes) -> Sequence[Operation]:
        now = self.layer.clock.monotonic()
        if now - self.renewed < self.layer.ttl.total_seconds() / 3:
            return ()
        self.renewed = now
        return (Renew(_key(self.handle), self.principal.owner, self.layer.ttl),)

    def settle(self, results: Sequence[Result]) -> None:
        """Nothing to judge: an expired session is found out by the next request."""

    def on_end(self) -> None:
        """Nothing to let go of."""


@dataclass(slots=True)
class _Mint:
    """Watches a response outside a session for a handle that the app mints, and binds it before it is seen."""

    layer: Session
    principal: Principal
    path: str
    wants_body: bool = False
    stream: FirstEvent = field(default_factory=FirstEvent)
    open: _Use | None = None

    def on_start(self, status: int, headers: RawHeaders) -> Sequence[Operation]:
        minted = [value for name, value in headers if name.lower() == SESSION_FIELD]
        if minted:
            return (self._bind(minted[0].decode("latin-1")),)
        self.wants_body = status == 200 and _is_event_stream(headers)
        return ()

    def on_body(self, chunk: bytes) -> Sequence[Operation]:
        if self.open is not None:
            return self.open.on_body(chunk)
        event = self.stream.feed(chunk)
        if event is None or event.type != "endpoint":
            self.wants_body = not self.stream.done
            return ()
        endpoint = urlsplit(urljoin(self.path, event.data.strip()))
        if unquote(endpoint.path) == self.path:
            raise rejections.GUARD_FAULT.because("the app's message URL has the path of its stream")
        handle = _endpoint_handle(unquote(endpoint.path), endpoint.query)
        self.open = _Use(self.layer, self.principal, handle, ends=False, renewed=self.layer.clock.monotonic())
        return (self._bind(handle),)

    def settle(self, results: Sequence[Result]) -> None:
        if results[0] is False:
            raise rejections.GUARD_FAULT.because("the app minted a session id that is already bound")

    def on_end(self) -> None:
        """Nothing to let go of."""

    def _bind(self, handle: str) -> Put:
        return Put(_key(handle), self.principal.owner, self.layer.ttl, only_if_absent=True)


def _is_event_stream(headers: RawHeaders) -> bool:
    return any(
        name.lower() == b"content-type" and value.lower().startswith(b"text/event-stream") for name, value in headers
    )
