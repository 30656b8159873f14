"""Keys of every accepted algorithm and tokens signed with them, written on `cryptography` alone."""

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

ISSUER = "https://as.example.com"
RESOURCE = "https://mcp.example.com/mcp"
NOW = 1_800_000_000
HASHES: dict[str, Callable[[], hashes.HashAlgorithm]] = {
    "256": hashes.SHA256,
    "384": hashes.SHA384,
    "512": hashes.SHA512,
}

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey


def b64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def dump(value: Mapping[str, Any] | bytes) -> bytes:
    """JSON, or bytes as they are."""
    return value if isinstance(value, bytes) else json.dumps(value, separators=(",", ":")).encode()


def number(value: int, size: int | None = None) -> str:
    return b64url(value.to_bytes(size or (value.bit_length() + 7) // 8, "big"))


@lru_cache
def rsa_private(bits: int, name: str) -> rsa.RSAPrivateKey:
    """An RSA key, made once for each `name`."""
    del name
    return rsa.generate_private_key(65537, bits)


def private_key(alg: str, name: str = "k1") -> PrivateKey:
    """A new key that fits `alg`; RSA keys are shared by name, because they are slow to make."""
    if alg in ("EdDSA", "Ed25519"):
        return ed25519.Ed25519PrivateKey.generate()
    if alg.startswith("ES"):
        return ec.generate_private_key(ec.SECP256R1() if alg == "ES256" else ec.SECP384R1())
    return rsa_private(2048, name)


@dataclass(frozen=True)
class SigningKey:
    """A private key with its id and algorithm."""

    alg: str
    kid: str
    private: PrivateKey

    @classmethod
    def new(cls, alg: str = "ES256", kid: str = "k1") -> "SigningKey":
        return cls(alg, kid, private_key(alg, kid))

    def jwk(self, **members: Any) -> dict[str, Any]:
        """The public key; a member that is None is left out."""
        merged = {**public_members(self.private), "kid": self.kid, "alg": self.alg, "use": "sig", **members}
        return {name: value for name, value in merged.items() if value is not None}

    def sign(self, data: bytes) -> bytes:
        """RFC 7518 §3.3 to §3.5, RFC 8037 §3.1."""
        if isinstance(self.private, ed25519.Ed25519PrivateKey):
            return self.private.sign(data)
        algorithm = HASHES[self.alg[2:]]()
        if isinstance(self.private, ec.EllipticCurvePrivateKey):
            size = self.private.key_size // 8
            return b"".join(
                half.to_bytes(size, "big")
                for half in decode_dss_signature(self.private.sign(data, ec.ECDSA(algorithm)))
            )
        if self.alg.startswith("PS"):
            return self.private.sign(
                data, padding.PSS(padding.MGF1(algorithm), salt_length=algorithm.digest_size), algorithm
            )
        return self.private.sign(data, padding.PKCS1v15(), algorithm)

    def token(
        self,
        claims: Mapping[str, Any] | bytes | None = None,
        header: Mapping[str, Any] | bytes | None = None,
        **changes: Any,
    ) -> bytes:
        """An access token; `claims` and `header` replace everything, `changes` single claims. None leaves one out."""
        if claims is None:
            claims = {name: value for name, value in {**good_claims(), **changes}.items() if value is not None}
        if header is None:
            header = self.header()
        return self.compact(header, claims)

    def header(self, **changes: Any) -> dict[str, Any]:
        members = {"alg": self.alg, "kid": self.kid, "typ": "at+jwt", **changes}
        return {name: value for name, value in members.items() if value is not None}

    def compact(self, header: Mapping[str, Any] | bytes, payload: Mapping[str, Any] | bytes) -> bytes:
        """RFC 7515 §7.1."""
        signing_input = f"{b64url(dump(header))}.{b64url(dump(payload))}".encode()
        return signing_input + b"." + b64url(self.sign(signing_input)).encode()


def good_claims() -> dict[str, Any]:
    """The claims of a token that is good at `NOW` for `RESOURCE`."""
    return {
        "iss": ISSUER,
        "aud": RESOURCE,
        "sub": "alice",
        "client_id": "client-1",
        "iat": NOW - 10,
        "exp": NOW + 300,
        "jti": "t1",
        "scope": "mcp:tools",
    }


def public_members(key: PrivateKey) -> dict[str, str]:
    if isinstance(key, rsa.RSAPrivateKey):
        numbers = key.public_key().public_numbers()
        return {"kty": "RSA", "n": number(numbers.n), "e": number(numbers.e)}
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return {"kty": "OKP", "crv": "Ed25519", "x": b64url(key.public_key().public_bytes_raw())}
    point = key.public_key().public_numbers()
    size = key.key_size // 8
    return {"kty": "EC", "crv": f"P-{key.key_size}", "x": number(point.x, size), "y": number(point.y, size)}


def jwk_set(*keys: SigningKey | Mapping[str, Any]) -> dict[str, Any]:
    return {"keys": [key.jwk() if isinstance(key, SigningKey) else dict(key) for key in keys]}
