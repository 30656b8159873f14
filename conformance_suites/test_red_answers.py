"""RED, what the answer says: state, iss, and parameters that are odd."""

from __future__ import annotations

import string
from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st

from conformance_suites.code_redemption import issued_tokens, outcome_of
from pytest_mcp_conformance import Advice, Finding, Inconclusive, requirement
from pytest_mcp_conformance.grants import AuthorizationOutcome, Grant, fresh_pkce
from pytest_mcp_conformance.oauth import AuthorizationServer
from pytest_mcp_conformance.properties import Space

PRINTABLE = string.ascii_letters + string.digits + string.punctuation + " "
STATES = (" a b+c%20d&e=f#g ", "<script>'", "x" * 400, "null")
BAD_SCOPE = "conformance:nothing"
RESPONSE_TYPES = (
    "token",
    "id_token",
    "id_token token",
    "code token",
    "code id_token",
    "none",
    "CODE",
    "code ",
    "codex",
    "",
)
UNKNOWN: Mapping[str, Any] = {"conformance_check": "1", "nonce": "n-0S6", "ui_locales": "de"}


class StateChanged(Finding):
    """The answer does not hold the state that was sent, once and unchanged."""


class IssMissing(Finding):
    """An authorization response carries no iss."""


class IssWrong(Finding):
    """An authorization response carries another iss than the issuer of the metadata, or two."""


class RepeatedParameterAccepted(Finding):
    """A request with a repeated parameter was served."""


class UnknownParameterRefused(Finding):
    """A request with a parameter that nobody knows is refused."""


class EmptyParameterRefused(Advice):
    """A request with an empty optional parameter is refused."""


class TokenInUrl(Finding):
    """An authorization response carries a token."""


class ResponseTypeIgnored(Finding):
    """A code was issued for another response_type than code."""


class RefusedWithAnotherError(Advice):
    """A response_type is refused, and not with unsupported_response_type or invalid_request."""


def returned(outcome: AuthorizationOutcome, what: str) -> AuthorizationOutcome:
    """Raises: Inconclusive when the answer did not come back to the client."""
    if not outcome.redirected:
        raise Inconclusive(f"{what} does not come back to the client: {outcome.summary}")
    return outcome


@requirement("RED-005")
def test_state_comes_back_as_it_was(authorization_server: AuthorizationServer, space: Space) -> None:
    """OAuth 2.1 §4.1.2, §4.1.2.1: once, in codes and in errors."""
    server = authorization_server

    def judge(state: str) -> None:
        flows: list[tuple[str, Mapping[str, Any]]] = [("an error", {"scope": BAD_SCOPE})]
        if state in STATES[:2]:
            flows.append(("a code", {}))
        for what, overrides in flows:
            outcome = server.authorize(state=state, **overrides)
            if outcome.redirected and outcome.answer.get("state") != [state]:
                raise StateChanged(
                    f"the answer with {what} does not hold the state that was sent",
                    evidence=outcome.exchange,
                    expected=f"state={state!r}, once",
                    got=f"state={outcome.answer.get('state')!r}",
                    counterexample=f"state={state!r}",
                )
            if not outcome.redirected and not overrides:
                raise Inconclusive(f"no code came back: {outcome.summary}")

    space.search(judge, st.text(PRINTABLE, min_size=1, max_size=30), classics=STATES, max_examples=3)


@requirement("RED-006")
def test_answers_carry_the_issuer(authorization_server: AuthorizationServer) -> None:
    """RFC 9207 §2: iss in codes and in errors, compared as a string. What the metadata promises is for ASM-009."""
    server = authorization_server
    promised = server.metadata.get("authorization_response_iss_parameter_supported") is True
    flows: tuple[tuple[str, Mapping[str, Any]], ...] = (("a code", {}), ("an error", {"scope": BAD_SCOPE}))
    for what, overrides in flows:
        outcome = returned(server.authorize(**overrides), f"an answer with {what}")
        values = outcome.answer.get("iss") or []
        if promised and values != [server.issuer]:
            raise Inconclusive("the metadata promises iss, and the promise is not kept (see ASM-009)")
        if not values:
            raise IssMissing(
                f"an answer with {what} carries no iss",
                evidence=outcome.exchange,
                expected=f"iss={server.issuer}",
                got="no iss",
            )
        if values != [server.issuer]:
            raise IssWrong(
                f"an answer with {what} carries another iss than the issuer",
                evidence=outcome.exchange,
                expected=f"iss={server.issuer!r}, once",
                got=f"iss={values!r}",
            )


@requirement("RED-007")
def test_repeated_parameters_are_refused(authorization_server: AuthorizationServer) -> None:
    """OAuth 2.1 §3.1: at the authorization endpoint; the same value twice is a repetition too."""
    server = authorization_server
    pkce = fresh_pkce()
    client = server.client.client_id
    repeats: dict[str, Any] = {
        "response_type": ["code", "code"],
        "client_id": [client, client],
        "scope": ["conformance:a", "conformance:b"],
        "code_challenge": [pkce.challenge, fresh_pkce().challenge],
        "code_challenge_method": ["S256", "S256"],
        "state": ["one", "two"],
    }
    for name, values in repeats.items():
        outcome = server.authorize(pkce=pkce, **{name: values})
        if outcome.code:
            raise RepeatedParameterAccepted(
                "an authorization request with a repeated parameter brought a code",
                evidence=outcome.exchange,
                expected="invalid_request",
                got=outcome.summary,
                counterexample=f"{name} twice",
            )
    returned(server.authorize(), "a regular request")


@requirement("RED-007")
def test_repeated_parameters_are_refused_at_the_token_endpoint(authorization_server: AuthorizationServer) -> None:
    """OAuth 2.1 §3.2."""
    server = authorization_server
    grant = server.grant()
    repeats: dict[str, list[str]] = {
        "grant_type": ["authorization_code", "authorization_code"],
        "code": [grant.code, grant.code],
        "client_id": [grant.registration.client_id] * 2,
        "redirect_uri": [grant.registration.redirect_uri] * 2,
        "code_verifier": ["w" * 43, grant.pkce.verifier],
    }
    for name, values in repeats.items():
        exchange = server.redeem(grant, **{name: values})
        if issued_tokens(exchange):
            raise RepeatedParameterAccepted(
                "a token request with a repeated parameter brought a token",
                evidence=exchange,
                expected="400 invalid_request",
                got=outcome_of(exchange),
                counterexample=f"{name} twice",
            )
        if server.codes_survive is False:
            grant = server.grant()
            repeats["code"] = [grant.code, grant.code]
    server.tokens()


@requirement("RED-007")
def test_unknown_and_empty_parameters_do_no_harm(authorization_server: AuthorizationServer) -> None:
    """OAuth 2.1 §3.1, §3.2: unknown ones are ignored, empty ones are as good as absent."""
    server = authorization_server
    pkce = fresh_pkce()
    outcome = server.authorize(pkce=pkce, **UNKNOWN)
    if not outcome.code:
        _judge_unknown(server, outcome)
    exchange = server.redeem(Grant(outcome.code, pkce, server.client, server.resource, outcome), conformance_check="1")
    if not issued_tokens(exchange):
        server.tokens()
        raise UnknownParameterRefused(
            "a token request with an unknown parameter is refused",
            evidence=exchange,
            expected="a token",
            got=outcome_of(exchange),
            counterexample="conformance_check=1",
        )
    empty = server.authorize(scope="", prompt="", nonce="")
    if not empty.code:
        raise EmptyParameterRefused(
            "an authorization request with empty optional parameters is refused",
            evidence=empty.exchange,
            expected="a code, as without them",
            got=empty.summary,
            counterexample="scope=, prompt=, nonce=",
        )


def _judge_unknown(server: AuthorizationServer, outcome: AuthorizationOutcome) -> None:
    if not server.authorize().code:
        raise Inconclusive("a regular request brings no code")
    raise UnknownParameterRefused(
        "an authorization request with unknown parameters is refused",
        evidence=outcome.exchange,
        expected="a code",
        got=outcome.summary,
        counterexample=", ".join(UNKNOWN),
    )


@requirement("RED-008")
def test_other_response_types_fail_safely(authorization_server: AuthorizationServer, space: Space) -> None:
    """RFC 9700 §2.1.2: no token in a URL, ever; and a code only for response_type=code."""
    server = authorization_server
    returned(server.authorize(), "a regular request")

    def judge(response_type: str) -> None:
        outcome = server.authorize(response_type=response_type)
        if outcome.answer.keys() & {"access_token", "id_token", "token"}:
            raise TokenInUrl(
                "an authorization response carries a token",
                evidence=outcome.exchange,
                expected="unsupported_response_type",
                got="a token in the URL",
                counterexample=f"response_type={response_type!r}",
            )
        if outcome.code:
            raise ResponseTypeIgnored(
                "a code was issued for another response_type than code",
                evidence=outcome.exchange,
                expected="unsupported_response_type",
                got=outcome.summary,
                counterexample=f"response_type={response_type!r}",
            )
        if outcome.redirected and outcome.error not in {"unsupported_response_type", "invalid_request"}:
            raise RefusedWithAnotherError(
                "a response_type is refused, and the client is not told why",
                evidence=outcome.exchange,
                expected="unsupported_response_type",
                got=outcome.summary,
                counterexample=f"response_type={response_type!r}",
            )

    words = st.sampled_from(["code", "token", "id_token", "none", "Code", "c"])
    types = st.lists(words, min_size=1, max_size=3).map(" ".join).filter(lambda text: text != "code")
    space.search(judge, types, classics=RESPONSE_TYPES, max_examples=3)
