"""DPoP proofs, right and wrong, written on `cryptography` alone."""

import hashlib
import secrets
from collections.abc import Mapping
from typing import Any

from tests.guard.signing import NOW, RESOURCE, SigningKey, b64url, dump, public_members

_MEMBERS = {"EC": ("crv", "kty", "x", "y"), "RSA": ("e", "kty", "n"), "OKP": ("crv", "kty", "x")}


def thumbprint(key: SigningKey) -> str:
    """RFC 7638 §3: SHA-256 over the required members in order."""
    members = public_members(key.private)
    required = {name: members[name] for name in _MEMBERS[members["kty"]]}
    return b64url(hashlib.sha256(dump(required)).digest())


def token_hash(token: bytes) -> str:
    """RFC 9449 §4.2, `ath`."""
    return b64url(hashlib.sha256(token).digest())


def proof_header(key: SigningKey, **changes: Any) -> dict[str, Any]:
    """The header of a good proof; a member that is None is left out."""
    members = {"typ": "dpop+jwt", "alg": key.alg, "jwk": public_members(key.private), **changes}
    return {name: value for name, value in members.items() if value is not None}


def proof_claims(**changes: Any) -> dict[str, Any]:
    """The claims of a proof that is good at `NOW` for a POST to `RESOURCE`; a member that is None is left out."""
    members = {"jti": secrets.token_urlsafe(16), "htm": "POST", "htu": RESOURCE, "iat": NOW, **changes}
    return {name: value for name, value in members.items() if value is not None}


def proof(
    key: SigningKey,
    token: bytes | None = None,
    header: Mapping[str, Any] | bytes | None = None,
    claims: Mapping[str, Any] | bytes | None = None,
    **changes: Any,
) -> bytes:
    """A proof about `token`; `header` and `claims` replace everything, `changes` single claims."""
    about = {} if token is None else {"ath": token_hash(token)}
    said = proof_claims(**{**about, **changes}) if claims is None else claims
    return key.compact(proof_header(key) if header is None else header, said)
