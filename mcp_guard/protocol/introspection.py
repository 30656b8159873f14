"""Token introspection (RFC 7662): the request's fields, and what an answer says of a token.

An answer is judged by the same rules as the claims of a signed token. Two members that RFC 7662 §2.2 leaves optional
and those rules need are filled in: `iat` by the time of asking, and `aud` where the operator said so by name.
"""

import base64
from collections.abc import Mapping, Set
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import quote_plus

from mcp_guard.protocol import jwt
from mcp_guard.protocol.jwt import AccessToken, Fault, Rules, TokenError

ASSERTION_TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
"""RFC 7523 §2.2."""

_ACCESS_TOKENS: Final = frozenset({"access_token", "access"})
"""What `token_use`, which some servers say and no RFC defines, may be."""


class AnswerError(ValueError):
    """The answer is none that RFC 7662 §2.2 knows; the fault is the server's, not the token's."""


def fields(token: bytes) -> dict[str, str]:
    """The fields of the request (RFC 7662 §2.1)."""
    return {"token": token.decode("ascii"), "token_type_hint": "access_token"}


def basic(client_id: str, secret: str) -> str:
    """The Authorization field of `client_secret_basic`: both are form-encoded first (RFC 6749 §2.3.1)."""
    pair = f"{quote_plus(client_id)}:{quote_plus(secret)}"
    return f"Basic {base64.b64encode(pair.encode('ascii')).decode('ascii')}"


def read(answer: object) -> Mapping[str, Any] | None:
    """What is said of the token; None when it is not active (RFC 7662 §2.2).

    Raises:
        AnswerError: it is not an object, or `active` is not a boolean.
    """
    if not isinstance(answer, dict):
        raise AnswerError("is not an object")
    active = answer.get("active")
    if not isinstance(active, bool):
        raise AnswerError("does not say by a boolean whether the token is active")
    return MappingProxyType(answer) if active else None


def judge(
    said: Mapping[str, Any], rules: Rules, audiences: Set[str], now: float, *, accept_missing_audience: bool = False
) -> AccessToken:
    """Judge what an issuer says of an active token, which was presented to the resource known by `audiences`.

    Raises:
        TokenError: naming the first member that is not as it must be.
    """
    if said.get("iss", rules.issuer) != rules.issuer:
        raise TokenError(Fault.ISSUER, "iss is not the issuer that was asked")
    use = said.get("token_use", "access_token")
    if not isinstance(use, str) or use not in _ACCESS_TOKENS:
        raise TokenError(Fault.TYPE, "token_use is not an access token")
    claims = {"iat": now, **said}
    if accept_missing_audience and "aud" not in said:
        claims["aud"] = sorted(audiences)
    judged = jwt.judge_claims(claims, rules, audiences, now)
    _check_token_type(said, judged)
    return judged._replace(claims=said)


def _check_token_type(said: Mapping[str, Any], judged: AccessToken) -> None:
    """RFC 7662 §2.2 and RFC 9449 §6.2: `token_type`, if it is there, and how the token is bound."""
    token_type = said.get("token_type", "Bearer")
    lowered = token_type.lower() if isinstance(token_type, str) else None
    if lowered not in ("bearer", "dpop"):
        raise TokenError(Fault.TYPE, "token_type is neither Bearer nor DPoP")
    if lowered == "dpop" and judged.confirmation.jkt is None:
        raise TokenError(Fault.BOUND, "token_type is DPoP, and cnf has no jkt")
