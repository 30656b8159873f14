"""TOK, at the authorization server: the tokens it issues are short-lived, complete and not to be guessed."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from conformance_suites.access_tokens import HOUR_SECONDS, claims_of, is_number
from conformance_suites.code_redemption import issued_tokens
from conformance_suites.server_documents import listed
from conformance_suites.token_samples import ENOUGH_BITS, FEWEST, Sample, codes, opaque_tokens, varying_bits
from pytest_mcp_conformance import Advice, Finding, Inconclusive, NotApplicable, requirement
from pytest_mcp_conformance.bench import Bench
from pytest_mcp_conformance.checks import last
from pytest_mcp_conformance.forge.jws import read_jws
from pytest_mcp_conformance.grants import Tokens
from pytest_mcp_conformance.oauth import AuthorizationServer
from pytest_mcp_conformance.options import Profile
from pytest_mcp_conformance.probe import Probe
from pytest_mcp_conformance.target import Target


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _is_audience(value: object) -> bool:
    return _is_text(value) or (isinstance(value, list) and bool(value) and all(map(_is_text, value)))


PROFILE: Mapping[str, Callable[[object], bool]] = {
    "iss": _is_text,
    "exp": is_number,
    "aud": _is_audience,
    "sub": _is_text,
    "client_id": _is_text,
    "iat": is_number,
    "jti": _is_text,
}
SAMPLE = {Profile.QUICK: FEWEST, Profile.STANDARD: 12, Profile.DEEP: 200}
CLIENT_MARKS = {"gty": "client-credentials", "grant_type": "client_credentials", "idtyp": "app", "sub_type": "client"}


class ResponseCacheable(Finding):
    """A token response does not say no-store."""


class ResponseNotJson(Finding):
    """A token response is something else than application/json."""


class ResponseIncomplete(Finding):
    """A token response lacks a member."""


class TokenLivesLong(Finding):
    """An access token lives for more than an hour."""


class LifetimeUnknown(Finding):
    """Neither the response nor the token says how long it lives."""


class SecretRepeated(Finding):
    """The same code or token was issued twice."""


class SecretGuessable(Finding):
    """Codes or tokens differ in too few bits."""


class ClaimMissing(Finding):
    """A token of the profile lacks a claim, or it has the wrong type."""


class NotOfTheProfile(Advice):
    """A JWT access token does not say that it is one."""


class ClientPassesForUser(Finding):
    """A client got a token whose subject is a user's."""


def asked_scope(target: Target) -> str | None:
    """The scope a regular client would ask for, where the target names any."""
    return next(iter(listed(target.discovery.resource_document().members, "scopes_supported")), None)


@pytest.fixture(scope="module")
def issued(bench: Bench) -> Tokens:
    """The tokens of one regular grant, for the checks that only look at them."""
    server = bench.authorization_server()
    return server.tokens(server.grant(scope=asked_scope(bench.target)))


@requirement("TOK-018")
def test_token_responses_are_complete_and_not_cached(target: Target, issued: Tokens) -> None:
    """RFC 6749 §5.1; OAuth 2.1 §3.2.3."""
    exchange = issued.exchange
    target.probe.cite(exchange)
    if exchange.media_type != "application/json":
        raise ResponseNotJson(
            "a token response is not application/json",
            evidence=exchange,
            expected="Content-Type: application/json",
            got=exchange.header("content-type") or "no Content-Type",
        )
    directives = {word.strip().lower() for line in exchange.header_lines("cache-control") for word in line.split(",")}
    if "no-store" not in directives:
        raise ResponseCacheable(
            "a token response may be cached",
            evidence=exchange,
            expected="Cache-Control: no-store",
            got=f"Cache-Control: {', '.join(sorted(directives)) or 'absent'}",
        )
    missing = [] if issued.members.get("token_type") else ["token_type"]
    granted, asked = (claims_of(issued.access_token) or {}).get("scope"), asked_scope(target)
    if asked and isinstance(granted, str) and {*granted.split()} != {asked} and "scope" not in issued.members:
        missing.append("scope, though it is not the requested one")
    if missing:
        raise ResponseIncomplete(
            "a token response lacks a member",
            evidence=exchange,
            expected="access_token, token_type, and scope where it is not the requested one",
            got=f"no {', no '.join(missing)}",
        )


@requirement("TOK-019")
def test_access_tokens_live_for_an_hour_at_most(issued: Tokens, probe: Probe) -> None:
    """MCP, Token Theft; OAuth 2.1 §7.1.3.5."""
    probe.cite(issued.exchange)
    claims = claims_of(issued.access_token) or {}
    lifetimes = {}
    if is_number(issued.members.get("expires_in")):
        lifetimes["expires_in"] = issued.members["expires_in"]
    if is_number(claims.get("exp")) and is_number(claims.get("iat")):
        lifetimes["exp - iat"] = claims["exp"] - claims["iat"]
    if not lifetimes:
        raise LifetimeUnknown(
            "nothing says how long an access token lives",
            evidence=issued.exchange,
            expected="expires_in",
            got="no such member",
        )
    for name, seconds in lifetimes.items():
        if seconds > HOUR_SECONDS:
            raise TokenLivesLong(
                "an access token lives for more than an hour",
                evidence=issued.exchange,
                expected=f"{HOUR_SECONDS} seconds or less",
                got=f"{name}: {seconds:g} seconds",
            )


@last
@requirement("TOK-020")
def test_issued_secrets_cannot_be_guessed(target: Target, authorization_server: AuthorizationServer) -> None:
    """RFC 6749 §10.10. The sample is what the whole run was issued, filled up where that is little."""
    server, history = authorization_server, target.probe.history
    endpoint = server.endpoint("token_endpoint")
    for _ in range(SAMPLE[target.settings.profile] - len(codes(history))):
        server.tokens()
    if 0 < len(opaque_tokens(history, endpoint, "refresh_token")) < FEWEST:
        for _ in range(FEWEST):
            server.tokens()
    _judge_sample(target.probe, "authorization codes", codes(history))
    for name in ("refresh_token", "access_token"):
        sample = opaque_tokens(history, endpoint, name)
        if len(sample) >= FEWEST:
            _judge_sample(target.probe, f"values of {name}", sample)


def _judge_sample(probe: Probe, what: str, sample: Sample) -> None:
    if len(sample) < FEWEST:
        raise Inconclusive(f"only {len(sample)} {what} were issued, too few to judge")
    texts = [text for text, _ in sample]
    probe.cite(*(exchange for _, exchange in sample))
    if len(set(texts)) < len(texts):
        at = next(at for at, text in enumerate(texts) if text in texts[:at])
        raise SecretRepeated(
            f"of {len(texts)} {what}, one was issued twice",
            evidence=(sample[texts.index(texts[at])][1], sample[at][1]),
            expected="a new one each time",
            got=f"{len(texts) - len(set(texts))} repetitions",
        )
    bits = varying_bits(texts)
    if bits < ENOUGH_BITS:
        raise SecretGuessable(
            f"{what} can be guessed",
            evidence=sample[-1][1],
            expected="128 bits that vary from one to the next",
            got=f"at most {bits:.0f} bits in a sample of {len(texts)}",
        )


@requirement("TOK-021")
def test_jwt_access_tokens_have_the_claims_of_their_profile(issued: Tokens, probe: Probe) -> None:
    """RFC 9068 §2.1, §2.2."""
    probe.cite(issued.exchange)
    jws = read_jws(issued.access_token)
    if jws is None:
        raise NotApplicable("access tokens are no JWTs")
    wrong = [name for name, fits in PROFILE.items() if not fits(jws.claims.get(name))]
    if wrong:
        raise ClaimMissing(
            "a JWT access token lacks claims of its profile",
            evidence=issued.exchange,
            expected=", ".join(PROFILE),
            got=", ".join(f"{name}: {'wrong type' if name in jws.claims else 'absent'}" for name in wrong),
        )
    kind = str(jws.header.get("typ", "")).lower().removeprefix("application/")
    if kind != "at+jwt":
        raise NotOfTheProfile(
            "a JWT access token does not say that it is one, so that other JWTs may be taken for it",
            evidence=issued.exchange,
            expected="typ at+jwt",
            got=f"typ {jws.header.get('typ')!r}",
        )


@requirement("TOK-022")
def test_no_client_gets_a_token_that_passes_for_a_users(
    authorization_server: AuthorizationServer, issued: Tokens
) -> None:
    """RFC 9700 §4.15: a client that may choose its id chooses a user's."""
    server, claims = authorization_server, claims_of(issued.access_token) or {}
    subject = claims.get("sub")
    if not isinstance(subject, str) or not subject:
        raise Inconclusive("access tokens do not show the user's identifier, so no client can be given it")
    registered = server.try_register(
        client_id=subject,
        grant_types=["authorization_code", "client_credentials"],
        token_endpoint_auth_method="client_secret_basic",
    )
    if not registered.succeeded:
        return
    client = server.registration_from(registered)
    exchange = server.as_client(client, {"grant_type": "client_credentials", "resource": server.resource})
    if not issued_tokens(exchange):
        return
    own = claims_of(exchange.json()["access_token"])
    if own is None:
        raise Inconclusive("the client's token is opaque, so whose it passes for cannot be read")
    if own.get("sub") == subject and not any(own.get(name) == mark for name, mark in CLIENT_MARKS.items()):
        raise ClientPassesForUser(
            "a client got a token whose subject is a user's",
            evidence=(registered, exchange),
            expected="a client_id given by the server, or a token that is plainly a client's",
            got="the user's sub, and no claim that tells the two apart",
            counterexample="a registration whose client_id is the user's sub",
        )
