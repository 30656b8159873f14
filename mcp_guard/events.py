"""What an authorization server tells the audit."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Event:
    """What an authorization server did for somebody: a login, a consent, a token; for the audit.

    `name` is one of `login`, `consent`, `denial`, `code_redeemed`, `token_refreshed`, `client_registered`.
    `token_fingerprint` names the access token that was issued, if one was.
    """

    name: str
    issuer: str
    subject: str | None = None
    client_id: str | None = None
    tenant: str | None = None
    token_fingerprint: str | None = None
