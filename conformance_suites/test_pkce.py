"""PKCE: authorization codes are worthless without the verifier of their challenge (RFC 7636). What else a code is bound
to is in `test_pkce_codes.py`.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

from conformance_suites.code_redemption import Redemptions, issued_tokens, oauth_error, outcome_of
from conformance_suites.server_documents import listed, published
from pytest_mcp_conformance import Advice, Finding, requirement
from pytest_mcp_conformance.exchange import Exchange
from pytest_mcp_conformance.grants import (
    AuthorizationOutcome,
    Grant,
    Pkce,
    Registration,
    fresh_pkce,
)
from pytest_mcp_conformance.oauth import AuthorizationServer
from pytest_mcp_conformance.properties import Space
from pytest_mcp_conformance.strategies.verifiers import (
    LONGEST,
    SHORTEST,
    Mutation,
    malformed,
    malformed_classics,
    mutations,
    unknown_methods,
    verifier_classics,
)
from pytest_mcp_conformance.target import Target

HUGE = 10_000
BAD_VERIFIERS = {
    "one character": "a",
    f"{LONGEST + 1} characters": "a" * (LONGEST + 1),
    f"{SHORTEST} characters, one of them a slash": "a" * (SHORTEST - 1) + "/",
}
METHOD_CLASSICS = ("s256", "S512", "", "none", "S256 ", "S256 plain")


class S256Unadvertised(Finding):
    """A metadata document does not list S256."""


class CodeWithoutChallenge(Finding):
    """An authorization request without code_challenge got a code."""


class RefusedInAnotherWay(Advice):
    """The request was refused, and not with the error that tells the client why."""


class WrongVerifierAccepted(Finding):
    """A code was redeemed with something else than its verifier."""


class WrongChallengeMet(Finding):
    """A code was redeemed though its challenge was not the hash of the verifier."""


class VerifierOutOfNothing(Finding):
    """A code that had no challenge was redeemed with a verifier."""


class MalformedChallengeAccepted(Finding):
    """A challenge that is none got a code."""


class MalformedVerifierAccepted(Finding):
    """A verifier that is none redeemed a code."""


class ServerFault(Finding):
    """A malformed value was answered with a server fault, or with nothing."""


class PlainAccepted(Finding):
    """code_challenge_method=plain got a code."""


class OmittedMethodAccepted(Finding):
    """A request that names no method got a code."""


class UnknownMethodAccepted(Finding):
    """A method that does not exist got a code."""


def control(server: AuthorizationServer) -> None:
    """The regular flow works.

    Raises:
        NotRun, Inconclusive: it does not, so refusals prove nothing.
    """
    server.tokens()


def short_grant(server: AuthorizationServer) -> Grant:
    """A code whose verifier is as short as may be, so that an extension of it is a verifier too."""
    return server.grant(pkce=Pkce(secrets.token_urlsafe(32)))


@requirement("PKCE-001")
def test_s256_is_advertised(target: Target) -> None:
    """MCP, Authorization Code Protection: in the OAuth and in the OpenID document."""
    for _, document in published(target):
        if "S256" not in listed(document.members, "code_challenge_methods_supported"):
            raise S256Unadvertised(
                "the metadata does not list S256, so MCP clients have to stop",
                evidence=document.exchange,
                expected="code_challenge_methods_supported with S256",
                got=repr(document.members.get("code_challenge_methods_supported", "no such member")),
            )


@requirement("PKCE-002")
def test_a_request_without_challenge_gets_no_code(authorization_server: AuthorizationServer) -> None:
    """OAuth 2.1 §4.1.2.1: a public client is told invalid_request."""
    server = authorization_server
    control(server)
    ways: dict[str, dict[str, Any]] = {
        "neither code_challenge nor code_challenge_method": {"code_challenge": None, "code_challenge_method": None},
        "code_challenge_method=S256 and no code_challenge": {"code_challenge": None},
        "an empty code_challenge": {"code_challenge": ""},
    }
    for what, overrides in ways.items():
        outcome = server.authorize(**overrides)
        if outcome.code:
            raise CodeWithoutChallenge(
                "a public client got a code without a challenge",
                evidence=outcome.exchange,
                expected="a redirect back with error=invalid_request",
                got=outcome.summary,
                counterexample=what,
            )
        _judge_refusal(outcome, what)


def _judge_refusal(outcome: AuthorizationOutcome, what: str) -> None:
    if outcome.error != "invalid_request" and outcome.exchange.status not in {413, 414, 431}:
        raise RefusedInAnotherWay(
            "the request is refused, and the client is not told invalid_request",
            evidence=outcome.exchange,
            expected="a redirect back with error=invalid_request",
            got=outcome.summary,
            counterexample=what,
        )


@requirement("PKCE-003")
def test_only_the_right_verifier_redeems_a_code(authorization_server: AuthorizationServer, space: Space) -> None:
    """RFC 7636 §4.6."""
    server = authorization_server
    redemptions = Redemptions(server, lambda: short_grant(server))
    others: dict[str, Callable[[Pkce], str | None]] = {
        "no code_verifier": lambda pkce: None,
        "an empty code_verifier": lambda pkce: "",
        "the challenge": lambda pkce: pkce.challenge,
        "the hash of the challenge": lambda pkce: Pkce(pkce.challenge).challenge,
        "the verifier of another flow": lambda pkce: fresh_pkce().verifier,
    }
    for what, verifier_of in others.items():
        _judge_verifier(redemptions, what, verifier_of)

    def judge(mutation: Mutation) -> None:
        _judge_verifier(redemptions, f"the verifier, {mutation.what}", lambda pkce: mutation.bend(pkce.verifier))

    space.search(judge, mutations(SHORTEST), classics=verifier_classics(), max_examples=6)
    redemptions.prove()
    _judge_challenge_in_other_case(server)


def _judge_verifier(redemptions: Redemptions, what: str, verifier_of: Callable[[Pkce], str | None]) -> None:
    verifier = verifier_of(redemptions.grant.pkce)
    exchange = redemptions.attempt(code_verifier=verifier)
    if issued_tokens(exchange):
        raise WrongVerifierAccepted(
            "a code was redeemed without its verifier",
            evidence=exchange,
            expected="invalid_grant or invalid_request",
            got="an access token",
            counterexample=f"code_verifier: {what}",
        )
    if oauth_error(exchange) not in {"invalid_grant", "invalid_request"} and exchange.status < 500:
        raise RefusedInAnotherWay(
            "a wrong verifier is refused with another error",
            evidence=exchange,
            expected="invalid_grant or invalid_request",
            got=outcome_of(exchange),
            counterexample=f"code_verifier: {what}",
        )


def _judge_challenge_in_other_case(server: AuthorizationServer) -> None:
    """The last character stays: not each of its spellings is base64url of 32 octets."""
    pkce = Pkce(secrets.token_urlsafe(32))
    swapped = pkce.challenge[:-1].swapcase() + pkce.challenge[-1]
    exchange = server.redeem(server.grant(pkce=pkce, code_challenge=swapped))
    if issued_tokens(exchange):
        raise WrongChallengeMet(
            "a code was redeemed though its challenge is not the hash of the verifier",
            evidence=exchange,
            expected="invalid_grant",
            got="an access token",
            counterexample="code_challenge: the right one with every letter in the other case",
        )


@requirement("PKCE-004")
def test_a_verifier_is_refused_where_no_challenge_was_given(authorization_server: AuthorizationServer) -> None:
    """RFC 9700 §4.8.2: a code got by leaving the challenge out must not serve a client that uses PKCE."""
    server = authorization_server
    for client in _clients(server):
        pkce = fresh_pkce()
        outcome = server.authorize(client, code_challenge=None, code_challenge_method=None)
        if not outcome.code:
            continue
        exchange = server.redeem(Grant(outcome.code, pkce, client, server.resource, outcome))
        if issued_tokens(exchange):
            raise VerifierOutOfNothing(
                "a code that had no challenge was redeemed with a verifier",
                evidence=(outcome.exchange, exchange),
                expected="invalid_grant",
                got="an access token",
                counterexample=f"a {'confidential' if client.client_secret else 'public'} client",
            )
    server.tokens(server.grant(client))


def _clients(server: AuthorizationServer) -> list[Registration]:
    """A public client and, where the server has such, a confidential one; the one surest to be served comes last."""
    methods = listed(server.metadata, "token_endpoint_auth_methods_supported") or ["client_secret_basic"]
    for method in ("client_secret_basic", "client_secret_post"):
        if method in methods:
            exchange = server.try_register(token_endpoint_auth_method=method)
            if exchange.succeeded:
                return [server.registration_from(exchange), server.client]
    return [server.client]


@requirement("PKCE-005")
def test_challenges_have_the_prescribed_form(authorization_server: AuthorizationServer, space: Space) -> None:
    """RFC 7636 §4.2: 43 to 128 unreserved characters."""
    server = authorization_server
    control(server)

    def judge(challenge: str) -> None:
        outcome = server.authorize(code_challenge=challenge)
        for exchange in outcome.walk.exchanges:
            _judge_fault(exchange, f"code_challenge of {_described(challenge)}")
        if outcome.code:
            raise MalformedChallengeAccepted(
                "a challenge that no verifier can have got a code",
                evidence=outcome.exchange,
                expected="a redirect back with error=invalid_request",
                got=outcome.summary,
                counterexample=f"code_challenge of {_described(challenge)}",
            )

    space.search(judge, malformed(), classics=[*malformed_classics(), "a" * HUGE], max_examples=6)


@requirement("PKCE-005")
def test_verifiers_have_the_prescribed_form(authorization_server: AuthorizationServer, space: Space) -> None:
    """RFC 7636 §4.1: a verifier of another form is refused even when its hash is the challenge."""
    server = authorization_server
    redemptions = Redemptions(server)

    def judge(verifier: str) -> None:
        exchange = redemptions.attempt(code_verifier=verifier)
        _judge_fault(exchange, f"code_verifier of {_described(verifier)}")

    space.search(judge, malformed(), classics=[*malformed_classics(), "a" * HUGE], max_examples=4)
    redemptions.prove()
    for what, verifier in BAD_VERIFIERS.items():
        exchange = server.redeem(server.grant(pkce=Pkce(verifier)))
        if issued_tokens(exchange):
            raise MalformedVerifierAccepted(
                "a verifier that is easy to guess, or none at all, redeemed a code",
                evidence=exchange,
                expected="invalid_grant or invalid_request",
                got="an access token",
                counterexample=f"code_verifier of {what}, with its hash as challenge",
            )


def _judge_fault(exchange: Exchange, what: str) -> None:
    if exchange.status == 0 or exchange.status >= 500:
        raise ServerFault(
            "a malformed PKCE value is answered with a server fault",
            evidence=exchange,
            expected="an error such as invalid_request",
            got=exchange.summary,
            counterexample=what,
        )


def _described(text: str) -> str:
    return f"{len(text)} characters" + (f": {text!r}" if len(text) <= 2 * LONGEST else "")


@requirement("PKCE-006")
def test_no_method_but_s256_is_accepted(authorization_server: AuthorizationServer, space: Space) -> None:
    """RFC 7636 §4.3: no method means plain, and plain gives the verifier away."""
    server = authorization_server
    control(server)
    plain = server.authorize(code_challenge_method="plain")
    if plain.code:
        raise PlainAccepted(
            "code_challenge_method=plain got a code",
            evidence=plain.exchange,
            expected="a redirect back with error=invalid_request",
            got=plain.summary,
        )
    _judge_refusal(plain, "code_challenge_method=plain")
    omitted = server.authorize(code_challenge_method=None)
    if omitted.code:
        raise OmittedMethodAccepted(
            "a request that names no method got a code",
            evidence=omitted.exchange,
            expected="a redirect back with error=invalid_request",
            got=omitted.summary,
        )
    _judge_refusal(omitted, "no code_challenge_method")

    def judge(method: str) -> None:
        outcome = server.authorize(code_challenge_method=method)
        if outcome.code:
            raise UnknownMethodAccepted(
                "a method that does not exist got a code",
                evidence=outcome.exchange,
                expected="a redirect back with error=invalid_request",
                got=outcome.summary,
                counterexample=f"code_challenge_method={method!r}",
            )
        _judge_refusal(outcome, f"code_challenge_method={method!r}")

    space.search(judge, unknown_methods(), classics=METHOD_CLASSICS, max_examples=6)
