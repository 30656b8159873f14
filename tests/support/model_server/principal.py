"""Who a request speaks for, once its token was verified."""

from __future__ import annotations

from dataclasses import dataclass


class Refused(Exception):
    """A request that stops here. `slug` is the OAuth error code, or "" when no credentials were sent.

    `credentials` is the text of the token that was refused, which only a faulty server repeats; `nonce` is what a DPoP
    proof is to be made again with.
    """

    def __init__(self, status: int, slug: str, reason: str, scopes: tuple[str, ...] = (), *, nonce: str = "") -> None:
        super().__init__(reason)
        self.status = status
        self.slug = slug
        self.reason = reason
        self.scopes = scopes
        self.nonce = nonce
        self.credentials = ""


class InvalidToken(Refused):
    """RFC 6750 §3.1 `invalid_token`."""

    def __init__(self, reason: str) -> None:
        super().__init__(401, "invalid_token", reason)


@dataclass(frozen=True)
class Principal:
    """The verified token's subject. `identity` is what sessions are bound to: never the token's own text.

    `jkt` and `x5t` are the thumbprints of the key and the certificate that the token is bound to, "" for none."""

    issuer: str
    subject: str
    client_id: str
    scopes: frozenset[str]
    jti: str
    expires: float
    token: str
    jkt: str = ""
    x5t: str = ""

    @property
    def identity(self) -> tuple[str, str, str]:
        return (self.issuer, self.subject, self.client_id)
