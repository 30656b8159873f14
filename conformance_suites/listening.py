"""Event streams of a session: opening them, and reading what comes until it is quiet."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pytest_mcp_conformance import NotApplicable
from pytest_mcp_conformance.credentials import Credential
from pytest_mcp_conformance.exchange import Event, Exchange, Header, Request
from pytest_mcp_conformance.target import Target
from pytest_mcp_conformance.wire import EventStream

QUIET_SECONDS = 0.4
MOST_EVENTS = 20


@contextmanager
def stream_of(
    target: Target, session: str, credential: Credential | None, last_event_id: str = ""
) -> Iterator[tuple[Exchange, EventStream]]:
    """The GET stream of a session, whatever the answer; resumed after an event when its id is given."""
    headers: list[Header] = [("Accept", "text/event-stream"), ("MCP-Protocol-Version", "2025-11-25")]
    headers += [("Mcp-Session-Id", session)] if session else []
    headers += [("Last-Event-ID", last_event_id)] if last_event_id else []
    headers += [] if credential is None else [credential.header]
    with target.probe.stream(Request("GET", target.url, tuple(headers))) as (exchange, events):
        yield exchange, events


def is_stream(exchange: Exchange) -> bool:
    """Whether the answer is an event stream."""
    return exchange.succeeded and exchange.media_type == "text/event-stream"


def require_stream(exchange: Exchange) -> None:
    """Raises: NotApplicable when a GET of the owner's opens no stream."""
    if not is_stream(exchange):
        raise NotApplicable(f"the server offers no stream on GET ({exchange.summary})")


def drain(events: EventStream, quiet_seconds: float = QUIET_SECONDS) -> list[Event]:
    """The events that come until nothing comes for a while, or the stream ends."""
    found: list[Event] = []
    while len(found) < MOST_EVENTS:
        event = events.next_event(quiet_seconds)
        if event is None:
            break
        found.append(event)
    return found
