"""Signing keys: where they come from and what is refused."""

import json
import stat
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from joserfc.jwk import ECKey, RSAKey

from mcp_guard.failures import ConfigurationError
from mcp_guard.oauth import SigningKeys

P256 = ec.generate_private_key(ec.SECP256R1())
OTHER = ec.generate_private_key(ec.SECP256R1())


def pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, style: PrivateFormat = PrivateFormat.PKCS8) -> bytes:
    return key.private_bytes(Encoding.PEM, style, NoEncryption())


def jwk(key: ec.EllipticCurvePrivateKey, *, private: bool = True) -> dict[str, object]:
    return dict(ECKey.import_key(key).as_dict(private=private))


def written(folder: Path, data: bytes, mode: int = 0o600) -> Path:
    path = folder / "keys"
    path.write_bytes(data)
    path.chmod(mode)
    return path


@pytest.mark.parametrize(
    ("data", "count"),
    [
        (pem(P256), 1),
        (pem(P256, PrivateFormat.TraditionalOpenSSL), 1),
        (b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n" + pem(P256), 1),
        (pem(P256) + pem(OTHER), 2),
        (json.dumps(jwk(P256)).encode(), 1),
        (json.dumps({"keys": [jwk(P256), jwk(OTHER)]}).encode(), 2),
    ],
    ids=["pkcs8", "sec1", "with parameters", "two", "jwk", "jwk set"],
)
def test_keys_are_read_in_order_and_named_by_thumbprint(tmp_path: Path, data: bytes, count: int) -> None:
    keys = SigningKeys.from_file(written(tmp_path, data))
    expected = [ECKey.import_key(key).thumbprint() for key in (P256, OTHER)]
    assert list(keys.ids) == expected[:count]
    assert [member["kid"] for member in keys.public_set()["keys"]] == expected[:count]


def test_the_first_key_signs_and_all_verify() -> None:
    """A rotation: the new key is published before it signs, the old one as long as its tokens live."""
    before, after = SigningKeys([P256, OTHER]), SigningKeys([OTHER, P256])
    old, new = before.sign({"sub": "a"}), after.sign({"sub": "a"})
    published = jwt.PyJWKSet.from_dict(after.public_set())
    for token, kid in [(old, before.ids[0]), (new, after.ids[0])]:
        assert jwt.get_unverified_header(token)["kid"] == kid
        assert jwt.decode(token, published[kid], algorithms=["ES256"]) == {"sub": "a"}
    assert before.ids[0] != after.ids[0]


RSA = rsa.generate_private_key(65537, 2048)
P384 = ec.generate_private_key(ec.SECP384R1())


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "neither PEM nor JSON"),
        (b"{", "neither PEM nor JSON"),
        (b"\xff\xfe", "neither PEM nor JSON"),
        (b"[]", "neither a JWK nor a JWK set"),
        (b'{"keys": 1}', "neither a JWK nor a JWK set"),
        (b'{"keys": []}', "at least one"),
        (b"{}", "not an EC key"),
        (b'{"keys": [1]}', "not an EC key"),
        (json.dumps(RSAKey.import_key(RSA).as_dict(private=True)).encode(), "not an EC key"),
        (json.dumps(jwk(P256, private=False)).encode(), "no private key"),
        (json.dumps(jwk(P384)).encode(), "P-256"),
        (json.dumps({"keys": [jwk(P256), jwk(P256)]}).encode(), "differ"),
        (pem(RSA), "P-256"),
        (pem(P384), "P-256"),
        (P256.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo), "at least one"),
        (P256.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")), "encrypted"),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "not a private key"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_with_the_reason(tmp_path: Path, data: bytes, said: str) -> None:
    path = written(tmp_path, data)
    with pytest.raises(ConfigurationError, match=said) as refusal:
        SigningKeys.from_file(path)
    assert str(path) in str(refusal.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nowhere.*No such file"):
        SigningKeys.from_file(tmp_path / "nowhere")


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="Is a directory"):
        SigningKeys.from_file(tmp_path)


def test_a_device_is_no_file() -> None:
    with pytest.raises(ConfigurationError, match="is not a file"):
        SigningKeys.from_file("/dev/null")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660, 0o666])
def test_a_file_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = written(tmp_path, pem(P256), mode)
    with pytest.raises(ConfigurationError, match=f"{stat.S_IMODE(mode):04o}.*0600"):
        SigningKeys.from_file(path)


def test_no_key_is_no_keys() -> None:
    with pytest.raises(ConfigurationError, match="at least one"):
        SigningKeys([])
