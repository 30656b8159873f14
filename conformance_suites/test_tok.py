"""TOK: where the resource server reads a token, and how long it believes it."""

from __future__ import annotations

import secrets as randomness
import statistics
import threading
from collections.abc import Callable
from functools import partial
from urllib.parse import quote

from hypothesis import strategies as st

from conformance_suites.canary import listening
from conformance_suites.published_keys import pattern
from conformance_suites.revocation import FORM, revoke
from pytest_mcp_conformance import Advice, Finding, Inconclusive, requirement
from pytest_mcp_conformance.acceptance import Acceptance, judge, signature
from pytest_mcp_conformance.bench import Bench
from pytest_mcp_conformance.credentials import Credential
from pytest_mcp_conformance.declarations import Declarations
from pytest_mcp_conformance.exchange import Exchange, Request
from pytest_mcp_conformance.forge.jws import es256, new_ec_key
from pytest_mcp_conformance.oauth import AuthorizationServer
from pytest_mcp_conformance.properties import Space
from pytest_mcp_conformance.target import Target

BAD = "conformance-check.never.issued"
QUERY_NAMES = ("access_token", "token", "authorization", "bearer_token", "Authorization")
COOKIE_NAMES = ("access_token", "token", "session", "Authorization")
BURST = 6
WARM = 2
NOTICEABLE_SECONDS = 0.1
WAIT_SECONDS = 3.0
POLL_SECONDS = 0.25


class QueryTokenHonoured(Finding):
    """A token in the query is read."""


class CookieTokenHonoured(Finding):
    """A token in a cookie is read."""


class FormTokenHonoured(Finding):
    """A token in a form field is read although the metadata does not offer that."""


class SchemeCaseSensitive(Finding):
    """Bearer in another case is not understood."""


class OtherSchemeHonoured(Finding):
    """A scheme whose name only begins like Bearer is taken for it."""


class RevokedTokenAccepted(Finding):
    """A revoked token works longer than the operator declares."""


class RevocationWithoutEffect(Advice):
    """A revoked token goes on working for seconds, and no bound is declared."""


class FetchForEveryKey(Finding):
    """Each unknown kid makes its sender, and so anybody behind it, wait for a fetch."""


class StrangersIssuerFetched(Finding):
    """Something is fetched from an issuer that nobody trusts."""


class SharedCachesMayKeepIt(Finding):
    """The answer to an authorized request may be kept by a shared cache."""


def elsewhere(harmless: Request, query: str) -> Request:
    """The request with a query parameter more."""
    mark = "&" if "?" in harmless.url else "?"
    return Request(harmless.method, f"{harmless.url}{mark}{query}", harmless.headers, harmless.body)


@requirement("TOK-008")
def test_a_token_in_the_query_counts_for_nothing(target: Target, alice: Credential, space: Space) -> None:
    """OAuth 2.1 §5.1: clients must not, and servers do not, use the query for tokens."""
    target.require_protected()
    harmless = target.harmless()

    def judge_query(query: tuple[str, str]) -> None:
        name, value = query
        _judge_place(
            target,
            good,
            value,
            lambda text: target.send(elsewhere(harmless, f"{name}={quote(text, safe='')}")),
            QueryTokenHonoured,
            f"{name}=… in the query",
        )

    tokens = st.sampled_from([alice.token, f"Bearer {alice.token}"])
    drawn = st.tuples(st.sampled_from(["accessToken", "jwt", "api_key", "key", "auth", "bearer", "id_token"]), tokens)
    classics = [*((name, alice.token) for name in QUERY_NAMES), ("authorization", f"Bearer {alice.token}")]
    with target.controlled(alice) as good:
        space.search(judge_query, drawn, classics=classics, max_examples=2)


def _judge_place(
    target: Target, good: Exchange, value: str, send: Callable[[str], Exchange], kind: type[Finding], where: str
) -> None:
    """A place counts when a good token there is answered otherwise than none at all, and than nonsense there."""
    anonymous = target.anonymous(target.harmless())
    exchange = send(value)
    if signature(exchange) == signature(anonymous):
        return
    nonsense = send(BAD)
    if 0 in {exchange.status, nonsense.status} or exchange.status >= 500:
        raise Inconclusive(f"a token as {where} is answered {exchange.summary}, and nonsense {nonsense.summary}")
    honoured = judge(exchange, anonymous=anonymous, good=good) is Acceptance.AUTHENTICATED
    if honoured or signature(exchange) != signature(nonsense):
        raise kind(
            "a token is read from elsewhere than the Authorization field",
            evidence=(nonsense, exchange),
            expected=f"the answer that nonsense gets there: {nonsense.summary}",
            got=exchange.summary,
            counterexample=where,
        )


@requirement("TOK-009")
def test_tokens_in_cookies_and_forms_count_for_nothing(target: Target, alice: Credential) -> None:
    """OAuth 2.1 §5.1.2, §7.1.3.4. A form is tolerated where bearer_methods_supported offers it."""
    target.require_protected()
    offered = target.discovery.resource_document().members.get("bearer_methods_supported")
    with target.controlled(alice) as good:
        for name in COOKIE_NAMES:
            by_cookie = partial(_send_cookie, target, name)
            _judge_place(target, good, alice.token, by_cookie, CookieTokenHonoured, f"the cookie {name}")
        if not (isinstance(offered, list) and "body" in offered):
            by_form = partial(_send_form, target)
            _judge_place(target, good, alice.token, by_form, FormTokenHonoured, "the form field access_token")


def _send_cookie(target: Target, name: str, token: str) -> Exchange:
    return target.send(target.harmless(), None, ("Cookie", f"{name}={token}"))


def _send_form(target: Target, token: str) -> Exchange:
    headers = (("Content-Type", FORM), ("Accept", "application/json, text/event-stream"))
    return target.send(Request("POST", target.url, headers, f"access_token={quote(token, safe='')}".encode()))


@requirement("TOK-010")
def test_the_scheme_is_matched_whole_and_without_regard_to_case(
    target: Target, alice: Credential, space: Space
) -> None:
    """RFC 9110 §11.1: a case-insensitive token."""
    target.require_protected()

    def judge_case(scheme: str) -> None:
        seen = target.present(f"{scheme} {alice.token}")
        if not seen.authenticated:
            raise SchemeCaseSensitive(
                "a good token is refused because of the case of its scheme",
                evidence=seen.exchange,
                expected="the answer that Bearer gets",
                got=seen.exchange.summary,
                counterexample=scheme,
            )

    def judge_name(scheme: str) -> None:
        seen = target.present(f"{scheme} {alice.token}")
        if seen.authenticated:
            raise OtherSchemeHonoured(
                "a scheme that is not Bearer is taken for it",
                evidence=seen.exchange,
                expected="401",
                got=seen.exchange.summary,
                counterexample=scheme,
            )

    cases = st.tuples(*(st.sampled_from([c.lower(), c.upper()]) for c in "Bearer")).map("".join)
    letters = st.text(st.sampled_from("abrsxz019-_."), min_size=1, max_size=4)
    with target.controlled(alice):
        space.search(judge_case, cases, classics=["bearer", "BEARER", "BeArEr"], max_examples=2)
        classics = ["Bearerx", "Bearers", "Beare", "XBearer", "Bearer-Token"]
        space.search(judge_name, letters.map(lambda more: f"Bearer{more}"), classics=classics, max_examples=2)


@requirement("TOK-012")
def test_revocation_takes_effect(
    target: Target, authorization_server: AuthorizationServer, declared: Declarations
) -> None:
    """RFC 7009 §2, and the bound that the operator declares (revocation_seconds)."""
    endpoint = authorization_server.endpoint("revocation_endpoint")
    tokens = authorization_server.tokens()
    credential = Credential("a", tokens.access_token)
    target.control(credential, "before")
    revoked = revoke(target, endpoint, tokens)
    if not revoked.succeeded:
        raise Inconclusive(f"the token could not be revoked: {revoked.summary}")
    bound = declared.revocation_seconds
    exchange = _until_refused(target, credential, WAIT_SECONDS if bound is None else bound)
    if exchange.succeeded:
        kind = RevocationWithoutEffect if bound is None else RevokedTokenAccepted
        raise kind(
            "a revoked token goes on working",
            evidence=(revoked, exchange),
            expected=f"401 within {WAIT_SECONDS if bound is None else bound:g} seconds",
            got=exchange.summary,
        )


def _until_refused(target: Target, credential: Credential, seconds: float) -> Exchange:
    pause = threading.Event()
    exchange = target.send(target.harmless(), credential)
    for _ in range(int(seconds / POLL_SECONDS)):
        if not exchange.succeeded:
            break
        pause.wait(POLL_SECONDS)
        exchange = target.send(target.harmless(), credential)
    return exchange


@requirement("TOK-013")
def test_unknown_keys_and_issuers_set_off_no_fetches(target: Target, bench: Bench) -> None:
    """RFC 8725 §3.10. The first unknown kid may be worth a fetch; the next ones within a minute are not."""
    target.require_protected()
    jws, sign = pattern(bench, target.credential or Credential("a", "")), es256(new_ec_key())

    def burst(kids: list[str]) -> list[Exchange]:
        tokens = [jws.resign(sign, header={"alg": "ES256", "kid": kid}) for kid in kids]
        return [target.send(target.harmless(), None, ("Authorization", f"Bearer {token}")) for token in tokens]

    known = str(jws.header.get("kid", "conformance-check"))
    usual = [exchange.elapsed_seconds for exchange in burst([known] * (WARM + 2))[WARM:]]

    answers = burst([f"conformance-check-{randomness.token_hex(4)}" for _ in range(BURST)])[WARM:]
    fastest = min(exchange.elapsed_seconds for exchange in answers)
    if fastest > max(usual) + NOTICEABLE_SECONDS:
        raise FetchForEveryKey(
            "every token with an unknown kid takes long, as if the key set were fetched anew",
            evidence=answers[-1],
            expected=f"about {statistics.median(usual) * 1000:.0f} ms, as for other bad tokens",
            got=f"{fastest * 1000:.0f} ms at least, {BURST - WARM} times in a row",
            counterexample="a new kid in each token",
        )
    with listening(reachable=target.settings.is_local) as canary:
        token = jws.resign(es256(canary.key), header={"alg": "ES256", "kid": "x"}, claims={"iss": canary.origin})
        exchange = target.send(target.harmless(), None, ("Authorization", f"Bearer {token}"))
        if canary.fetched:
            raise StrangersIssuerFetched(
                "something is fetched from the issuer that a forged token names",
                evidence=exchange,
                expected="no request",
                got=f"GET {canary.fetched[0]}",
            )


@requirement("TOK-024")
def test_shared_caches_keep_no_authorized_answer(target: Target, alice: Credential) -> None:
    """RFC 9111 §3.5: public and s-maxage permit a shared cache to keep what only one user may see."""
    target.require_protected()
    for era in target.eras:
        exchange = target.control(alice, f"of the {era} era before", target.harmless(era))
        words = {word.partition("=")[0].strip().lower() for word in _cache_control(exchange).split(",")}
        if words & {"public", "s-maxage"} or not words & {"no-store", "private"}:
            raise SharedCachesMayKeepIt(
                f"the answer to an authorized request of the {era} era may be kept by a shared cache",
                evidence=exchange,
                expected="Cache-Control: no-store, or private",
                got=f"Cache-Control: {_cache_control(exchange) or 'absent'}",
            )


def _cache_control(exchange: Exchange) -> str:
    return ",".join(exchange.header_lines("cache-control"))
