"""Sessions of the eras that have them, bound to the principal that opened them."""

from __future__ import annotations

import itertools
import secrets
from collections import deque
from dataclasses import dataclass, field

import anyio

from tests.support.model_server.deployment import Deployment
from tests.support.model_server.keys import JSON
from tests.support.model_server.principal import Principal
from tests.support.model_server.streams import Stream, frame

IDLE_SECONDS = 1800
SESSIONS_PER_PRINCIPAL = 1000
REMEMBERED_EVENTS = 200


@dataclass
class Pending:
    """A request of the server that waits for the client's response."""

    answered: anyio.Event = field(default_factory=anyio.Event)
    response: JSON = field(default_factory=dict)


class Session:
    """What one `initialize` opened."""

    def __init__(self, session_id: str, owner: Principal, now: float) -> None:
        self.id = session_id
        self.owner = owner
        self.used = now
        self.ended = False
        self.initialized = False
        self.capabilities: JSON = {}
        self.pending: dict[str, Pending] = {}
        self.running: dict[str, anyio.CancelScope] = {}
        self.streams: list[Stream] = []
        self.events: deque[tuple[str, str, str]] = deque(maxlen=REMEMBERED_EVENTS)
        self._held: deque[JSON] = deque(maxlen=REMEMBERED_EVENTS)
        self._numbers = itertools.count(1)

    def open_stream(self, stream_id: str | None = None) -> Stream:
        """A stream that gets what the server has to say from now on, and what it held back until now."""
        stream = Stream(stream_id)
        self.streams = [one for one in self.streams if one.open] + [stream]
        if stream_id is None:
            self._deliver(stream, None)
        while self._held:
            self._deliver(stream, self._held.popleft())
        return stream

    def notify(self, message: JSON, *, everywhere: bool = False) -> None:
        """Send a message on one open stream, or keep it for the next one."""
        streams = [one for one in self.streams if one.open]
        if not streams:
            self._held.append(message)
        for stream in streams if everywhere else streams[-1:]:
            self._deliver(stream, message)

    def _deliver(self, stream: Stream, message: JSON | None) -> None:
        event_id = f"{stream.id}-{next(self._numbers)}"
        text = frame(message, event_id)
        self.events.append((event_id, stream.id, text))
        stream.put(text)


class Sessions:
    """All sessions of one transport. A session of somebody else does not exist."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._sessions: dict[str, Session] = {}
        self._numbers = itertools.count(1)
        self.has = deployment.has

    def create(self, owner: Principal, chosen: str | None = None) -> Session | None:
        """A new session, or None when the principal has too many."""
        self._forget_idle()
        owned = sum(1 for one in self._sessions.values() if one.owner.identity == owner.identity)
        if owned >= SESSIONS_PER_PRINCIPAL and not self.has("sessions_unlimited"):
            return None
        adopted = chosen if chosen and self.has("session_id_adopted") else None
        session = Session(adopted or self._new_id(owner), owner, self._deployment.clock())
        self._sessions[session.id] = session
        return session

    def _new_id(self, owner: Principal) -> str:
        if self.has("session_ids_are_counted") or self.has("endpoint_key_is_counted"):
            return f"{next(self._numbers):032x}"
        if self.has("session_ids_are_short"):
            return secrets.token_hex(4)
        prefix = f"{owner.subject}-" if self.has("session_ids_hold_the_user") else ""
        return prefix + secrets.token_hex(32)

    def find(self, session_id: str) -> Session | None:
        """Any session by id, whoever asks: what answers "unknown" is decided by `owned`."""
        session = self._sessions.get(session_id)
        if session is None or session.used + IDLE_SECONDS < self._deployment.clock():
            return None
        session.used = self._deployment.clock()
        return session

    def every(self) -> list[Session]:
        return list(self._sessions.values())

    def owned(self, session_id: str, principal: Principal, *, unbound: bool = False) -> Session | None:
        """The session if this principal opened it, else None as for an unknown one. A fault may call it unbound."""
        session = self.find(session_id)
        if session is None or unbound or self._same(session.owner, principal):
            return session
        if self.has("stolen_session_ends"):
            self.end(session)
        return None

    def _same(self, owner: Principal, principal: Principal) -> bool:
        has = self.has
        if has("session_bound_to_the_token"):
            return owner.token == principal.token
        if has("session_bound_to_the_subject"):
            return owner.subject == principal.subject
        if has("session_bound_to_the_client"):
            return owner.client_id == principal.client_id
        return owner.identity == principal.identity

    def end(self, session: Session) -> None:
        """Forget the session; its streams close."""
        session.ended = True
        if not self.has("ended_session_is_served"):
            self._sessions.pop(session.id, None)

    def _forget_idle(self) -> None:
        horizon = self._deployment.clock() - IDLE_SECONDS
        for session in [one for one in self._sessions.values() if one.used < horizon]:
            self.end(session)
