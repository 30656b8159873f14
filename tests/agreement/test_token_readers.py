"""What the guard accepts, PyJWT and joserfc accept too: on hostile tokens it is never the most lenient reader.

`MCP_GUARD_AGREEMENT_CASES` sets the number of generated tokens (2,000 by default).
"""

import json
import os
import time
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.agreement.readers import ISSUER, RESOURCE, Guard, Joserfc, PyJwt
from tests.guard.signing import SigningKey, jwk_set

CASES = int(os.environ.get("MCP_GUARD_AGREEMENT_CASES", "2000"))

KEYS = [SigningKey.new(alg, f"k{alg}") for alg in ("ES256", "ES384", "RS256", "PS256")]
STRANGER = SigningKey.new("ES256", "kES256")
JWKS = jwk_set(*KEYS)
GUARD, PYJWT, JOSERFC = Guard(JWKS), PyJwt(JWKS), Joserfc({"keys": JWKS["keys"]})

SCALARS = st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from([1e400, float("nan"), 0.5, 10**40, "", "x"])
ODD = SCALARS | st.lists(SCALARS, max_size=2) | st.dictionaries(st.sampled_from(["a", "b"]), SCALARS, max_size=2)
OFFSETS = st.sampled_from([-90_000, -3_600, -60, 60, 300, 3_600, 90_000, 10**12, 0.5])
"""Seconds from now, far enough from every bound that the time a test takes does not matter."""

TEXTS = st.sampled_from(["", "alice", "a b", "é", "\u0000", "a\nb", "x" * 300, RESOURCE, ISSUER, ISSUER + "/", "mcp:x"])


@st.composite
def claim_sets(draw: st.DrawFn) -> tuple[dict[str, Any], list[tuple[str, Any]]]:
    """Changes to the claims of a good token, and members repeated after them."""
    changes: dict[str, Any] = {}
    for name in draw(st.lists(st.sampled_from(["exp", "iat", "nbf"]), max_size=2)):
        changes[name] = draw(OFFSETS.map(lambda offset: ("date", offset)) | ODD | st.just("1900000000"))
    names = ["aud", "iss", "sub", "client_id", "azp", "jti", "scope", "scp", "cnf", "typ", "extra"]
    for name in draw(st.lists(st.sampled_from(names), max_size=2)):
        changes[name] = draw(TEXTS | ODD | st.lists(TEXTS, max_size=3))
    removed = draw(st.lists(st.sampled_from([*names[:5], "exp", "iat"]), max_size=1))
    changes.update(dict.fromkeys(removed, ...))
    repeated = draw(st.lists(st.tuples(st.sampled_from(["exp", "aud", "sub", "extra"]), TEXTS), max_size=1))
    return changes, repeated


@st.composite
def headers(draw: st.DrawFn, key: SigningKey) -> bytes:
    """The header of a token of `key`, with members changed, added and repeated."""
    members: dict[str, Any] = {"alg": key.alg, "kid": key.kid, "typ": "at+jwt"}
    if draw(st.integers(0, 3)) == 0:
        name = draw(
            st.sampled_from(["alg", "kid", "typ", "crit", "b64", "zip", "jwk", "jku", "x5c", "cty", "x5t", "enc", "y"])
        )
        members[name] = draw(
            ODD
            | st.sampled_from(
                ["none", "HS256", "RS256", "ES256", "JWT", "AT+JWT", "dpop+jwt", "DEF", "kRS256", ["exp"]]
            )
        )
    text = json.dumps(members, separators=(",", ":"))
    if draw(st.integers(0, 15)) == 0:
        text = text[:-1] + draw(st.sampled_from([',"alg":"none"}', ',"kid":"x"}', "}\n", "} ", "}}", ',"x":1e999}']))
    return text.encode()


def spelled(members: dict[str, Any], repeated: list[tuple[str, Any]]) -> bytes:
    pairs = [*members.items(), *repeated]
    return ("{" + ",".join(f"{json.dumps(name)}:{json.dumps(value)}" for name, value in pairs) + "}").encode()


def claims_at(now: int, changes: dict[str, Any]) -> dict[str, Any]:
    """The claims of a token that is good at `now`, with `changes`."""
    claims = {
        "iss": ISSUER,
        "aud": RESOURCE,
        "sub": "alice",
        "client_id": "c1",
        "iat": now - 60,
        "exp": now + 300,
        **changes,
    }
    dated = {name: now + value[1] if isinstance(value, tuple) else value for name, value in claims.items()}
    return {name: value for name, value in dated.items() if value is not ...}


@st.composite
def edits(draw: st.DrawFn) -> tuple[str, int, bytes]:
    """What happens to the finished token, if anything."""
    kinds = ["none"] * 6 + ["flip", "insert", "delete", "append", "prepend", "swap", "pad", "drop-signature"]
    kind = draw(st.sampled_from(kinds))
    odd = st.sampled_from([b"=", b"==", b".", b" ", b"\n", b"+", b"/", b"A", b"\x00", b"\xc3\xa9", b"%2e", b".AAAA"])
    return kind, draw(st.integers(0, 10_000)), draw(odd)


def edited(token: bytes, edit: tuple[str, int, bytes]) -> bytes:
    kind, place, extra = edit
    at = place % len(token)
    parts = token.split(b".")
    return {
        "none": token,
        "flip": token[:at] + bytes([token[at] ^ 1]) + token[at + 1 :],
        "insert": token[:at] + extra + token[at:],
        "delete": token[:at] + token[at + 1 :],
        "append": token + extra,
        "prepend": extra + token,
        "swap": b".".join([parts[0], parts[2], parts[1]]),
        "pad": b".".join(part + b"=" * (-len(part) % 4) for part in parts),
        "drop-signature": b".".join([*parts[:2], b""]),
    }[kind]


@st.composite
def recipes(draw: st.DrawFn) -> tuple[SigningKey, bytes, tuple[dict[str, Any], list[tuple[str, Any]]], Any]:
    """Everything that makes a token but the time."""
    key = draw(st.sampled_from([*KEYS, *KEYS, STRANGER]))
    plain = draw(st.integers(0, 3)) == 0
    return key, draw(headers(key)), ({}, []) if plain else draw(claim_sets()), draw(edits())


def test_the_guard_accepts_no_token_that_pyjwt_or_joserfc_refuses() -> None:
    accepted = {"guard": 0, "pyjwt": 0, "joserfc": 0}

    @settings(max_examples=CASES)
    @given(recipes())
    def never_the_most_lenient(recipe: Any) -> None:
        key, header, (changes, repeated), edit = recipe
        now = int(time.time())
        token = edited(key.compact(header, spelled(claims_at(now, changes), repeated)), edit)
        verdicts = {
            "guard": GUARD.accepts(token, now),
            "pyjwt": PYJWT.accepts(token),
            "joserfc": JOSERFC.accepts(token, now),
        }
        for name, verdict in verdicts.items():
            accepted[name] += verdict
        assert not verdicts["guard"] or (verdicts["pyjwt"] and verdicts["joserfc"])

    never_the_most_lenient()
    assert CASES / 50 < accepted["guard"] < accepted["pyjwt"], accepted
    assert accepted["guard"] < accepted["joserfc"], accepted


def test_a_plain_token_of_every_key_is_accepted_by_all_three() -> None:
    now = int(time.time())
    for key in KEYS:
        token = key.compact(key.header(), claims_at(now, {}))
        assert GUARD.accepts(token, now)
        assert PYJWT.accepts(token)
        assert JOSERFC.accepts(token, now)


def test_what_the_libraries_let_through_the_guard_refuses() -> None:
    now = int(time.time())
    key = KEYS[0]

    def lenient(token: bytes) -> bool:
        return (PYJWT.accepts(token) or JOSERFC.accepts(token, now)) and not GUARD.accepts(token, now)

    repeated = spelled(claims_at(now, {}), [("sub", "bob")])
    assert lenient(key.compact(key.header(), repeated))
    assert lenient(key.compact(key.header(typ="dpop+jwt"), claims_at(now, {})))
    assert lenient(key.compact(key.header(), claims_at(now, {"sub": ""})))
    assert lenient(key.compact(key.header(), claims_at(now, {"cnf": {"jkt": "x"}})))
    assert lenient(key.compact(key.header(), claims_at(now, {"exp": str(now + 300)})))
    assert lenient(key.compact(key.header(), claims_at(now, {"exp": now + 10**9})))
    assert lenient(key.compact(key.header(), claims_at(now, {})) + b"=" * 2)
