"""What PyJWT and joserfc alone make of a token or a proof, each told the guard's requirements and nothing more.

They share no code with the guard. Each answers whether it accepts; what it raises, whatever that is, is a refusal.
"""

import base64
import hashlib
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import jwt as pyjwt
from joserfc import jwk, jws
from joserfc import jwt as joserfc_jwt
from joserfc.errors import JoseError
from joserfc.jwt import JWTClaimsRegistry

from tests.guard.fuzz.mutations import LEEWAY
from tests.guard.signing import NOW, RESOURCE

ALGORITHMS = ["ES256", "EdDSA", "RS256", "PS256"]
REQUIRED = ["iss", "aud", "sub", "exp", "iat"]
PROOF_LIFETIME = 60
FAULTS = (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError, JoseError, pyjwt.PyJWTError)
"""What the two raise of a token that they do not accept."""

Sets = Mapping[str, Mapping[str, Any]]
"""The JWK set of each issuer."""


class Still(pyjwt.PyJWT):
    """PyJWT at `NOW`; it reads the machine's clock otherwise."""

    def _validate_iat(self, payload: dict[str, Any], now: float, leeway: float) -> None:
        super()._validate_iat(payload, NOW, leeway)

    def _validate_nbf(self, payload: dict[str, Any], now: float, leeway: float) -> None:
        super()._validate_nbf(payload, NOW, leeway)

    def _validate_exp(self, payload: dict[str, Any], now: float, leeway: float) -> None:
        super()._validate_exp(payload, NOW, leeway)


STILL = Still()
LENIENT = jws.JWSRegistry(algorithms=ALGORITHMS, strict_check_header=False)
"""Unknown members of a header are ignored, as RFC 7515 §4 demands; joserfc refuses them otherwise."""


def fitting(sets: Sets, token: bytes) -> tuple[str, list[Mapping[str, Any]]]:
    """The issuer that the token names, and the keys of that issuer's that it may be signed with."""
    header = pyjwt.get_unverified_header(token)
    issuer = pyjwt.decode(token, options={"verify_signature": False})["iss"]
    keys = sets[issuer]["keys"]
    named = [key for key in keys if header.get("kid", key["kid"]) == key["kid"]]
    return issuer, [key for key in named if key["alg"] == header["alg"]]


def pyjwt_accepts(sets: Sets, token: bytes) -> bool:
    try:
        issuer, keys = fitting(sets, token)
        (key,) = keys
        STILL.decode(
            token,
            pyjwt.PyJWK(dict(key)),
            algorithms=ALGORITHMS,
            audience=RESOURCE,
            issuer=issuer,
            leeway=LEEWAY,
            options={"require": REQUIRED},
        )
    except FAULTS:
        return False
    return True


def joserfc_accepts(sets: Sets, token: bytes) -> bool:
    try:
        issuer, keys = fitting(sets, token)
        (key,) = keys
        decoded = joserfc_jwt.decode(token, jwk.import_key(dict(key)), registry=LENIENT)
        JWTClaimsRegistry(
            now=NOW,
            leeway=LEEWAY,
            iss={"essential": True, "value": issuer},
            aud={"essential": True, "value": RESOURCE},
            sub={"essential": True},
            exp={"essential": True},
            iat={"essential": True},
        ).validate(decoded.claims)
    except FAULTS:
        return False
    return True


def pyjwt_accepts_proof(proof: bytes, token: bytes, thumbprint: str) -> bool:
    try:
        header = pyjwt.get_unverified_header(proof)
        public = header["jwk"]
        key = pyjwt.PyJWK(public, algorithm=header["alg"])
        claims = json.loads(pyjwt.PyJWS().decode(proof, key, algorithms=ALGORITHMS))
        return is_public(public) and is_for_this(header, claims, thumb(public), token, thumbprint)
    except FAULTS:
        return False


def joserfc_accepts_proof(proof: bytes, token: bytes, thumbprint: str) -> bool:
    try:
        public = jws.extract_compact(proof).headers()["jwk"]
        key = jwk.import_key(public)
        found = jws.deserialize_compact(proof, key, registry=LENIENT)
        return is_public(public) and is_for_this(
            found.headers(), json.loads(found.payload), key.thumbprint(), token, thumbprint
        )
    except FAULTS:
        return False


def is_public(public: Mapping[str, Any]) -> bool:
    """RFC 9449 §4.3, check 7."""
    return not {"d", "p", "q", "dp", "dq", "qi", "k"} & set(public)


def thumb(public: Mapping[str, Any]) -> str:
    """RFC 7638 §3."""
    required = {name: public[name] for name in {"EC": ("crv", "x", "y"), "OKP": ("crv", "x")}[public["kty"]]}
    text = json.dumps({**required, "kty": public["kty"]}, sort_keys=True, separators=(",", ":"))
    return unpadded(hashlib.sha256(text.encode()).digest())


def unpadded(digest: bytes) -> str:
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def is_for_this(header: Mapping[str, Any], claims: Any, made_with: str, token: bytes, thumbprint: str) -> bool:
    """RFC 9449 §4.3, checks 3, 4, 8, 9, 11 and 12, for a POST to `RESOURCE` at `NOW`."""
    url, ours = urlsplit(claims["htu"]), urlsplit(RESOURCE)
    return (
        header["typ"].lower() == "dpop+jwt"
        and isinstance(claims["jti"], str)
        and claims["jti"] != ""
        and claims["htm"] == "POST"
        and (url.scheme.lower(), url.netloc.lower().removesuffix(":443"), url.path)
        == (ours.scheme, ours.netloc, ours.path)
        and not isinstance(claims["iat"], bool)
        and NOW - PROOF_LIFETIME <= claims["iat"] <= NOW + LEEWAY
        and claims["ath"] == unpadded(hashlib.sha256(token).digest())
        and made_with == thumbprint
    )
