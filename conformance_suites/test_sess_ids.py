"""SESS: the ids of sessions, and requests without a live one."""

from __future__ import annotations

import secrets as randomness
from collections.abc import Iterator

from hypothesis import strategies as st

from conformance_suites.randomness import ENOUGH_BITS, random_bits
from conformance_suites.sessions import look_alike, open_session, require_sessions, within
from pytest_mcp_conformance import Advice, Finding, Inconclusive, mcp, requirement
from pytest_mcp_conformance.checks import last
from pytest_mcp_conformance.credentials import Credential
from pytest_mcp_conformance.eras import result_of
from pytest_mcp_conformance.exchange import Exchange
from pytest_mcp_conformance.forge.jws import read_jws
from pytest_mcp_conformance.mcp import Era
from pytest_mcp_conformance.probe import Probe
from pytest_mcp_conformance.properties import Space
from pytest_mcp_conformance.streams import open_sse
from pytest_mcp_conformance.target import Target

SAMPLE = 16
VISIBLE = frozenset(map(chr, range(0x21, 0x7F)))


class SessionIdsRepeat(Finding):
    """Two sessions have one id."""


class SessionIdUnprintable(Finding):
    """A session id has a character outside visible ASCII."""


class SessionIdsGuessable(Finding):
    """Session ids hold too little chance."""


class SessionIdNamesTheUser(Finding):
    """A session id holds its user's name."""


class UnknownSessionServed(Finding):
    """A request within a session that is missing, unknown or ended is served."""


class AmbiguousSessionServed(Advice):
    """A request with two session ids is served, by the one or the other."""


class UnknownSessionNot404(Finding):
    """An unknown or ended session is answered with another status than 404."""


class MissingSessionNot400(Advice):
    """A request without a session id is answered with another status than 400."""


class ChosenSessionAdopted(Finding):
    """initialize takes over the session id that the client chose."""


class ServedBeforeInitialize(Finding):
    """A request is served before the session is initialized."""


@last
@requirement("SESS-005")
def test_session_ids_are_random_and_printable(target: Target, alice: Credential, probe: Probe) -> None:
    """MCP transports, Session Management: globally unique, cryptographically secure, visible ASCII.

    The sample is every session of the run, and some more if those are few.
    """
    require_sessions(target, alice)
    while len(_opened(target, probe)) < SAMPLE:
        target.send(mcp.initialize(), alice)
    opened = _opened(target, probe)
    probe.cite(*opened)
    ids = [exchange.header("mcp-session-id") or "" for exchange in opened]
    if len(set(ids)) < len(ids):
        raise SessionIdsRepeat(
            "two sessions have one id",
            evidence=opened[-1],
            expected="a new id for each session",
            got=f"{len(ids)} sessions, {len(set(ids))} ids",
        )
    odd = sorted({letter for text in ids for letter in text if letter not in VISIBLE})
    if odd:
        raise SessionIdUnprintable(
            "an id has a character outside visible ASCII",
            evidence=opened[-1],
            expected="characters from 0x21 to 0x7E",
            got=repr("".join(odd)),
        )
    user = sorted(_names(alice) & {word.lower() for text in ids for word in _words(text)})
    if user:
        raise SessionIdNamesTheUser(
            "an id holds the name of its user",
            evidence=opened[-1],
            expected="nothing but chance",
            got=f"{user[0]!r} in an id",
        )
    bits = random_bits(ids)
    if bits < ENOUGH_BITS:
        raise SessionIdsGuessable(
            "the ids hold too little chance",
            evidence=opened[-1],
            expected="128 random bits; those of a UUID are let through",
            got=f"at most {bits:.0f} bits in {len(ids[0])} characters, judging by {len(ids)} ids",
        )


def _opened(target: Target, probe: Probe) -> list[Exchange]:
    """The answers of the run that opened a session, but those where the client had chosen one."""
    return [
        exchange
        for exchange in probe.history
        if exchange.request.url == target.url
        and exchange.header("mcp-session-id")
        and b'"initialize"' in (exchange.request.body or b"")
        and not any(name.lower() == "mcp-session-id" for name, _ in exchange.request.headers)
    ]


def _names(credential: Credential) -> set[str]:
    jws = read_jws(credential.token)
    claims = {} if jws is None else jws.claims
    found = [claims.get(name) for name in ("sub", "preferred_username", "email", "client_id")]
    return {text.lower() for text in found if isinstance(text, str) and len(text) > 2}


def _words(text: str) -> Iterator[str]:
    yield text
    for mark in "-_.:|~":
        yield from text.split(mark)


def unknown_sessions(session: str) -> list[tuple[str, tuple[str, ...]]]:
    """Session ids that are not those of a live session of the caller, and header lines that name none."""
    return [
        ("an invented id", (look_alike(session),)),
        ("a part of the id", (session[: len(session) // 2],)),
        ("the id and more", (f"{session}0",)),
        ("the id in another case", (session.swapcase(),)),
        ("an id of 8 KB", ("a" * 8000,)),
        ("two ids", (session, look_alike(session))),
        ("two ids in one line", (f"{session}, {look_alike(session)}",)),
        ("an id with a tab", (f"{session}\tx",)),
    ]


@requirement("SESS-006")
def test_missing_unknown_and_ended_sessions_are_refused(target: Target, alice: Credential, space: Space) -> None:
    """MCP transports, Session Management: 400 without an id, 404 for a session that is no more."""
    session = require_sessions(target, alice)
    ping = mcp.legacy("ping").request(target.url)

    ambiguous: list[tuple[str, Exchange]] = []

    def judge(sent: tuple[str, tuple[str, ...]]) -> None:
        what, ids = sent
        if ids == (session,):
            return
        exchange = target.send(ping.adding(*(("Mcp-Session-Id", text) for text in ids)), alice)
        if len(ids) > 1:
            ambiguous.append((what, exchange))
        else:
            _judge_refused(exchange, what)
        if what == "an invented id" and exchange.status != 404:
            _raise_not_404(exchange, what)

    letters = st.text(st.sampled_from(sorted(set(session) & VISIBLE)), min_size=1, max_size=len(session))
    drawn = letters.map(lambda text: ("an invented id", (text,)))
    with target.controlled(alice):
        space.search(judge, drawn, classics=unknown_sessions(session), max_examples=3)
        missing = target.send(ping, alice)
        _judge_refused(missing, "no id")
        _judge_ended(target, session, alice)
    for what, exchange in ambiguous:
        if exchange.succeeded and exchange.rpc_error is None:
            raise AmbiguousSessionServed(
                "a request with two session ids is served by one of them",
                evidence=exchange,
                expected="400 or 404",
                got=exchange.summary,
                counterexample=what,
            )
    if missing.status != 400:
        raise MissingSessionNot400(
            "a request without a session id is answered with another status than 400",
            evidence=missing,
            expected="400",
            got=missing.summary,
        )


def _judge_refused(exchange: Exchange, what: str) -> None:
    if exchange.succeeded and exchange.rpc_error is None:
        raise UnknownSessionServed(
            f"a request within no live session is served ({what})",
            evidence=exchange,
            expected="404, or 400 without an id",
            got=exchange.summary,
            counterexample=what,
        )


def _raise_not_404(exchange: Exchange, what: str) -> None:
    raise UnknownSessionNot404(
        f"a request within no live session ({what}) does not tell the client to begin anew",
        evidence=exchange,
        expected="404",
        got=exchange.summary,
        counterexample=what,
    )


def _judge_ended(target: Target, session: str, alice: Credential) -> None:
    ended = target.send(within(target, session, "DELETE"), alice)
    if not ended.succeeded:
        return  # 405: clients may not end sessions here
    target.forget_session(session)
    exchange = target.send(within(target, session, "POST"), alice)
    _judge_refused(exchange, "an ended session")
    if exchange.status != 404:
        _raise_not_404(exchange, "an ended session")


@requirement("SESS-007")
def test_a_session_id_of_the_clients_choice_is_not_adopted(target: Target, alice: Credential) -> None:
    """OWASP, Session Fixation: whoever chooses an id knows it."""
    require_sessions(target, alice)
    chosen = randomness.token_hex(32)
    with target.controlled(alice):
        opened = target.send(mcp.initialize(), alice, ("Mcp-Session-Id", chosen))
        ping = target.send(within(target, chosen, "POST"), alice)
    adopted = opened.succeeded and opened.header("mcp-session-id") == chosen
    if adopted or ping.succeeded:
        raise ChosenSessionAdopted(
            "a session runs under an id that its client chose",
            evidence=(opened, ping),
            expected="another id, or a refusal, and 404 for the chosen one",
            got=f"initialize: {opened.summary}; afterwards: {ping.summary}",
        )


@requirement("SESS-015")
def test_nothing_happens_before_initialization(target: Target, alice: Credential, probe: Probe) -> None:
    """MCP lifecycle, Initialization: the first interaction; only ping may come before."""
    target.require_protected()
    if Era.SSE in target.eras:
        _judge_uninitialized_stream(target, alice, probe)
        return
    session = open_session(target, alice)
    with target.controlled(alice):
        for method, params in (("tools/list", None), ("tools/call", {"name": "conformance-check", "arguments": {}})):
            for named in ("", look_alike(session)):
                exchange = target.send(mcp.legacy(method, params, session=named), alice)
                if result_of(exchange) is not None:
                    raise ServedBeforeInitialize(
                        f"{method} is carried out before any session was initialized",
                        evidence=exchange,
                        expected="a refusal",
                        got=exchange.summary,
                        counterexample=f"{method} first, with {'an invented' if named else 'no'} session id",
                    )


def _judge_uninitialized_stream(target: Target, alice: Credential, probe: Probe) -> None:
    with open_sse(probe, target.url, alice) as session:
        answer = session.ask(mcp.sse("tools/list"), alice)
        if answer is not None and "result" in answer:
            raise ServedBeforeInitialize(
                "tools/list is carried out before the session was initialized",
                evidence=probe.cited[-1],
                expected="a JSON-RPC error on the stream, or a refusal",
                got="a result on the stream",
                counterexample="tools/list as the first message",
            )
    with open_sse(probe, target.url, alice) as session:
        if session.begin(alice) is None:
            raise Inconclusive("a session of this transport could not be initialized either")
