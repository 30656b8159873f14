"""The public keys of the issuer, and everything somebody could take them for when used as a secret."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from pytest_mcp_conformance.bench import Bench
from pytest_mcp_conformance.credentials import Credential
from pytest_mcp_conformance.failures import Judgement
from pytest_mcp_conformance.forge.jws import Jws, read_jws, unb64url

MOST_KEYS = 3
_CURVES: Mapping[str, type[ec.EllipticCurve]] = {"P-256": ec.SECP256R1, "P-384": ec.SECP384R1, "P-521": ec.SECP521R1}


def published_keys(bench: Bench) -> list[dict[str, Any]]:
    """The first keys of the issuer's key set; none when it publishes none that can be read."""
    try:
        url = bench.authorization_server().metadata.get("jwks_uri")
        document = bench.target.discovery.fetch(url).json() if isinstance(url, str) else None
    except Judgement:
        return []
    keys = document.get("keys") if isinstance(document, dict) else None
    return [key for key in keys if isinstance(key, dict)][:MOST_KEYS] if isinstance(keys, list) else []


def as_secrets(jwk: Mapping[str, Any]) -> list[tuple[str, bytes]]:
    """What a verifier that takes a public key for a secret may hold in its hands: PEM, DER and JSON."""
    found = [
        ("JWK as published", json.dumps(dict(jwk)).encode()),
        ("JWK without spaces", json.dumps(dict(jwk), separators=(",", ":")).encode()),
        ("JWK in order", json.dumps(dict(jwk), sort_keys=True).encode()),
        ("JWK in order, without spaces", json.dumps(dict(jwk), sort_keys=True, separators=(",", ":")).encode()),
    ]
    key = _public_key(jwk)
    if key is None:
        return found
    pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    found += [("PEM", pem), ("PEM without its last line break", pem.rstrip(b"\n"))]
    found.append(("DER", key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)))
    if isinstance(key, rsa.RSAPublicKey):
        found.append(("PEM of PKCS #1", key.public_bytes(Encoding.PEM, PublicFormat.PKCS1)))
    return found


def _public_key(jwk: Mapping[str, Any]) -> ec.EllipticCurvePublicKey | rsa.RSAPublicKey | None:
    try:
        if jwk.get("kty") == "RSA":
            n, e = (int.from_bytes(unb64url(str(jwk[name]))) for name in ("n", "e"))
            return rsa.RSAPublicNumbers(e, n).public_key()
        if jwk.get("kty") == "EC":
            x, y = (int.from_bytes(unb64url(str(jwk[name]))) for name in ("x", "y"))
            return ec.EllipticCurvePublicNumbers(x, y, _CURVES[str(jwk["crv"])]()).public_key()
    except (KeyError, ValueError):
        return None
    return None


def pattern(bench: Bench, credential: Credential) -> Jws:
    """The live token's parts; for an opaque token, those a JWT access token of this issuer would have (RFC 9068)."""
    found = read_jws(credential.token)
    if found is not None:
        return found
    try:
        issuer, resource = bench.authorization_server().issuer, bench.authorization_server().resource
    except Judgement:
        issuer, resource = bench.target.origin, bench.target.url
    now = int(time.time())
    claims = {"iss": issuer, "sub": "conformance-check", "aud": resource, "client_id": "conformance-check"}
    scope = {"scope": "openid", "iat": now, "exp": now + 600, "jti": "conformance-check"}
    return Jws({"alg": "ES256", "typ": "at+jwt"}, {**claims, **scope}, "")
