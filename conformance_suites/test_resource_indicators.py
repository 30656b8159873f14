"""AUD, at the authorization server: a token is for the resource the user agreed to (RFC 8707)."""

from __future__ import annotations

from collections.abc import Iterator

from conformance_suites.access_tokens import audiences, claims_of
from conformance_suites.code_redemption import Redemptions, issued_tokens, oauth_error, outcome_of
from conformance_suites.server_documents import listed
from pytest_mcp_conformance import Advice, Finding, Inconclusive, NotApplicable, requirement
from pytest_mcp_conformance.exchange import Exchange
from pytest_mcp_conformance.grants import AuthorizationOutcome, Grant, Tokens, fresh_pkce
from pytest_mcp_conformance.oauth import AuthorizationServer
from pytest_mcp_conformance.properties import Space
from pytest_mcp_conformance.strategies.resources import (
    FOREIGN_RESOURCE,
    foreign_resources,
    is_elsewhere,
    malformed_resources,
    strange_resources,
)
from pytest_mcp_conformance.strategies.uris import same_uris
from pytest_mcp_conformance.target import Target


class TokenForAnother(Finding):
    """A token's audience is not the resource that was asked for."""


class TokenForMore(Advice):
    """A token's audience holds more than the resource that was asked for."""


class StrangeResourceGranted(Finding):
    """A token was issued for a resource the authorization server cannot know, or that is none."""


class StrangeResourceIgnored(Advice):
    """A resource that is none, or not known, was not refused; the token is not for it."""


class RefusedWithAnotherError(Advice):
    """A resource was refused, and not with invalid_target."""


class ResourceWidened(Finding):
    """The token request reached a resource that was not authorized."""


class ResourceBreaksRequest(Finding):
    """A request with the resource parameter fails, and works without it."""


class PublishedResourceUnknown(Finding):
    """The authorization server refuses the resource as the MCP server publishes it."""


class TokenNotAccepted(Finding):
    """The token of a flow with the published resource is refused at the MCP server."""


@requirement("AUD-010")
def test_the_token_is_for_the_resource_asked_for(authorization_server: AuthorizationServer) -> None:
    """RFC 8707 §2.2; OAuth 2.1 §7.1.4."""
    server = authorization_server
    tokens = server.tokens()
    named = audiences(tokens.access_token)
    ours = {server.resource, *same_uris(server.resource)}
    if not ours & set(named):
        raise TokenForAnother(
            "the token is not for the resource that was asked for",
            evidence=tokens.exchange,
            expected=f"aud {server.resource!r}",
            got=f"aud {named!r}",
        )
    others = [one for one in named if one not in ours]
    if others:
        raise TokenForMore(
            "the token is for more than the resource that was asked for",
            evidence=tokens.exchange,
            expected=f"aud {server.resource!r} alone",
            got=f"aud {named!r}",
        )


@requirement("AUD-011")
def test_strange_resources_are_refused(authorization_server: AuthorizationServer, space: Space) -> None:
    """RFC 8707 §2, §2.1: at the authorization endpoint, invalid_target."""
    server = authorization_server
    server.tokens()
    known = set(listed(server.metadata, "protected_resources"))

    def judge(value: str) -> None:
        if value not in known:
            _judge_strange(server, [value], f"resource={value[:200]!r}")

    classics = [*malformed_resources(server.resource), *foreign_resources(server.resource)]
    space.search(judge, strange_resources(server.resource), classics=classics, max_examples=5)
    _judge_strange(server, [server.resource, FOREIGN_RESOURCE], "the published resource and a foreign one")


def _judge_strange(server: AuthorizationServer, values: list[str], what: str) -> None:
    pkce = fresh_pkce()
    outcome = server.authorize(pkce=pkce, resource=values)
    if not outcome.code:
        if values == [FOREIGN_RESOURCE]:
            _judge_refusal(outcome, what)
        return
    exchange = server.redeem(Grant(outcome.code, pkce, server.client, "", outcome))
    if not issued_tokens(exchange):
        return
    strange = [value for value in values if value != server.resource]
    named = audiences(exchange.json()["access_token"])
    if set(strange) & set(named):
        raise StrangeResourceGranted(
            "a token was issued for a resource that the authorization server cannot know",
            evidence=(outcome.exchange, exchange),
            expected="error=invalid_target",
            got="a token with that aud",
            counterexample=what,
        )
    if is_elsewhere(strange[0], server.resource):
        raise StrangeResourceIgnored(
            "a resource that is none, or not known, is not refused",
            evidence=(outcome.exchange, exchange),
            expected="error=invalid_target",
            got=f"a token with aud {named!r}",
            counterexample=what,
        )


def _judge_refusal(outcome: AuthorizationOutcome, what: str) -> None:
    if outcome.error != "invalid_target":
        raise RefusedWithAnotherError(
            "an unknown resource is refused, and the client is not told invalid_target",
            evidence=outcome.exchange,
            expected="error=invalid_target",
            got=outcome.summary,
            counterexample=what,
        )


@requirement("AUD-011")
def test_malformed_resources_are_refused_at_the_token_endpoint(authorization_server: AuthorizationServer) -> None:
    """RFC 8707 §2.2. What a well-formed one may reach there is for AUD-012."""
    server = authorization_server
    redemptions = Redemptions(server)
    for value in malformed_resources(server.resource)[:3]:
        exchange = redemptions.attempt(resource=value)
        if issued_tokens(exchange) and value in audiences(exchange.json()["access_token"]):
            raise StrangeResourceGranted(
                "a token was issued for a resource that is none",
                evidence=exchange,
                expected="invalid_target",
                got="a token with that aud",
                counterexample=f"resource={value!r}",
            )
    redemptions.prove()


@requirement("AUD-012")
def test_the_token_request_reaches_no_other_resource(authorization_server: AuthorizationServer) -> None:
    """RFC 8707 §2.2, RFC 9700 §4.14.2: with the code, and with the refresh token."""
    server = authorization_server
    redemptions = Redemptions(server)
    others = list(_other_resources(server))
    for other in others:
        _judge_reach(server, redemptions.attempt(resource=other), other, "the code")
    redemptions.prove()
    for other in others:
        tokens = server.tokens()
        if not tokens.refresh_token:
            return
        tokens = server.tokens_from(server.refresh(tokens), tokens.registration)
        _judge_reach(server, server.refresh(tokens, resource=other), other, "the refresh token")


def _other_resources(server: AuthorizationServer) -> Iterator[str]:
    """One that nobody knows, and one that the authorization server serves too, where it names any."""
    yield FOREIGN_RESOURCE
    siblings = (one for one in listed(server.metadata, "protected_resources") if one != server.resource)
    yield from list(siblings)[:1]


def _judge_reach(server: AuthorizationServer, exchange: Exchange, other: str, spent: str) -> None:
    if issued_tokens(exchange) and other in audiences(exchange.json()["access_token"]):
        raise ResourceWidened(
            f"{spent} of one resource got a token for another",
            evidence=exchange,
            expected=f"invalid_target, or a token for {server.resource} alone",
            got=f"a token with aud {other!r}",
            counterexample=f"resource={other}",
        )


@requirement("AUD-013")
def test_the_resource_parameter_breaks_nothing(authorization_server: AuthorizationServer) -> None:
    """MCP, Resource Parameter Implementation: clients send it always. Refusing its value is for AUD-014."""
    server = authorization_server
    pkce = fresh_pkce()
    outcome = server.authorize(pkce=pkce)
    if not outcome.code:
        if outcome.error == "invalid_target":
            raise NotApplicable("the authorization server knows the parameter and refuses its value (see AUD-014)")
        _judge_broken(outcome.exchange, outcome.summary, works=bool(server.authorize(resource=None).code))
    grant = Grant(outcome.code, pkce, server.client, server.resource, outcome)
    exchange = server.redeem(grant)
    if not issued_tokens(exchange):
        plain = server.redeem(grant, resource=None)
        plain = plain if issued_tokens(plain) else server.redeem(server.grant(), resource=None)
        _judge_broken(exchange, outcome_of(exchange), works=issued_tokens(plain))
    tokens = server.tokens_from(exchange, grant.registration)
    if tokens.refresh_token:
        _judge_refresh(server, tokens)


def _judge_refresh(server: AuthorizationServer, tokens: Tokens) -> None:
    exchange = server.refresh(tokens)
    if not issued_tokens(exchange):
        plain = server.refresh(tokens, resource=None)
        plain = plain if issued_tokens(plain) else server.refresh(server.tokens(), resource=None)
        _judge_broken(exchange, outcome_of(exchange), works=issued_tokens(plain))


def _judge_broken(exchange: Exchange, got: str, *, works: bool) -> None:
    """Raises: Inconclusive when the request fails without the parameter too."""
    if not works or oauth_error(exchange) == "invalid_target":
        raise Inconclusive(f"the regular flow does not work: {got}")
    raise ResourceBreaksRequest(
        "a request with the resource parameter fails, and works without it",
        evidence=exchange,
        expected="the answer it gets without the parameter",
        got=got,
    )


@requirement("AUD-014")
def test_the_published_resource_works_as_it_stands(target: Target, authorization_server: AuthorizationServer) -> None:
    """RFC 9728 §4: the string of the resource metadata goes through a flow unchanged, and its token is accepted."""
    server = authorization_server
    pkce = fresh_pkce()
    outcome = server.authorize(pkce=pkce)
    if outcome.error == "invalid_target":
        raise PublishedResourceUnknown(
            "the authorization server refuses the resource as it is published",
            evidence=outcome.exchange,
            expected="a code",
            got=outcome.summary,
            counterexample=f"resource={server.resource}",
        )
    if not outcome.code:
        raise Inconclusive(f"no authorization code could be obtained: {outcome.summary}")
    exchange = server.redeem(Grant(outcome.code, pkce, server.client, server.resource, outcome))
    if oauth_error(exchange) == "invalid_target":
        raise PublishedResourceUnknown(
            "the token endpoint refuses the resource as it is published",
            evidence=exchange,
            expected="an access token",
            got=outcome_of(exchange),
            counterexample=f"resource={server.resource}",
        )
    tokens = server.tokens_from(exchange, server.client)
    seen = target.present(f"Bearer {tokens.access_token}")
    if seen.refused:
        raise TokenNotAccepted(
            "the MCP server refuses the token of a flow with the resource it publishes",
            evidence=seen.exchange,
            expected="the token accepted",
            got=f"{seen.exchange.summary}; {_audience(tokens)}",
        )
    if not seen.authenticated:
        raise Inconclusive(f"whether the token was accepted is not clear: {seen.exchange.summary}")


def _audience(tokens: Tokens) -> str:
    claims = claims_of(tokens.access_token)
    return "an opaque token" if claims is None else f"aud {claims.get('aud')!r}"
