"""DPOP, what a proof is for: one request, at one address, now, with one token."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st

from conformance_suites.proofs import attempts
from pytest_mcp_conformance import Advice, Finding, Inconclusive, mcp, requirement
from pytest_mcp_conformance.exchange import Exchange, Request
from pytest_mcp_conformance.forge.dpop import ath
from pytest_mcp_conformance.possession import Possession
from pytest_mcp_conformance.properties import Space
from pytest_mcp_conformance.strategies.proofs import other_addresses, same_addresses

OTHER_METHODS = ("GET", "post", "PUT", "POST ", "")
HOUR_SECONDS = 3600
YEAR_SECONDS = 365 * 24 * HOUR_SECONDS
OUTSIDE_SECONDS = 330
LONG_JTI = 2000


class OtherMethodAccepted(Finding):
    """A proof for another method was accepted."""


class OtherAddressAccepted(Finding):
    """A proof for another address was accepted."""


class ForwardedAddressAccepted(Finding):
    """A proof was accepted for an address that a header of the request named."""


class SameAddressRefused(Advice):
    """A proof was refused that spells the address in another way."""


class OldProofAccepted(Finding):
    """A proof was accepted that was made more than five minutes ago."""


class EarlyProofAccepted(Finding):
    """A proof was accepted that is dated more than five minutes ahead."""


class ProofOfAnotherTokenAccepted(Finding):
    """A proof that was made for one token was accepted with another."""


class ProofReplayed(Advice):
    """A proof that was used was accepted again."""


class ProofReplayedWithAnotherBody(Advice):
    """A proof that was used was accepted again, with another body."""


class LongProofReplayed(Advice):
    """A proof with a very long jti was accepted twice."""


@requirement("DPOP-006")
def test_a_proof_names_the_method(possession: Possession) -> None:
    """RFC 9449 §4.3, check 8: methods are compared as they stand (RFC 9110 §9.1)."""
    with attempts(possession) as attempt:
        for method in OTHER_METHODS:
            served = attempt.served(possession.proved(claims={"htm": method}))
            if served is not None:
                raise OtherMethodAccepted(
                    "a proof for another method was accepted",
                    evidence=served,
                    expected="401",
                    got=served.summary,
                    counterexample=f"htm {method!r} in a POST",
                )


@requirement("DPOP-006")
def test_a_proof_names_the_address(possession: Possession, space: Space) -> None:
    """RFC 9449 §4.3, check 9; what a proxy says of the address, or a client in its name, counts for nothing."""
    url = possession.target.url
    tails = st.from_regex(r"[a-z0-9/._-]{1,12}", fullmatch=True)
    with attempts(possession) as attempt:

        def judge(htu: str) -> None:
            served = attempt.served(possession.proved(claims={"htu": htu}))
            if served is not None:
                raise OtherAddressAccepted(
                    "a proof for another address was accepted",
                    evidence=served,
                    expected="401",
                    got=served.summary,
                    counterexample=f"htu {htu!r} in a request to {url}",
                )

        other = tails.map(lambda tail: f"{url.rstrip('/')}-{tail}")
        space.search(judge, other, classics=other_addresses(url), max_examples=2)
        elsewhere = url.replace(possession.target.origin, "https://another-server.example", 1)
        forwarded = (("X-Forwarded-Host", "another-server.example"), ("X-Forwarded-Proto", "https"))
        request = possession.target.harmless().adding(*forwarded)
        served = attempt.served(possession.proved(claims={"htu": elsewhere}), request)
        if served is not None:
            raise ForwardedAddressAccepted(
                "a proof was accepted for the address that X-Forwarded-Host named",
                evidence=served,
                expected="401",
                got=served.summary,
                counterexample=f"htu {elsewhere!r} and X-Forwarded-Host: another-server.example",
            )


@requirement("DPOP-006")
def test_an_address_may_be_spelled_in_other_ways(possession: Possession) -> None:
    """RFC 9449 §4.3: normalization (RFC 3986 §6.2.2, §6.2.3), and neither query nor fragment."""
    with possession.controlled():
        for htu in same_addresses(possession.target.url):
            seen = possession.present(possession.proved(claims={"htu": htu}))
            if seen.refused:
                raise SameAddressRefused(
                    "a proof was refused whose htu is another spelling of the address",
                    evidence=seen.exchange,
                    expected="the proof is accepted",
                    got=seen.exchange.summary,
                    counterexample=f"htu {htu!r} in a request to {possession.target.url}",
                )


@requirement("DPOP-007")
def test_proofs_are_of_now(possession: Possession, space: Space) -> None:
    """RFC 9449 §11.1: five minutes either way at most, whatever else the proof says of its time."""
    offsets: list[tuple[int, Mapping[str, int]]] = [
        (offset, {}) for offset in (-OUTSIDE_SECONDS, -HOUR_SECONDS, -YEAR_SECONDS)
    ]
    offsets += [(offset, {}) for offset in (OUTSIDE_SECONDS, HOUR_SECONDS, YEAR_SECONDS)]
    offsets.append((-HOUR_SECONDS, {"nbf": -HOUR_SECONDS, "exp": HOUR_SECONDS}))
    beyond = st.integers(OUTSIDE_SECONDS, 10 * YEAR_SECONDS)
    with attempts(possession) as attempt:

        def judge(case: tuple[int, Mapping[str, int]]) -> None:
            offset, others = case
            now = int(time.time())
            claims: dict[str, Any] = {"iat": now + offset, **{name: now + after for name, after in others.items()}}
            served = attempt.served(possession.proved(claims=claims))
            if served is not None and offset < 0:
                raise OldProofAccepted(
                    "a proof was accepted that is more than five minutes old",
                    evidence=served,
                    expected="401",
                    got=served.summary,
                    counterexample=_told(offset, others),
                )
            if served is not None:
                raise EarlyProofAccepted(
                    "a proof was accepted that is dated more than five minutes ahead",
                    evidence=served,
                    expected="401",
                    got=served.summary,
                    counterexample=_told(offset, others),
                )

        either = st.one_of(beyond, beyond.map(lambda offset: -offset))
        space.search(judge, st.tuples(either, st.just({})), classics=offsets, max_examples=2)


def _told(offset: int, others: Mapping[str, int]) -> str:
    beside = ", and exp an hour ahead" if "exp" in others else ""
    return f"iat {abs(offset)} seconds {'ago' if offset < 0 else 'ahead'}{beside}"


@requirement("DPOP-008")
def test_a_proof_goes_with_its_own_token(possession: Possession) -> None:
    """RFC 9449 §4.3, check 12: both tokens are good and of the same key."""
    first, second = possession.bound, possession.another
    with attempts(possession) as attempt:
        possession.control(second, "with the other token")
        served = attempt.served(possession.proved(claims={"ath": ath(second.text)}))
        served = served or attempt.served(possession.proved(second, claims={"ath": ath(first.text)}))
        if served is not None:
            raise ProofOfAnotherTokenAccepted(
                "a proof that was made for one token was accepted with another",
                evidence=served,
                expected="401",
                got=served.summary,
                counterexample="two tokens of one key, and the hash of the other in ath",
            )


@requirement("DPOP-010")
def test_a_proof_is_used_once(possession: Possession) -> None:
    """RFC 9449 §11.1: the same request twice, and its proof with another body. That is advice: MCP's draft lets servers
    do without.
    """
    target = possession.target
    with possession.controlled():
        fields = possession.proved()()
        first = target.send(target.harmless().adding(*fields))
        other = mcp.modern("tools/list", request_id="another").request(target.url)
        _used(first)
        again, changed = (possession.judged(target.send(asked.adding(*fields))) for asked in (target.harmless(), other))
        if again.authenticated:
            raise ProofReplayed(
                "a proof that was used was accepted again: neither its jti nor a nonce kept it to one use",
                evidence=(first, again.exchange),
                expected="401",
                got=again.exchange.summary,
                counterexample="the same request twice",
            )
        if changed.authenticated:
            raise ProofReplayedWithAnotherBody(
                "a proof that was used was accepted again with another body",
                evidence=(first, changed.exchange),
                expected="401",
                got=changed.exchange.summary,
                counterexample="the proof of one request in another to the same address",
            )
        _judge_long(possession, target.harmless())


def _used(exchange: Exchange) -> None:
    if not exchange.succeeded:
        raise Inconclusive(f"the request whose proof was to be used again did not succeed: {exchange.summary}")


def _judge_long(possession: Possession, request: Request) -> None:
    """A server may refuse a very long jti. When it takes one, then once."""
    fields = possession.proved(claims={"jti": "j" * LONG_JTI})()
    first = possession.judged(possession.target.send(request.adding(*fields)))
    again = possession.judged(possession.target.send(request.adding(*fields)))
    if first.authenticated and again.authenticated:
        raise LongProofReplayed(
            "a proof with a very long jti was accepted twice",
            evidence=(first.exchange, again.exchange),
            expected="401, the first time or the second",
            got=again.exchange.summary,
            counterexample=f"a jti of {LONG_JTI} characters",
        )
