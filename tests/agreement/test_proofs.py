"""The guard and the certifier's forge mean the same by a proof of possession (RFC 9449)."""

import hashlib
from typing import Any

import pytest

from mcp_guard.protocol import dpop, uris
from mcp_guard.protocol.dpop import ProofError, Target
from pytest_mcp_conformance.forge.dpop import ProofKey, ath
from pytest_mcp_conformance.forge.jws import new_rsa_key, read_jws, thumbprint, verifies
from pytest_mcp_conformance.strategies.proofs import other_addresses, same_addresses
from tests.guard.vectors import vectors

URL, TOKEN = "https://mcp.example.com/mcp", "a-token"
KEY, RSA = ProofKey(), ProofKey(new_rsa_key())


def judged(proof: str, key: ProofKey = KEY) -> None:
    """Raises: ProofError, as the guard judges the proof of a request made when the proof says."""
    read = dpop.parse([proof.encode()])
    digest = hashlib.sha256(TOKEN.encode()).digest()
    dpop.check(read, Target("POST", uris.normalised(URL), digest, key.thumbprint), read.issued_at)


def test_a_forged_good_proof_is_accepted() -> None:
    judged(KEY.proof("POST", URL, token=TOKEN))


def test_a_proof_by_an_rsa_key_is_signed_by_it_and_not_taken_by_the_guard() -> None:
    proof = RSA.proof("POST", URL, token=TOKEN)
    assert verifies(proof, RSA.jwk)
    with pytest.raises(ProofError, match="algorithm"):
        judged(proof, RSA)


@pytest.mark.parametrize("htu", same_addresses(URL))
def test_the_guard_takes_every_spelling_that_the_certifier_calls_the_same(htu: str) -> None:
    judged(KEY.proof("POST", URL, token=TOKEN, claims={"htu": htu}))


@pytest.mark.parametrize("htu", other_addresses(URL))
def test_the_guard_refuses_every_address_that_the_certifier_calls_another(htu: str) -> None:
    with pytest.raises(ProofError, match="htu"):
        judged(KEY.proof("POST", URL, token=TOKEN, claims={"htu": htu}))


@pytest.mark.parametrize(
    ("part", "member"), [("claims", "jti"), ("claims", "htm"), ("claims", "htu"), ("claims", "iat"), ("claims", "ath")]
)
def test_a_claim_that_is_left_out_is_missed(part: str, member: str) -> None:
    changes: dict[str, Any] = {part: {member: None}}
    with pytest.raises(ProofError, match=member):
        judged(KEY.proof("POST", URL, token=TOKEN, **changes))


def test_a_private_key_in_a_proof_is_refused() -> None:
    with pytest.raises(ProofError, match="jwk"):
        judged(KEY.proof("POST", URL, token=TOKEN, header={"jwk": {**KEY.jwk, **KEY.private_members}}))


@pytest.mark.parametrize("vector", vectors("dpop", "accepted"), ids=lambda vector: vector["source"])
def test_the_printed_proofs_read_alike(vector: dict[str, Any]) -> None:
    proof, read = vector["proof"], read_jws(vector["proof"])
    assert read is not None
    assert verifies(proof, read.header["jwk"])
    assert thumbprint(read.header["jwk"]) == dpop.parse([proof.encode()]).thumbprint == vector["thumbprint"]
    if "token" in vector:
        assert ath(vector["token"]) == read.claims["ath"]
