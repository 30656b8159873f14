"""Writes compact JWS (RFC 7515 §7.1) exactly as asked, and reads the parts of one without judging it."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

Signer = Callable[[bytes], bytes]
Json = Mapping[str, Any]


def b64url(data: bytes) -> str:
    """RFC 7515 §2: base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64url(text: str) -> bytes:
    """Raises: ValueError when `text` is not base64url."""
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)


def dump(value: Json | bytes) -> bytes:
    """JSON without spaces, NaN allowed; bytes as they are."""
    return value if isinstance(value, bytes) else json.dumps(value, separators=(",", ":")).encode()


def compact(header: Json | bytes, payload: Json | bytes, sign: Signer) -> str:
    """RFC 7515 §7.1."""
    signed = f"{b64url(dump(header))}.{b64url(dump(payload))}"
    return f"{signed}.{b64url(sign(signed.encode()))}"


def unsigned(data: bytes) -> bytes:
    """The empty signature of `alg` none (RFC 7518 §3.6)."""
    return b""


def hs256(secret: bytes) -> Signer:
    """RFC 7518 §3.2."""
    return lambda data: hmac.new(secret, data, hashlib.sha256).digest()


def es256(key: ec.EllipticCurvePrivateKey) -> Signer:
    """RFC 7518 §3.4: R and S, 32 octets each."""

    def sign(data: bytes) -> bytes:
        r, s = decode_dss_signature(key.sign(data, ec.ECDSA(SHA256())))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")

    return sign


def rs256(key: rsa.RSAPrivateKey) -> Signer:
    """RFC 7518 §3.3."""
    return lambda data: key.sign(data, padding.PKCS1v15(), SHA256())


def new_ec_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def new_rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


def public_jwk(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> dict[str, str]:
    """The members that make up the public key (RFC 7518 §6.2.1, §6.3.1)."""
    if isinstance(key, rsa.RSAPrivateKey):
        rsa_numbers = key.public_key().public_numbers()
        return {"kty": "RSA", "n": _uint(rsa_numbers.n), "e": _uint(rsa_numbers.e)}
    numbers = key.public_key().public_numbers()
    x, y = (b64url(number.to_bytes(32, "big")) for number in (numbers.x, numbers.y))
    return {"kty": "EC", "crv": "P-256", "x": x, "y": y}


def thumbprint(jwk: Mapping[str, str]) -> str:
    """RFC 7638 §3: SHA-256 over the required members in order."""
    required = {"EC": ("crv", "kty", "x", "y"), "RSA": ("e", "kty", "n"), "OKP": ("crv", "kty", "x")}[jwk["kty"]]
    return b64url(hashlib.sha256(dump({name: jwk[name] for name in required})).digest())


@dataclass(frozen=True, repr=False)
class Jws:
    """The parts of a compact JWS, decoded but not judged; `signature` stays as it was written."""

    header: dict[str, Any]
    claims: dict[str, Any]
    signature: str

    def __repr__(self) -> str:
        return "Jws(…)"

    def resign(self, sign: Signer, *, header: Json | None = None, claims: Json | None = None) -> str:
        """The same token with members replaced (a value of None removes one) and another signature."""
        return compact(_merged(self.header, header), _merged(self.claims, claims), sign)

    def keeping_signature(self, *, header: Json | None = None, claims: Json | None = None) -> str:
        """The same token with members replaced and the signature that no longer fits."""
        return f"{compact(_merged(self.header, header), _merged(self.claims, claims), unsigned)}{self.signature}"


def read_jws(token: str) -> Jws | None:
    """The parts of `token`; None when it is not a compact JWS of JSON objects, such as an opaque token."""
    pieces = token.split(".")
    if len(pieces) != 3:
        return None
    try:
        header, claims = (json.loads(unb64url(piece)) for piece in pieces[:2])
    except (ValueError, RecursionError):
        return None
    return Jws(header, claims, pieces[2]) if isinstance(header, dict) and isinstance(claims, dict) else None


def verifies(token: str, jwk: Mapping[str, Any]) -> bool | None:
    """Whether an ES256 or RS256 signature fits the public key; None when the algorithm or key is of another kind."""
    jws, signed = read_jws(token), token.rpartition(".")[0].encode()
    kind = None if jws is None else (jws.header.get("alg"), jwk.get("kty"))
    try:
        if jws is None or kind not in {("ES256", "EC"), ("RS256", "RSA")}:
            return None
        signature = unb64url(jws.signature)
        if kind == ("RS256", "RSA"):
            n, e = (int.from_bytes(unb64url(str(jwk[name]))) for name in ("n", "e"))
            rsa.RSAPublicNumbers(e, n).public_key().verify(signature, signed, padding.PKCS1v15(), SHA256())
            return True
        x, y = (int.from_bytes(unb64url(str(jwk[name]))) for name in ("x", "y"))
        r, s = (int.from_bytes(half) for half in (signature[:32], signature[32:]))
        public = ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()
        public.verify(encode_dss_signature(r, s), signed, ec.ECDSA(SHA256()))
    except (InvalidSignature, KeyError, ValueError):
        return False
    return True


def _merged(members: Json, changes: Json | None) -> dict[str, Any]:
    return {name: value for name, value in {**members, **(changes or {})}.items() if value is not None}


def _uint(number: int) -> str:
    return b64url(number.to_bytes((number.bit_length() + 7) // 8, "big"))
