"""Public keys and sets of them (RFC 7517), imported once, each bound to what its owner published it for."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final, NamedTuple, Protocol, TypeAlias

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, SECP384R1, EllipticCurve, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey, RSAPublicNumbers
from joserfc.jws import JWSRegistry

from mcp_guard.protocol import b64url
from mcp_guard.protocol.b64url import Base64Error
from mcp_guard.protocol.jose import CompactJws, is_key_id

MAX_KEYS: Final = 64
MIN_RSA_BITS: Final = 2048
"""RFC 7518 §3.3."""
MAX_RSA_BITS: Final = 8192
"""Longer moduli cost more than a request may."""
MIN_EXPONENT: Final = 3
MAX_EXPONENT_BYTES: Final = 8

_CURVES: Final[Mapping[str, tuple[str, int, frozenset[str]]]] = {
    "P-256": ("EC", 32, frozenset({"ES256"})),
    "P-384": ("EC", 48, frozenset({"ES384"})),
    "Ed25519": ("OKP", 32, frozenset({"EdDSA", "Ed25519"})),
}
_RSA: Final = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
_PRIVATE: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
_COORDINATES: Final = {"EC": ("x", "y"), "OKP": ("x",)}
_NIST: Final[Mapping[str, EllipticCurve]] = {"P-256": SECP256R1(), "P-384": SECP384R1()}
_UNCOMPRESSED: Final = b"\x04"
"""SEC 1 §2.3.3."""

PublicKey: TypeAlias = EllipticCurvePublicKey | Ed25519PublicKey | RSAPublicKey


class JwkError(ValueError):
    """The value is not a public key that is used here. `reason` quotes nothing of it but member names."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Verifier(Protocol):
    """One algorithm of the library."""

    def verify(self, msg: bytes, sig: bytes, key: Any) -> bool:
        """Whether `sig` is a signature of `msg` by `key`."""


class PreparedKey:
    """What the library's algorithms ask of a key while they verify, answered once instead of for each signature."""

    __slots__ = ("curve_key_size", "public_key")

    def __init__(self, key: PublicKey) -> None:
        self.public_key = key
        self.curve_key_size = key.key_size if isinstance(key, EllipticCurvePublicKey) else 0

    def get_op_key(self, operation: str) -> object:
        """The public key, whatever the operation: it can do nothing but verify."""
        return self.public_key


@dataclass(frozen=True, slots=True, eq=False)
class VerificationKey:
    """A public key that verifies signatures. `algorithms` are those it may be used with, at least one."""

    kid: str | None
    algorithms: frozenset[str]
    thumbprint: str
    _key: PreparedKey = field(repr=False)
    _verifiers: Mapping[str, Verifier] = field(repr=False)

    def verifies(self, jws: CompactJws) -> bool:
        """Whether the signature of `jws` is this key's (RFC 7515 §5.2, step 8); False for an algorithm not its own."""
        verifier = self._verifiers.get(jws.header.alg)
        return verifier is not None and verifier.verify(jws.signing_input, jws.signature, self._key)


def import_jwk(jwk: object) -> VerificationKey:
    """Import a public JWK (RFC 7517 §4, RFC 7518 §6, RFC 8037 §2), which costs far more than using it.

    Raises:
        JwkError: a symmetric or private key, an unknown type or curve, a weak or malformed key, or one that was not
            published for verifying signatures (`use`, `key_ops`, `alg`).
    """
    if not isinstance(jwk, dict):
        raise JwkError("is not an object")
    if not _PRIVATE.isdisjoint(jwk):
        raise JwkError("is a private or symmetric key")
    kid = jwk.get("kid")
    if "kid" in jwk and not is_key_id(kid):
        raise JwkError("has a kid that is not 1 to 256 visible ASCII characters")
    _check_purpose(jwk)
    material = _material(jwk)
    fitting = material.algorithms
    if "alg" in jwk:
        if not isinstance(jwk["alg"], str) or jwk["alg"] not in fitting:
            raise JwkError("has an alg that is not accepted for its type")
        fitting = frozenset({jwk["alg"]})
    verifiers = {name: JWSRegistry.algorithms[name] for name in fitting}
    return VerificationKey(kid, fitting, _thumbprint(material.members), PreparedKey(material.key), verifiers)


def _check_purpose(jwk: Mapping[str, Any]) -> None:
    """RFC 7517 §4.2 and §4.3."""
    if "use" in jwk and jwk["use"] != "sig":
        raise JwkError("has a use other than sig")
    if "key_ops" in jwk:
        operations = jwk["key_ops"]
        if not isinstance(operations, list) or not all(isinstance(operation, str) for operation in operations):
            raise JwkError("has key_ops that are not a list of strings")
        if "verify" not in operations:
            raise JwkError("has key_ops without verify")


class _Material(NamedTuple):
    """A key, the members that make it (RFC 7638 §3.2), and the algorithms that fit it."""

    key: PublicKey
    members: Mapping[str, str]
    algorithms: frozenset[str]


def _material(jwk: Mapping[str, Any]) -> _Material:
    kty, crv = jwk.get("kty"), jwk.get("crv")
    if kty == "RSA":
        return _rsa(_octets(jwk, "n"), _octets(jwk, "e"))
    curve = _CURVES.get(crv) if isinstance(crv, str) else None
    if not isinstance(crv, str) or curve is None or kty != curve[0]:
        raise JwkError("has a type or curve that is not accepted")
    names = _COORDINATES[curve[0]]
    coordinates = [_octets(jwk, name) for name in names]
    if any(len(coordinate) != curve[1] for coordinate in coordinates):
        raise JwkError("has a coordinate of the wrong length")
    try:
        key = _on_curve(crv, b"".join(coordinates))
    except ValueError:
        raise JwkError("is not a key, for example a point off its curve") from None
    return _Material(key, {"crv": crv, "kty": curve[0], **{name: jwk[name] for name in names}}, curve[2])


def _on_curve(crv: str, coordinates: bytes) -> EllipticCurvePublicKey | Ed25519PublicKey:
    if crv in _NIST:
        return EllipticCurvePublicKey.from_encoded_point(_NIST[crv], _UNCOMPRESSED + coordinates)
    return Ed25519PublicKey.from_public_bytes(coordinates)


def _rsa(modulus: bytes, exponent: bytes) -> _Material:
    n, e = int.from_bytes(modulus, "big"), int.from_bytes(exponent, "big")
    bits = n.bit_length()
    if not MIN_RSA_BITS <= bits <= MAX_RSA_BITS:
        raise JwkError(f"has a modulus of {bits} bits")
    if len(exponent) > MAX_EXPONENT_BYTES or e < MIN_EXPONENT or not e & 1:
        raise JwkError("has an exponent that is too small, even or too long")
    # The members of a thumbprint have no more octets than the numbers need (RFC 7518 §2 Base64urlUInt).
    shortest = {"n": b64url.encode(modulus.lstrip(b"\x00")), "e": b64url.encode(exponent.lstrip(b"\x00"))}
    return _Material(RSAPublicNumbers(e, n).public_key(), {"kty": "RSA", **shortest}, _RSA)


def _thumbprint(members: Mapping[str, str]) -> str:
    """RFC 7638 §3: the SHA-256 of the required members in order, in base64url."""
    return b64url.encode(sha256(json.dumps(members, sort_keys=True, separators=(",", ":")).encode()).digest())


def _octets(jwk: Mapping[str, Any], name: str) -> bytes:
    value = jwk.get(name)
    if not isinstance(value, str):
        raise JwkError(f"has no {name}")
    try:
        return b64url.decode(value)
    except Base64Error:
        raise JwkError(f"has a malformed {name}") from None


@dataclass(frozen=True, slots=True, eq=False)
class KeySet:
    """The usable keys of one issuer. `ignored` says which members were not used and why."""

    keys: tuple[VerificationKey, ...]
    ignored: tuple[str, ...] = ()
    _by_kid: Mapping[tuple[str, str], VerificationKey] = field(init=False, repr=False)
    _kids: frozenset[str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        by_kid = {(key.kid, alg): key for key in reversed(self.keys) if key.kid for alg in key.algorithms}
        object.__setattr__(self, "_by_kid", by_kid)
        object.__setattr__(self, "_kids", frozenset(key.kid for key in self.keys if key.kid))

    def find(self, kid: str | None, alg: str) -> VerificationKey | None:
        """The key for a token. Without a `kid`, the only key that fits `alg`; None when there is no such key."""
        if kid is not None:
            return self._by_kid.get((kid, alg))
        fitting = [key for key in self.keys if alg in key.algorithms]
        return fitting[0] if len(fitting) == 1 else None

    def knows(self, kid: str | None) -> bool:
        """Whether some key has this id, for whatever algorithm. Nothing is new about a token without an id."""
        return kid is None or kid in self._kids


def import_set(document: object) -> KeySet:
    """Import a JWK Set (RFC 7517 §5). Members that cannot be used are ignored, as §5 advises, and those after the 64th.

    Raises:
        JwkError: it is not a JWK Set, or no member can be used.
    """
    members = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(members, list):
        raise JwkError("is not a JWK Set: it has no list called keys")
    return _usable(members)


def _usable(members: Sequence[object]) -> KeySet:
    keys: list[VerificationKey] = []
    ignored: list[str] = []
    for position, member in enumerate(members[:MAX_KEYS]):
        try:
            keys.append(import_jwk(member))
        except JwkError as fault:
            ignored.append(f"key {position} {fault.reason}")
    if len(members) > MAX_KEYS:
        ignored.append(f"{len(members) - MAX_KEYS} keys after the first {MAX_KEYS}")
    if not keys:
        raise JwkError("; ".join(["has no usable key", *ignored[:4]]))
    return KeySet(tuple(keys), tuple(ignored))
