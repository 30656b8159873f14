"""SESS: what comes on the streams of a session, and who else may hear it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from conformance_suites.calls import harmless_tools
from conformance_suites.listening import drain, is_stream, require_stream, stream_of
from conformance_suites.sessions import open_session, require_sessions
from pytest_mcp_conformance import Finding, NotApplicable, NotRun, mcp, requirement
from pytest_mcp_conformance.credentials import Credential
from pytest_mcp_conformance.declarations import Declarations
from pytest_mcp_conformance.exchange import Event, Exchange
from pytest_mcp_conformance.target import Target


class ReplayedToAnother(Finding):
    """Another user is sent events of a stream."""


class ReplayedAcrossStreams(Finding):
    """Resuming one stream brings events of another."""


class SentOnEveryStream(Finding):
    """One message comes on several streams."""


@dataclass(frozen=True)
class Heard:
    """What a stream brought while a tool was called twice."""

    exchange: Exchange
    events: list[Event]

    @property
    def ids(self) -> list[str]:
        return [event.id for event in self.events if event.id]


def listen(target: Target, session: str, credential: Credential, tool: str) -> Heard:
    """Open a stream, call the tool twice in its session, and hear what comes.

    Raises:
        NotApplicable: the server offers no stream.
    """
    with stream_of(target, session, credential) as (exchange, events):
        require_stream(exchange)
        call_twice(target, session, credential, tool)
        return Heard(exchange, drain(events))


def call_twice(target: Target, session: str, credential: Credential, tool: str) -> None:
    """Call a harmless tool, which makes some servers log."""
    for number in (1, 2):
        call = mcp.legacy("tools/call", {"name": tool, "arguments": {}}, session=session, request_id=number)
        target.send(call, credential)


def neighbours(event_id: str) -> list[str]:
    """Ids next to one that ends in a number."""
    found = re.fullmatch(r"(.*?)(\d+)", event_id)
    if found is None:
        return []
    return [f"{found[1]}{int(found[2]) + step}" for step in (-1, 1) if int(found[2]) + step >= 0]


@requirement("SESS-008")
def test_a_resumed_stream_brings_only_what_was_the_callers(
    target: Target, alice: Credential, bob: Credential, declared: Declarations
) -> None:
    """MCP transports, Resumability: only messages of the stream that was cut off, and only to its user."""
    session = require_sessions(target, alice)
    tool = harmless_tools(target, declared, alice)[0]
    first = listen(target, session, alice, tool)
    if not first.ids:
        raise NotApplicable("the server puts no ids on its events")
    second = listen(target, session, alice, tool)
    with target.controlled(alice), target.controlled(bob):
        with stream_of(target, session, alice, first.ids[0]) as (exchange, events):
            own = drain(events) if is_stream(exchange) else []
        foreign = {event.id for event in own if event.id} & set(second.ids)
        if foreign:
            raise ReplayedAcrossStreams(
                "resuming a stream brings events of another stream of the session",
                evidence=exchange,
                expected="what was missed of the resumed stream",
                got=f"{len(foreign)} events of another",
                counterexample="Last-Event-ID of the first event of the first stream",
            )
        heard = {event.data for event in (*first.events, *second.events) if event.data}
        for what, place in (
            ("a session of their own", open_session(target, bob)),
            ("the session", session),
            ("none", ""),
        ):
            for event_id in (first.ids[0], *neighbours(first.ids[0])):
                _judge_replay(target, bob, place, event_id, what, heard)


def _judge_replay(target: Target, bob: Credential, session: str, event_id: str, what: str, heard: set[str]) -> None:
    with stream_of(target, session, bob, event_id) as (exchange, events):
        got = drain(events) if is_stream(exchange) else []
    if any(event.data in heard for event in got):
        raise ReplayedToAnother(
            "another user is sent events of a stream they never had",
            evidence=exchange,
            expected="nothing of it",
            got=f"{len(got)} events",
            counterexample=f"Last-Event-ID of another user's stream, with {what} as session",
        )


@requirement("SESS-009")
def test_a_message_goes_out_on_one_stream(target: Target, alice: Credential, declared: Declarations) -> None:
    """MCP transports, Multiple Connections: each message on one of the connected streams."""
    session = require_sessions(target, alice)
    tool = harmless_tools(target, declared, alice)[0]
    with stream_of(target, session, alice) as (one, first), stream_of(target, session, alice) as (other, second):
        require_stream(one)
        call_twice(target, session, alice, tool)
        heard = [drain(first), drain(second) if is_stream(other) else []]
    said = [[event.data for event in events if event.data] for events in heard]
    if not any(said):
        raise NotRun(f"calling {tool} made the server send no message that could come twice")
    twice = set(said[0]) & set(said[1])
    if twice:
        raise SentOnEveryStream(
            "a message comes on several streams of its session",
            evidence=(one, other),
            expected="each message once, over all streams",
            got=f"{len(twice)} messages on both",
        )
