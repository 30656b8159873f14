"""DPOP, what the resource says of proofs: nonces, challenges, metadata; and that a proof replaces no other check."""

from __future__ import annotations

import re
from collections.abc import Mapping

from hypothesis import strategies as st

from conformance_suites.neighbours import neighbour_tokens
from conformance_suites.proofs import attempts
from pytest_mcp_conformance import Advice, Finding, Inconclusive, NotApplicable, NotRun, requirement
from pytest_mcp_conformance.bench import Bench
from pytest_mcp_conformance.challenges import Challenge
from pytest_mcp_conformance.exchange import Exchange
from pytest_mcp_conformance.failures import Judgement
from pytest_mcp_conformance.forge.dpop import ProofKey
from pytest_mcp_conformance.forge.jws import new_rsa_key
from pytest_mcp_conformance.possession import (
    REQUIRED,
    BoundToken,
    Possession,
    algorithms,
    confirmed_key,
    dpop_challenge,
    wants_nonce,
)
from pytest_mcp_conformance.properties import Space
from pytest_mcp_conformance.target import Target

FOREIGN = "https://another-server.example/mcp"
ASYMMETRIC = re.compile(r"(?:ES|PS|RS)\d{3}K?|EdDSA|Ed25519|Ed448|ML-DSA-\d+")
CACHED = re.compile(r"\bno-store\b|\bprivate\b|\bno-cache\b", re.IGNORECASE)


class NonceChallengeNot401(Finding):
    """A proof without a nonce is refused with another status than 401."""


class NonceNotHandedOut(Finding):
    """A nonce is asked for, and none is handed out."""


class NonceChallengeCached(Advice):
    """The response that hands out a nonce may be stored."""


class ForeignNonceAccepted(Finding):
    """A proof was accepted with a nonce that the server never made."""


class ForeignNonceNotChallenged(Finding):
    """A proof with another nonce is refused, and the client is not told to use one of the server's."""


class ChallengeWithoutAlgorithms(Finding):
    """A DPoP challenge does not say which algorithms work."""


class ChallengeOffersNoSignature(Finding):
    """A DPoP challenge offers an algorithm that is not an asymmetric one."""


class ErrorInAnotherChallenge(Finding):
    """The challenge of a scheme that the client did not use holds an error."""


class BearerServedThoughProofsAreRequired(Finding):
    """The metadata requires bound tokens, and a plain bearer token is served."""


class ListedAlgorithmRefused(Finding):
    """A good proof by an algorithm that the metadata lists is refused."""


class MetadataOffersNoSignature(Finding):
    """The metadata lists an algorithm for proofs that is not an asymmetric one."""


class BoundTokenOfAnotherAudienceServed(Finding):
    """A bound token that is meant for another resource was served, with a good proof."""


@requirement("DPOP-011")
def test_nonces_are_asked_for_and_then_work(possession: Possession, space: Space) -> None:
    """RFC 9449 §8.2, §9."""
    with attempts(possession) as attempt:
        asked = _asked_for(possession)
        handed_out = asked.header("dpop-nonce") or ""
        _judge_asking(asked)

        def judge(nonce: str) -> None:
            seen = attempt.made(possession.proved(claims={"nonce": nonce}))
            if seen.authenticated:
                raise ForeignNonceAccepted(
                    "a proof was accepted with a nonce that the server never made",
                    evidence=seen.exchange,
                    expected="401 use_dpop_nonce",
                    got=seen.exchange.summary,
                    counterexample=f"a nonce of {len(nonce)} characters",
                )
            if not wants_nonce(seen.exchange):
                raise ForeignNonceNotChallenged(
                    "a proof with another nonce is refused without being told to use one of the server's",
                    evidence=seen.exchange,
                    expected="401 use_dpop_nonce",
                    got=seen.exchange.summary,
                    counterexample=f"a nonce of {len(nonce)} characters",
                )

        swapped = handed_out[:-2] + ("AA" if handed_out[-2:] != "AA" else "BB")
        made_up = st.text("abcdefghijklmnopqrstuvwxyz0123456789-_", min_size=1, max_size=43)
        space.search(judge, made_up, classics=(swapped, handed_out.swapcase(), "conformance"), max_examples=1)


def _asked_for(possession: Possession) -> Exchange:
    """The answer to a proof without a nonce.

    Raises:
        NotApplicable: it is served. Inconclusive: it is refused for something else.
    """
    bare = possession.target.harmless().adding(*possession.proved(claims={"nonce": None})())
    seen = possession.judged(possession.target.send(bare))
    if seen.authenticated:
        raise NotApplicable("the server asks for no nonce: a proof without one is served")
    if not wants_nonce(seen.exchange):
        raise Inconclusive(f"a proof without a nonce is not served, nor is one asked for: {seen.exchange.summary}")
    return seen.exchange


def _judge_asking(exchange: Exchange) -> None:
    if exchange.status != 401:
        raise NonceChallengeNot401(
            "a proof without a nonce is refused with another status than 401",
            evidence=exchange,
            expected="401 use_dpop_nonce",
            got=exchange.summary,
        )
    if len(exchange.header_lines("dpop-nonce")) != 1:
        raise NonceNotHandedOut(
            "a nonce is asked for, and not exactly one is handed out",
            evidence=exchange,
            expected="one DPoP-Nonce field",
            got=f"{len(exchange.header_lines('dpop-nonce'))} of them",
        )
    if not CACHED.search(exchange.header("cache-control") or ""):
        raise NonceChallengeCached(
            "the response that hands out a nonce may be stored, and the nonce then serves somebody else",
            evidence=exchange,
            expected="Cache-Control: no-store",
            got=exchange.header("cache-control") or "no Cache-Control",
        )


@requirement("DPOP-012")
def test_challenges_say_which_algorithms_work(target: Target) -> None:
    """RFC 9449 §7.1: algs, a list of asymmetric algorithms."""
    refusal = target.require_protected()
    challenge = _offered(refusal)
    offered = challenge.parameters.get("algs", "").split()
    if not offered:
        raise ChallengeWithoutAlgorithms(
            "the DPoP challenge does not say which algorithms work",
            evidence=refusal,
            expected="a parameter algs",
            got=", ".join(challenge.parameters) or "no parameters",
        )
    wrong = [one for one in offered if not ASYMMETRIC.fullmatch(one)]
    if wrong:
        raise ChallengeOffersNoSignature(
            "the DPoP challenge offers an algorithm that is not an asymmetric one",
            evidence=refusal,
            expected="asymmetric algorithms alone",
            got=" ".join(wrong),
        )


def _offered(refusal: Exchange) -> Challenge:
    """The challenge of the DPoP scheme. Raises: NotApplicable when there is none."""
    challenge = dpop_challenge(refusal)
    if challenge is None:
        raise NotApplicable("the server sends no challenge of the DPoP scheme")
    return challenge


@requirement("DPOP-012")
def test_errors_are_of_the_scheme_that_was_used(target: Target) -> None:
    """RFC 9449 §7.2: none before anything was sent, and then in the challenge of that scheme alone."""
    refusal = target.require_protected()
    _offered(refusal)
    if refusal.bearer() is None:
        raise NotApplicable("the server offers the DPoP scheme alone")
    sent = {"": refusal} | {
        scheme: target.send(target.harmless().adding(("Authorization", f"{scheme} conformance"), *fields))
        for scheme, fields in {"Bearer": (), "DPoP": (("DPoP", "conformance"),)}.items()
    }
    for used, exchange in sent.items():
        for other in {"Bearer": exchange.bearer(), "DPoP": dpop_challenge(exchange)}.items():
            _judge_place(exchange, used, *other)


def _judge_place(exchange: Exchange, used: str, scheme: str, challenge: Challenge | None) -> None:
    both = exchange.bearer() is not None and dpop_challenge(exchange) is not None
    if both and challenge is not None and scheme != used and "error" in challenge.parameters:
        raise ErrorInAnotherChallenge(
            "an error is in the challenge of a scheme that the client did not use",
            evidence=exchange,
            expected=f"an error in the {used} challenge alone" if used else "no error",
            got=f"error={challenge.parameters['error']!r} in the {scheme} challenge",
            counterexample=f"credentials of the {used} scheme" if used else "no credentials",
        )


@requirement("DPOP-013")
def test_the_metadata_is_true(target: Target, possession: Possession) -> None:
    """RFC 9728 §2: proofs are required where it says so, and each algorithm it lists works.

    Of the algorithms, RS256 is tried beside the ES256 of all other checks, where a token for such a key can be had.
    """
    members = target.discovery.resource_document().members
    offered = algorithms(members)
    if not offered and members.get(REQUIRED) is not True:
        raise NotApplicable("the resource's metadata does not speak of DPoP")
    wrong = [one for one in offered if not ASYMMETRIC.fullmatch(one)]
    if wrong:
        raise MetadataOffersNoSignature(
            "the metadata lists an algorithm for proofs that is not an asymmetric one",
            evidence=target.discovery.resource_document().exchange,
            expected="asymmetric algorithms alone",
            got=" ".join(wrong),
        )
    if members.get(REQUIRED) is True:
        _judge_plain(target)
    if "RS256" in offered:
        _judge_rsa(possession)


def _judge_plain(target: Target) -> None:
    credential = target.credential
    if credential is None or confirmed_key(credential.token) is not None:
        raise NotRun("no plain bearer token is at hand, to see whether one is refused")
    seen = target.present(f"Bearer {credential.token}")
    if seen.authenticated:
        raise BearerServedThoughProofsAreRequired(
            f"the metadata says {REQUIRED}, and a plain bearer token is served",
            evidence=seen.exchange,
            expected="401",
            got=seen.exchange.summary,
        )


def _judge_rsa(possession: Possession) -> None:
    with possession.controlled():
        try:
            bound = possession.obtain(ProofKey(new_rsa_key()))
        except Judgement:
            return
        seen = possession.present(possession.proved(bound))
        if seen.refused:
            raise ListedAlgorithmRefused(
                "a good proof is refused by an algorithm that the metadata lists",
                evidence=seen.exchange,
                expected="the proof is accepted",
                got=seen.exchange.summary,
                counterexample="RS256",
            )


@requirement("DPOP-013")
def test_a_proof_does_not_replace_the_audience(bench: Bench, possession: Possession) -> None:
    """RFC 9449 §6: a token that is bound is still meant for somebody: minted for another, else granted for one."""
    others = _of_others(bench, possession)
    with attempts(possession) as attempt:
        for what, bound in others.items():
            served = attempt.served(possession.proved(bound))
            if served is not None:
                raise BoundTokenOfAnotherAudienceServed(
                    "a bound token that is meant for another resource was served",
                    evidence=served,
                    expected="401",
                    got=served.summary,
                    counterexample=what,
                )


def _of_others(bench: Bench, possession: Possession) -> Mapping[str, BoundToken]:
    """Bound tokens for other resources; not for the target's other transport, where the same tokens may count.

    Raises:
        NotRun: there are none to be had.
    """
    key = possession.bound.key
    if bench.mint.available:
        text = possession.mint({"cnf": {"jkt": key.thumbprint}, "aud": FOREIGN})
        return {f"aud {FOREIGN}": BoundToken(text, key)}
    resource = next((one.resource for one in neighbour_tokens(bench) if not one.same_server), "")
    if not resource:
        raise NotRun("no bound token for another resource can be had: it takes a minting command, or another resource")
    server = possession.server()
    grant = server.grant(resource=resource)
    tokens = server.tokens_from(possession.redeem(key, grant), grant.registration)
    return {f"a token granted for {resource}": BoundToken(tokens.access_token, key, tokens)}
