"""DPoP proofs (RFC 9449 §4): read once, then compared with the request they came with.

`parse` makes the checks of §4.3 that need the proof alone, `check` those that need the request, the token or the time;
each names its number there. Time is passed in. Whether a proof was seen before (§11.1) is not decided here.
"""

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from functools import lru_cache
from hashlib import sha256
from typing import Any, Final, NamedTuple

from mcp_guard.protocol import b64url, jose, strict_json, uris
from mcp_guard.protocol.jose import AlgorithmError, Header, JoseError
from mcp_guard.protocol.jwk import JwkError, VerificationKey, import_jwk
from mcp_guard.protocol.jwt import LATEST_DATE
from mcp_guard.protocol.strict_json import JsonError
from mcp_guard.protocol.uris import UriError

TYP: Final = "dpop+jwt"
MAX_JTI_BYTES: Final = 128
KNOWN_KEYS: Final = 2048
"""How many headers are remembered with the keys they bring: at most 8 KiB each, the least recently used ones first out.
A proof whose header is remembered costs no import; a client's proofs all have the same."""


class Fault(StrEnum):
    """Why a proof is refused: the check of RFC 9449 §4.3 that it fails."""

    FIELD = "field"
    MALFORMED = "malformed"
    CLAIMS = "claims"
    TYPE = "type"
    ALGORITHM = "algorithm"
    SIGNATURE = "signature"
    KEY = "key"
    METHOD = "method"
    URL = "url"
    NONCE = "nonce"
    TIME = "time"
    ATH = "ath"
    BINDING = "binding"


class ProofError(ValueError):
    """The proof is refused. `reason` names members and differences of time; it quotes nothing of the proof."""

    def __init__(self, fault: Fault, reason: str) -> None:
        super().__init__(f"{fault}: {reason}")
        self.fault = fault
        self.reason = reason


class Proof(NamedTuple):
    """What a proof says whose signature was verified with the key that it brings along.

    `thumbprint` is that of the key (RFC 7638, base64url), `issued_at` in seconds since 1970. `htu` stands as it was
    written; `ath` and `nonce` are None when there are none.
    """

    thumbprint: str
    jti: str
    htm: str
    htu: str
    issued_at: float
    ath: str | None
    nonce: str | None

    @property
    def digest(self) -> bytes:
        """What tells the proof from all others of all keys: SHA-256 of the key's thumbprint and the jti, 32 bytes."""
        return sha256(f"{self.thumbprint} {self.jti}".encode()).digest()


class Target(NamedTuple):
    """The request that a proof has to be for, and the access token that it has to be about.

    `url` is in the form of `uris.normalised`. `token_digest` is the SHA-256 of the token, `thumbprint` that of the key
    that the token is bound to; None where a request brings no token, as at a token endpoint.
    """

    method: str
    url: str
    token_digest: bytes | None = None
    thumbprint: str | None = None


class Window(NamedTuple):
    """How old a proof may be, and how far its clock may be ahead; both in seconds and inclusive (RFC 9449 §11.1)."""

    lifetime_seconds: float = 60.0
    leeway_seconds: float = 10.0


DEFAULT_WINDOW: Final = Window()


class _Brought(NamedTuple):
    """A protected header and the key that it brings."""

    header: Header
    key: VerificationKey


def parse(values: Sequence[bytes]) -> Proof:
    """Read the proof of a request from all its DPoP fields, of which it has at least one.

    Raises:
        ProofError: `FIELD`, `MALFORMED`, `TYPE`, `ALGORITHM`, `KEY`, `SIGNATURE` or `CLAIMS`.
    """
    if len(values) != 1:  # check 1
        raise ProofError(Fault.FIELD, f"{len(values)} DPoP fields were sent")
    value = values[0]
    if len(value) > jose.MAX_TOKEN_BYTES:
        raise ProofError(Fault.MALFORMED, f"the proof has more than {jose.MAX_TOKEN_BYTES} bytes")
    try:
        brought = _brought(value.partition(b".")[0])
        jws = jose.parse_compact(value, brought.header)
        claims = strict_json.loads(jws.payload)
    except AlgorithmError as fault:  # check 5
        raise ProofError(Fault.ALGORITHM, fault.reason) from None
    except JoseError as fault:  # check 2
        raise ProofError(Fault.MALFORMED, fault.reason) from None
    except JsonError as fault:  # check 2
        raise ProofError(Fault.MALFORMED, f"the payload {fault.reason}") from None
    if not brought.key.verifies(jws):  # check 6
        raise ProofError(Fault.SIGNATURE, "the signature is not that of the key in the header")
    if not isinstance(claims, dict):  # check 2
        raise ProofError(Fault.MALFORMED, "the payload is not an object")
    return _claimed(claims, brought.key.thumbprint)


def check(
    proof: Proof,
    target: Target,
    now: float,
    window: Window = DEFAULT_WINDOW,
    is_our_nonce: Callable[[str], bool] | None = None,
) -> None:
    """Check that `proof` was made for this request and this token, at about `now` (seconds since 1970).

    `is_our_nonce` tells whether a nonce is one that was handed out and is still good; None when none is asked for.

    Raises:
        ProofError: `METHOD`, `URL`, `ATH`, `BINDING`, `NONCE` or `TIME`. The last two are left for the end: for them
            a client is told how to do better, and that is for nobody else.
    """
    if proof.htm != target.method:  # check 8; methods have one case (RFC 9110 §9.1)
        raise ProofError(Fault.METHOD, "htm is not the method of the request")
    if proof.htu != target.url and _normalised(proof.htu) != target.url:  # check 9
        raise ProofError(Fault.URL, "htu is not the URL of the request")
    if target.token_digest is not None and proof.ath != b64url.encode(target.token_digest):  # check 12a
        raise ProofError(Fault.ATH, "ath is not the hash of the token")
    if target.thumbprint is not None and proof.thumbprint != target.thumbprint:  # check 12b
        raise ProofError(Fault.BINDING, "the key is not the one that the token is bound to")
    if is_our_nonce is not None and (proof.nonce is None or not is_our_nonce(proof.nonce)):  # check 10
        raise ProofError(Fault.NONCE, "the proof has no nonce of this server that is still good")
    if proof.issued_at > now + window.leeway_seconds:  # check 11
        raise ProofError(Fault.TIME, f"iat is {proof.issued_at - now:.0f} s ahead")
    if proof.issued_at < now - window.lifetime_seconds:  # check 11
        raise ProofError(Fault.TIME, f"iat was {now - proof.issued_at:.0f} s ago")


@lru_cache(KNOWN_KEYS)
def _brought(segment: bytes) -> _Brought:
    header, jwk = jose.parse_proof_header(segment)
    # Check 4. Media types are compared without regard to case (RFC 7515 §4.1.9); no other spelling is in RFC 9449 §4.2.
    if header.typ is None or header.typ.lower() != TYP:
        raise ProofError(Fault.TYPE, f"typ is not {TYP}")
    try:
        key = import_jwk(jwk)  # check 7, and that it is a public key at all
    except JwkError as fault:
        raise ProofError(Fault.KEY, f"jwk {fault.reason}") from None
    if header.alg not in key.algorithms:  # check 5
        raise ProofError(Fault.KEY, "jwk is of another kind than alg")
    return _Brought(header, key)


def _claimed(claims: Mapping[str, Any], thumbprint: str) -> Proof:
    """Check 3: the claims of §4.2, each of its type. Others are ignored."""
    jti = _text(claims, "jti")
    if not 0 < len(jti.encode()) <= MAX_JTI_BYTES or not jti.isprintable():
        raise ProofError(Fault.CLAIMS, f"jti does not have 1 to {MAX_JTI_BYTES} bytes that can be printed")
    issued_at = claims.get("iat")
    if isinstance(issued_at, bool) or not isinstance(issued_at, int | float) or not 0 <= issued_at <= LATEST_DATE:
        raise ProofError(Fault.CLAIMS, "iat is not a time in seconds since 1970")
    return Proof(
        thumbprint=thumbprint,
        jti=jti,
        htm=_text(claims, "htm"),
        htu=_text(claims, "htu"),
        issued_at=float(issued_at),
        ath=_text(claims, "ath") if "ath" in claims else None,
        nonce=_text(claims, "nonce") if "nonce" in claims else None,
    )


def _text(claims: Mapping[str, Any], name: str) -> str:
    value = claims.get(name)
    if not isinstance(value, str):
        raise ProofError(Fault.CLAIMS, f"{name} is not a string")
    return value


def _normalised(htu: str) -> str:
    try:
        return uris.normalised(htu)
    except UriError as fault:
        raise ProofError(Fault.URL, f"htu {fault}") from None
