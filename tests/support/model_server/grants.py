"""What users granted: codes, refresh token families and the access tokens issued from them."""

from __future__ import annotations

import itertools
import secrets
from dataclasses import dataclass, field

from tests.support.model_server.deployment import CODE_SECONDS, Deployment
from tests.support.model_server.keys import JSON


@dataclass
class Grant:
    """One approval of one user for one client and one resource. `tokens` are the ids of its access tokens.

    `jkt` is the key that its refresh tokens are bound to (RFC 9449 §5), "" for none."""

    user: str
    client_id: str
    resource: str
    scope: str
    revoked: bool = False
    jkt: str = ""
    tokens: list[str] = field(default_factory=list)


@dataclass
class Code:
    """An authorization code and all it is bound to."""

    grant: Grant
    redirect_uri: str
    challenge: str
    method: str
    expires: float
    jkt: str = ""
    used: bool = False


@dataclass
class RefreshToken:
    """`is_last` marks the one that was used last."""

    grant: Grant
    used: bool = False
    is_last: bool = False


class Grants:
    """The state of the authorization server that outlives one request."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._codes: dict[str, Code] = {}
        self._refresh: dict[str, RefreshToken] = {}
        self._access: dict[str, tuple[Grant, JSON]] = {}
        self._revoked: set[str] = set()
        self._numbers = itertools.count(100000)
        self.has = deployment.has

    def issue_code(self, grant: Grant, redirect_uri: str, challenge: str, method: str, jkt: str = "") -> str:
        expires = self._deployment.clock() + CODE_SECONDS
        text = secrets.token_urlsafe(32)
        if self.has("codes_are_counted"):
            text = f"code-{next(self._numbers)}"
        if self.has("code_holds_the_challenge"):
            text += f".{challenge}"
        self._codes[text] = Code(grant, redirect_uri, challenge, method, expires, jkt)
        return text

    def code(self, text: str) -> Code | None:
        """A code that has not expired, used or not."""
        code = self._codes.get(text)
        return code if code and code.expires > self._deployment.clock() else None

    def issue_refresh(self, grant: Grant) -> str:
        text = secrets.token_hex(4) if self.has("refresh_tokens_are_short") else secrets.token_urlsafe(32)
        self._refresh[text] = RefreshToken(grant)
        return text

    def refresh(self, text: str) -> RefreshToken | None:
        return self._refresh.get(text)

    def remember(self, token: str, claims: JSON, grant: Grant) -> None:
        self._access[token] = (grant, claims)
        if "jti" in claims:
            grant.tokens.append(claims["jti"])

    def access(self, token: str) -> tuple[Grant, JSON] | None:
        return self._access.get(token)

    def replaced(self, held: RefreshToken) -> None:
        """Another refresh token takes the place of this one."""
        for one in self._refresh.values():
            if one.grant is held.grant:
                one.is_last = one is held

    def revoke(self, grant: Grant, *, sparing_access: bool = False, sparing_refresh: bool = False) -> None:
        """End a grant: its refresh tokens and its access tokens, unless a fault spares them."""
        grant.revoked = not sparing_refresh
        if not sparing_access:
            self._revoked.update(grant.tokens)

    def revoke_token(self, jti: str) -> None:
        self._revoked.add(jti)

    def is_revoked(self, jti: str) -> bool:
        return jti in self._revoked
