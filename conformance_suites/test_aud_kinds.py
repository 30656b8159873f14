"""AUD, at the resource server: tokens of the service behind it, and tokens that are no access tokens."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from conformance_suites.calls import Caller
from conformance_suites.canary import listening
from conformance_suites.minted import Orders
from conformance_suites.secret_pieces import pieces
from pytest_mcp_conformance import Finding, Inconclusive, NotApplicable, NotRun, requirement
from pytest_mcp_conformance.bench import Bench
from pytest_mcp_conformance.credentials import Credential
from pytest_mcp_conformance.declarations import Declarations
from pytest_mcp_conformance.forge.jws import read_jws
from pytest_mcp_conformance.target import Target

RFC9068 = frozenset({"at+jwt", "application/at+jwt"})


class UpstreamTokenAccepted(Finding):
    """A token of the service behind the server is authenticated."""


class TokenTravelsUpstream(Finding):
    """A tool passes its caller's token on."""


class OtherKindAccepted(Finding):
    """A token of another kind is authenticated as an access token."""


@requirement("AUD-007")
def test_tokens_of_the_service_behind_are_worthless_here(
    target: Target, alice: Credential, upstream: Credential
) -> None:
    """MCP best practices, Token Passthrough."""
    target.require_protected()
    with target.controlled(alice):
        seen = target.present(str(upstream.header[1]))
    if seen.authenticated:
        raise UpstreamTokenAccepted(
            "a token that the service behind the server issued is authenticated by the server",
            evidence=seen.exchange,
            expected="401 invalid_token",
            got=seen.exchange.summary,
        )


@requirement("AUD-008")
def test_the_callers_token_never_travels_upstream(target: Target, alice: Credential, declared: Declarations) -> None:
    """MCP best practices, Token Passthrough: a tool calls out on its own behalf."""
    if not declared.outbound_tool:
        raise NotRun("no tool is declared that requests a URL it is given (outbound_tool)")
    if not target.settings.is_local:
        raise NotRun("the target is on another machine, which cannot reach a listener on this one")
    caller = Caller(target, alice)
    digest = hashlib.sha256(alice.token.encode())
    secrets = {alice.token, *pieces(alice.token), digest.hexdigest()}
    with target.controlled(alice), listening(reachable=True) as canary:
        called = caller.send(caller.call(declared.outbound_tool, {declared.outbound_argument: canary.keys_url}))
        if not canary.received:
            raise Inconclusive(f"{declared.outbound_tool} requested nothing: {called.summary}")
        for text in canary.received:
            if any(secret in text for secret in secrets):
                raise TokenTravelsUpstream(
                    "a tool passes its caller's token on to the service it calls",
                    evidence=called,
                    expected="a request without any part of the token, or its hash",
                    got=f"the token, or a part of it, in a request to {urlsplit(canary.keys_url).netloc}",
                )


@dataclass(frozen=True)
class Kind:
    """A kind of token that is no access token: its typ, and the claims that mark it."""

    name: str
    typ: str
    marks: dict[str, Any] = field(default_factory=dict)


KINDS = (
    Kind("ID token", "JWT", {"nonce": "conformance-check", "at_hash": "A" * 22, "email": "a@b.example"}),
    Kind("ID token", "id_token+jwt", {"nonce": "conformance-check", "auth_time": 0}),
    Kind(
        "logout token",
        "logout+jwt",
        {"sid": "conformance-check", "events": {"http://schemas.openid.net/event/backchannel-logout": {}}},
    ),
    Kind("client assertion", "client-authentication+jwt"),
    Kind("client assertion", "JWT"),
    Kind("identity assertion grant", "oauth-id-jag+jwt", {"resource": "https://another-server.example/mcp"}),
    Kind("security event", "secevent+jwt", {"events": {"https://schemas.openid.net/secevent/risc": {}}}),
    Kind("introspection response", "token-introspection+jwt", {"token_introspection": {"active": True}}),
    Kind("DPoP proof", "dpop+jwt", {"htm": "POST", "htu": "https://another-server.example/mcp"}),
)


def as_the_kind_is(orders: Orders, kind: Kind) -> str:
    """The token as its issuer writes that kind: addressed to the client, or to the issuer."""
    claims = orders.pattern.claims
    client, issuer = claims.get("client_id", "conformance-check"), claims.get("iss", "")
    parties = {"iss": client, "sub": client, "aud": issuer} if kind.name == "client assertion" else {"aud": client}
    return orders.text({**kind.marks, **parties}, header={"typ": kind.typ}, without=("client_id", "scope"))


def as_like_as_can_be(orders: Orders, kind: Kind) -> str:
    """Everything an access token has, and the typ and the marks of the other kind."""
    marks = {name: int(time.time()) if name == "auth_time" else value for name, value in kind.marks.items()}
    return orders.text(marks, header={"typ": kind.typ})


@requirement("AUD-009")
def test_only_access_tokens_work_as_access_tokens(target: Target, bench: Bench, alice: Credential) -> None:
    """RFC 8725 §3.11, §3.12: each kind of token has a typ, or rules, of its own."""
    target.require_protected()
    mintable = bench.mint.available and read_jws(alice.token) is not None
    if not mintable and not bench.login.repeatable:
        raise NotRun("no token of another kind can be had: it takes a minting command, or a login that can be repeated")

    def judge(presented: tuple[str, str]) -> None:
        what, token = presented
        seen = target.present(f"Bearer {token}")
        if seen.authenticated:
            raise OtherKindAccepted(
                "a token of another kind is authenticated as an access token",
                evidence=seen.exchange,
                expected="401 invalid_token",
                got=seen.exchange.summary,
                counterexample=what,
            )

    with target.controlled(alice):
        if bench.login.repeatable:
            for presented in granted_kinds(bench):
                judge(presented)
        if mintable:
            orders = Orders(bench.mint, alice)
            with target.controlled(orders.good()):
                for presented in minted_kinds(orders):
                    judge(presented)


def granted_kinds(bench: Bench) -> Iterator[tuple[str, str]]:
    """What the authorization server hands out beside access tokens: codes, refresh tokens, and ID tokens if it does."""
    try:
        server = bench.authorization_server()
        supported = server.metadata.get("scopes_supported")
    except NotApplicable:
        return
    openid = isinstance(supported, list) and "openid" in supported
    grant = server.grant(scope="openid") if openid else server.grant()
    yield "an authorization code", grant.code
    tokens = server.tokens(grant)
    if tokens.refresh_token:
        yield "a refresh token", tokens.refresh_token
    if isinstance(tokens.members.get("id_token"), str):
        yield "an ID token", tokens.members["id_token"]


def minted_kinds(orders: Orders) -> Iterator[tuple[str, str]]:
    """Each kind as it is; and, where access tokens have a typ of their own, as like an access token as can be."""
    typed = str(orders.pattern.header.get("typ", "")).lower() in RFC9068
    for kind in KINDS:
        yield f"{kind.name} of typ {kind.typ}", as_the_kind_is(orders, kind)
        if typed:
            yield f"{kind.name} of typ {kind.typ} with the claims of an access token", as_like_as_can_be(orders, kind)
