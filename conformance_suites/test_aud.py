"""AUD, at the resource server: tokens for others, and tokens of other kinds."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

from hypothesis import strategies as st

from conformance_suites.minted import Orders
from conformance_suites.neighbours import neighbour_tokens, own_identifier
from pytest_mcp_conformance import Finding, Inconclusive, NotRun, requirement
from pytest_mcp_conformance.bench import Bench
from pytest_mcp_conformance.credentials import Credential
from pytest_mcp_conformance.exchange import Exchange
from pytest_mcp_conformance.failures import Judgement
from pytest_mcp_conformance.forge.jws import read_jws
from pytest_mcp_conformance.minting import Mint
from pytest_mcp_conformance.oauth import AuthorizationServer
from pytest_mcp_conformance.properties import Space
from pytest_mcp_conformance.strategies.uris import same_uris, uri_classics, uri_neighbours
from pytest_mcp_conformance.target import Presentation, Target

FOREIGN = "https://another-server.example/mcp"


class ForeignAudienceAccepted(Finding):
    """A token made for another resource is authenticated."""


class MissingAudienceAccepted(Finding):
    """A token that names no audience is authenticated."""


class OddAudienceAccepted(Finding):
    """A token whose aud does not hold the server is authenticated."""


class AudienceListRefused(Finding):
    """A token whose aud is a list that holds the server is refused."""


class ResemblingAudienceAccepted(Finding):
    """A token whose aud resembles the server's identifier is authenticated."""


class CapitalsNotUnderstood(Finding):
    """A token asked for with scheme and host in capitals is not issued, or does not work."""


class NeighboursTokenAccepted(Finding):
    """A token of a neighbouring endpoint is authenticated."""


def minted_for(target: Target, orders: Orders, aud: object) -> Presentation:
    """Present a token with this aud."""
    return target.present(f"Bearer {orders.text({'aud': aud})}")


@requirement("AUD-001")
def test_a_token_for_another_resource_is_refused(target: Target, bench: Bench, alice: Credential) -> None:
    """MCP authorization, Token Handling: only tokens that were issued for this server."""
    target.require_protected()
    judged = 0
    with target.controlled(alice):
        for what, token in foreign_tokens(bench, alice):
            seen = target.present(f"Bearer {token}")
            judged += 1
            if seen.authenticated:
                raise ForeignAudienceAccepted(
                    "a token that was issued for another resource is authenticated",
                    evidence=seen.exchange,
                    expected="401 invalid_token",
                    got=seen.exchange.summary,
                    counterexample=what,
                )
    if not judged:
        raise NotRun("no token for another resource can be had: it takes a minting command or such a resource")


def foreign_tokens(bench: Bench, alice: Credential) -> Iterator[tuple[str, str]]:
    """Tokens of the trusted issuer for others: minted, else granted for a resource that does not concern the target."""
    if bench.mint.available and read_jws(alice.token) is not None:
        orders = Orders(bench.mint, alice)
        for aud in (
            FOREIGN,
            str(orders.pattern.claims.get("iss", "")),
            str(orders.pattern.claims.get("client_id", "")),
        ):
            if aud:
                yield f"aud {aud!r}", orders.text({"aud": aud})
        return
    try:
        server = bench.authorization_server()
        tokens = server.tokens(server.grant(resource=FOREIGN))
    except Judgement:
        tokens = None  # refused, as it should be; see AUD-011
    if tokens is not None and _is_for_another(tokens.access_token, bench.target):
        yield f"a token granted for the resource {FOREIGN}", tokens.access_token
    for neighbour in neighbour_tokens(bench):
        if not neighbour.same_server:
            yield f"a token granted for {neighbour.resource}", neighbour.token


def _is_for_another(token: str, target: Target) -> bool:
    """Whether a JWT leaves the target out of its aud. What an opaque one is for cannot be seen, and is not judged."""
    jws = read_jws(token)
    aud = None if jws is None else jws.claims.get("aud")
    named = [aud] if isinstance(aud, str) else aud if isinstance(aud, list) else []
    return bool(named) and not {own_identifier(target), target.url} & {str(one) for one in named}


@requirement("AUD-006")
def test_neighbours_do_not_share_tokens(target: Target, bench: Bench, alice: Credential) -> None:
    """RFC 8707 §2: each endpoint is a resource of its own; the other transport of the same server aside."""
    target.require_protected()
    judged = 0
    with target.controlled(alice):
        for what, token in _of_neighbours(target, bench, alice):
            seen = target.present(f"Bearer {token}")
            judged += 1
            if seen.authenticated:
                raise NeighboursTokenAccepted(
                    "a token of a neighbouring endpoint is authenticated",
                    evidence=seen.exchange,
                    expected="401 invalid_token",
                    got=seen.exchange.summary,
                    counterexample=what,
                )
    if not judged:
        raise NotRun("no token of a neighbour can be had: it takes a minting command or another server beside this one")


def _of_neighbours(target: Target, bench: Bench, alice: Credential) -> Iterator[tuple[str, str]]:
    if bench.mint.available and read_jws(alice.token) is not None:
        orders = Orders(bench.mint, alice)
        origin = "{0.scheme}://{0.netloc}".format(urlsplit(own_identifier(target)))
        for aud in (f"{origin}/conformance-check", f"{origin}/conformance-check/mcp"):
            yield f"aud {aud!r}", orders.text({"aud": aud})
        return
    for neighbour in neighbour_tokens(bench):
        if not neighbour.same_server:
            yield f"a token granted for {neighbour.resource}", neighbour.token


@requirement("AUD-002")
def test_a_token_without_audience_is_refused(target: Target, alice: Credential, mint: Mint) -> None:
    """RFC 9068 §4: aud must name the resource server."""
    target.require_protected()
    jws = read_jws(alice.token)
    if jws is not None and "aud" not in jws.claims:
        exchange = target.control(alice, "as issued, without aud,")
        _raise_missing(exchange, "the token as it was issued")
    orders = Orders(mint, alice)
    with target.controlled(orders.good()):
        for what, token in (("no aud", orders.text(without=("aud",))), ("aud null", orders.text({"aud": None}))):
            seen = target.present(f"Bearer {token}")
            if seen.authenticated:
                _raise_missing(seen.exchange, what)


def _raise_missing(exchange: Exchange, what: str) -> None:
    raise MissingAudienceAccepted(
        "a token that does not say whom it is for is authenticated",
        evidence=exchange,
        expected="401 invalid_token",
        got=exchange.summary,
        counterexample=what,
    )


def odd_audiences(own: str) -> list[object]:
    """Values of aud that do not hold the server as a member of their own."""
    return [
        [],
        "",
        [FOREIGN],
        [f"{own}.{urlsplit(FOREIGN).netloc}", FOREIGN],
        [f"{FOREIGN},{own}"],
        f"{FOREIGN} {own}",
        f"{FOREIGN},{own}",
        [[own]],
        [{"aud": own}],
        {own: own},
        {"aud": own},
        1,
        True,
        [None],
        [own[:-1], f"{own}/x"],
    ]


@requirement("AUD-003")
def test_aud_is_a_set_and_membership_is_exact(target: Target, alice: Credential, mint: Mint, space: Space) -> None:
    """RFC 7519 §4.1.3: a string, or an array of strings."""
    target.require_protected()
    orders, own = Orders(mint, alice), own_identifier(target)

    def judge(aud: object) -> None:
        seen = minted_for(target, orders, aud)
        if seen.authenticated:
            raise OddAudienceAccepted(
                "a token whose aud does not hold the server is authenticated",
                evidence=seen.exchange,
                expected="401 invalid_token",
                got=seen.exchange.summary,
                counterexample=f"aud {aud!r}",
            )

    lists = st.lists(st.one_of(uri_neighbours(own), st.just(FOREIGN)), max_size=5)
    strangers = lists.filter(lambda audiences: not _forgivable(own) & set(audiences))
    with target.controlled(orders.good()):
        for aud in (own, [own], [FOREIGN, own], [own, FOREIGN]):
            seen = minted_for(target, orders, aud)
            if seen.refused:
                raise AudienceListRefused(
                    "a token whose aud holds the server is refused",
                    evidence=seen.exchange,
                    expected="the answer a good token gets",
                    got=seen.exchange.summary,
                    counterexample=f"aud {aud!r}",
                )
        space.search(judge, strangers, classics=odd_audiences(own), max_examples=4)


def _forgivable(own: str) -> frozenset[str]:
    """Spellings that may pass for the identifier: capitals of scheme and host, the default port, a final slash."""
    slashed = own.removesuffix("/") if own.endswith("/") else f"{own}/"
    return same_uris(own) | same_uris(slashed)


@requirement("AUD-004")
def test_a_resembling_audience_is_refused(target: Target, alice: Credential, mint: Mint, space: Space) -> None:
    """RFC 3986 §6.2.1: simple string comparison."""
    target.require_protected()
    orders, own = Orders(mint, alice), own_identifier(target)
    forgivable = _forgivable(own)

    def judge(aud: str) -> None:
        seen = minted_for(target, orders, aud)
        if seen.authenticated:
            raise ResemblingAudienceAccepted(
                "a token whose aud only resembles the server's identifier is authenticated",
                evidence=seen.exchange,
                expected="401 invalid_token",
                got=seen.exchange.summary,
                counterexample=f"aud {aud!r}",
            )

    drawn = uri_neighbours(own).filter(lambda aud: aud not in forgivable)
    classics = [aud for aud in uri_classics(own) if aud not in forgivable]
    with target.controlled(orders.good()):
        space.search(judge, drawn, classics=classics, max_examples=8)


@requirement("AUD-005")
def test_scheme_and_host_may_be_written_in_capitals(target: Target, authorization_server: AuthorizationServer) -> None:
    """MCP authorization, Canonical Server URI: accept uppercase scheme and host for robustness."""
    target.require_protected()
    server = authorization_server
    parts = urlsplit(server.resource)
    spelled = f"{parts.scheme.upper()}://{parts.netloc.upper()}" + server.resource.partition(parts.netloc)[2]
    server.tokens()  # the regular flow works
    try:
        tokens = server.tokens(server.grant(resource=spelled))
    except Inconclusive as judgement:
        raise CapitalsNotUnderstood(
            "the resource with scheme and host in capitals is not understood",
            evidence=target.probe.cited[-1],
            expected="a token, as for the resource in small letters",
            got=judgement.reason,
            counterexample=f"resource={spelled}",
        ) from None
    exchange = target.send(target.harmless(), Credential("a", tokens.access_token))
    if not exchange.succeeded:
        raise CapitalsNotUnderstood(
            "a token that was asked for with scheme and host in capitals is refused",
            evidence=exchange,
            expected="the answer a good token gets",
            got=exchange.summary,
            counterexample=f"resource={spelled}",
        )
