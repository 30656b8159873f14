"""REF: refresh tokens, which are worth more than what they are exchanged for."""

from __future__ import annotations

from hypothesis import strategies as st

from conformance_suites.access_tokens import audiences, claims_of
from conformance_suites.code_redemption import issued_tokens, oauth_error, outcome_of
from conformance_suites.server_documents import listed
from pytest_mcp_conformance import Advice, Finding, Inconclusive, NotApplicable, requirement
from pytest_mcp_conformance.exchange import Exchange
from pytest_mcp_conformance.oauth import AuthorizationServer, Tokens
from pytest_mcp_conformance.properties import Space
from pytest_mcp_conformance.target import Target

FOREIGN_RESOURCE = "https://other.example/mcp"
INVENTED_SCOPE = "conformance:admin"
GARBAGE = ("", "garbage", "\x00", "a" * 5000, "é", "' OR 1=1 --", "null", "../../etc/passwd")
LONGEST_ROTATIONS = 4


class RefreshTokenNotRotated(Finding):
    """A public client got the same refresh token again, and it is bound to no key."""


class OldRefreshTokenWorks(Finding):
    """A refresh token that was replaced goes on working."""


class FamilySurvivesReplay(Finding):
    """A replaced refresh token was presented again, and the newest one goes on working."""


class RefreshedByAnother(Finding):
    """A client refreshed with a token that another client was given."""


class ScopeWidened(Finding):
    """A refresh gave a scope that was not granted."""


class ResourceWidened(Finding):
    """A refresh gave a token for a resource that was not granted."""


class GrantNarrowed(Finding):
    """One narrowed access token narrowed the grant for good."""


class RefreshTokenServes(Finding):
    """The MCP server takes a refresh token or a code for an access token."""


class BadRefreshNotAnswered(Finding):
    """A bad refresh token is answered with a server error, or with a token."""


class BadRefreshAnsweredOddly(Advice):
    """A bad refresh token is refused, and not as RFC 6749 §5.2 has it."""


class RefreshOutlivesGrant(Finding):
    """The grant has ended, and its refresh token goes on working."""


def refreshable(server: AuthorizationServer) -> Tokens:
    """The tokens of a fresh grant.

    Raises:
        NotApplicable: no refresh token is among them. NotRun, Inconclusive: there is none.
    """
    tokens = server.tokens()
    if not tokens.refresh_token:
        raise NotApplicable("the authorization server issues no refresh tokens")
    return tokens


def refreshed(server: AuthorizationServer, tokens: Tokens) -> Tokens:
    """The tokens after one regular refresh; the refresh token of before where none came.

    Raises:
        Inconclusive: a regular refresh does not work.
    """
    fresh = server.tokens_from(server.refresh(tokens), tokens.registration)
    if fresh.refresh_token:
        return fresh
    return Tokens(fresh.access_token, tokens.refresh_token, fresh.members, fresh.exchange, fresh.registration)


def _bound(tokens: Tokens) -> bool:
    return str(tokens.members.get("token_type", "")).lower() != "bearer"


@requirement("REF-001")
def test_refresh_tokens_of_public_clients_rotate(authorization_server: AuthorizationServer) -> None:
    """OAuth 2.1 §4.3.1: rotation, or a key that the client has to prove."""
    server = authorization_server
    first = refreshable(server)
    if _bound(first):
        raise NotApplicable("refresh tokens are bound to a key of the client")
    second = refreshed(server, first)
    if second.refresh_token == first.refresh_token:
        raise RefreshTokenNotRotated(
            "a refresh by a public client answers the refresh token it was made with",
            evidence=second.exchange,
            expected="another refresh token",
            got="the same one, or none",
        )
    replay = server.refresh(first)
    if issued_tokens(replay):
        raise OldRefreshTokenWorks(
            "a refresh token works after it was replaced by another",
            evidence=(second.exchange, replay),
            expected="400 invalid_grant",
            got=outcome_of(replay),
        )


@requirement("REF-002")
def test_a_replay_ends_the_family(authorization_server: AuthorizationServer, space: Space) -> None:
    """RFC 9700 §4.14.2: whoever holds the newest token may be the thief."""
    server = authorization_server
    probe = refreshable(server)
    if _bound(probe) or refreshed(server, probe).refresh_token == probe.refresh_token:
        raise NotApplicable("refresh tokens do not rotate (see REF-001)")

    def judge(rotations: int) -> None:
        chain = [refreshable(server)]
        for _ in range(rotations):
            chain.append(refreshed(server, chain[-1]))
        replay = server.refresh(chain[0])
        if issued_tokens(replay):
            raise Inconclusive("a replaced refresh token works on (see REF-001), so it is no replay")
        after = server.refresh(chain[-1])
        if issued_tokens(after):
            raise FamilySurvivesReplay(
                "a replaced refresh token was presented again, and the newest one goes on working",
                evidence=(replay, after),
                expected="400 invalid_grant for both",
                got=f"{outcome_of(replay)}, then {outcome_of(after)}",
                counterexample=f"the first of {rotations + 1} refresh tokens presented again",
            )

    space.search(judge, st.integers(1, LONGEST_ROTATIONS), classics=[1, 3], max_examples=2)


@requirement("REF-003")
def test_refresh_tokens_belong_to_one_client(authorization_server: AuthorizationServer) -> None:
    """RFC 6749 §6: as another client, and as none."""
    server = authorization_server
    tokens = refreshable(server)
    other = server.register()
    for who, exchange in (
        ("another client", server.refresh(tokens, client_id=other.client_id)),
        ("an unknown client", server.refresh(tokens, client_id="conformance-nobody")),
        ("no client at all", server.refresh(tokens, client_id=None)),
    ):
        if issued_tokens(exchange):
            raise RefreshedByAnother(
                f"{who} refreshed with a token that was given to a client",
                evidence=exchange,
                expected="invalid_grant or invalid_client",
                got=outcome_of(exchange),
                counterexample=f"client_id of {who}",
            )
    if not issued_tokens(server.refresh(tokens)):
        control = refreshable(server)
        refreshed(server, control)


@requirement("REF-003")
def test_confidential_clients_authenticate_to_refresh(authorization_server: AuthorizationServer) -> None:
    """OAuth 2.1 §4.3: with their secret, not with their name."""
    server = authorization_server
    offered = set(listed(server.metadata, "token_endpoint_auth_methods_supported")) or {"client_secret_basic"}
    method = next((one for one in ("client_secret_basic", "client_secret_post") if one in offered), None)
    if method is None:
        raise NotApplicable("the authorization server offers no client secrets")
    client = server.register(token_endpoint_auth_method=method)
    if not client.client_secret:
        raise NotApplicable("registration gives no client secrets")
    tokens = server.tokens(server.grant(client))
    if not tokens.refresh_token:
        raise NotApplicable("confidential clients get no refresh tokens")
    fields = {
        "grant_type": "refresh_token",
        "refresh_token": tokens.refresh_token,
        "client_id": client.client_id,
        "resource": server.resource,
    }
    for what, exchange in (
        ("without its secret", server.token(fields)),
        ("with a wrong secret", server.token({**fields, "client_secret": "wrong" * 8})),
    ):
        if issued_tokens(exchange):
            raise RefreshedByAnother(
                f"a confidential client refreshed {what}",
                evidence=exchange,
                expected="401 invalid_client",
                got=outcome_of(exchange),
            )
    if not issued_tokens(server.refresh(tokens)):
        refreshed(server, server.tokens(server.grant(client)))


@requirement("REF-004")
def test_a_refresh_reaches_no_further_than_the_grant(authorization_server: AuthorizationServer) -> None:
    """OAuth 2.1 §4.3.1, RFC 8707 §2.2."""
    server = authorization_server
    tokens = refreshable(server)
    granted = str(tokens.members.get("scope") or "")
    advertised = [one for one in listed(server.metadata, "scopes_supported") if one not in granted.split()]
    for extra in [*advertised[:2], INVENTED_SCOPE]:
        exchange = server.refresh(tokens, scope=f"{granted} {extra}".strip())
        if issued_tokens(exchange):
            tokens = server.tokens_from(exchange, tokens.registration)
            _judge_scope(exchange, extra)
    tokens = tokens if tokens.refresh_token else refreshable(server)
    exchange = server.refresh(tokens, resource=FOREIGN_RESOURCE)
    if issued_tokens(exchange) and FOREIGN_RESOURCE in audiences(exchange.json()["access_token"]):
        raise ResourceWidened(
            "a refresh gave a token for a resource that was not granted",
            evidence=exchange,
            expected="invalid_target",
            got="a token for it",
            counterexample=f"resource={FOREIGN_RESOURCE}",
        )
    control = server.refresh(tokens)
    if not issued_tokens(exchange) and not issued_tokens(control):
        refreshed(server, refreshable(server))


def _judge_scope(exchange: Exchange, extra: str) -> None:
    members = exchange.json()
    claims = claims_of(members["access_token"]) or {}
    given = {*str(members.get("scope") or "").split(), *str(claims.get("scope") or "").split()}
    if extra in given:
        raise ScopeWidened(
            "a refresh gave a scope that was not granted",
            evidence=exchange,
            expected="invalid_scope, or a token without it",
            got=f"scope {' '.join(sorted(given))!r}",
            counterexample=f"scope with {extra} added",
        )


@requirement("REF-004")
def test_a_narrower_access_token_leaves_the_grant_as_it_is(authorization_server: AuthorizationServer) -> None:
    """OAuth 2.1 §4.3.3: the new refresh token has the scope of the old one."""
    server = authorization_server
    tokens = refreshable(server)
    granted = str(tokens.members.get("scope") or "").split()
    if len(granted) < 2:
        wide = server.grant(scope=" ".join(listed(server.metadata, "scopes_supported")) or None)
        tokens = server.tokens(wide)
        granted = str(tokens.members.get("scope") or "").split()
    if len(granted) < 2 or not tokens.refresh_token:
        raise NotApplicable("no grant has more than one scope")
    narrow = server.refresh(tokens, scope=granted[0])
    if not issued_tokens(narrow):
        raise Inconclusive(f"a refresh with one of the granted scopes is refused: {outcome_of(narrow)}")
    held = server.tokens_from(narrow, tokens.registration).refresh_token or tokens.refresh_token
    after = Tokens("", held, {}, narrow, tokens.registration)
    wide_again = server.refresh(after, scope=" ".join(granted))
    if not issued_tokens(wide_again):
        raise GrantNarrowed(
            "one narrowed access token narrowed the grant for good",
            evidence=(narrow, wide_again),
            expected="a token with all granted scopes",
            got=outcome_of(wide_again),
            counterexample=f"scope={granted[0]}, then scope={' '.join(granted)}",
        )


@requirement("REF-005")
def test_only_access_tokens_serve_at_the_mcp_server(target: Target, authorization_server: AuthorizationServer) -> None:
    """RFC 9068 §4: refresh tokens and codes go to the authorization server alone."""
    server = authorization_server
    grant = server.grant()
    judged = [("an authorization code", target.present(f"Bearer {grant.code}"))]
    tokens = server.tokens(grant)
    if not target.present(f"Bearer {tokens.access_token}").authenticated:
        raise Inconclusive("the access token of a regular grant is not accepted")
    if tokens.refresh_token:
        judged.append(("a refresh token", target.present(f"Bearer {tokens.refresh_token}")))
    for what, seen in judged:
        if seen.authenticated:
            raise RefreshTokenServes(
                f"the MCP server takes {what} for an access token",
                evidence=seen.exchange,
                expected="401",
                got=seen.exchange.summary,
                counterexample=f"{what} as bearer token",
            )
    if not any(seen.refused for _, seen in judged):
        raise Inconclusive("whether they were refused is not clear")


@requirement("REF-006")
def test_bad_refresh_tokens_are_refused_cleanly(authorization_server: AuthorizationServer, space: Space) -> None:
    """RFC 6749 §5.2: 400 invalid_grant, not to be cached."""
    server = authorization_server
    tokens = refreshable(server)

    def judge(value: str) -> None:
        exchange = server.refresh(tokens, refresh_token=value)
        if exchange.status >= 500 or exchange.status == 0 or issued_tokens(exchange):
            raise BadRefreshNotAnswered(
                "a bad refresh token is answered with a server error, or with a token",
                evidence=exchange,
                expected="400 invalid_grant",
                got=outcome_of(exchange),
                counterexample=f"refresh_token={value[:40]!r}, of {len(value)} characters",
            )
        is_clean = exchange.status == 400 and "no-store" in (exchange.header("cache-control") or "")
        if not is_clean or oauth_error(exchange) not in {"invalid_grant", "invalid_request"}:
            raise BadRefreshAnsweredOddly(
                "a bad refresh token is refused, and not as RFC 6749 §5.2 has it",
                evidence=exchange,
                expected="400 invalid_grant with Cache-Control: no-store",
                got=f"{outcome_of(exchange)}, Cache-Control: {exchange.header('cache-control') or 'absent'}",
                counterexample=f"refresh_token={value[:40]!r}, of {len(value)} characters",
            )

    altered = f"{tokens.refresh_token[:-1]}{'A' if tokens.refresh_token[-1] != 'A' else 'B'}"
    space.search(judge, st.text(max_size=60), classics=[*GARBAGE, altered], max_examples=10)
    refreshed(server, tokens)


@requirement("REF-007")
def test_an_ended_grant_gives_no_more_tokens(target: Target, authorization_server: AuthorizationServer) -> None:
    """OAuth 2.1 §4.3.3: a grant that ended because its code was used twice. Revocation on request is for TOK-016."""
    server = authorization_server
    refreshable(server)
    grant = server.grant()
    tokens = server.tokens(grant)
    if not target.present(f"Bearer {tokens.access_token}").authenticated:
        raise Inconclusive("the access token of a regular grant is not accepted")
    replay = server.redeem(grant)
    if issued_tokens(replay):
        raise Inconclusive("a code works more than once (see PKCE-007), so no grant has ended")
    seen = target.present(f"Bearer {tokens.access_token}")
    after = server.refresh(tokens)
    if not issued_tokens(after):
        return
    if not seen.refused:
        raise NotApplicable("nothing that a client can do to itself ends a grant here (see PKCE-007)")
    raise RefreshOutlivesGrant(
        "a code was used twice, its access token is dead, and its refresh token goes on working",
        evidence=(replay, seen.exchange, after),
        expected="400 invalid_grant",
        got=outcome_of(after),
        counterexample="the code presented again, then a refresh",
    )
