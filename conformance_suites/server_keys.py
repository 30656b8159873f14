"""ASM-013: what may stand in a key set that anybody can read (RFC 7517, RFC 8725)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pytest_mcp_conformance import Finding, Inconclusive
from pytest_mcp_conformance.exchange import Exchange
from pytest_mcp_conformance.forge.jws import unb64url

PRIVATE_MEMBERS = ("d", "p", "q", "dp", "dq", "qi", "oth", "k")
SHORTEST_RSA_BITS = 2048


class KeysUnreadable(Finding):
    """jwks_uri does not answer with a key set."""


class PrivateKeyPublished(Finding):
    """A published key holds private or symmetric members."""


class WeakKey(Finding):
    """A published RSA key is too short."""


class UnsoundAlgorithm(Finding):
    """A published key names an algorithm that is not asymmetric."""


class KeyIdRepeated(Finding):
    """Two published keys of one type share a kid."""


def check_keys(exchange: Exchange) -> None:
    """Judge what `jwks_uri` answered. Raises a finding, or Inconclusive when the list of keys is empty."""
    listing = exchange.json() if exchange.status == 200 else None
    keys = listing.get("keys") if isinstance(listing, dict) else None
    if not isinstance(keys, list) or not all(isinstance(key, dict) for key in keys):
        raise KeysUnreadable(
            "jwks_uri does not answer with a key set",
            evidence=exchange,
            expected="200 with a JSON object whose keys is a list of keys",
            got=exchange.summary,
        )
    if not keys:
        raise Inconclusive("the key set is empty")
    for at, key in enumerate(keys):
        _judge_key(exchange, f"key {at}", key)
    seen: set[tuple[object, object]] = set()
    for at, key in enumerate(keys):
        name = key.get("kty"), key.get("kid")
        if "kid" in key and name in seen:
            raise KeyIdRepeated(
                "two keys of the same type share a kid",
                evidence=exchange,
                expected="a kid for each key",
                got=f"key {at} repeats a kid",
            )
        seen.add(name)


def _judge_key(exchange: Exchange, which: str, key: Mapping[str, Any]) -> None:
    shown = [name for name in PRIVATE_MEMBERS if name in key]
    if shown or key.get("kty") == "oct":
        raise PrivateKeyPublished(
            f"{which} can be used to sign by whoever reads it",
            evidence=exchange,
            expected="public members of asymmetric keys",
            got=f"kty {key.get('kty')!r} with {', '.join(shown) or 'no public part'}",
        )
    algorithm = str(key.get("alg", ""))
    if algorithm.upper().startswith("HS") or algorithm.lower() == "none":
        raise UnsoundAlgorithm(
            f"{which} is for an algorithm that is not asymmetric",
            evidence=exchange,
            expected="an asymmetric algorithm",
            got=f"alg {algorithm!r}",
        )
    if key.get("kty") == "RSA" and _bits(key.get("n")) < SHORTEST_RSA_BITS:
        raise WeakKey(
            f"{which} is a short RSA key",
            evidence=exchange,
            expected=f"{SHORTEST_RSA_BITS} bits or more",
            got=f"{_bits(key.get('n'))} bits",
        )


def _bits(modulus: object) -> int:
    try:
        return int.from_bytes(unb64url(str(modulus))).bit_length()
    except ValueError:
        return 0
