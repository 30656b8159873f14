"""Writes DPoP proofs (RFC 9449 §4.2) exactly as asked."""

from __future__ import annotations

import hashlib
import secrets as randomness
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from cryptography.hazmat.primitives.asymmetric import ec, rsa

from pytest_mcp_conformance.forge.jws import (
    Json,
    Signer,
    b64url,
    compact,
    es256,
    new_ec_key,
    public_jwk,
    rs256,
    thumbprint,
)

PRIVATE_BYTES = 32


@dataclass(frozen=True, repr=False)
class ProofKey:
    """A key pair of a client: P-256 unless given, or RSA."""

    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey = field(default_factory=new_ec_key)

    def __repr__(self) -> str:
        return "ProofKey(…)"

    @cached_property
    def jwk(self) -> Mapping[str, str]:
        """The public key."""
        return public_jwk(self.key)

    @cached_property
    def thumbprint(self) -> str:
        """What `cnf.jkt` and `dpop_jkt` hold (RFC 9449 §6.1, §10)."""
        return thumbprint(self.jwk)

    @property
    def private_members(self) -> Mapping[str, str]:
        """What no proof may hold: the private part, of an RSA key one member of it."""
        if isinstance(self.key, rsa.RSAPrivateKey):
            number = self.key.private_numbers().d
            return {"d": b64url(number.to_bytes((number.bit_length() + 7) // 8, "big"))}
        return {"d": b64url(self.key.private_numbers().private_value.to_bytes(PRIVATE_BYTES, "big"))}

    def sign(self, data: bytes) -> bytes:
        signer = rs256(self.key) if isinstance(self.key, rsa.RSAPrivateKey) else es256(self.key)
        return signer(data)

    def proof(
        self,
        method: str,
        url: str,
        *,
        token: str = "",
        header: Json | None = None,
        claims: Json | None = None,
        sign: Signer | None = None,
    ) -> str:
        """A proof made now for this request and token.

        `header` and `claims` replace members, None leaves one out; `sign` signs in place of the key.
        """
        alg = "RS256" if isinstance(self.key, rsa.RSAPrivateKey) else "ES256"
        head = {"typ": "dpop+jwt", "alg": alg, "jwk": dict(self.jwk), **(header or {})}
        said = {"jti": randomness.token_urlsafe(18), "htm": method, "htu": url, "iat": int(time.time())}
        if token:
            said["ath"] = ath(token)
        said |= claims or {}
        return compact(_without_none(head), _without_none(said), sign or self.sign)


def ath(token: str) -> str:
    """RFC 9449 §4.2: SHA-256 of the access token."""
    return b64url(hashlib.sha256(token.encode()).digest())


def _without_none(members: Json) -> Json:
    return {name: value for name, value in members.items() if value is not None}
