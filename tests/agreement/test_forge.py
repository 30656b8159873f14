"""The guard and the certifier's forge, which share no code, mean the same by a token, a key and a thumbprint."""

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st

from mcp_guard.protocol import b64url, jose
from mcp_guard.protocol.jose import JoseError
from mcp_guard.protocol.jwk import JwkError, import_jwk
from pytest_mcp_conformance.forge import jws as forge
from tests.guard.vectors import vectors

EC, RSA = forge.new_ec_key(), forge.new_rsa_key()
CLAIMS = {"iss": "https://as.example.com", "sub": "alice"}


def signer(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> tuple[str, forge.Signer]:
    return ("RS256", forge.rs256(key)) if isinstance(key, rsa.RSAPrivateKey) else ("ES256", forge.es256(key))


@given(st.binary(max_size=100))
def test_base64url_is_written_alike(data: bytes) -> None:
    assert b64url.encode(data) == forge.b64url(data)
    assert forge.unb64url(b64url.encode(data)) == data


@pytest.mark.parametrize("key", [EC, RSA], ids=["ES256", "RS256"])
def test_a_forged_good_token_verifies_under_the_key_the_forge_publishes(
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey,
) -> None:
    alg, sign = signer(key)
    token = forge.compact({"alg": alg, "typ": "at+jwt"}, CLAIMS, sign)
    jwk = forge.public_jwk(key)
    assert forge.verifies(token, jwk)
    assert import_jwk(jwk).verifies(jose.parse_compact(token.encode()))


@pytest.mark.parametrize("key", [EC, RSA], ids=["EC", "RSA"])
def test_thumbprints_agree(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> None:
    jwk = forge.public_jwk(key)
    assert import_jwk(jwk).thumbprint == forge.thumbprint(jwk)


@pytest.mark.parametrize("vector", vectors("jwk", "thumbprints"), ids=lambda vector: vector["source"])
def test_the_forge_reproduces_the_printed_thumbprints(vector: dict[str, Any]) -> None:
    assert forge.thumbprint(vector["jwk"]) == vector["thumbprint"]


@given(st.integers(0, 1_000), st.sampled_from(["flip", "cut", "payload"]))
def test_what_the_forge_calls_wrong_the_guard_does_not_verify(place: int, kind: str) -> None:
    token = forge.compact({"alg": "ES256", "typ": "at+jwt"}, CLAIMS, forge.es256(EC))
    at = place % len(token)
    changed = {
        "flip": token[:at] + ("A" if token[at] != "A" else "B") + token[at + 1 :],
        "cut": token[:at] + token[at + 1 :],
        "payload": token.replace(token.split(".")[1], forge.b64url(forge.dump({**CLAIMS, "sub": str(place)}))),
    }[kind]
    jwk = forge.public_jwk(EC)
    try:
        ours = import_jwk(jwk).verifies(jose.parse_compact(changed.encode()))
    except (JoseError, JwkError):
        ours = False
    assert not ours


@pytest.mark.parametrize("sign", [forge.unsigned, forge.hs256(b"secret")], ids=["none", "HS256"])
@pytest.mark.parametrize("alg", ["none", "HS256", "ES256"])
def test_a_token_without_a_public_key_signature_never_verifies(alg: str, sign: forge.Signer) -> None:
    token = forge.compact({"alg": alg, "typ": "at+jwt"}, CLAIMS, sign)
    try:
        jws = jose.parse_compact(token.encode())
    except JoseError:
        return
    assert not import_jwk(forge.public_jwk(EC)).verifies(jws)
