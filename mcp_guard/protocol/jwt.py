"""JWT access tokens (RFC 7519, RFC 9068): which claims they must have, of what type, and what makes one refused.

Time is passed in. The checks here stand after the signature's, except reading the token and its type.
"""

from collections.abc import Mapping, Set
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final, NamedTuple, NoReturn

from mcp_guard.facts import UNBOUND, Confirmation
from mcp_guard.protocol import b64url, jose, scopes, strict_json
from mcp_guard.protocol.b64url import Base64Error
from mcp_guard.protocol.jose import AlgorithmError, CompactJws, JoseError
from mcp_guard.protocol.scopes import ScopeError
from mcp_guard.protocol.strict_json import JsonError

MAX_SUBJECT_CHARACTERS: Final = 255
"""As in OpenID Connect Core §2; RFC 7519 sets no bound."""
MAX_CLIENT_ID_CHARACTERS: Final = 2048
"""A client id may be a URL."""
LATEST_DATE: Final = 253_402_300_799.0
"""The end of the year 9999, in seconds since 1970; no later date is meant seriously."""

THUMBPRINT_BYTES: Final = 32

_ACCESS_TOKEN: Final = frozenset({"at+jwt", "application/at+jwt"})
_UNTYPED: Final = frozenset({"jwt", "application/jwt"})
_OTHER_PURPOSE: Final = frozenset({"nonce", "at_hash", "c_hash", "s_hash", "events", "htm", "htu"})
"""Claims of ID tokens, logout tokens and DPoP proofs: what an untyped access token must not have."""


class Fault(StrEnum):
    """Why a token is refused."""

    MALFORMED = "malformed"
    TYPE = "type"
    ALGORITHM = "algorithm"
    ISSUER = "issuer"
    KEY = "key"
    SIGNATURE = "signature"
    EXPIRED = "expired"
    NOT_YET_VALID = "not_yet_valid"
    LIFETIME = "lifetime"
    AUDIENCE = "audience"
    CLAIMS = "claims"
    BOUND = "bound"
    UNBOUND = "unbound"
    INACTIVE = "inactive"


class TokenError(ValueError):
    """The token is refused. `reason` names claims and differences of time; it quotes nothing of the token."""

    def __init__(self, fault: Fault, reason: str) -> None:
        super().__init__(f"{fault}: {reason}")
        self.fault = fault
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Rules:
    """What an issuer's tokens must be like.

    `accept_untyped` also accepts a token without `typ`, or whose `typ` is `JWT`. `tenant_claim` is the claim that
    names the tenant; it is then required. `client_claim` names the client in place of `client_id` and `azp`.
    """

    issuer: str
    leeway_seconds: float = 10.0
    maximum_lifetime_seconds: float = 86_400.0
    accept_untyped: bool = False
    tenant_claim: str | None = None
    client_claim: str | None = None


class UnverifiedToken(NamedTuple):
    """A token that was read. `issuer` is who it claims to be from; nothing of it is to be believed yet."""

    jws: CompactJws
    claims: Mapping[str, Any]
    issuer: str


class AccessToken(NamedTuple):
    """What a verified token says. Times are seconds since 1970; `not_before` is the later of `nbf` and `iat`."""

    issuer: str
    subject: str
    client_id: str
    tenant: str | None
    scopes: frozenset[str]
    not_before: float
    expires_at: float
    claims: Mapping[str, Any]
    confirmation: Confirmation = UNBOUND


def read(token: bytes) -> UnverifiedToken:
    """Take a token apart, far enough to know whose key must have signed it.

    Raises:
        TokenError: `MALFORMED`, `ALGORITHM`, or `ISSUER` when it names none.
    """
    try:
        jws = jose.parse_compact(token)
    except AlgorithmError as fault:
        raise TokenError(Fault.ALGORITHM, fault.reason) from None
    except JoseError as fault:
        raise TokenError(Fault.MALFORMED, fault.reason) from None
    try:
        claims = strict_json.loads(jws.payload)
    except JsonError as fault:
        raise TokenError(Fault.MALFORMED, f"the payload {fault.reason}") from None
    if not isinstance(claims, dict):
        raise TokenError(Fault.MALFORMED, "the payload is not an object")
    issuer = claims.get("iss")
    if not isinstance(issuer, str):
        raise TokenError(Fault.ISSUER, "iss is not a string")
    return UnverifiedToken(jws, MappingProxyType(claims), issuer)


def check_type(token: UnverifiedToken, rules: Rules) -> None:
    """Check that the token is an access token and nothing else the issuer signs (RFC 9068 §4, RFC 8725 §3.11).

    Raises:
        TokenError: `TYPE`.
    """
    typ = token.jws.header.typ
    lowered = None if typ is None else typ.lower()
    if lowered in _ACCESS_TOKEN:
        return
    if not rules.accept_untyped or not (lowered is None or lowered in _UNTYPED):
        raise TokenError(Fault.TYPE, "typ is not at+jwt")
    if not _OTHER_PURPOSE.isdisjoint(token.claims):
        raise TokenError(Fault.TYPE, "the token has claims of an ID token, a logout token or a proof")


def judge(token: UnverifiedToken, rules: Rules, audiences: Set[str], now: float) -> AccessToken:
    """Judge the claims of a token whose signature was verified.

    `audiences` are the identifiers of the resource it is presented to; `now` is in seconds since 1970.

    Raises:
        TokenError: naming the first claim that is not as it must be.
    """
    if token.issuer != rules.issuer:
        raise TokenError(Fault.ISSUER, "iss is not the issuer whose key signed the token")
    return judge_claims(token.claims, rules, audiences, now)


def judge_claims(claims: Mapping[str, Any], rules: Rules, audiences: Set[str], now: float) -> AccessToken:
    """Judge what the issuer of `rules` says of a token, signed or asked for; all but `iss`. As `judge` otherwise."""
    _check_audience(claims.get("aud"), audiences)
    expires_at = _date(claims, "exp")
    issued_at = _date(claims, "iat")
    not_before = max(issued_at, _date(claims, "nbf")) if "nbf" in claims else issued_at
    check_times(not_before, expires_at, now, rules.leeway_seconds)
    if expires_at <= issued_at:
        raise TokenError(Fault.LIFETIME, "exp is not after iat")
    if expires_at - issued_at > rules.maximum_lifetime_seconds:
        raise TokenError(Fault.LIFETIME, f"exp is {expires_at - issued_at:.0f} s after iat")
    if not isinstance(claims.get("jti", ""), str):
        raise TokenError(Fault.CLAIMS, "jti is not a string")
    return AccessToken(
        issuer=rules.issuer,
        subject=_name(claims, "sub", MAX_SUBJECT_CHARACTERS),
        client_id=_client_id(claims, rules.client_claim),
        tenant=None if rules.tenant_claim is None else _name(claims, rules.tenant_claim, MAX_SUBJECT_CHARACTERS),
        scopes=_granted(claims),
        not_before=not_before,
        expires_at=expires_at,
        claims=claims,
        confirmation=confirmation(claims),
    )


def check_times(not_before: float, expires_at: float, now: float, leeway_seconds: float) -> None:
    """Check the token's times (RFC 7519 §4.1.4 and §4.1.5): refused on and after `exp`, and before `nbf` and `iat`.

    Raises:
        TokenError: `EXPIRED` or `NOT_YET_VALID`.
    """
    if now >= expires_at + leeway_seconds:
        raise TokenError(Fault.EXPIRED, f"exp was {now - expires_at:.0f} s ago")
    if now < not_before - leeway_seconds:
        raise TokenError(Fault.NOT_YET_VALID, f"nbf or iat is {not_before - now:.0f} s ahead")


def confirmation(claims: Mapping[str, Any]) -> Confirmation:
    """What the token is bound to, from `cnf` (RFC 7800 §3.1).

    Raises:
        TokenError: `BOUND`, when it is bound in a way that nobody here checks.
    """
    if "cnf" not in claims:
        return UNBOUND
    cnf = claims["cnf"]
    if not isinstance(cnf, dict) or not cnf or not {"jkt", "x5t#S256"}.issuperset(cnf):
        raise TokenError(Fault.BOUND, "cnf is not an object of jkt and x5t#S256 alone")
    return Confirmation(_thumbprint(cnf, "jkt"), _thumbprint(cnf, "x5t#S256"))


def _thumbprint(cnf: Mapping[str, Any], name: str) -> str | None:
    if name not in cnf:
        return None
    value = cnf[name]
    try:
        if isinstance(value, str) and len(b64url.decode(value)) == THUMBPRINT_BYTES:
            return value
    except Base64Error:
        pass
    raise TokenError(Fault.BOUND, f"{name} is not the base64url of a SHA-256")


def _check_audience(claim: object, audiences: Set[str]) -> None:
    """RFC 7519 §4.1.3: a string, or a list of strings; exact membership."""
    named = [claim] if isinstance(claim, str) else claim
    if not isinstance(named, list) or not named:
        raise TokenError(Fault.AUDIENCE, "aud is not a string or a list of strings")
    for audience in named:
        if not isinstance(audience, str):
            raise TokenError(Fault.AUDIENCE, "aud has an element that is not a string")
    if audiences.isdisjoint(named):
        raise TokenError(Fault.AUDIENCE, "aud names other resources only")


def _date(claims: Mapping[str, Any], name: str) -> float:
    """A NumericDate (RFC 7519 §2), from 1970 to the year 9999."""
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        _bad(name, "is not a number")
    if not 0 <= value <= LATEST_DATE:
        _bad(name, "is out of range")
    return float(value)


def _name(claims: Mapping[str, Any], name: str, longest: int) -> str:
    value = claims.get(name)
    if not isinstance(value, str):
        _bad(name, "is not a string")
    if not 0 < len(value) <= longest:
        _bad(name, f"does not have 1 to {longest} characters")
    if not value.isprintable():
        _bad(name, "has characters that cannot be printed")
    return value


def _client_id(claims: Mapping[str, Any], claim: str | None) -> str:
    """`claim`, or without one `client_id` (RFC 9068 §2.2), or `azp`, in which OpenID providers name the client."""
    if claim is not None:
        return _name(claims, claim, MAX_CLIENT_ID_CHARACTERS)
    if "client_id" not in claims:
        return _name(claims, "azp", MAX_CLIENT_ID_CHARACTERS)
    client_id = _name(claims, "client_id", MAX_CLIENT_ID_CHARACTERS)
    if claims.get("azp", client_id) != client_id:
        _bad("azp", "names another client than client_id")
    return client_id


def _granted(claims: Mapping[str, Any]) -> frozenset[str]:
    """The scopes a token grants, from `scope` (RFC 9068 §2.2.3) or `scp`, in which some issuers list them.

    Claims that have no single reading grant nothing: a malformed one, or two that disagree.
    """
    readings = {_scopes(claims[name], listed=name == "scp") for name in ("scope", "scp") if name in claims}
    return readings.pop() if len(readings) == 1 else scopes.NONE


def _scopes(claim: object, *, listed: bool) -> frozenset[str]:
    if isinstance(claim, str):
        try:
            return scopes.parse(claim)
        except ScopeError:
            return scopes.NONE
    if not listed or not isinstance(claim, list):
        return scopes.NONE
    if not all(isinstance(scope, str) and scopes.is_scope_token(scope) for scope in claim):
        return scopes.NONE
    return frozenset(claim)


def _bad(name: str, problem: str) -> NoReturn:
    raise TokenError(Fault.CLAIMS, f"{name} {problem}")
