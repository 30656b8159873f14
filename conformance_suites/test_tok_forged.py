"""TOK: tokens that nobody issued. All are made from a live one, without the issuer's key."""

from __future__ import annotations

from collections.abc import Iterator

from hypothesis import strategies as st

from conformance_suites.canary import Canary, listening
from conformance_suites.forgeries import Tally, present
from conformance_suites.minted import Orders
from conformance_suites.published_keys import as_secrets, pattern, published_keys
from pytest_mcp_conformance import Finding, requirement
from pytest_mcp_conformance.bench import Bench
from pytest_mcp_conformance.credentials import Credential
from pytest_mcp_conformance.forge.jws import Jws, compact, es256, hs256, unsigned
from pytest_mcp_conformance.minting import Mint
from pytest_mcp_conformance.properties import Space
from pytest_mcp_conformance.strategies.tokens import (
    NONE_SPELLINGS,
    Bent,
    bent_texts,
    cut_signatures,
    none_spellings,
    respelled,
    unsigned_token,
)
from pytest_mcp_conformance.target import Target

WELL_KNOWN = b"conformance-check"
KIDS = (
    ("../../../../../../../dev/null", b""),
    ("/dev/null", b""),
    ("' UNION SELECT 'conformance-check' -- ", WELL_KNOWN),
    ("http://canary.invalid/key", b""),
    ("conformance-check\x00", WELL_KNOWN),
    ("", b""),
)


class AlteredTokenAccepted(Finding):
    """A token that was altered is authenticated."""


class UnsignedTokenAccepted(Finding):
    """A token whose algorithm is a spelling of none is authenticated."""


class PublicKeyTakenForASecret(Finding):
    """A token signed with HS256 and a public key is authenticated."""


class KeyOfTheTokenTrusted(Finding):
    """A token signed with a key that it brings or names itself is authenticated."""


class KeyOfTheTokenFetched(Finding):
    """A URL in a token's header is fetched."""


class UnknownExtensionIgnored(Finding):
    """A token with a critical extension nobody knows is authenticated."""


@requirement("TOK-003")
def test_every_alteration_is_noticed(target: Target, alice: Credential, space: Space) -> None:
    """RFC 8725 §3.3: each cryptographic operation is validated; over the octets as received."""
    target.require_protected()
    tally = Tally()

    def judge(bent: Bent) -> None:
        seen = present(target, bent)
        tally.count(seen)
        if seen.authenticated:
            raise AlteredTokenAccepted(
                "a token that was altered is authenticated",
                evidence=seen.exchange,
                expected="401",
                got=seen.exchange.summary,
                counterexample=bent.what,
            )

    with target.controlled(alice):
        classics = [*cut_signatures(alice.token), *respelled(alice.token)]
        space.search(judge, bent_texts(alice.token), classics=classics, max_examples=6)
        tally.settle()


def unsigned_tokens(jws: Jws) -> Iterator[Bent]:
    """The claims under every spelling of none, without a signature and with one that means nothing."""
    for alg in NONE_SPELLINGS:
        yield unsigned_token(jws, alg)
    for alg in ("none", "None"):
        header = {**jws.header, "alg": alg}
        yield Bent(
            f"alg replaced by {alg!r}, a signature of eight zeros", compact(header, jws.claims, lambda _: bytes(8))
        )
        kept = Jws(header, jws.claims, jws.signature or "AAAA").keeping_signature()
        yield Bent(f"alg replaced by {alg!r}, the signature kept", kept)
    without = {name: value for name, value in jws.header.items() if name != "alg"}
    yield Bent("alg left out, no signature", compact(without, jws.claims, unsigned))


@requirement("TOK-004")
def test_no_algorithm_does_without_the_issuers_key(
    target: Target, alice: Credential, bench: Bench, space: Space
) -> None:
    """RFC 8725 §3.1, §3.2: the algorithms are the verifier's choice, and each key is for one of them."""
    target.require_protected()
    jws, tally = pattern(bench, alice), Tally()

    def judge_unsigned(bent: Bent) -> None:
        seen = present(target, bent)
        tally.count(seen)
        if seen.authenticated:
            raise UnsignedTokenAccepted(
                "a token that nobody signed is authenticated",
                evidence=seen.exchange,
                expected="401",
                got=seen.exchange.summary,
                counterexample=bent.what,
            )

    with target.controlled(alice):
        drawn = none_spellings().map(lambda alg: unsigned_token(jws, alg))
        space.search(judge_unsigned, drawn, classics=unsigned_tokens(jws), max_examples=2)
        for jwk in published_keys(bench):
            for what, secret in as_secrets(jwk):
                header = {"alg": "HS256", **({"kid": jwk["kid"]} if "kid" in jwk else {})}
                seen = present(target, Bent(what, jws.resign(hs256(secret), header=header)))
                tally.count(seen)
                if seen.authenticated:
                    raise PublicKeyTakenForASecret(
                        "a token signed with a public key as secret is authenticated",
                        evidence=seen.exchange,
                        expected="401",
                        got=seen.exchange.summary,
                        counterexample=f"HS256 keyed with the {what}",
                    )
        tally.settle()


def tokens_with_keys(jws: Jws, canary: Canary) -> list[Bent]:
    """Tokens signed with the canary's key, which they bring along or say where to find."""
    ours = es256(canary.key)
    headers = {
        "jwk": {"jwk": canary.jwk},
        "jwk and its kid": {"jwk": canary.jwk, "kid": canary.jwk["kid"]},
        "x5c": {"x5c": canary.x5c},
        "jku": {"jku": canary.keys_url},
        "jku and its kid": {"jku": canary.keys_url, "kid": canary.jwk["kid"]},
        "x5u": {"x5u": canary.certificate_url},
        "a kid that is a URL": {"kid": canary.keys_url},
    }
    bent = [
        Bent(f"signed with a key of its own, offered by {what}", jws.resign(ours, header={"alg": "ES256", **header}))
        for what, header in headers.items()
    ]
    foreign = jws.resign(ours, header={"alg": "ES256", "kid": canary.jwk["kid"]}, claims={"iss": canary.origin})
    return [*bent, Bent("signed with a key of its own, from an issuer of its own", foreign)]


def tokens_with_kids(jws: Jws) -> Iterator[Bent]:
    """HS256 tokens whose kid leads a careless lookup to a secret that anybody knows."""
    for kid, secret in KIDS:
        header = {"alg": "HS256", "kid": kid}
        yield Bent(f"kid {kid!r}, HS256 keyed with {secret!r}", jws.resign(hs256(secret), header=header))


@requirement("TOK-005")
def test_a_token_cannot_bring_its_own_key(
    target: Target, alice: Credential, bench: Bench, mint: Mint, space: Space
) -> None:
    """RFC 8725 §3.10, RFC 7515 §4.1.11: keys come from the configuration, never from the token."""
    target.require_protected()
    jws, tally = pattern(bench, alice), Tally()
    with target.controlled(alice), listening(reachable=target.settings.is_local) as canary:

        def judge(bent: Bent) -> None:
            seen = present(target, bent)
            tally.count(seen)
            if seen.authenticated:
                raise KeyOfTheTokenTrusted(
                    "a token decides which key it is verified with",
                    evidence=seen.exchange,
                    expected="401",
                    got=seen.exchange.summary,
                    counterexample=bent.what,
                )
            if canary.fetched:
                raise KeyOfTheTokenFetched(
                    "the server fetches a URL that a forged token names",
                    evidence=seen.exchange,
                    expected="no request",
                    got=f"GET {canary.fetched[0]}",
                    counterexample=bent.what,
                )

        own = st.sampled_from(["jku", "x5u", "cty", "zip", "kid", "x5t"])
        values: st.SearchStrategy[object] = st.sampled_from(
            ["DEF", "JWT", canary.keys_url, "file:///etc/passwd", "../keys", "'--", 1, None, [], {}]
        )
        drawn = st.dictionaries(own, values, min_size=1, max_size=3).map(
            lambda header: Bent(
                f"a foreign key and the header {header}",
                compact({**jws.header, "alg": "ES256", **header}, jws.claims, es256(canary.key)),
            )
        )
        space.search(judge, drawn, classics=[*tokens_with_keys(jws, canary), *tokens_with_kids(jws)], max_examples=2)
        tally.settle()
        if mint.available:
            _judge_extension(target, Orders(mint, alice))


def _judge_extension(target: Target, orders: Orders) -> None:
    with target.controlled(orders.good()):
        token = orders.text(header={"crit": ["conformance-check"], "conformance-check": True})
        seen = target.present(f"Bearer {token}")
        if seen.authenticated:
            raise UnknownExtensionIgnored(
                "a token with an extension that must be understood is authenticated although nobody can understand it",
                evidence=seen.exchange,
                expected="401",
                got=seen.exchange.summary,
                counterexample="crit with an invented name",
            )
