"""Validation of JWT access tokens by the resource server (RFC 9068 §4, RFC 8725 §3)."""

from __future__ import annotations

import json
import math
from typing import Any

from tests.support.model_server.audiences import audience_matches
from tests.support.model_server.deployment import UPSTREAM_ISSUER, Deployment
from tests.support.model_server.forgeries import WeakSignatures
from tests.support.model_server.issuers import issuer_matches
from tests.support.model_server.keys import JSON, signed_by, unb64url, unb64url_leniently
from tests.support.model_server.principal import InvalidToken, Principal
from tests.support.model_server.strict import strict_json

CLOCK_SKEW_SECONDS = 60
TOKEN_CHARACTERS = 8192
DAY_SECONDS = 24 * 3600


class Crashed(RuntimeError):
    """What a fault that crashes the server raises."""


class Verifier:
    """Turns the text of a token into the principal it speaks for, for one resource."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self.has = deployment.has
        self._weak = WeakSignatures(deployment)

    def verify(self, token: str, resource: str) -> Principal:
        """The principal of a token that is signed, current and meant for `resource`.

        Raises:
            InvalidToken: it is not.
        """
        if len(token) > TOKEN_CHARACTERS:
            raise InvalidToken("the token is too long")
        segments = token.split(".")
        if len(segments) == 5 and self.has("encrypted_token_crashes"):
            raise Crashed("no decryption key")
        if len(segments) != 3:
            raise InvalidToken("the token is no compact JWS")
        header, claims = self._object(segments[0]), self._object(segments[1])
        self._check_signature(header, segments)
        self._check_type(header, claims)
        self._check_issuer(claims)
        self._check_times(claims)
        excused = self._is_upstream(claims) or self._is_other_kind(header, claims)
        excused = excused or (self.has("bound_audience_ignored") and bool(_confirmation(claims, "jkt")))
        if not excused and not audience_matches(self.has, claims, resource, self._deployment.issuer):
            raise InvalidToken("the token is meant for another resource")
        return self._principal(claims, token)

    def knows_key(self, token: str) -> bool:
        """Whether the token's header names the key that tokens are signed with."""
        try:
            header = self._object(token.partition(".")[0])
        except InvalidToken:
            return True
        return header.get("kid") == self._deployment.key.kid

    def _object(self, segment: str) -> JSON:
        try:
            octets = unb64url(segment)
            lax = self.has("repeated_claims_accepted")
            value: Any = json.loads(octets) if lax else strict_json(octets)
        except (ValueError, RecursionError) as error:
            raise InvalidToken("a segment of the token is no JSON text") from error
        if not isinstance(value, dict):
            raise InvalidToken("a segment of the token is no JSON object")
        return value

    def _signature(self, segment: str) -> bytes:
        tolerant = (
            self.has("signature_padding_tolerated")
            and segment == segment.rstrip("=") + "=" * (-len(segment.rstrip("=")) % 4)
        ) or (self.has("signature_spare_bits_tolerated") and "=" not in segment)
        try:
            return unb64url_leniently(segment) if tolerant else unb64url(segment)
        except ValueError as error:
            raise InvalidToken("the signature is not base64url") from error

    def _check_signature(self, header: JSON, segments: list[str]) -> None:
        if "crit" in header and not self.has("crit_ignored"):
            raise InvalidToken("the token names an extension that is not understood")
        signing_input = f"{segments[0]}.{segments[1]}".encode("ascii")
        signature = self._signature(segments[2])
        if self._weak.accept(header, signing_input, signature):
            return
        if header.get("alg") != "ES256":
            raise InvalidToken("the token's algorithm is not accepted")
        key = self._deployment.key
        if header.get("kid") != key.kid:
            raise InvalidToken("the token's key is not known")
        if not signed_by(key.private.public_key(), signing_input, signature):
            raise InvalidToken("the signature does not verify")

    def _check_type(self, header: JSON, claims: JSON) -> None:
        has, kind = self.has, header.get("typ")
        if has("type_ignored") or self._is_other_kind(header, claims):
            return
        if kind is None and has("missing_type_accepted"):
            return
        if isinstance(kind, str):
            bare = kind.lower().removeprefix("application/")
            accepted = "jwt" if has("tokens_typed_jwt") else "at+jwt"
            if bare == accepted or (has("type_suffix") and bare.endswith("+jwt")):
                return
        raise InvalidToken("the token is no access token")

    def _is_other_kind(self, header: JSON, claims: JSON) -> bool:
        """Whether a fault takes this token, which is of another kind, for an access token."""
        kind = str(header.get("typ", "")).lower().removeprefix("application/")
        if self.has("id_tokens_accepted") and kind in {"jwt", "id_token+jwt"} and "events" not in claims:
            return bool(claims.keys() & {"nonce", "at_hash", "auth_time", "email"})
        if self.has("logout_tokens_accepted") and "events" in claims:
            return True
        return self.has("client_assertions_accepted") and kind == "client-authentication+jwt"

    def _is_upstream(self, claims: JSON) -> bool:
        return self.has("upstream_tokens_accepted") and claims.get("iss") == UPSTREAM_ISSUER

    def _check_issuer(self, claims: JSON) -> None:
        if not self._is_upstream(claims) and not issuer_matches(self.has, claims.get("iss"), self._deployment.issuer):
            raise InvalidToken("the token is from another issuer")

    def _check_times(self, claims: JSON) -> None:
        has, now = self.has, self._deployment.clock()
        if not has("expiry_ignored") and not self._expiry_excused(claims.get("exp")):
            leeway = DAY_SECONDS if has("expiry_leeway_of_a_day") else 0
            if not _is_date(claims.get("exp")) or claims["exp"] + leeway <= now:
                raise InvalidToken("the token has expired")
        if not _is_date(claims.get("iat")):
            raise InvalidToken("the token does not say when it was issued")
        if claims["iat"] > now + CLOCK_SKEW_SECONDS and not has("future_issue_accepted"):
            raise InvalidToken("the token was issued in the future")
        start = 0 if has("not_before_ignored") else claims.get("nbf", 0)
        if not _is_date(start) or start > now + CLOCK_SKEW_SECONDS:
            raise InvalidToken("the token is not valid yet")

    def _expiry_excused(self, expiry: object) -> bool:
        if expiry is None:
            return self.has("missing_expiry_accepted")
        if isinstance(expiry, str):
            return self.has("text_expiry_accepted")
        return self.has("negative_expiry_accepted") and _is_date(expiry) and expiry < 0  # type: ignore[operator]

    def _principal(self, claims: JSON, token: str) -> Principal:
        names = ["sub", "client_id", "jti"]
        if self.has("tokens_without_client_id"):
            names.remove("client_id")
        if self.has("tokens_without_jti"):
            names.remove("jti")
        if not all(isinstance(claims.get(name), str) and claims[name] for name in names):
            raise InvalidToken("the token lacks a claim")
        scope = claims.get("scope", "")
        if not isinstance(scope, str):
            raise InvalidToken("the token's scope is no text")
        return Principal(
            issuer=str(claims.get("iss")),
            subject=claims["sub"],
            client_id=claims.get("client_id", ""),
            scopes=frozenset(scope.split()),
            jti=claims.get("jti", ""),
            expires=float(claims["exp"]) if _is_date(claims.get("exp")) else math.inf,
            token=token,
            jkt=_confirmation(claims, "jkt"),
            x5t=_confirmation(claims, "x5t#S256"),
        )


def _confirmation(claims: JSON, member: str) -> str:
    """What the token is bound to (RFC 7800 §3.1); "" for nothing.

    Raises:
        InvalidToken: the binding cannot be read.
    """
    confirmation = claims.get("cnf", {})
    value = confirmation.get(member, "") if isinstance(confirmation, dict) else None
    if not isinstance(value, str):
        raise InvalidToken("what the token is bound to cannot be read")
    return value


def _is_date(value: object) -> bool:
    """Whether a claim is a NumericDate: an integer, or a finite fraction (RFC 7519 §2)."""
    if isinstance(value, bool):
        return False
    return isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))
