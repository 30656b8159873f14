"""Whatever token the guard accepts, PyJWT and joserfc alone accept too; the others are refused, each with a fault."""

import hashlib
import json
import secrets
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import pytest

from mcp_guard.clock import ManualClock
from mcp_guard.keysources import StaticKeys
from mcp_guard.protocol import jose, jwk
from mcp_guard.protocol.jose import JoseError
from mcp_guard.protocol.jwk import JwkError
from mcp_guard.protocol.jwt import Fault, TokenError
from mcp_guard.tokens import IssuerPolicy, TrustedIssuer, Verification
from tests.guard.fuzz.mutations import LEEWAY, LIFETIME, ODD, OTHER_ISSUER, mutated, shaken
from tests.guard.fuzz.oracles import ALGORITHMS, Sets, joserfc_accepts, pyjwt_accepts
from tests.guard.signing import ISSUER, NOW, RESOURCE, SigningKey, good_claims, jwk_set

# joserfc says of the name EdDSA that RFC 9864 has a better one.
pytestmark = pytest.mark.filterwarnings("ignore:EdDSA is deprecated")

CASES = 30_000
MANY_CASES = 1_200_000
PARSED = 20_000
CRASHERS = Path(__file__).parent / "crashers"
KEPT = sorted(CRASHERS.glob("token-*.json"))
"""Each was once accepted by the guard alone, or broke it; `make fuzz` adds what it finds."""

KEYS = [SigningKey.new("ES256", "k1"), SigningKey.new("EdDSA", "k2"), SigningKey.new("ES256", "k3")]
THEIRS = SigningKey.new("ES256", "o1")
SETS: Sets = {ISSUER: jwk_set(*KEYS), OTHER_ISSUER: jwk_set(THEIRS)}
ELSEWHERE = {Fault.UNBOUND, Fault.INACTIVE}
"""Not found in signed tokens: the layer refuses the first by its resource's policy, and an issuer says the second."""


def verification(sets: Sets) -> Verification:
    policy = IssuerPolicy(algorithms=frozenset(ALGORITHMS))
    issuers = [TrustedIssuer(name, StaticKeys(keys), policy=policy) for name, keys in sets.items()]
    return Verification(issuers, ManualClock(NOW), LEEWAY, LIFETIME)


async def shoot(guard: Verification, sets: Sets, token: bytes) -> str:
    """One token. Answers the fault that it was refused for, or `accepted`.

    Raises:
        AssertionError: it was accepted by the guard and by not both libraries.
    """
    try:
        await guard.verify(token, frozenset({RESOURCE}))
    except TokenError as refused:
        return refused.fault.value
    assert pyjwt_accepts(sets, token), "PyJWT does not accept it"
    assert joserfc_accepts(sets, token), "joserfc does not accept it"
    return "accepted"


async def run(seed: int, cases: int, keep: Path | None = None) -> Counter[str]:
    """Shoot `cases` tokens; one that fails is written to `keep` with the keys it was made for."""
    random, guard, outcomes = Random(seed), verification(SETS), Counter[str]()
    for case in range(cases):
        key = random.choice(KEYS)
        token = mutated(random, key, [*KEYS, THEIRS], key.header(), good_claims())
        try:
            outcomes[await shoot(guard, SETS, token)] += 1
        except Exception as fault:
            if keep is not None:
                name = f"token-{hashlib.sha256(token).hexdigest()[:16]}.json"
                (keep / name).write_text(json.dumps({"token": token.decode("latin-1"), "sets": SETS}))
            raise AssertionError(f"seed {seed}, case {case}: {fault!r}\n{token!r}") from fault
    print(f"tokens, seed {seed}: {dict(outcomes)}")
    return outcomes


async def test_what_the_guard_accepts_two_libraries_accept() -> None:
    outcomes = await run(5, CASES)
    # A guard that refuses everything, or changes that reach some of its checks only, would show nothing.
    assert outcomes["accepted"] > CASES / 20
    assert set(outcomes) == {"accepted", *(fault.value for fault in Fault if fault not in ELSEWHERE)}


@pytest.mark.load
async def test_what_the_guard_accepts_two_libraries_accept_among_a_million() -> None:
    await run(secrets.randbits(32), MANY_CASES, keep=CRASHERS)


async def test_tokens_that_were_judged_wrongly_are_not_any_more() -> None:
    for path in KEPT:
        kept = json.loads(path.read_text())
        await shoot(verification(kept["sets"]), kept["sets"], kept["token"].encode("latin-1"))


@pytest.mark.parametrize(
    "changes",
    [{"aud": "https://x.example"}, {"exp": NOW - 11}, {"nbf": NOW + 60}, {"iss": "https://x.example"}, {"sub": None}],
)
def test_the_libraries_that_are_asked_do_refuse(changes: dict[str, Any]) -> None:
    good, bad = KEYS[0].token(), KEYS[0].token(**changes)
    assert pyjwt_accepts(SETS, good)
    assert joserfc_accepts(SETS, good)
    assert not pyjwt_accepts(SETS, bad)
    assert not joserfc_accepts(SETS, bad)


def test_a_signature_of_another_key_is_refused_by_the_libraries_that_are_asked() -> None:
    forged = SigningKey.new("ES256", "k1").token()
    assert not pyjwt_accepts(SETS, forged)
    assert not joserfc_accepts(SETS, forged)


def test_whatever_bytes_are_read_as_a_token_come_apart_or_are_refused() -> None:
    random, good, outcomes = Random(6), KEYS[0].token(), Counter[str]()
    for case in range(PARSED):
        data = random.randbytes(random.randrange(80)) if case % 4 == 0 else shaken(random, shaken(random, good))
        try:
            jws = jose.parse_compact(data)
        except JoseError:
            outcomes["refused"] += 1
        else:
            assert data.startswith(jws.signing_input + b".")
            outcomes["read"] += 1
    assert min(outcomes["read"], outcomes["refused"]) > PARSED / 100


def test_whatever_is_read_as_a_key_set_is_one_or_is_refused() -> None:
    random, outcomes = Random(7), Counter[str]()
    for _ in range(PARSED // 4):
        members: list[Any] = [dict(key.jwk()) for key in KEYS]
        for member in random.sample(members, random.randrange(1, 4)):
            member[random.choice(["kty", "crv", "x", "y", "use", "key_ops", "alg", "kid", "d", "k", "n"])] = (
                random.choice(ODD)
            )
        document: Any = random.choice([{"keys": members}] * 8 + [{"keys": random.choice(ODD)}, members])
        try:
            found = jwk.import_set(document)
        except JwkError:
            outcomes["refused"] += 1
        else:
            assert all(key.algorithms <= jose.ALGORITHMS for key in found.keys)
            assert len(found.keys) + len(found.ignored) == len(members)
            outcomes["read"] += 1
    assert min(outcomes["read"], outcomes["refused"]) > PARSED / 100
