"""TOK: the claims of a token, each wrong by itself in a token that is right otherwise."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from conformance_suites.minted import Orders
from pytest_mcp_conformance import Finding, NotApplicable, NotRun, requirement
from pytest_mcp_conformance.credentials import Credential
from pytest_mcp_conformance.forge.jws import read_jws
from pytest_mcp_conformance.minting import Mint
from pytest_mcp_conformance.options import PREFIX
from pytest_mcp_conformance.properties import Space
from pytest_mcp_conformance.strategies.uris import uri_classics, uri_neighbours
from pytest_mcp_conformance.target import Presentation, Target

A_FEW_MINUTES = 300
HOUR = 3600
TEN_YEARS = 10 * 365 * 24 * HOUR
OTHER_TYPES = ("JWT", "id_token+jwt", "dpop+jwt", "logout+jwt", "jwt", "at+jwt2", "xat+jwt", "", "application/jwt")


class ExpiredTokenAccepted(Finding):
    """A token past its exp is authenticated."""


class ExpiryMisread(Finding):
    """A token whose exp is missing, or no number, is authenticated."""


class ExpiryCrashes(Finding):
    """A token with an odd exp, nbf or iat is answered 5xx."""


class TokenAcceptedBeforeItsTime(Finding):
    """A token whose nbf or iat lies in the future is authenticated."""


class OtherIssuerAccepted(Finding):
    """A token with another iss is authenticated."""


class OtherTypeAccepted(Finding):
    """A token of another typ is authenticated."""


@dataclass(frozen=True)
class Change:
    """Claims or header members to set, or to leave out, and what that is, in words."""

    what: str
    claims: Mapping[str, Any] = field(default_factory=dict)
    header: Mapping[str, Any] = field(default_factory=dict)
    without: Collection[str] = ()


def present_changed(target: Target, orders: Orders, change: Change) -> Presentation:
    """Present a minted token with the change.

    Raises:
        ExpiryCrashes: the answer is 5xx.
    """
    token = orders.text(change.claims, header=change.header, without=change.without)
    seen = target.present(f"Bearer {token}")
    if seen.exchange.status >= 500:
        raise ExpiryCrashes(
            "a claim brings the server down",
            evidence=seen.exchange,
            expected="401",
            got=seen.exchange.summary,
            counterexample=change.what,
        )
    return seen


def odd_expiries(now: int) -> list[Change]:
    """Values of exp that do not say when the token expires, or say it long ago."""
    ago = [("an hour ago", now - HOUR), ("six minutes ago", now - A_FEW_MINUTES - 60), ("a fraction", now - HOUR - 0.5)]
    odd = {"text": str(now + HOUR), "true": True, "null": None, "a list": [now + HOUR], "a word": "never"}
    past = [Change(f"exp {what}", {"exp": value}) for what, value in [*ago, ("below zero", -1), ("zero", 0)]]
    return [*past, *(Change(f"exp as {what}", {"exp": value}) for what, value in odd.items()), NO_EXPIRY]


NO_EXPIRY = Change("no exp", without=("exp",))


@requirement("TOK-001")
def test_an_expired_token_is_refused(
    target: Target, alice: Credential, expired_if_given: Credential | None, mint: Mint, space: Space
) -> None:
    """RFC 7519 §4.1.4: on or after exp the token must not be accepted, some minutes of clock difference aside."""
    target.require_protected()
    if expired_if_given is None and not mint.available:
        raise NotRun(f"no expired token: MCP_CONFORMANCE_TOKEN_EXPIRED is not set, nor {PREFIX}-mint-command given")
    with target.controlled(alice):
        if expired_if_given is not None:
            _refuse_expired(target.present(str(expired_if_given.header[1])), "the expired token that was given")
    if not mint.available or read_jws(alice.token) is None:
        return
    orders, now = Orders(mint, alice), int(time.time())

    def judge(change: Change) -> None:
        seen = present_changed(target, orders, change)
        if isinstance(change.claims.get("exp"), int | float) and not isinstance(change.claims["exp"], bool):
            _refuse_expired(seen, change.what)
        elif seen.authenticated:
            raise ExpiryMisread(
                "a token that does not say in a number when it expires is authenticated",
                evidence=seen.exchange,
                expected="401",
                got=seen.exchange.summary,
                counterexample=change.what,
            )

    offsets = st.integers(A_FEW_MINUTES + 1, TEN_YEARS)
    drawn = offsets.map(lambda seconds: Change(f"exp {seconds} seconds ago", {"exp": now - seconds}))
    with target.controlled(orders.good()):
        space.search(judge, drawn, classics=odd_expiries(now), max_examples=4)


def _refuse_expired(seen: Presentation, what: str) -> None:
    if seen.authenticated:
        raise ExpiredTokenAccepted(
            "a token that has expired is authenticated",
            evidence=seen.exchange,
            expected="401 invalid_token",
            got=seen.exchange.summary,
            counterexample=what,
        )


@requirement("TOK-002")
def test_a_token_is_refused_before_its_time(target: Target, alice: Credential, mint: Mint, space: Space) -> None:
    """RFC 7519 §4.1.5: nbf; and an iat in the future is nobody's honest clock."""
    target.require_protected()
    orders, now = Orders(mint, alice), int(time.time())

    def judge(change: Change) -> None:
        seen = present_changed(target, orders, change)
        if seen.authenticated:
            raise TokenAcceptedBeforeItsTime(
                "a token is authenticated before its time",
                evidence=seen.exchange,
                expected="401 invalid_token",
                got=seen.exchange.summary,
                counterexample=change.what,
            )

    def later(name: str, seconds: float) -> Change:
        return Change(f"{name} in {seconds:g} seconds", {name: now + seconds, "exp": now + TEN_YEARS + HOUR})

    names = st.sampled_from(["nbf", "iat"])
    classics = [later(name, seconds) for name in ("nbf", "iat") for seconds in (HOUR, A_FEW_MINUTES * 2, HOUR + 0.5)]
    classics.append(Change("nbf as text", {"nbf": str(now + HOUR)}))
    with target.controlled(orders.good()):
        drawn = st.builds(later, names, st.integers(A_FEW_MINUTES * 2, TEN_YEARS))
        space.search(judge, drawn, classics=classics, max_examples=4)


@requirement("TOK-006")
def test_only_the_exact_issuer_is_believed(target: Target, alice: Credential, mint: Mint, space: Space) -> None:
    """RFC 9068 §4: iss exactly matches the issuer; RFC 8725 §3.8: and the key is that issuer's."""
    target.require_protected()
    orders = Orders(mint, alice)
    issuer = orders.pattern.claims.get("iss")
    if not isinstance(issuer, str):
        raise NotApplicable("the access tokens name no issuer")

    def judge(change: Change) -> None:
        seen = present_changed(target, orders, change)
        if seen.authenticated:
            raise OtherIssuerAccepted(
                "a token of another issuer is authenticated",
                evidence=seen.exchange,
                expected="401 invalid_token",
                got=seen.exchange.summary,
                counterexample=change.what,
            )

    def named(text: str) -> Change:
        return Change(f"iss {text!r}", {"iss": text})

    others = [text for text in ("https://attacker.example", issuer.upper(), issuer.capitalize()) if text != issuer]
    classics = [*map(named, dict.fromkeys([*others, *uri_classics(issuer)])), Change("no iss", without=("iss",))]
    classics.append(Change("iss as a list", {"iss": [issuer]}))
    with target.controlled(orders.good()):
        space.search(judge, uri_neighbours(issuer).map(named), classics=classics, max_examples=5)


@requirement("TOK-007")
def test_a_jwt_access_token_says_that_it_is_one(target: Target, alice: Credential, mint: Mint, space: Space) -> None:
    """RFC 9068 §4: typ is at+jwt or application/at+jwt, and anything else is rejected."""
    target.require_protected()
    jws = read_jws(alice.token)
    typ = "" if jws is None else str(jws.header.get("typ", ""))
    if typ.lower().removeprefix("application/") != "at+jwt":
        raise NotApplicable(f"the access tokens are of typ {typ!r} and not at+jwt" if jws else "they are no JWTs")
    orders = Orders(mint, alice)

    def judge(change: Change) -> None:
        seen = present_changed(target, orders, change)
        if seen.authenticated:
            raise OtherTypeAccepted(
                "a token that does not say it is an access token is authenticated",
                evidence=seen.exchange,
                expected="401 invalid_token",
                got=seen.exchange.summary,
                counterexample=change.what,
            )

    def typed(text: str) -> Change:
        return Change(f"typ {text!r}", header={"typ": text})

    words = st.text(st.sampled_from("abdgijlnoptw+_"), min_size=1, max_size=8)
    drawn = words.filter(lambda word: word != "at").map(lambda word: typed(f"{word}+jwt"))
    classics = [*map(typed, OTHER_TYPES), Change("no typ", without=("typ",))]
    with target.controlled(orders.good()):
        space.search(judge, drawn, classics=classics, max_examples=4)
