"""DPoP proofs (RFC 9449 §4.3): judged with the faults that are on at the resource, soundly at the token endpoint."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.requests import Request

from tests.support.model_server.deployment import Deployment
from tests.support.model_server.keys import JSON, b64url, compact_json, key_of, signed_by, unb64url
from tests.support.model_server.strict import strict_json

ALGORITHM = "ES256"
AGE_SECONDS = 60
AHEAD_SECONDS = 10
HOUR_SECONDS = 3600
NONCE_SECONDS = 300
JTI_CHARACTERS = 128
MEMBERS = ("kty", "crv", "x", "y")
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")
_UNRESERVED = re.compile(r"[A-Za-z0-9._~-]")


class ProofError(Exception):
    """The proof does not hold. `slug` is the OAuth error, `nonce` one to try again with."""

    def __init__(self, reason: str, slug: str = "invalid_dpop_proof", nonce: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.slug = slug
        self.nonce = nonce


@dataclass(frozen=True)
class Asked:
    """What a proof has to be for. `jkt` is the key that the token is bound to; both are "" at the token endpoint."""

    url: str
    token: str = ""
    jkt: str = ""


class Proofs:
    """Judges proofs, and remembers which were used."""

    def __init__(self, deployment: Deployment, *, at_resource: bool) -> None:
        self._deployment = deployment
        self._used: set[object] = set()
        self._secret = secrets.token_bytes(32)
        self._at_resource = at_resource
        self.has = deployment.has if at_resource else _sound

    async def check(self, request: Request, asked: Asked) -> str:
        """The thumbprint of the key that the request's one proof was made with.

        Raises:
            ProofError: there is no such proof, or it does not hold.
        """
        reason = ProofError("there must be one DPoP proof")
        for text in self._candidates(request.headers.getlist("dpop")):
            try:
                return await self._judge(request, asked, text)
            except ProofError as error:
                reason = error
        raise reason

    def _candidates(self, fields: list[str]) -> list[str]:
        """The proof to judge: of several fields none. (A fault may offer several.)"""
        if self.has("joined_proofs_split"):
            return [text.strip() for field in fields[:1] for text in field.split(",")]
        return fields[:1] if len(fields) == 1 or self.has("first_proof_counts") else []

    async def _judge(self, request: Request, asked: Asked, text: str) -> str:
        header, claims, signing_input, signature = _read(text)
        thumbprint = self._check_signature(header, signing_input, signature)
        self._check_claims(header, claims, asked)
        if claims["htm"] != request.method and not self.has("htm_ignored"):
            raise ProofError("htm is not the method of the request")
        if not self._is_for(str(claims["htu"]), asked.url):
            raise ProofError("htu is not the URL of the request")
        if asked.token and not self.has("ath_ignored") and claims["ath"] != _digest(asked.token):
            raise ProofError("ath is not the hash of the token")
        if asked.jkt and thumbprint != asked.jkt and not self._excused(request):
            raise ProofError("the proof is of another key than the token", "invalid_token")
        self._check_nonce(claims.get("nonce"))
        self._check_time(int(claims["iat"]))
        self._use(thumbprint, claims["jti"], await request.body() if self._by_body else b"")
        return thumbprint

    def _check_signature(self, header: JSON, signing_input: bytes, signature: bytes) -> str:
        """The thumbprint of the key in the header, whose signature it is."""
        alg, jwk = header.get("alg"), header.get("jwk")
        if not isinstance(jwk, dict) or ("d" in jwk and not self.has("proof_with_private_key")):
            raise ProofError("jwk is no public key")
        try:
            key = key_of(jwk)
        except ValueError:
            raise ProofError("jwk is no P-256 key") from None
        unsigned = self.has("proof_unsigned") and str(alg).lower() == "none"
        if not unsigned and (alg != ALGORITHM or not signed_by(key, signing_input, signature)):
            raise ProofError("the signature is not that of the key")
        return b64url(hashlib.sha256(compact_json({name: jwk[name] for name in sorted(MEMBERS)})).digest())

    def _check_claims(self, header: JSON, claims: JSON, asked: Asked) -> None:
        """RFC 9449 §4.2: what must be there, and of which type."""
        if header.get("typ") != "dpop+jwt" and not self.has("proof_type_ignored"):
            raise ProofError("typ is not dpop+jwt")
        for name in ("jti", "htm", "htu", *(("ath",) if asked.token and not self.has("ath_ignored") else ())):
            if not isinstance(claims.get(name), str) or not claims[name]:
                raise ProofError(f"{name} is missing, or no text")
        moment = claims.get("iat")
        if isinstance(moment, str) and moment.isdigit() and self.has("proof_time_as_text"):
            return
        if isinstance(moment, bool) or not isinstance(moment, int | float):
            raise ProofError("iat is missing, or no number")
        if len(claims["jti"]) > JTI_CHARACTERS:
            raise ProofError("jti is too long")

    def _is_for(self, htu: str, url: str) -> bool:
        if not self._at_resource and self._deployment.has("token_endpoint_takes_any_proof"):
            return True
        if self.has("htu_spelling_strict"):
            return htu == url
        if self.has("htu_prefix") and htu.startswith(url):
            return True
        return _normal(htu) == _normal(url)

    def _excused(self, request: Request) -> bool:
        """Whether a fault takes a proof of another key than the token's."""
        in_session = self.has("session_excuses_the_key") and "mcp-session-id" in request.headers
        return in_session or self.has("proof_by_any_key")

    def _check_nonce(self, nonce: object) -> None:
        if not self._at_resource or (self.has("any_nonce_serves") and nonce):
            return
        turn = int(self._deployment.clock() // NONCE_SECONDS)
        if nonce not in {self._nonce(turn), self._nonce(turn - 1)}:
            raise ProofError("the proof needs a nonce of this server", "use_dpop_nonce", self._nonce(turn))

    def _nonce(self, turn: int) -> str:
        return b64url(hmac.digest(self._secret, str(turn).encode(), "sha256"))

    def _check_time(self, moment: int) -> None:
        age, has = self._deployment.clock() - moment, self.has
        if age > (HOUR_SECONDS if has("proof_age_of_an_hour") else AGE_SECONDS):
            raise ProofError("the proof is too old")
        if -age > AHEAD_SECONDS and not has("proof_from_the_future"):
            raise ProofError("the proof is from the future")

    @property
    def _by_body(self) -> bool:
        return self.has("proof_replayable_with_another_body")

    def _use(self, thumbprint: str, jti: str, body: bytes) -> None:
        if (thumbprint, jti, body) in self._used:
            raise ProofError("the proof was used before")
        self._used.add((thumbprint, jti, body))


def _sound(name: str) -> bool:
    return False


def _read(text: str) -> tuple[JSON, JSON, bytes, bytes]:
    """Header, claims, what was signed, and the signature."""
    segments = text.split(".")
    try:
        header, claims, signature = (unb64url(segment) for segment in segments)
        parts = strict_json(header), strict_json(claims)
    except ValueError:
        raise ProofError("the proof is no compact JWS") from None
    if not all(isinstance(part, dict) for part in parts):
        raise ProofError("the proof is no compact JWS of objects")
    return *parts, f"{segments[0]}.{segments[1]}".encode("ascii"), signature


def _normal(url: str) -> tuple[str, str, int | None, str] | None:
    """A URL without query and fragment, in one spelling (RFC 3986 §6.2.2, §6.2.3); None when it is none."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    if not parts.hostname or "@" in parts.netloc:
        return None
    default = {"http": 80, "https": 443}.get(parts.scheme)
    return parts.scheme, parts.hostname, port or default, _ESCAPE.sub(_unescaped, parts.path) or "/"


def _unescaped(found: re.Match[str]) -> str:
    character = chr(int(found[1], 16))
    return character if _UNRESERVED.fullmatch(character) else found[0].upper()


def _digest(token: str) -> str:
    return b64url(hashlib.sha256(token.encode("ascii")).digest())
