"""Sessions of the stateful era, and requests within them."""

from __future__ import annotations

import secrets as randomness

from pytest_mcp_conformance import Inconclusive, NotApplicable, mcp
from pytest_mcp_conformance.credentials import Credential
from pytest_mcp_conformance.eras import result_of
from pytest_mcp_conformance.exchange import Header, Request
from pytest_mcp_conformance.mcp import Era
from pytest_mcp_conformance.target import Target


def open_session(target: Target, credential: Credential | None) -> str:
    """The id of a session opened by `credential`.

    Raises:
        NotApplicable: the server does not speak the stateful era, or keeps no sessions there.
        Inconclusive: the handshake failed.
    """
    target.require(Era.LEGACY)
    opened = target.send(mcp.initialize(), credential)
    if not opened.succeeded:
        raise Inconclusive(f"no session could be opened: {opened.summary}")
    session = opened.header("mcp-session-id") or ""
    if not session:
        raise NotApplicable("the server issues no session ids")
    target.send(mcp.legacy("notifications/initialized", request_id=None, session=session), credential)
    return session


def session_lives(target: Target, session: str, credential: Credential | None) -> bool:
    """Whether the session still answers the credential."""
    return result_of(target.send(mcp.legacy("ping", session=session), credential)) is not None


def within(target: Target, session: str, verb: str) -> Request:
    """A request within a session, by each verb of the transport."""
    named: Header = ("Mcp-Session-Id", session)
    if verb == "POST":
        return mcp.legacy("ping", session=session).request(target.url)
    return Request(verb, target.url, (("Accept", "text/event-stream"), named))


def look_alike(session: str) -> str:
    """An id of the same make that no session has: the same characters in another order."""
    mixed = "".join(randomness.SystemRandom().sample(session, len(session)))
    return mixed if mixed != session else f"{session[:-1]}{'a' if session[-1] != 'a' else 'b'}"


def require_sessions(target: Target, credential: Credential) -> str:
    """A session of a target that requires authorization.

    Raises:
        NotApplicable: it requires none, or keeps no sessions.
    """
    target.require_protected()
    return open_session(target, credential)
