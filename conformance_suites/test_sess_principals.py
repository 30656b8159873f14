"""SESS: whom a session is bound to, and that its rights are those of the token of the moment."""

from __future__ import annotations

import secrets as randomness
import time
from dataclasses import dataclass
from functools import partial

from conformance_suites.minted import Orders, challenged_scopes, scopes_not_asked, with_scopes
from conformance_suites.revocation import revoke
from conformance_suites.sessions import open_session, require_sessions
from pytest_mcp_conformance import Advice, Finding, Inconclusive, NotApplicable, NotRun, mcp, requirement
from pytest_mcp_conformance.bench import Bench
from pytest_mcp_conformance.credentials import Credential
from pytest_mcp_conformance.eras import result_of
from pytest_mcp_conformance.exchange import Request
from pytest_mcp_conformance.forge.jws import read_jws
from pytest_mcp_conformance.target import Target

WAIT_SECONDS = 3.0


class SessionLostWithItsToken(Finding):
    """The owner's next token does not carry the session on."""


class SessionTakenOver(Finding):
    """Somebody who is like the owner in one respect takes the session over."""


class SessionKeepsScopes(Finding):
    """A session grants what the token of the request does not."""


class StreamOutlivesItsToken(Finding):
    """A stream stays open after the token behind it was revoked, longer than the operator declares."""


class StreamOutlivesRevocation(Advice):
    """A stream stays open for seconds after the token behind it was revoked, and no bound is declared."""


@dataclass(frozen=True, repr=False)
class Principals:
    """The owner of a session, the owner with a later token, and others who are like the owner in one respect."""

    owner: Credential
    later: Credential
    others: dict[str, Credential]


def minted_principals(orders: Orders) -> Principals:
    """By minting: tokens that differ in one claim."""
    claims = orders.pattern.claims
    now = int(time.time())
    later = {name: value for name, value in (("iat", now), ("exp", now + 600)) if name in claims}
    others: dict[str, Credential] = {}
    strange = f"conformance-check-{randomness.token_hex(4)}"
    for name, what in (
        ("client_id", "the same user through another client"),
        ("sub", "another user of the same client"),
    ):
        if name in claims:
            others[what] = Credential("b", orders.text({name: strange}))
    return Principals(orders.good(), Credential("a", orders.text(later)), others)


def granted_principals(bench: Bench) -> Principals:
    """By logging in: a refreshed token, a second client of user A's, and user B through the first client.

    Raises:
        NotRun: the run has no login that can be repeated.
    """
    server = bench.authorization_server()
    tokens = server.tokens()
    if not tokens.refresh_token:
        raise NotRun("the authorization server issued no refresh token")
    refreshed = server.tokens_from(server.refresh(tokens), tokens.registration)
    second = server.register()
    same_user = server.tokens(server.grant(second))
    others = {"the same user through another client": Credential("a", same_user.access_token)}
    if not bench.login.missing("b"):
        others["another user of the same client"] = Credential("b", server.tokens(user="b").access_token)
    return Principals(Credential("a", tokens.access_token), Credential("a", refreshed.access_token), others)


@requirement("SESS-003")
def test_a_session_is_bound_to_the_principal(target: Target, bench: Bench, alice: Credential) -> None:
    """MCP best practices, Session Hijacking: issuer, subject and client; not the text of one token."""
    require_sessions(target, alice)
    mintable = bench.mint.available and read_jws(alice.token) is not None
    principals = minted_principals(Orders(bench.mint, alice)) if mintable else granted_principals(bench)
    session = open_session(target, principals.owner)
    listing = mcp.legacy("tools/list", session=session)
    for what, credential in principals.others.items():
        exchange = target.send(listing, credential)
        if result_of(exchange) is not None:
            raise SessionTakenOver(
                f"{what} is served within a session",
                evidence=exchange,
                expected="404, as for an unknown session",
                got=exchange.summary,
                counterexample=what,
            )
        target.control(credential, "outside the session, of the other principal,")
    exchange = target.send(listing, principals.later)
    if result_of(exchange) is None:
        target.control(principals.later, "outside the session, with the later token,")
        raise SessionLostWithItsToken(
            "the owner of a session is no longer served within it with a new token",
            evidence=exchange,
            expected="the answer the first token gets",
            got=exchange.summary,
            counterexample="a later token of the same user and client",
        )


@requirement("SESS-004")
def test_a_session_grants_nothing_beyond_the_token_of_the_moment(
    target: Target, bench: Bench, alice: Credential
) -> None:
    """OAuth 2.1 §5.2: the token of each request decides, and a revoked one ends the stream it opened."""
    require_sessions(target, alice)
    missing: list[str] = []
    for part in (partial(_judge_scopes, target, bench, alice), partial(_judge_stream, target, bench)):
        try:
            part()
        except (NotRun, NotApplicable) as judgement:
            missing.append(judgement.reason)
    if len(missing) == 2:
        raise NotRun("; ".join(missing))


def _judge_scopes(target: Target, bench: Bench, alice: Credential) -> None:
    other = scopes_not_asked(bench)
    broad, narrow = with_scopes(bench, alice, challenged_scopes(target)), with_scopes(bench, alice, other)
    outside = target.send(target.harmless(), narrow)
    if outside.succeeded:
        raise NotRun("a token without the scopes of the challenge lists the tools all the same")
    listing = mcp.legacy("tools/list", session=open_session(target, broad))
    if result_of(target.send(listing, broad)) is None:
        raise Inconclusive("the token with the scopes is not served within its own session")
    exchange = target.send(listing, narrow)
    if result_of(exchange) is not None:
        raise SessionKeepsScopes(
            "a session grants what the token of the request does not",
            evidence=(outside, exchange),
            expected="403, as outside the session",
            got=exchange.summary,
            counterexample="a session opened with the scopes, continued with a token without them",
        )


def _judge_stream(target: Target, bench: Bench) -> None:
    server = bench.authorization_server()
    endpoint = server.endpoint("revocation_endpoint")
    tokens = server.tokens()
    credential = Credential("a", tokens.access_token)
    session = open_session(target, credential)
    opening = Request("GET", target.url, (("Accept", "text/event-stream"), ("Mcp-Session-Id", session)))
    with target.probe.stream(opening.with_headers(credential.header)) as (exchange, events):
        if exchange.media_type != "text/event-stream" or not exchange.succeeded:
            raise NotApplicable(f"the server offers no stream on GET ({exchange.summary})")
        revoked = revoke(target, endpoint, tokens)
        if not revoked.succeeded:
            raise Inconclusive(f"the token could not be revoked: {revoked.summary}")
        bound = bench.declared.revocation_seconds
        deadline = time.monotonic() + (WAIT_SECONDS if bound is None else bound)
        while not events.ended and time.monotonic() < deadline:
            events.next_event(max(deadline - time.monotonic(), 0.01))
        if not events.ended:
            kind = StreamOutlivesRevocation if bound is None else StreamOutlivesItsToken
            raise kind(
                "a stream stays open after the token behind it was revoked",
                evidence=(exchange, revoked),
                expected=f"its end within {WAIT_SECONDS if bound is None else bound:g} seconds",
                got="an open stream",
            )
