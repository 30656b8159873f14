"""DPOP, at the authorization server: tokens are bound to the key that was proved, and stay so."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from hypothesis import strategies as st

from conformance_suites.code_redemption import issued_tokens, oauth_error, outcome_of
from pytest_mcp_conformance import Advice, Finding, Inconclusive, NotApplicable, requirement
from pytest_mcp_conformance.exchange import Exchange
from pytest_mcp_conformance.forge.dpop import ProofKey
from pytest_mcp_conformance.forge.jws import read_jws, unsigned
from pytest_mcp_conformance.grants import Grant, Registration
from pytest_mcp_conformance.oauth import AuthorizationServer
from pytest_mcp_conformance.possession import ALGORITHMS, Possession, algorithms, confirmed_key
from pytest_mcp_conformance.properties import Space

ELSEWHERE = "https://another-server.example/token"
HOUR_SECONDS = 3600
ERRORS = frozenset({"invalid_dpop_proof", "use_dpop_nonce"})


class AlgorithmsNotAList(Finding):
    """The metadata speaks of algorithms for proofs, and lists none."""


class OfferedWithoutSignature(Finding):
    """The metadata lists none or a symmetric algorithm for proofs."""


class TokenTypeNotDpop(Finding):
    """A token that was asked for with a proof is not of the type DPoP."""


class TokenNotBound(Finding):
    """A token that was asked for with a proof is not bound to its key."""


class BadProofBringsToken(Finding):
    """A token was issued on a bad proof."""


class BadProofAnsweredOddly(Advice):
    """A bad proof is refused, and not as invalid_dpop_proof."""


class RefreshedWithoutProof(Finding):
    """A bound refresh token of a public client serves without a proof."""


class RefreshedByAnotherKey(Finding):
    """A bound refresh token of a public client serves with a proof of another key."""


class CodeRedeemedByAnotherKey(Finding):
    """A code that was asked for with dpop_jkt serves with a proof of another key."""


class CodeRedeemedWithoutProof(Finding):
    """A code that was asked for with dpop_jkt serves without a proof."""


class BoundClientGetsBearer(Finding):
    """A client that registered for bound tokens was given a bearer token."""


class Codes:
    """Wrong redemptions of codes that `key` redeems: all on one code where a failure leaves it good, else each on its
    own. Which it is shows after the first.
    """

    def __init__(self, possession: Possession, key: ProofKey, obtain: Callable[[], Grant]) -> None:
        self._possession = possession
        self._key = key
        self._server = possession.server()
        self._obtain = obtain
        self._grant: Grant | None = None

    def attempt(self, redeem: Callable[[Grant], Exchange]) -> Exchange:
        """What comes of one wrong redemption.

        Raises:
            Inconclusive: nor does a regular one succeed.
        """
        server, grant = self._server, self._grant or self._obtain()
        exchange = redeem(grant)
        self._grant = None if issued_tokens(exchange) or server.codes_survive is False else grant
        if self._grant is not None and server.codes_survive is None:
            server.codes_survive = issued_tokens(self._possession.redeem(self._key, grant))
            self._grant = None
            if not server.codes_survive:
                self.prove()
        return exchange

    def prove(self) -> Exchange:
        """The positive control: the regular redemption of the code that was attempted on, else of another.

        Raises:
            Inconclusive: it fails.
        """
        grant, self._grant = self._grant or self._obtain(), None
        exchange = self._possession.redeem(self._key, grant)
        if not issued_tokens(exchange):
            raise Inconclusive(f"a regular redemption with a proof did not succeed: {outcome_of(exchange)}")
        return exchange


def _client(server: AuthorizationServer) -> Registration:
    """The public client of the run."""
    if server.client.client_secret:
        raise NotApplicable("the authorization server registers no public clients")
    return server.client


@requirement("DPOP-014")
def test_asymmetric_algorithms_are_offered(possession: Possession) -> None:
    """RFC 9449 §5.1."""
    server = possession.server()
    offered = algorithms(server.metadata)
    if not offered:
        raise AlgorithmsNotAList(
            f"{ALGORITHMS} is no list of algorithms",
            evidence=server.document.exchange,
            expected="a list",
            got=type(server.metadata[ALGORITHMS]).__name__,
        )
    wrong = [one for one in offered if one.lower() == "none" or one.upper().startswith("HS")]
    if wrong:
        raise OfferedWithoutSignature(
            "the metadata lists an algorithm for proofs that shows nothing",
            evidence=server.document.exchange,
            expected="asymmetric algorithms alone",
            got=" ".join(wrong),
        )


@requirement("DPOP-014")
def test_tokens_are_bound_to_the_proof(possession: Possession, space: Space) -> None:
    """RFC 9449 §5, §6.1: token_type DPoP, cnf.jkt; and §4.3 for proofs that are bad."""
    server, key = possession.server(), ProofKey()
    codes, defects = Codes(possession, key, server.grant), _defects(possession)
    _judge_bound(codes.prove(), key)

    def judge(what: str) -> None:
        exchange = codes.attempt(lambda grant: possession.redeem(key, grant, **defects[what]))
        if issued_tokens(exchange):
            raise BadProofBringsToken(
                "a token was issued on a bad proof",
                evidence=exchange,
                expected="400 invalid_dpop_proof",
                got=outcome_of(exchange),
                counterexample=what,
            )
        if exchange.status == 400 and oauth_error(exchange) not in ERRORS:
            raise BadProofAnsweredOddly(
                "a bad proof is refused, and not as invalid_dpop_proof",
                evidence=exchange,
                expected="400 invalid_dpop_proof",
                got=outcome_of(exchange),
                counterexample=what,
            )

    space.search(judge, st.sampled_from(sorted(defects)), classics=defects, max_examples=1)
    codes.prove()


def _judge_bound(exchange: Exchange, key: ProofKey) -> None:
    members = exchange.json()
    if str(members.get("token_type", "")).lower() != "dpop":
        raise TokenTypeNotDpop(
            "a token that was asked for with a proof is not of the type DPoP",
            evidence=exchange,
            expected="token_type DPoP",
            got=f"token_type {members.get('token_type')!r}",
        )
    token = str(members["access_token"])
    if read_jws(token) is not None and confirmed_key(token) != key.thumbprint:
        raise TokenNotBound(
            "a token that was asked for with a proof is not bound to its key",
            evidence=exchange,
            expected="cnf.jkt with the thumbprint of the key",
            got="no cnf.jkt" if confirmed_key(token) is None else "another thumbprint",
        )


def _defects(possession: Possession) -> Mapping[str, Mapping[str, Any]]:
    """What `Possession.redeem` is told to make a proof bad in one way."""
    stranger, old = ProofKey(), int(time.time()) - HOUR_SECONDS
    return {
        "htu of another address": {"claims": {"htu": ELSEWHERE}},
        "htu of the resource": {"claims": {"htu": possession.target.url}},
        "htm GET": {"claims": {"htm": "GET"}},
        "iat an hour ago": {"claims": {"iat": old}},
        "no jti": {"claims": {"jti": None}},
        "typ JWT": {"header": {"typ": "JWT"}},
        "alg none": {"header": {"alg": "none"}, "sign": unsigned},
        "a signature of another key": {"sign": stranger.sign},
    }


@requirement("DPOP-015")
def test_refresh_tokens_stay_bound(possession: Possession) -> None:
    """RFC 9449 §5: those of public clients are bound to the key."""
    server, key = possession.server(), ProofKey()
    client = _client(server)
    tokens = server.tokens_from(possession.redeem(key, server.grant(client)), client)
    if not tokens.refresh_token:
        raise NotApplicable("the authorization server issues no refresh tokens")
    bare = server.refresh(tokens)
    if issued_tokens(bare):
        raise RefreshedWithoutProof(
            "a bound refresh token serves without a proof",
            evidence=(tokens.exchange, bare),
            expected="400 invalid_dpop_proof or invalid_grant",
            got=outcome_of(bare),
        )
    foreign = possession.refresh(ProofKey(), tokens)
    if issued_tokens(foreign):
        raise RefreshedByAnotherKey(
            "a bound refresh token serves with a proof of another key",
            evidence=(tokens.exchange, foreign),
            expected="400 invalid_grant",
            got=outcome_of(foreign),
        )
    regular = possession.refresh(key, tokens)
    if not issued_tokens(regular):
        raise Inconclusive(f"a regular refresh, after two that were refused, did not succeed: {outcome_of(regular)}")


@requirement("DPOP-015")
def test_codes_are_bound_by_dpop_jkt(possession: Possession) -> None:
    """RFC 9449 §10."""
    server, key, stranger = possession.server(), ProofKey(), ProofKey()
    codes = Codes(possession, key, lambda: server.grant(dpop_jkt=key.thumbprint))
    foreign = codes.attempt(lambda grant: possession.redeem(stranger, grant))
    if issued_tokens(foreign):
        raise CodeRedeemedByAnotherKey(
            "a code that was asked for with dpop_jkt was redeemed with a proof of another key",
            evidence=foreign,
            expected="400 invalid_grant or invalid_dpop_proof",
            got=outcome_of(foreign),
        )
    bare = codes.attempt(server.redeem)
    if issued_tokens(bare):
        raise CodeRedeemedWithoutProof(
            "a code that was asked for with dpop_jkt was redeemed without a proof",
            evidence=bare,
            expected="400 invalid_grant or invalid_dpop_proof",
            got=outcome_of(bare),
        )
    codes.prove()


@requirement("DPOP-015")
def test_clients_that_want_bound_tokens_get_no_others(possession: Possession) -> None:
    """RFC 9449 §5.2: dpop_bound_access_tokens, where the server registers it."""
    server = possession.server()
    client = server.register(dpop_bound_access_tokens=True)
    if client.members.get("dpop_bound_access_tokens") is not True:
        raise NotApplicable("the authorization server registers no dpop_bound_access_tokens")
    codes = Codes(possession, ProofKey(), lambda: server.grant(client))
    bare = codes.attempt(server.redeem)
    if issued_tokens(bare):
        raise BoundClientGetsBearer(
            "a client that registered for bound tokens was given a bearer token",
            evidence=(*((client.exchange,) if client.exchange else ()), bare),
            expected="400 invalid_dpop_proof",
            got=outcome_of(bare),
        )
    codes.prove()
