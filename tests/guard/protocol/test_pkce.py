"""PKCE: only S256, and only what S256 can produce."""

import hashlib
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_guard.protocol import b64url, pkce

UNRESERVED = string.ascii_letters + string.digits + "-._~"
VERIFIERS = st.text(alphabet=UNRESERVED, min_size=43, max_size=128)


def test_the_example_of_rfc_7636_appendix_b_is_answered() -> None:
    verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
    assert pkce.challenge_of(verifier) == "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
    assert pkce.verifies(verifier, "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM")


@given(VERIFIERS)
def test_every_verifier_answers_its_own_challenge(verifier: str) -> None:
    challenge = pkce.challenge_of(verifier)
    assert pkce.is_challenge(challenge)
    assert pkce.verifies(verifier, challenge)


@given(VERIFIERS, VERIFIERS)
def test_another_verifier_does_not_answer(verifier: str, other: str) -> None:
    assert pkce.verifies(other, pkce.challenge_of(verifier)) == (other == verifier)


@pytest.mark.parametrize(("length", "good"), [(0, False), (42, False), (43, True), (128, True), (129, False)])
def test_a_verifier_has_43_to_128_characters(length: int, good: bool) -> None:
    assert pkce.is_verifier("a" * length) is good


@pytest.mark.parametrize("character", [" ", "+", "/", "=", "\n", "\0", "é", "٣", "%"])
def test_a_verifier_has_no_other_character(character: str) -> None:
    verifier = "a" * 42 + character
    assert not pkce.is_verifier(verifier)
    with pytest.raises(ValueError, match="unreserved"):
        pkce.challenge_of(verifier)


@pytest.mark.parametrize("verifier", ["a" * 42, "a" * 129, "a" * 42 + " ", "a" * 42 + "\0"])
def test_a_malformed_verifier_does_not_answer_even_when_the_hash_agrees(verifier: str) -> None:
    challenge = b64url.encode(hashlib.sha256(verifier.encode()).digest())
    assert not pkce.verifies(verifier, challenge)


def test_a_trailing_newline_is_no_part_of_a_verifier_or_a_challenge() -> None:
    assert not pkce.is_verifier("a" * 43 + "\n")
    assert not pkce.is_challenge("A" * 43 + "\n")


@given(st.binary(max_size=100))
def test_a_challenge_is_exactly_thirty_two_bytes(data: bytes) -> None:
    assert pkce.is_challenge(b64url.encode(data)) == (len(data) == 32)


@pytest.mark.parametrize(
    "text", ["", "a", "A" * 42, "A" * 44, "A" * 42 + "+", "A" * 42 + "=", "A" * 42 + "B", "é" * 43]
)
def test_what_no_digest_is_spelled_like_is_no_challenge(text: str) -> None:
    assert not pkce.is_challenge(text)


def test_the_challenge_itself_is_no_answer() -> None:
    challenge = pkce.challenge_of("a" * 43)
    assert not pkce.verifies(challenge, challenge)
