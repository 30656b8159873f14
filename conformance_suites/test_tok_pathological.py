"""TOK: tokens that are costly, ambiguous or degenerate rather than merely wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator

from hypothesis import strategies as st

from conformance_suites.forgeries import Tally, present
from conformance_suites.minted import Orders
from conformance_suites.published_keys import pattern
from pytest_mcp_conformance import Finding, requirement
from pytest_mcp_conformance.bench import Bench
from pytest_mcp_conformance.credentials import Credential
from pytest_mcp_conformance.forge.jws import Jws, b64url, compact, dump, read_jws
from pytest_mcp_conformance.minting import Mint
from pytest_mcp_conformance.properties import Space
from pytest_mcp_conformance.strategies.tokens import Bent
from pytest_mcp_conformance.target import Presentation, Target

LONGEST_SECONDS = 3.0
ONE = (1).to_bytes(32)


class PathologicalTokenAccepted(Finding):
    """A token with a degenerate signature, or with repeated members, is authenticated."""


class PathologicalTokenCrashes(Finding):
    """A pathological token is answered 5xx, or not at all."""


class PathologicalTokenIsSlow(Finding):
    """A pathological token keeps the server busy."""


def encrypted_tokens() -> list[Bent]:
    """Encrypted tokens (five parts) that cost whoever decrypts them: key derivation without end, and inflation."""

    def five(header: dict[str, object]) -> str:
        return ".".join(
            (b64url(dump(header)), b64url(bytes(40)), b64url(bytes(12)), b64url(bytes(64)), b64url(bytes(16)))
        )

    slow = {"alg": "PBES2-HS256+A128KW", "enc": "A128GCM", "p2s": b64url(bytes(16)), "p2c": 2**31 - 1}
    return [
        Bent("encrypted, with a key derivation of 2^31 rounds", five(slow)),
        Bent("encrypted to a public key", five({"alg": "RSA-OAEP-256", "enc": "A256GCM"})),
        Bent("encrypted and compressed", five({"alg": "dir", "enc": "A128GCM", "zip": "DEF"})),
        Bent("five empty parts", "...."),
    ]


def degenerate_signatures(jws: Jws) -> Iterator[Bent]:
    """The live token with a signature that satisfies a verifier which checks no ranges."""
    signed = b64url(dump(jws.header)) + "." + b64url(dump(jws.claims))
    for size in (64, 132, 256, 63, 1):
        yield Bent(f"a signature of {size} zeros", f"{signed}.{b64url(bytes(size))}")
    yield Bent("a signature with r and s of one", f"{signed}.{b64url(ONE * 2)}")
    yield Bent("a signature in DER", f"{signed}.{b64url(bytes.fromhex('3006020101020101'))}")
    header = dump(jws.header)
    doubled = header[:-1] + b',"alg":"none"}'
    yield Bent("alg twice in the header", f"{b64url(doubled)}.{b64url(dump(jws.claims))}.{jws.signature}")
    yield Bent("deeply nested claims", f"{b64url(header)}.{b64url(b'[' * 3000)}.{jws.signature}")
    yield Bent("blanks for claims", f"{b64url(header)}.{b64url(b' ' * 3000)}.{jws.signature}")


@requirement("TOK-011")
def test_pathological_tokens_are_refused_quickly(
    target: Target, alice: Credential, bench: Bench, mint: Mint, space: Space
) -> None:
    """RFC 8725 §2.6, §3.4; RFC 7515 §4: member names are unique."""
    target.require_protected()
    jws, tally = pattern(bench, alice), Tally()

    def judge(bent: Bent) -> None:
        seen = present(target, bent)
        tally.count(seen)
        _judge_pathological(seen, bent)

    sizes = st.binary(max_size=140).map(
        lambda octets: Bent(
            f"a signature of {len(octets)} octets", f"{compact(jws.header, jws.claims, lambda _: octets)}"
        )
    )
    with target.controlled(alice):
        space.search(judge, sizes, classics=[*encrypted_tokens(), *degenerate_signatures(jws)], max_examples=2)
        tally.settle()
    if mint.available and read_jws(alice.token) is not None:
        orders = Orders(mint, alice)
        with target.controlled(orders.good()):
            for bent in _doubled(orders):
                judge(bent)


def _doubled(orders: Orders) -> Iterator[Bent]:
    jws = orders.pattern
    header, claims = dump(jws.header), dump(jws.claims)
    for name in ("sub", "aud", "exp"):
        if name in jws.claims:
            text = b'{"%s":"conformance-check",' % name.encode() + claims[1:]
            yield Bent(f"{name} twice in the claims", orders.exact(header, text))
    typ = json.dumps(jws.header.get("typ", "JWT")).encode()
    yield Bent(
        "typ twice in the header", orders.exact(b'{"typ":"conformance-check","typ":%b,' % typ + header[1:], claims)
    )


def _judge_pathological(seen: Presentation, bent: Bent) -> None:
    exchange = seen.exchange
    if seen.authenticated:
        raise PathologicalTokenAccepted(
            "a token that no strict verifier takes is authenticated",
            evidence=exchange,
            expected="401",
            got=exchange.summary,
            counterexample=bent.what,
        )
    if exchange.status == 0 or exchange.status >= 500:
        raise PathologicalTokenCrashes(
            "a pathological token brings the server down",
            evidence=exchange,
            expected="401",
            got=exchange.summary,
            counterexample=bent.what,
        )
    if exchange.elapsed_seconds > LONGEST_SECONDS:
        raise PathologicalTokenIsSlow(
            "a pathological token keeps the server busy",
            evidence=exchange,
            expected=f"an answer within {LONGEST_SECONDS:g} seconds",
            got=f"{exchange.summary} after {exchange.elapsed_seconds:.1f} seconds",
            counterexample=bent.what,
        )
