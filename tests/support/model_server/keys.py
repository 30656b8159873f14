"""Signing keys, base64url and compact JWS, written out on `cryptography` alone (RFC 7515, RFC 7517, RFC 7518 §3.4)."""

from __future__ import annotations

import base64
import binascii
import json
import secrets
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

JSON = dict[str, Any]
COORDINATE_BYTES = 32


def b64url(data: bytes) -> str:
    """Base64url without padding (RFC 7515 §2)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def unb64url(text: str) -> bytes:
    """The bytes of canonical, unpadded base64url.

    Raises:
        ValueError: foreign characters, padding, or unused bits that are not zero.
    """
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError("not base64url") from error
    if b64url(data) != text:
        raise ValueError("not canonical base64url")
    return data


def unb64url_leniently(text: str) -> bytes:
    """What careless decoders do: drop padding, ignore the unused bits of the last character."""
    bare = text.rstrip("=")
    try:
        return base64.urlsafe_b64decode(bare + "=" * (-len(bare) % 4))
    except (binascii.Error, ValueError) as error:
        raise ValueError("not base64url") from error


def compact_json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode("utf-8")


class SigningKey:
    """One ES256 key pair and its `kid`."""

    def __init__(self) -> None:
        self.private = ec.generate_private_key(ec.SECP256R1())
        self.kid = secrets.token_urlsafe(9)

    @property
    def jwk(self) -> JSON:
        """The public key as a JWK (RFC 7517, RFC 7518 §6.2)."""
        return {**jwk_of(self.private.public_key()), "kid": self.kid, "use": "sig", "alg": "ES256"}

    @property
    def private_member(self) -> str:
        """The `d` member, which must never be published."""
        return b64url(self.private.private_numbers().private_value.to_bytes(COORDINATE_BYTES, "big"))

    def pem(self) -> bytes:
        return self.private.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    def der(self) -> bytes:
        return self.private.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    def sign(self, signing_input: bytes) -> bytes:
        """The 64 byte signature `R || S` (RFC 7518 §3.4)."""
        r, s = decode_dss_signature(self.private.sign(signing_input, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(COORDINATE_BYTES, "big") + s.to_bytes(COORDINATE_BYTES, "big")

    def compact(self, header: bytes, payload: bytes) -> str:
        """A compact JWS over these exact octets."""
        signing_input = f"{b64url(header)}.{b64url(payload)}"
        return f"{signing_input}.{b64url(self.sign(signing_input.encode('ascii')))}"


def jwk_of(key: ec.EllipticCurvePublicKey) -> JSON:
    numbers = key.public_numbers()
    return {
        "kty": "EC",
        "crv": "P-256",
        "x": b64url(numbers.x.to_bytes(COORDINATE_BYTES, "big")),
        "y": b64url(numbers.y.to_bytes(COORDINATE_BYTES, "big")),
    }


def key_of(jwk: JSON) -> ec.EllipticCurvePublicKey:
    """The P-256 public key in a JWK. Raises ValueError when it is not one."""
    if jwk.get("kty") != "EC" or jwk.get("crv") != "P-256":
        raise ValueError("not a P-256 key")
    x, y = (int.from_bytes(unb64url(str(jwk.get(name, ""))), "big") for name in ("x", "y"))
    return ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()


def signed_by(key: ec.EllipticCurvePublicKey, signing_input: bytes, signature: bytes) -> bool:
    """Whether the 64 byte `R || S` signature is the key's over this input."""
    if len(signature) != 2 * COORDINATE_BYTES:
        return False
    r = int.from_bytes(signature[:COORDINATE_BYTES], "big")
    s = int.from_bytes(signature[COORDINATE_BYTES:], "big")
    try:
        key.verify(encode_dss_signature(r, s), signing_input, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True
