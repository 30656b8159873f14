"""DPOP, the proof itself: there is one, it is well-formed, and it is signed by the key of its token."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from hypothesis import strategies as st

from conformance_suites.proofs import attempts
from pytest_mcp_conformance import Advice, Finding, mcp, requirement
from pytest_mcp_conformance.exchange import Exchange, Header, Request
from pytest_mcp_conformance.forge.dpop import ProofKey
from pytest_mcp_conformance.forge.jws import b64url, dump, hs256, unsigned
from pytest_mcp_conformance.mcp import Era
from pytest_mcp_conformance.possession import MakeHeaders, Possession, dpop_challenge
from pytest_mcp_conformance.properties import Space
from pytest_mcp_conformance.strategies.proofs import bent_claims, no_proofs

ERRORS = frozenset({"invalid_dpop_proof", "invalid_token", "use_dpop_nonce"})
AN_HOUR_SECONDS = 3600
ELSEWHERE = "https://another-server.example/mcp"


class ProofNotAsked(Finding):
    """A bound token was served without a proof, or with an empty one."""


class BadProofNot401(Finding):
    """A bad proof is answered with another status than 401."""


class BadProofWithoutDpopChallenge(Finding):
    """A bad proof is answered without a challenge of the DPoP scheme."""


class BadProofWithoutError(Advice):
    """The challenge after a bad proof names none of the errors for one."""


class BoundTokenServesAsBearer(Finding):
    """A bound token was served as a bearer token."""


class SeveralProofsAccepted(Finding):
    """A request was served that has several proofs."""


class NoProofAccepted(Finding):
    """A request was served whose DPoP field holds no proof."""


class IncompleteProofAccepted(Finding):
    """A proof was accepted that lacks a member, or has one of another type."""


class ForgedProofAccepted(Finding):
    """A proof was accepted whose signature does not show that the sender has the key."""


class PrivateKeyAccepted(Finding):
    """A proof was accepted that gives its private key away."""


class ForeignKeyAccepted(Finding):
    """A proof was accepted by another key than the token is bound to."""


class ForeignKeyInSession(Finding):
    """A proof by another key was accepted within a session that the right key opened."""


@requirement("DPOP-001")
def test_a_bound_token_needs_a_proof(possession: Possession) -> None:
    """RFC 9449 §7.1."""
    token = possession.authorization(possession.bound)
    ways: Mapping[str, MakeHeaders] = {
        "no DPoP field": lambda: (token,),
        "an empty DPoP field": lambda: (token, ("DPoP", "")),
    }
    with attempts(possession) as attempt:
        for what, make in ways.items():
            served = attempt.served(make)
            if served is not None:
                raise ProofNotAsked(
                    "a bound token was served without a proof",
                    evidence=served,
                    expected="401",
                    got=served.summary,
                    counterexample=what,
                )


@requirement("DPOP-001")
def test_bad_proofs_are_challenged(possession: Possession) -> None:
    """RFC 9449 §7.1: 401, with a challenge of the DPoP scheme that names the error."""
    bad: Mapping[str, MakeHeaders] = {
        "no proof": lambda: (possession.authorization(),),
        "a proof for another address": possession.proved(claims={"htu": ELSEWHERE}),
        "a proof an hour old": possession.proved(claims={"iat": int(time.time()) - AN_HOUR_SECONDS}),
        "a proof by another key": possession.proved(key=ProofKey()),
        "text that is no proof": lambda: (possession.authorization(), ("DPoP", "conformance")),
    }
    with possession.controlled():
        for what, make in bad.items():
            seen = possession.present(make)
            if seen.refused:
                _judge_challenge(seen.exchange, what)


def _judge_challenge(exchange: Exchange, what: str) -> None:
    challenge = dpop_challenge(exchange)
    if exchange.status != 401:
        raise BadProofNot401(
            "a bad proof is refused with another status than 401",
            evidence=exchange,
            expected="401",
            got=exchange.summary,
            counterexample=what,
        )
    if challenge is None:
        raise BadProofWithoutDpopChallenge(
            "a bad proof is refused without a challenge of the DPoP scheme",
            evidence=exchange,
            expected="WWW-Authenticate: DPoP",
            got=", ".join(exchange.header_lines("www-authenticate")) or "no challenge",
            counterexample=what,
        )
    if challenge.parameters.get("error") not in ERRORS:
        raise BadProofWithoutError(
            "the challenge after a bad proof does not say that the proof or the token was bad",
            evidence=exchange,
            expected='error="invalid_dpop_proof" or "invalid_token"',
            got=f"error={challenge.parameters.get('error')!r}",
            counterexample=what,
        )


@requirement("DPOP-002")
def test_a_bound_token_is_no_bearer_token(possession: Possession) -> None:
    """RFC 9449 §7.2."""
    bearer = ("Authorization", f"Bearer {possession.bound.text}")
    ways: Mapping[str, MakeHeaders] = {
        "without a proof": lambda: (bearer,),
        "with a good proof": lambda: (bearer, ("DPoP", possession.proof())),
    }
    with attempts(possession) as attempt:
        for what, make in ways.items():
            served = attempt.served(make)
            if served is not None:
                raise BoundTokenServesAsBearer(
                    "a token that is bound to a key was served under the Bearer scheme",
                    evidence=served,
                    expected="401",
                    got=served.summary,
                    counterexample=what,
                )


def _several(possession: Possession) -> Mapping[str, MakeHeaders]:
    """Fields that hold a good proof, and not that alone."""

    def fields(*texts: str) -> Sequence[Header]:
        return (possession.authorization(), *(("DPoP", text) for text in texts))

    bad = "conformance"
    return {
        "two fields, a good proof and text": lambda: fields(possession.proof(), bad),
        "two fields, text and a good proof": lambda: fields(bad, possession.proof()),
        "two fields, both good proofs": lambda: fields(possession.proof(), possession.proof()),
        "a good proof and text, joined by a comma": lambda: fields(f"{possession.proof()}, {bad}"),
        "text and a good proof, joined by a comma": lambda: fields(f"{bad}, {possession.proof()}"),
        "two good proofs, joined by a comma": lambda: fields(f"{possession.proof()},{possession.proof()}"),
        "a good proof and an empty field": lambda: fields(possession.proof(), ""),
    }


@requirement("DPOP-003")
def test_there_is_one_proof(possession: Possession) -> None:
    """RFC 9449 §4.3, check 1."""
    with attempts(possession) as attempt:
        for what, make in _several(possession).items():
            served = attempt.served(make)
            if served is not None:
                raise SeveralProofsAccepted(
                    "a request was served with more than one proof",
                    evidence=served,
                    expected="401 or 400",
                    got=served.summary,
                    counterexample=what,
                )


@requirement("DPOP-003")
def test_what_is_no_jwt_is_no_proof(possession: Possession, space: Space) -> None:
    """RFC 9449 §4.3, check 2."""
    good = possession.proof()
    classics = ("x", "null", "..", "e30.e30.", "e30.e30.e30", "{}", possession.bound.text, f"{good}.", f".{good}")
    with attempts(possession) as attempt:

        def judge(text: str) -> None:
            served = attempt.served(lambda: (possession.authorization(), ("DPoP", text)))
            if served is not None:
                raise NoProofAccepted(
                    "a request was served whose DPoP field holds no proof",
                    evidence=served,
                    expected="401 or 400",
                    got=served.summary,
                    counterexample="a token or a proof with more around it" if len(text) > 40 else repr(text),
                )

        space.search(judge, no_proofs(), classics=classics, max_examples=2)


@requirement("DPOP-004")
def test_each_member_of_a_proof_is_there(possession: Possession, space: Space) -> None:
    """RFC 9449 §4.2, and §4.3 checks 3 and 4: one member left out or of another type at a time."""
    missing: list[tuple[str, str, Any]] = [("claims", name, None) for name in ("jti", "htm", "htu", "iat", "ath")]
    missing += [("header", "typ", text) for text in (None, "JWT", "dpop", "at+jwt")]
    now = int(time.time())
    mistyped = [("iat", str(now)), ("iat", True), ("iat", [now]), ("jti", 7), ("htm", ["POST"]), ("ath", True)]
    classics = [*missing, *(("claims", name, value) for name, value in mistyped)]
    with attempts(possession) as attempt:

        def judge(case: tuple[str, str, Any]) -> None:
            part, name, value = case
            changes: dict[str, Any] = {part: {name: value}}
            served = attempt.served(possession.proved(**changes))
            if served is not None:
                what = "missing" if value is None else f"{value!r}"
                raise IncompleteProofAccepted(
                    "a proof was accepted with a member that is missing or wrong",
                    evidence=served,
                    expected="401",
                    got=served.summary,
                    counterexample=f"{name} {what}" if name != "iat" else f"iat of type {type(value).__name__}",
                )

        space.search(judge, bent_claims(), classics=classics, max_examples=2)


def _forged(possession: Possession) -> Mapping[str, MakeHeaders]:
    """Proofs that somebody can write who knows the public key alone."""
    key, stranger = possession.bound.key, ProofKey()
    secret = dump(key.jwk)
    oct_key = {"kty": "oct", "k": b64url(secret)}

    def cut() -> Sequence[Header]:
        signed, _, signature = possession.proof().rpartition(".")
        return (possession.authorization(), ("DPoP", f"{signed}.{signature[: len(signature) // 2]}"))

    return {
        **{
            f"alg {alg!r} and no signature": possession.proved(header={"alg": alg}, sign=unsigned)
            for alg in ("none", "None", "NONE", "")
        },
        "no signature": possession.proved(sign=unsigned),
        "a signature of zeros": possession.proved(sign=lambda data: bytes(64)),
        "a signature of another key": possession.proved(sign=stranger.sign),
        "half of the signature": cut,
        "HS256 with the public key for a secret": possession.proved(header={"alg": "HS256"}, sign=hs256(secret)),
        "HS256 with a symmetric jwk": possession.proved(header={"alg": "HS256", "jwk": oct_key}, sign=hs256(secret)),
        "no jwk": possession.proved(header={"jwk": None}),
        "RS256 over an EC key": possession.proved(header={"alg": "RS256"}),
    }


@requirement("DPOP-005")
def test_forged_proofs_are_refused(possession: Possession, space: Space) -> None:
    """RFC 9449 §4.3, checks 5 to 7."""
    forged = _forged(possession)
    with attempts(possession) as attempt:

        def judge(what: str) -> None:
            served = attempt.served(forged[what])
            if served is not None:
                raise ForgedProofAccepted(
                    "a proof was accepted that does not show that its sender has the key",
                    evidence=served,
                    expected="401",
                    got=served.summary,
                    counterexample=what,
                )

        space.search(judge, st.sampled_from(sorted(forged)), classics=forged, max_examples=1)
        served = attempt.served(
            possession.proved(header={"jwk": {**possession.bound.key.jwk, **possession.bound.key.private_members}})
        )
        if served is not None:
            raise PrivateKeyAccepted(
                "a proof was accepted whose jwk is a private key",
                evidence=served,
                expected="401",
                got=served.summary,
                counterexample="the member d in jwk",
            )


@requirement("DPOP-009")
def test_a_proof_by_another_key_is_refused(possession: Possession) -> None:
    """RFC 9449 §4.3, check 12, and §7.1: at first, and within a session that the right key opened."""
    stranger = ProofKey()
    with attempts(possession) as attempt:
        served = attempt.served(possession.proved(key=stranger))
        if served is not None:
            raise ForeignKeyAccepted(
                "a proof was accepted by another key than the token is bound to",
                evidence=served,
                expected="401",
                got=served.summary,
                counterexample="a proof without fault, signed by a new key",
            )
    if Era.LEGACY in possession.target.eras:
        _judge_session(possession, stranger)


def _judge_session(possession: Possession, stranger: ProofKey) -> None:
    """Open a session with the right key, list its tools with it, then with the other; open its stream with the other.

    Nothing is judged where the session does not work with the right key.
    """
    url = possession.target.url
    opened = possession.send(possession.proved(), mcp.initialize().request(url))
    session = opened.header("mcp-session-id") or ""
    listing = mcp.legacy("tools/list", session=session).request(url)
    possession.send(
        possession.proved(), mcp.legacy("notifications/initialized", request_id=None, session=session).request(url)
    )
    if not possession.send(possession.proved(), listing).succeeded:
        return
    for request in (listing, Request("GET", url, listing.headers)):
        exchange = possession.send(possession.proved(key=stranger, request=request), request)
        if exchange.succeeded and exchange.rpc_error is None:
            raise ForeignKeyInSession(
                "a proof by another key was accepted within a session",
                evidence=(opened, exchange),
                expected="401",
                got=exchange.summary,
                counterexample=f"{request.method} with the session's id, and a proof signed by a new key",
            )
