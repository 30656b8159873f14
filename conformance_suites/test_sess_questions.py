"""SESS: questions of the server to one user, and others who would like to answer them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from conformance_suites.listening import QUIET_SECONDS
from conformance_suites.sessions import open_session, require_sessions
from pytest_mcp_conformance import Finding, Inconclusive, NotRun, mcp, requirement
from pytest_mcp_conformance.credentials import Credential
from pytest_mcp_conformance.declarations import Declarations
from pytest_mcp_conformance.exchange import Exchange
from pytest_mcp_conformance.mcp import Message
from pytest_mcp_conformance.target import Target
from pytest_mcp_conformance.wire import EventStream

CALL_ID = "conformance-call"
ANSWERS: dict[str, Any] = {"string": "conformance-check", "integer": 1, "number": 1.5, "boolean": True}


class AnsweredByAnother(Finding):
    """Another user's message in a session of their own reaches a call that waits for an answer."""


class AnsweredWithTheSessionId(Finding):
    """Another user who knows the session id answers a question."""


@dataclass(frozen=True)
class Question:
    """A call of user A's that waits for the answer to a question; `asked` is the question's JSON-RPC message."""

    session: str
    exchange: Exchange
    asked: dict[str, Any]
    events: EventStream

    def answer(self, session: str) -> Message:
        """An answer of the kind the question wants, sent within `session`."""
        schema = (self.asked.get("params") or {}).get("requestedSchema") or {}
        members = schema.get("properties") if isinstance(schema, dict) else None
        content = {name: _value(kind) for name, kind in members.items()} if isinstance(members, dict) else {}
        return mcp.response(self.asked["id"], {"action": "accept", "content": content}, session=session)

    def outcome(self, within_seconds: float = QUIET_SECONDS) -> str:
        """What became of the call meanwhile; empty while it waits."""
        event = self.events.next_event(within_seconds)
        if event is None:
            return "the stream has ended" if self.events.ended else ""
        message = _message(event.data)
        return "the call was answered" if message.get("id") == CALL_ID else ""


def _value(kind: object) -> object:
    members = kind if isinstance(kind, dict) else {}
    options = members.get("enum")
    return options[0] if isinstance(options, list) and options else ANSWERS.get(str(members.get("type")), "")


def _message(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


@contextmanager
def question(target: Target, alice: Credential, declared: Declarations) -> Iterator[Question]:
    """A call by user A that waits for an answer.

    Raises:
        NotRun: no tool is declared that asks. Inconclusive: it does not ask.
    """
    require_sessions(target, alice)
    if not declared.asking_tool:
        raise NotRun("no tool is declared that asks its caller a question (asking_tool)")
    session = _open_answering(target, alice)
    call = mcp.legacy(
        "tools/call", {"name": declared.asking_tool, "arguments": {}}, request_id=CALL_ID, session=session
    )
    with target.probe.stream(call.request(target.url, alice.header)) as (exchange, events):
        while (event := events.next_event()) is not None:
            asked = _message(event.data)
            if "method" in asked and "id" in asked:
                yield Question(session, exchange, asked, events)
                return
        raise Inconclusive(f"{declared.asking_tool} asked nothing: {exchange.summary}")


def _open_answering(target: Target, alice: Credential) -> str:
    params = {
        "protocolVersion": mcp.LEGACY_REVISIONS[-1],
        "capabilities": {"elicitation": {}},
        "clientInfo": mcp.CLIENT_INFO,
    }
    opened = target.send(mcp.legacy("initialize", params), alice)
    session = opened.header("mcp-session-id") or ""
    if not session:
        raise Inconclusive(f"no session of a client that can be asked could be opened: {opened.summary}")
    target.send(mcp.legacy("notifications/initialized", request_id=None, session=session), alice)
    return session


def _let_the_owner_answer(target: Target, waiting: Question, alice: Credential) -> None:
    target.send(waiting.answer(waiting.session), alice)
    if not waiting.outcome(QUIET_SECONDS * 5):
        raise Inconclusive("the owner's own answer did not reach the call either")


def intrusions(waiting: Question, session: str) -> Iterator[tuple[str, Message]]:
    """Messages under the ids of somebody else's call and question, sent within `session`."""
    yield "an answer under the question's id", waiting.answer(session)
    for name, request_id in (("the call's", CALL_ID), ("the question's", waiting.asked["id"])):
        params = {"requestId": request_id, "reason": "conformance check"}
        message = mcp.legacy("notifications/cancelled", params, request_id=None, session=session)
        yield f"a cancellation under {name} id", message
    progress = {"progressToken": CALL_ID, "progress": 1}
    yield (
        "progress under the call's id",
        mcp.legacy("notifications/progress", progress, request_id=None, session=session),
    )


@requirement("SESS-010")
def test_nobody_puts_words_into_anothers_session(
    target: Target, alice: Credential, bob: Credential, declared: Declarations
) -> None:
    """MCP best practices, Session Hijack Prompt Injection: ids of messages mean something in their own session only."""
    with question(target, alice, declared) as waiting:
        strangers = open_session(target, bob)
        for what, message in intrusions(waiting, strangers):
            exchange = target.send(message, bob)
            reached = waiting.outcome()
            if reached:
                raise AnsweredByAnother(
                    "another user's message reaches a call that waits in a session",
                    evidence=(waiting.exchange, exchange),
                    expected="no effect outside the session it was sent in",
                    got=reached,
                    counterexample=f"{what}, in a session of the other user's own",
                )
        _let_the_owner_answer(target, waiting, alice)


@requirement("SESS-011")
def test_a_question_is_not_answered_with_the_session_id_alone(
    target: Target, alice: Credential, bob: Credential, declared: Declarations
) -> None:
    """MCP elicitation, Statefulness: bound to the user, not only to the session id."""
    with question(target, alice, declared) as waiting:
        for what, message in intrusions(waiting, waiting.session):
            exchange = target.send(message, bob)
            reached = waiting.outcome()
            if reached or exchange.succeeded:
                raise AnsweredWithTheSessionId(
                    "another user who knows the session id has a say in a question",
                    evidence=(waiting.exchange, exchange),
                    expected="404, as for an unknown session, and no effect",
                    got=reached or exchange.summary,
                    counterexample=f"{what}, in the session of the one who was asked",
                )
        _let_the_owner_answer(target, waiting, alice)
