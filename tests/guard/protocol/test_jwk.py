"""Public keys are used for what they were published for, and nothing else is a key."""

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from mcp_guard.protocol import jose
from mcp_guard.protocol.jose import CompactJws, Header
from mcp_guard.protocol.jwk import JwkError, VerificationKey, import_jwk, import_set
from tests.guard.signing import SigningKey, jwk_set, number, public_members, rsa_private
from tests.guard.vectors import vectors

EC = SigningKey.new("ES256", "ec")
RSA = SigningKey.new("RS256", "rsa")
ED = SigningKey.new("Ed25519", "ed")


def why_not(jwk: object) -> str:
    with pytest.raises(JwkError) as caught:
        import_jwk(jwk)
    return caught.value.reason


@pytest.mark.parametrize("vector", vectors("jwk", "thumbprints"), ids=lambda vector: vector["source"])
def test_the_printed_thumbprints_come_out(vector: dict[str, Any]) -> None:
    assert import_jwk(vector["jwk"]).thumbprint == vector["thumbprint"]


@pytest.mark.parametrize("vector", vectors("jwk", "refused"), ids=lambda vector: vector["source"])
def test_printed_keys_of_another_kind_are_refused(vector: dict[str, Any]) -> None:
    assert vector["reason"] in why_not(vector["jwk"])


@pytest.mark.parametrize(
    ("key", "alg", "expected"),
    [
        (EC, None, {"ES256"}),
        (SigningKey.new("ES384"), None, {"ES384"}),
        (RSA, None, {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}),
        (RSA, "PS384", {"PS384"}),
        (ED, None, {"EdDSA", "Ed25519"}),
        (ED, "EdDSA", {"EdDSA"}),
    ],
)
def test_a_key_serves_the_algorithms_of_its_type_or_the_one_it_names(
    key: SigningKey, alg: str | None, expected: set[str]
) -> None:
    assert import_jwk(key.jwk(alg=alg)).algorithms == expected


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"use": "enc"}, "use"),
        ({"use": "SIG"}, "use"),
        ({"use": ["sig"]}, "use"),
        ({"key_ops": ["sign"]}, "without verify"),
        ({"key_ops": []}, "without verify"),
        ({"key_ops": "verify"}, "key_ops"),
        ({"key_ops": ["verify", 1]}, "key_ops"),
        ({"alg": "RS256"}, "alg"),
        ({"alg": "HS256"}, "alg"),
        ({"alg": "none"}, "alg"),
        ({"alg": "ES384"}, "alg"),
        ({"alg": 7}, "alg"),
        ({"alg": ["ES256"]}, "alg"),
        ({"kid": ""}, "kid"),
        ({"kid": 7}, "kid"),
        ({"kid": "a b"}, "kid"),
        ({"kid": "k" * 257}, "kid"),
        ({"d": "AAAA"}, "private"),
        ({"k": "AAAA"}, "private"),
        ({"kty": "RSA"}, "no n"),
        ({"kty": "ec"}, "type or curve"),
        ({"kty": ["EC"]}, "type or curve"),
        ({"crv": "P-521"}, "type or curve"),
        ({"crv": "secp256k1"}, "type or curve"),
        ({"crv": "Ed25519"}, "type or curve"),
        ({"crv": ["P-256"]}, "type or curve"),
        ({"crv": "P-384"}, "wrong length"),
        ({"x": number(7, 33)}, "wrong length"),
        ({"x": number(7, 31)}, "wrong length"),
        ({"x": EC.jwk()["x"] + "="}, "malformed x"),
        ({"y": 7}, "no y"),
        ({"y": number(5, 32)}, "not a key"),
        ({"x": number(0, 32), "y": number(0, 32)}, "not a key"),
    ],
)
def test_a_key_with_another_purpose_or_form_is_refused(members: dict[str, Any], reason: str) -> None:
    assert reason in why_not({**EC.jwk(), **members})


@pytest.mark.parametrize("value", [None, [], "key", 7, {}, {"kty": "EC"}, {"kty": "OKP", "crv": "X25519", "x": "AA"}])
def test_what_is_no_key_at_all_is_refused(value: object) -> None:
    assert why_not(value)


def test_key_operations_may_include_verifying() -> None:
    assert import_jwk({**EC.jwk(), "key_ops": ["verify"], "use": "sig"}).kid == "ec"


def test_zeros_before_a_number_make_no_other_key() -> None:
    """RFC 7518 §2: what they are written with is not part of a thumbprint."""
    plain = public_members(rsa_private(2048, "k1"))
    modulus = number(rsa_private(2048, "k1").public_key().public_numbers().n, 257)
    padded = import_jwk({**plain, "n": modulus, "e": number(65537, 5)})
    assert padded.thumbprint == import_jwk(plain).thumbprint


@pytest.mark.parametrize("bits", [1024, 1536, 2047])
def test_a_weak_modulus_is_refused(bits: int) -> None:
    jwk = {"kty": "RSA", "n": number((1 << (bits - 1)) | 1), "e": "AQAB"}
    assert f"{bits} bits" in why_not(jwk)


def test_a_modulus_that_costs_too_much_is_refused() -> None:
    assert "8193 bits" in why_not({"kty": "RSA", "n": number((1 << 8192) | 1), "e": "AQAB"})


def test_a_weak_key_of_the_real_kind_is_refused() -> None:
    assert "1024 bits" in why_not(public_members(rsa.generate_private_key(65537, 1024)))  # noqa: S505 - its weakness is the point
    assert import_jwk(public_members(rsa_private(2048, "k1"))).kid is None


@pytest.mark.parametrize("exponent", [0, 1, 2, 65536, (1 << 64) + 1])
def test_an_exponent_that_weakens_the_key_is_refused(exponent: int) -> None:
    size = max(1, (exponent.bit_length() + 7) // 8)
    assert "exponent" in why_not({**RSA.jwk(), "e": number(exponent, size)})


def test_an_empty_exponent_is_refused() -> None:
    assert "exponent" in why_not({**RSA.jwk(), "e": ""})


def sample(alg: str, signature: bytes) -> CompactJws:
    return CompactJws(Header(alg, None, None), b"a.b", b"", signature)


@pytest.mark.parametrize(
    "signature",
    [
        b"",
        b"\x00",
        bytes(64),
        b"\x01" * 63,
        b"\x01" * 65,
        b"\xff" * 64,
        bytes(32) + b"\x01" * 32,
        b"\x01" * 32 + bytes(32),
    ],
)
def test_degenerate_elliptic_signatures_do_not_verify(signature: bytes) -> None:
    assert not import_jwk(EC.jwk()).verifies(sample("ES256", signature))


@pytest.mark.parametrize("signature", [b"", bytes(256), bytes(255) + b"\x01", b"\xff" * 256, bytes(257)])
def test_degenerate_rsa_signatures_do_not_verify(signature: bytes) -> None:
    key = import_jwk(RSA.jwk(alg=None))
    assert not any(key.verifies(sample(alg, signature)) for alg in key.algorithms)


@pytest.mark.parametrize("signature", [b"", bytes(64), bytes(63), b"\xff" * 64])
def test_degenerate_edwards_signatures_do_not_verify(signature: bytes) -> None:
    assert not import_jwk(ED.jwk()).verifies(sample("Ed25519", signature))


def test_a_signature_in_der_does_not_verify() -> None:
    from cryptography.hazmat.primitives.hashes import SHA256

    assert isinstance(EC.private, ec.EllipticCurvePrivateKey)
    der = EC.private.sign(b"a.b", ec.ECDSA(SHA256()))
    assert not import_jwk(EC.jwk()).verifies(sample("ES256", der))
    assert import_jwk(EC.jwk()).verifies(sample("ES256", EC.sign(b"a.b")))


def test_a_key_is_never_used_with_an_algorithm_that_is_not_its_own() -> None:
    token = jose.parse_compact(SigningKey("RS256", "rsa", RSA.private).token())
    assert import_jwk(RSA.jwk()).verifies(token)
    assert not import_jwk(RSA.jwk(alg="PS256")).verifies(token)
    assert not import_jwk(EC.jwk()).verifies(token)


class TestSets:
    """Sets of keys."""

    def test_bad_members_are_ignored_and_named(self) -> None:
        keys = import_set(jwk_set({"kty": "oct", "k": "AAAA"}, {**RSA.jwk(), "d": "AAAA"}, EC))
        assert [key.kid for key in keys.keys] == ["ec"]
        assert keys.ignored == ("key 0 is a private or symmetric key", "key 1 is a private or symmetric key")

    @pytest.mark.parametrize(
        "document",
        [None, [], {}, {"keys": []}, {"keys": "x"}, {"keys": {}}, "keys", {"keys": [{"kty": "oct", "k": "A"}]}],
    )
    def test_a_set_without_a_usable_key_is_refused(self, document: object) -> None:
        with pytest.raises(JwkError):
            import_set(document)

    def test_keys_after_the_sixty_fourth_are_ignored(self) -> None:
        keys = import_set(jwk_set(*[EC.jwk(kid=f"k{position}") for position in range(70)]))
        assert len(keys.keys) == 64
        assert keys.ignored == ("6 keys after the first 64",)
        assert keys.find("k63", "ES256") is not None
        assert keys.find("k64", "ES256") is None

    def test_a_key_is_found_by_id_and_algorithm_together(self) -> None:
        keys = import_set(jwk_set(EC, RSA))
        assert found(keys.find("ec", "ES256")).kid == "ec"
        assert keys.find("ec", "RS256") is None
        assert keys.find("rsa", "PS256") is None
        assert keys.find("nobody", "ES256") is None

    def test_without_an_id_only_an_unambiguous_key_is_found(self) -> None:
        assert found(import_set(jwk_set(EC, RSA)).find(None, "ES256")).kid == "ec"
        assert import_set(jwk_set(EC, SigningKey.new("ES256", "ec2"))).find(None, "ES256") is None
        assert import_set(jwk_set(EC)).find(None, "RS256") is None

    def test_a_key_without_an_id_answers_no_id(self) -> None:
        keys = import_set(jwk_set(EC.jwk(kid=None)))
        assert keys.find("ec", "ES256") is None
        assert keys.find(None, "ES256") is not None

    def test_of_two_keys_with_one_id_the_first_counts(self) -> None:
        first, second = SigningKey.new("ES256", "same"), SigningKey.new("ES256", "same")
        jws = jose.parse_compact(first.token())
        assert found(import_set(jwk_set(first, second)).find("same", "ES256")).verifies(jws)
        assert not found(import_set(jwk_set(second, first)).find("same", "ES256")).verifies(jws)

    def test_an_id_is_known_whatever_its_algorithm(self) -> None:
        keys = import_set(jwk_set(EC))
        assert keys.knows("ec")
        assert keys.knows(None)
        assert not keys.knows("other")


def found(key: VerificationKey | None) -> VerificationKey:
    assert key is not None
    return key
