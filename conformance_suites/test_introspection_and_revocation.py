"""TOK, at the authorization server: introspection (RFC 7662) and revocation (RFC 7009), where they are offered."""

from __future__ import annotations

import threading

from conformance_suites.code_redemption import issued_tokens, outcome_of
from pytest_mcp_conformance import Advice, Finding, Inconclusive, requirement
from pytest_mcp_conformance.credentials import Credential
from pytest_mcp_conformance.exchange import Exchange, Request
from pytest_mcp_conformance.grants import Override, Registration, Tokens, encode_form
from pytest_mcp_conformance.oauth import AuthorizationServer
from pytest_mcp_conformance.probe import Probe
from pytest_mcp_conformance.target import Presentation, Target

INTROSPECTION, REVOCATION = "introspection_endpoint", "revocation_endpoint"
GARBAGE = "conformance-check-no-such-token"
BOUND_SECONDS = 2.0


class IntrospectionOpen(Finding):
    """The introspection endpoint serves callers that did not authenticate."""


class RefusedInAnotherWay(Advice):
    """A caller that did not authenticate is refused, and not with 401."""


class DeadTokenDescribed(Finding):
    """Introspection says more about a dead or unknown token than that it is not active."""


class ForeignTokenDescribed(Advice):
    """Introspection describes a token to a client it was not issued to."""


class DeadTokenActive(Finding):
    """Introspection calls a token active that is dead."""


class IntrospectionByGet(Finding):
    """Introspection takes the token from the URL."""


class UnknownTokenNotAnswered(Finding):
    """Revoking a token that does not exist is not answered 200."""


class RevocationWithoutEffect(Finding):
    """A refresh token works after it was revoked."""


class RevokedByAnother(Finding):
    """A token stops working when another client asks for its revocation."""


class AccessTokenOutlivesGrant(Finding):
    """The refresh token was revoked, and the access token goes on working."""


def confidential(server: AuthorizationServer) -> Registration:
    """A client that can authenticate itself.

    Raises:
        Inconclusive: none could be registered.
    """
    client = server.register(token_endpoint_auth_method="client_secret_basic")
    if not client.client_secret:
        raise Inconclusive("the registration of a client with a secret gave it none")
    return client


def introspected(server: AuthorizationServer, client: Registration, token: str) -> Exchange:
    """What introspection answers to `client` about `token`."""
    return server.as_client(client, {"token": token}, at=INTROSPECTION)


def is_active(exchange: Exchange) -> bool:
    members = exchange.json()
    return exchange.succeeded and isinstance(members, dict) and members.get("active") is True


def live_tokens(server: AuthorizationServer, client: Registration) -> Tokens:
    """Tokens of `client` that introspection calls active: the positive control of what it says about others.

    Raises:
        Inconclusive: it does not.
    """
    tokens = server.tokens(server.grant(client))
    exchange = introspected(server, client, tokens.access_token)
    if not is_active(exchange):
        raise Inconclusive(f"introspection does not call a client's own live token active: {exchange.summary}")
    return tokens


def revoke(server: AuthorizationServer, client: Registration, token: str, hint: str | None = None) -> Exchange:
    """What revocation answers to `client` about `token`."""
    fields: dict[str, Override] = {"token": token, "token_type_hint": hint}
    return server.as_client(client, fields, at=REVOCATION)


@requirement("TOK-014")
def test_introspection_wants_authentication(authorization_server: AuthorizationServer) -> None:
    """RFC 7662 §2.1: or anybody could try tokens out."""
    server = authorization_server
    server.endpoint(INTROSPECTION)
    tokens = live_tokens(server, confidential(server))
    exchange = server.token({"token": tokens.access_token}, at=INTROSPECTION)
    if exchange.succeeded:
        raise IntrospectionOpen(
            "introspection serves a caller that did not authenticate",
            evidence=exchange,
            expected="401",
            got=exchange.summary,
        )
    if exchange.status != 401:
        raise RefusedInAnotherWay(
            "introspection refuses a caller that did not authenticate with another status",
            evidence=exchange,
            expected="401",
            got=exchange.summary,
        )


@requirement("TOK-014")
def test_introspection_says_little_about_dead_tokens(authorization_server: AuthorizationServer) -> None:
    """RFC 7662 §2.2: active=false, and no other member."""
    server = authorization_server
    server.endpoint(INTROSPECTION)
    client = confidential(server)
    tokens = live_tokens(server, client)
    _judge_silence("a token that does not exist", introspected(server, client, GARBAGE))
    foreign = introspected(server, client, server.tokens().access_token)
    if is_active(foreign):
        raise ForeignTokenDescribed(
            "introspection describes a token to a client it was not issued to",
            evidence=foreign,
            expected='{"active": false}',
            got="active true",
        )
    _judge_silence("another client's token", foreign)
    if server.metadata.get(REVOCATION):
        revoke(server, client, tokens.access_token, "access_token")
        exchange = introspected(server, client, tokens.access_token)
        if not is_active(exchange):
            _judge_silence("a revoked token", exchange)


def _judge_silence(what: str, exchange: Exchange) -> None:
    members = exchange.json()
    if not exchange.succeeded or not isinstance(members, dict):
        raise Inconclusive(f"introspection of {what} gave no answer: {exchange.summary}")
    if members != {"active": False}:
        raise DeadTokenDescribed(
            f"introspection says more about {what} than that it is not active",
            evidence=exchange,
            expected='{"active": false}',
            got=f"the members {', '.join(sorted(members))}",
        )


@requirement("TOK-015")
def test_dead_tokens_are_inactive(
    authorization_server: AuthorizationServer, probe: Probe, expired_if_given: Credential | None
) -> None:
    """RFC 7662 §4; §2.1: by POST alone, for URLs end up in logs."""
    server = authorization_server
    url = server.endpoint(INTROSPECTION)
    client = confidential(server)
    tokens = live_tokens(server, client)
    asked = introspected(server, client, tokens.access_token).request
    authenticated = tuple(header for header in asked.headers if header[0].lower() == "authorization")
    query = encode_form({"token": tokens.access_token})
    exchange = probe.send(Request("GET", f"{url}{'&' if '?' in url else '?'}{query}", authenticated))
    if is_active(exchange):
        raise IntrospectionByGet(
            "introspection takes the token from the URL",
            evidence=exchange,
            expected="405, or another refusal",
            got=exchange.summary,
        )
    if expired_if_given is not None:
        _judge_dead("an expired token", introspected(server, client, expired_if_given.token))
    if server.metadata.get(REVOCATION):
        revoke(server, client, tokens.access_token, "access_token")
        _judge_dead("a revoked token", introspected(server, client, tokens.access_token))


def _judge_dead(what: str, exchange: Exchange) -> None:
    if is_active(exchange):
        raise DeadTokenActive(
            f"introspection calls {what} active", evidence=exchange, expected="active false", got="active true"
        )


@requirement("TOK-016")
def test_revocation_knows_whose_tokens_it_revokes(authorization_server: AuthorizationServer) -> None:
    """RFC 7009 §2.1, §2.2."""
    server = authorization_server
    server.endpoint(REVOCATION)
    garbage = revoke(server, server.client, GARBAGE)
    if garbage.status == 401:
        raise Inconclusive("a public client may not revoke")
    if garbage.status != 200:
        raise UnknownTokenNotAnswered(
            "revoking a token that does not exist is not answered 200",
            evidence=garbage,
            expected="200",
            got=outcome_of(garbage),
        )
    tokens = server.tokens()
    if not tokens.refresh_token:
        raise Inconclusive("no refresh token was issued that could be revoked")
    attempt = revoke(server, server.register(), tokens.refresh_token, "refresh_token")
    refreshed = server.refresh(tokens)
    if not issued_tokens(refreshed):
        raise RevokedByAnother(
            "another client's request for revocation ended a token",
            evidence=(attempt, refreshed),
            expected="the token works as before",
            got=outcome_of(refreshed),
        )
    tokens = server.tokens_from(refreshed, tokens.registration)
    revoked = revoke(server, tokens.registration, tokens.refresh_token, "refresh_token")
    again = server.refresh(tokens)
    if issued_tokens(again) or revoked.status != 200:
        raise RevocationWithoutEffect(
            "a client cannot revoke its own refresh token",
            evidence=(revoked, again),
            expected="200, and invalid_grant from then on",
            got=f"{outcome_of(revoked)}, and then {outcome_of(again)}",
        )


@requirement("TOK-017")
def test_revoking_a_refresh_token_takes_the_access_token_along(
    target: Target, authorization_server: AuthorizationServer
) -> None:
    """RFC 7009 §2.1."""
    server = authorization_server
    server.endpoint(REVOCATION)
    tokens = server.tokens()
    if not tokens.refresh_token:
        raise Inconclusive("no refresh token was issued that could be revoked")
    if not _presented(target, tokens).authenticated:
        raise Inconclusive("the access token of a regular grant is not accepted")
    revoked = revoke(server, tokens.registration, tokens.refresh_token, "refresh_token")
    if revoked.status != 200:
        raise Inconclusive(f"the refresh token could not be revoked: {outcome_of(revoked)}")
    seen = _presented(target, tokens)
    if seen.authenticated:
        threading.Event().wait(BOUND_SECONDS)
        seen = _presented(target, tokens)
    if seen.authenticated:
        raise AccessTokenOutlivesGrant(
            "the refresh token was revoked, and the access token goes on working",
            evidence=(revoked, seen.exchange),
            expected=f"401 within {BOUND_SECONDS:g} seconds",
            got=seen.exchange.summary,
        )


def _presented(target: Target, tokens: Tokens) -> Presentation:
    """Raises: Inconclusive when it is not clear whether the access token was accepted."""
    seen = target.present(f"Bearer {tokens.access_token}")
    if not seen.authenticated and not seen.refused:
        raise Inconclusive(f"whether the access token works is not clear: {seen.exchange.summary}")
    return seen
