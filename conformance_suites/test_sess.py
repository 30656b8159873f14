"""SESS: sessions of the Streamable HTTP transport, until 2025-11-25."""

from __future__ import annotations

from conformance_suites.sessions import look_alike, open_session, require_sessions, session_lives, within
from pytest_mcp_conformance import Finding, Inconclusive, mcp, requirement
from pytest_mcp_conformance.credentials import Credential
from pytest_mcp_conformance.exchange import Exchange, Header, Request
from pytest_mcp_conformance.machines.sessions import Attempt, classic_sequences, sequences
from pytest_mcp_conformance.properties import Space
from pytest_mcp_conformance.target import Target

BAD = "conformance-check.never.issued"
VERBS = ("POST", "GET", "DELETE")
SAMPLE = 16
VISIBLE = frozenset(map(chr, range(0x21, 0x7F)))


class SessionStandsForAToken(Finding):
    """A request with a session id and without a good token is served."""


class SessionServesAnother(Finding):
    """A request of another user is served within a session."""


class SessionToldApart(Finding):
    """Another user is answered otherwise within a session than within an unknown one."""


class SessionEndedByAnother(Finding):
    """What another user did has ended a session."""


@requirement("SESS-001")
def test_a_session_id_is_no_substitute_for_a_token(
    target: Target, alice: Credential, expired_if_given: Credential | None
) -> None:
    """MCP best practices, Session Hijacking: sessions are not used for authentication."""
    session = require_sessions(target, alice)
    states: dict[str, tuple[Header, ...]] = {"no token": (), "a bad token": (("Authorization", f"Bearer {BAD}"),)}
    if expired_if_given is not None:
        states["an expired token"] = (expired_if_given.header,)
    for verb in VERBS:
        for state, headers in states.items():
            exchange = target.send(within(target, session, verb), None, *headers)
            if exchange.succeeded:
                raise SessionStandsForAToken(
                    "a session id stands in for a token",
                    evidence=exchange,
                    expected="401",
                    got=exchange.summary,
                    counterexample=f"{verb} with the session id and {state}",
                )
    if not session_lives(target, session, alice):
        raise Inconclusive("the session no longer answers its owner, so the refusals prove nothing")


def request_of(target: Target, kind: str, session: str) -> Request:
    """A request of a kind: a JSON-RPC request, a notification, a response, a GET, a DELETE."""
    if kind == "notification":
        message = mcp.legacy("notifications/roots/list_changed", request_id=None, session=session)
        return message.request(target.url)
    if kind == "response":
        return mcp.response("conformance-check", {}, session=session).request(target.url)
    return within(target, session, "POST" if kind == "request" else kind)


@requirement("SESS-002")
def test_a_session_serves_nobody_but_its_user(target: Target, alice: Credential, bob: Credential, space: Space) -> None:
    """MCP best practices, Session Hijacking: the id is bound to the user, and others meet an unknown session."""
    users = {"A": alice, "B": bob}
    sessions = {"A": require_sessions(target, alice), "B": open_session(target, bob)}

    unknown: dict[tuple[str, str], Exchange] = {}

    def judge(attempts: list[Attempt]) -> None:
        for number, attempt in enumerate(attempts):
            told = "; ".join(map(str, attempts[: number + 1]))
            credential, session = users[attempt.user], sessions[attempt.session_of]
            if attempt.is_strange:
                kind = (attempt.user, attempt.kind)
                if kind not in unknown:
                    unknown[kind] = target.send(request_of(target, attempt.kind, look_alike(session)), credential)
                _judge_stranger(target, attempt, credential, session, unknown[kind], told)
            elif not session_lives(target, session, credential):
                _raise_ended(target, told)

    with target.controlled(alice), target.controlled(bob):
        space.search(judge, sequences(), classics=classic_sequences(), max_examples=2)
        for user, session in sessions.items():
            if not session_lives(target, session, users[user]):
                _raise_ended(target, "everything above")


def _raise_ended(target: Target, told: str) -> None:
    raise SessionEndedByAnother(
        "a session has ended after another user's attempts on it",
        evidence=target.probe.cited[-1],
        expected="the owner is served as before",
        got=target.probe.cited[-1].summary,
        counterexample=told,
    )


def _judge_stranger(
    target: Target, attempt: Attempt, credential: Credential, session: str, unknown: Exchange, told: str
) -> None:
    exchange = target.send(request_of(target, attempt.kind, session), credential)
    if exchange.succeeded and not unknown.succeeded:
        raise SessionServesAnother(
            f"another user's {attempt.kind} is taken within a session",
            evidence=(unknown, exchange),
            expected=f"the answer for an unknown session: {unknown.summary}",
            got=exchange.summary,
            counterexample=told,
        )
    if (exchange.status, exchange.rpc_error) != (unknown.status, unknown.rpc_error):
        raise SessionToldApart(
            "another user can tell a session from an unknown one",
            evidence=(unknown, exchange),
            expected=f"the answer for an unknown session: {unknown.summary}",
            got=exchange.summary,
            counterexample=told,
        )
