"""Whatever proof the guard accepts, checks that are written on PyJWT and on joserfc alone accept too."""

import hashlib
import json
import secrets
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import pytest

from mcp_guard.protocol import dpop
from mcp_guard.protocol.dpop import Fault, ProofError, Target
from tests.guard.fuzz.mutations import mutated
from tests.guard.fuzz.oracles import joserfc_accepts_proof, pyjwt_accepts_proof
from tests.guard.proving import proof, proof_claims, proof_header, thumbprint, token_hash
from tests.guard.signing import NOW, RESOURCE, SigningKey

# joserfc says of the name EdDSA that RFC 9864 has a better one.
pytestmark = pytest.mark.filterwarnings("ignore:EdDSA is deprecated")

CASES = 20_000
MANY_CASES = 800_000
CRASHERS = Path(__file__).parent / "crashers"
KEPT = sorted(CRASHERS.glob("proof-*.json"))
"""Each was once accepted by the guard alone, or broke it; `make fuzz` adds what it finds."""

KEYS = [SigningKey.new("ES256", "k1"), SigningKey.new("EdDSA", "k2")]
STRANGER = SigningKey.new("ES256", "o1")
TOKEN = b"the.access.token"
NONCE = "a-nonce-of-ours"
PROOF_CHANGES: list[dict[str, Any]] = [
    {"htm": "GET"},
    {"htm": "post"},
    {"htu": f"{RESOURCE}/"},
    {"htu": f"{RESOURCE}?q=1#f"},
    {"htu": "HTTPS://MCP.example.com:443/mcp"},
    {"htu": "https://evil.example/mcp"},
    {"htu": "/mcp"},
    {"iat": NOW - 61},
    {"iat": NOW - 60},
    {"iat": NOW + 10},
    {"iat": NOW + 11},
    {"ath": token_hash(b"another")},
    {"nonce": "of another"},
    {"nonce": None},
    {"jti": "j" * 129},
]


def judge(values: list[bytes], bound_to: str) -> None:
    """What the guard makes of a proof for a POST to `RESOURCE` with `TOKEN`."""
    target = Target("POST", RESOURCE, hashlib.sha256(TOKEN).digest(), bound_to)
    dpop.check(dpop.parse(values), target, NOW, is_our_nonce=lambda nonce: nonce == NONCE)


def shoot(values: list[bytes], bound_to: str) -> str:
    """One request's proofs. Answers the fault that they were refused for, or `accepted`.

    Raises:
        AssertionError: they were accepted by the guard and by not both libraries.
    """
    try:
        judge(values, bound_to)
    except ProofError as refused:
        return refused.fault.value
    assert pyjwt_accepts_proof(values[0], TOKEN, bound_to), "the check on PyJWT does not accept it"
    assert joserfc_accepts_proof(values[0], TOKEN, bound_to), "the check on joserfc does not accept it"
    return "accepted"


def made(random: Random) -> tuple[list[bytes], str]:
    """The fields of a request, and the thumbprint of the key that its token is bound to."""
    key = random.choice(KEYS)
    header, claims = proof_header(key), proof_claims(ath=token_hash(TOKEN), nonce=NONCE)
    if random.randrange(2):
        claims.update(random.choice(PROOF_CHANGES))
    if random.randrange(30) == 0:
        header["jwk"] = random.choice(
            [STRANGER.jwk(), {**header["jwk"], "d": "AA"}, {"kty": "oct", "k": "AA"}, None, []]
        )
    value = (
        mutated(random, key, [*KEYS, STRANGER], header, claims) if random.randrange(3) else key.compact(header, claims)
    )
    bound_to = STRANGER if random.randrange(40) == 0 else key
    return [value] * (2 if random.randrange(100) == 0 else 1), thumbprint(bound_to)


def run(seed: int, cases: int, keep: Path | None = None) -> Counter[str]:
    """Shoot `cases` proofs; one that fails is written to `keep`."""
    random, outcomes = Random(seed), Counter[str]()
    for case in range(cases):
        values, bound_to = made(random)
        try:
            outcomes[shoot(values, bound_to)] += 1
        except Exception as fault:
            if keep is not None:
                name = f"proof-{hashlib.sha256(values[0]).hexdigest()[:16]}.json"
                kept = {"values": [value.decode("latin-1") for value in values], "bound_to": bound_to}
                (keep / name).write_text(json.dumps(kept))
            raise AssertionError(f"seed {seed}, case {case}: {fault!r}\n{values!r}") from fault
    print(f"proofs, seed {seed}: {dict(outcomes)}")
    return outcomes


def test_what_the_guard_accepts_two_libraries_accept() -> None:
    outcomes = run(8, CASES)
    # A guard that refuses everything, or changes that reach some of its checks only, would show nothing.
    assert outcomes["accepted"] > CASES / 20
    assert set(outcomes) == {"accepted", *(fault.value for fault in Fault)}


@pytest.mark.load
def test_what_the_guard_accepts_two_libraries_accept_among_many() -> None:
    run(secrets.randbits(32), MANY_CASES, keep=CRASHERS)


def test_proofs_that_were_judged_wrongly_are_not_any_more() -> None:
    for path in KEPT:
        kept = json.loads(path.read_text())
        shoot([value.encode("latin-1") for value in kept["values"]], kept["bound_to"])


@pytest.mark.parametrize(
    "changes",
    [
        {"htm": "GET"},
        {"htu": "https://evil.example/mcp"},
        {"iat": NOW - 61},
        {"iat": NOW + 11},
        {"ath": "x"},
        {"jti": None},
    ],
)
def test_the_checks_that_are_asked_do_refuse(changes: dict[str, Any]) -> None:
    for key in KEYS:
        good, bad, bound_to = proof(key, TOKEN), proof(key, TOKEN, **changes), thumbprint(key)
        for accepts in (pyjwt_accepts_proof, joserfc_accepts_proof):
            assert accepts(good, TOKEN, bound_to)
            assert not accepts(bad, TOKEN, bound_to)
            assert not accepts(good, TOKEN, thumbprint(STRANGER))
            assert not accepts(good[:-4] + b"AAAA", TOKEN, bound_to)
