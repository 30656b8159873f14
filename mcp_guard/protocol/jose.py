"""JSON Web Signature in its compact form (RFC 7515), read strictly before a library sees it (RFC 8725).

The JSON forms, encryption, compression, detached or unencoded payloads, critical extensions, and keys or certificates
that a token brings along or points at are not read at all; but the key of a DPoP proof, which has to bring one.
"""

import re
from collections.abc import Mapping, Set
from functools import lru_cache
from typing import Any, Final, NamedTuple

from mcp_guard.protocol import b64url, strict_json
from mcp_guard.protocol.b64url import Base64Error
from mcp_guard.protocol.strict_json import JsonError

MAX_TOKEN_BYTES: Final = 8192
MAX_KID_CHARACTERS: Final = 256
MAX_TYP_CHARACTERS: Final = 256

ALGORITHMS: Final = frozenset(
    ["ES256", "ES384", "EdDSA", "Ed25519", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512"]
)
"""Signatures with a public key alone (RFC 7518 §3.1, RFC 8037 §3.1, RFC 9864 §2.2); never `none`, never a MAC."""

PROOF_ALGORITHMS: Final = frozenset(["ES256", "ES384", "EdDSA", "Ed25519", "PS256", "PS384", "PS512"])
"""What DPoP proofs may be signed with (RFC 9449 §4.2): RSA only with PSS, since the key is made for it."""

_COMPACT_SEGMENTS: Final = 3
_ENCRYPTED_SEGMENTS: Final = 5
_VISIBLE: Final = re.compile(r"[!-~]+")

_NOT_READ: Final = {
    "crit": "the header has critical extensions",
    "b64": "the header has the b64 option",
    "zip": "the header announces compression",
    "enc": "the header announces encryption",
    "jwk": "the header brings a key along",
    "jku": "the header points at a key set",
    "x5u": "the header points at a certificate",
    "x5c": "the header brings a certificate along",
}
_NOT_READ_OF_PROOFS: Final = {name: reason for name, reason in _NOT_READ.items() if name != "jwk"}

_STRINGS: Final = ("cty", "x5t", "x5t#S256")
"""Members that are not used but have a type (RFC 7515 §4.1.7, §4.1.8, §4.1.10)."""


class JoseError(ValueError):
    """The token is not a JWS that is read here. `reason` quotes nothing of it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class AlgorithmError(JoseError):
    """The token's algorithm is not accepted."""


class Header(NamedTuple):
    """The members of a protected header that are read (RFC 7515 §4.1); unknown ones are ignored, as §4 demands."""

    alg: str
    kid: str | None
    typ: str | None


class CompactJws(NamedTuple):
    """A token taken apart. Nothing in it is to be believed before its signature is verified."""

    header: Header
    signing_input: bytes
    payload: bytes
    signature: bytes


def parse_compact(token: bytes, header: Header | None = None) -> CompactJws:
    """Take a compact JWS apart (RFC 7515 §3.1 and §5.2, steps 1 to 7). `header` is its first segment, if that was read.

    Raises:
        AlgorithmError: the algorithm is none of `ALGORITHMS`.
        JoseError: it is longer than 8 KiB, not three canonical segments, or its header is not as it must be.
    """
    if len(token) > MAX_TOKEN_BYTES:
        raise JoseError(f"the token has more than {MAX_TOKEN_BYTES} bytes")
    segments = token.split(b".", _ENCRYPTED_SEGMENTS)
    if len(segments) == _ENCRYPTED_SEGMENTS:
        raise JoseError("the token is encrypted")
    if len(segments) != _COMPACT_SEGMENTS:
        raise JoseError("the token does not have three segments")
    protected, body, signed = segments
    if header is None:
        header = parse_header(protected)
    if not signed:
        raise JoseError("the token has no signature")
    try:
        payload, signature = b64url.decode(body), b64url.decode(signed)
    except Base64Error as fault:
        raise JoseError(f"a segment is not base64url: {fault}") from None
    return CompactJws(header, token[: len(protected) + 1 + len(body)], payload, signature)


@lru_cache(256)
def parse_header(segment: bytes) -> Header:
    """Read a protected header. The tokens of one key share it, so that it is seldom read twice.

    Raises:
        AlgorithmError, JoseError: as `parse_compact`.
    """
    return _header(_members(segment, _NOT_READ), ALGORITHMS)


def parse_proof_header(segment: bytes) -> tuple[Header, object]:
    """Read the protected header of a DPoP proof (RFC 9449 §4.2), and its `jwk` as it stands; None if it has none.

    Raises:
        AlgorithmError: the algorithm is none of `PROOF_ALGORITHMS`.
        JoseError: as `parse_compact`.
    """
    members = _members(segment, _NOT_READ_OF_PROOFS)
    return _header(members, PROOF_ALGORITHMS), members.get("jwk")


def _members(segment: bytes, not_read: Mapping[str, str]) -> dict[str, Any]:
    try:
        members = strict_json.loads(b64url.decode(segment))
    except Base64Error as fault:
        raise JoseError(f"the header is not base64url: {fault}") from None
    except JsonError as fault:
        raise JoseError(f"the header {fault.reason}") from None
    if not isinstance(members, dict):
        raise JoseError("the header is not an object")
    for name, reason in not_read.items():
        if name in members:
            raise JoseError(reason)
    return members


def _header(members: Mapping[str, Any], algorithms: Set[str]) -> Header:
    for name in _STRINGS:
        if not isinstance(members.get(name, ""), str):
            raise JoseError(f"{name} is not a string")
    alg = members.get("alg")
    if not isinstance(alg, str):
        raise AlgorithmError("the header names no algorithm")
    if alg not in algorithms:
        raise AlgorithmError("the header names an algorithm that is not accepted")
    return Header(alg, _kid(members), _typ(members))


def is_key_id(value: object) -> bool:
    """Whether `value` can be a key id: 1 to 256 visible ASCII characters, which is narrower than RFC 7515 §4.1.4."""
    return isinstance(value, str) and len(value) <= MAX_KID_CHARACTERS and _VISIBLE.fullmatch(value) is not None


def _kid(members: Mapping[str, Any]) -> str | None:
    if "kid" not in members:
        return None
    kid = members["kid"]
    if not isinstance(kid, str) or not is_key_id(kid):
        raise JoseError("kid is not a string of 1 to 256 visible ASCII characters")
    return kid


def _typ(members: Mapping[str, Any]) -> str | None:
    if "typ" not in members:
        return None
    typ = members["typ"]
    if not isinstance(typ, str) or len(typ) > MAX_TYP_CHARACTERS:
        raise JoseError("typ is not a string of at most 256 characters")
    return typ
