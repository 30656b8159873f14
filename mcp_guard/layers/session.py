"""Binds each session to the principal that opened it.

Decides: whether a session handle is the caller's own. Refuses with `session_not_found` (404): another's handle is
answered exactly like one that never existed, and only the audit tells them apart. Does not: authenticate (a handle is
never a credential), nor bind anything of the stateless era (2026-07-28 has no sessions). Needs the principal, the
resource and the call. Must stand after: token, intake.

Two kinds of handle are bound, when the app mints them and before the client can see them: the `Mcp-Session-Id` of
Streamable HTTP (2025-03-26 to 2025-11-25), and the message URL in the `endpoint` event of HTTP+SSE (2024-11-05),
whatever its parameter is called. The URL is compared as a whole, as it was sent, so that it has one spelling. A request
to any path that is not a resource's own is taken for such a message, whatever its method and revision: an endpoint the
app has besides is to be declared as a resource. A message URL with the path of a resource could not be told from the
resource, so such a stream is cut before it is seen.

A session that was opened with a token bound to a key (RFC 9449) goes on only with tokens bound to that key, which a
refresh keeps; one that was opened with a bearer token goes on only with bearer tokens. Others are answered as if the
session were unknown.

A handle of another resource, a session that is older than its lifetime and a record in the store that was not made with
the key ring are answered like unknown ones too. A principal that has all the sessions it may have is refused more
(`limit_exceeded`, 429), before the app makes one; nobody else's end for it.

A request under the rules of 2026-07-28 has no session; a session id that it carries is not handed on.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from urllib.parse import unquote, urljoin, urlsplit

from mcp_guard import rejections
from mcp_guard.asgi import RawHeaders
from mcp_guard.check import StatefulCheck
from mcp_guard.clock import Clock, SystemClock
from mcp_guard.facts import Call, Principal, Resource, SessionHandle
from mcp_guard.keyring import KeyRing
from mcp_guard.layer import ADMITTED, Admission, Managed, RequestHead
from mcp_guard.messages import is_event_stream
from mcp_guard.protocol.event_stream import FirstEvent
from mcp_guard.revocation import Listening
from mcp_guard.secret import fingerprint
from mcp_guard.sessions import Sessions, SessionTerms, endpoint_handle
from mcp_guard.stores.base import Operation, Result

SESSION_FIELD = b"mcp-session-id"
VISIBLE_ASCII = re.compile(rb"[\x21-\x7e]{1,1024}")
"""What MCP 2025-11-25 allows in a session id, and a length no server needs."""
STATELESS = Admission(hide=frozenset({SESSION_FIELD}))


def nowhere() -> str | None:
    """Where sessions are held when it does not matter: any worker can serve them."""
    return None


@dataclass(frozen=True, kw_only=True)
class Session(StatefulCheck):
    """`ring` makes and checks the records; workers that share the store share it. `home` tells where this worker's
    sessions are held, for `affinity`. `paths` are those of all resources: a message URL must have none of them.
    """

    needs = (Principal, Resource, Call)
    adds = (SessionHandle,)

    ring: KeyRing = field(default_factory=KeyRing.generate)
    terms: SessionTerms = field(default_factory=SessionTerms)
    home: Callable[[], str | None] = nowhere
    paths: frozenset[str] = frozenset()
    clock: Clock = field(default_factory=SystemClock)
    sessions: Sessions = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sessions", Sessions(self.terms, self.ring, self.clock, self.home))

    def managed(self) -> Sequence[Managed]:
        if not self.terms.cache:
            return (self.store,)
        return (self.store, Listening(self.store, self.sessions.hear))

    def ask(self, request: RequestHead) -> Sequence[Operation]:
        handle, principal = self._presented(request), request.fact(Principal)
        if handle is not None:
            return self.sessions.using(handle, principal)
        return self.sessions.opening(principal) if _may_open(request) else ()

    def answer(self, request: RequestHead, results: Sequence[Result]) -> Admission:
        principal, resource, handle = request.fact(Principal), request.fact(Resource), self._presented(request)
        if handle is None:
            if request.fact(Call).modern:
                return STATELESS if SESSION_FIELD in request.fields else ADMITTED
            for result in results:
                self.sessions.check_room(result)
            root = request.scope.get("root_path", "")
            return Admission(watch=_Mint(self.sessions, principal, resource, request.path, root, self.paths))
        found = results[0] if results else self.sessions.believed(handle)
        binding = self.sessions.judge(handle, principal, resource, found)
        return Admission(
            facts=(SessionHandle(handle, fingerprint(handle), binding.members.get("home")),),
            watch=_Use(self.sessions, self.clock, principal, handle, ends=request.method == "DELETE"),
        )

    def _presented(self, request: RequestHead) -> str | None:
        """The handle that the request claims, None when it claims none.

        Raises:
            Rejection: it cannot be one that was ever minted.
        """
        if request.fact(Resource).path not in (request.routed_path, request.path):
            return endpoint_handle(request.path, request.query.decode("latin-1"))
        if request.fact(Call).modern:
            return None
        values = request.values(SESSION_FIELD)
        if not values:
            return None
        if len(values) > 1 or VISIBLE_ASCII.fullmatch(values[0]) is None:
            raise rejections.SESSION_NOT_FOUND.because("the session id is malformed")
        return values[0].decode("ascii")


def _may_open(request: RequestHead) -> bool:
    """Whether the app may open a session for this request: a handshake, or a stream outside a session."""
    call = request.fact(Call)
    return not call.modern and (
        request.method in ("GET", "HEAD") or any(message.method == "initialize" for message in call.messages)
    )


@dataclass(slots=True)
class _Use:
    """Watches a response in a session: forgets the session when it ends, keeps it while a stream is open."""

    sessions: Sessions
    clock: Clock
    principal: Principal
    handle: str
    ends: bool
    wants_body: bool = False
    renewed: float = 0.0

    def on_start(self, status: int, headers: RawHeaders) -> Sequence[Operation]:
        if status == 404 or (self.ends and 200 <= status < 300):
            return self.sessions.ending(self.handle, self.principal)
        self.wants_body = is_event_stream(headers)
        self.renewed = self.clock.monotonic()
        return ()

    def on_body(self, chunk: bytes) -> Sequence[Operation]:
        now = self.clock.monotonic()
        if now - self.renewed < self.sessions.terms.ttl.total_seconds() / 3:
            return ()
        self.renewed = now
        return self.sessions.renewing(self.handle, self.principal)

    def settle(self, results: Sequence[Result]) -> None:
        """Nothing to judge: an expired session is found out by the next request."""

    def on_end(self) -> None:
        """Nothing to let go of."""


@dataclass(slots=True)
class _Mint:
    """Watches a response outside a session for a handle that the app mints, and binds it before it is seen."""

    sessions: Sessions
    principal: Principal
    resource: Resource
    path: str
    root: str
    taken: frozenset[str]
    wants_body: bool = False
    stream: FirstEvent = field(default_factory=FirstEvent)
    open: _Use | None = None

    def on_start(self, status: int, headers: RawHeaders) -> Sequence[Operation]:
        minted = [value for name, value in headers if name.lower() == SESSION_FIELD]
        if minted:
            return self.sessions.bind(minted[0].decode("latin-1"), self.principal, self.resource)
        self.wants_body = status == 200 and is_event_stream(headers)
        return ()

    def on_body(self, chunk: bytes) -> Sequence[Operation]:
        if self.open is not None:
            return self.open.on_body(chunk)
        event = self.stream.feed(chunk)
        if event is None or event.type != "endpoint":
            self.wants_body = not self.stream.done
            return ()
        endpoint = urlsplit(urljoin(self.path, event.data.strip()))
        if unquote(endpoint.path) in (self.path, *self.taken, *[f"{self.root}{path}" for path in self.taken]):
            raise rejections.GUARD_FAULT.because("the app's message URL has the path of a resource")
        handle, clock = endpoint_handle(unquote(endpoint.path), endpoint.query), self.sessions.clock
        binding = self.sessions.bind(handle, self.principal, None)
        self.open = _Use(self.sessions, clock, self.principal, handle, ends=False, renewed=clock.monotonic())
        return binding

    def settle(self, results: Sequence[Result]) -> None:
        if self.open is None or isinstance(results[0], bool):
            self.sessions.check_bound(*results)

    def on_end(self) -> None:
        """Nothing to let go of."""
