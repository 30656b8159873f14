"""How a WebSocket is closed by the guard: every code on one page (RFC 6455 §7.4).

Codes from 4000 on are for applications to agree on (§7.4.2). The reason that goes out with a code is the slug alone.
"""

from typing import NamedTuple


class Close(NamedTuple):
    """A close code, its slug, which is the reason on the wire and in the audit, and what it says."""

    code: int
    slug: str
    description: str


ENDED = Close(1000, "ended", "the app is done")
GOING_AWAY = Close(1001, "going_away", "the server shuts down")
NOT_TEXT = Close(1003, "not_text", "a message was not text")
AUTHORIZATION_OVER = Close(
    1008, "authorization_over", "the token expired or was revoked, or is no longer good for another reason"
)
MESSAGE_TOO_LARGE = Close(1009, "message_too_large", "a message was larger than is accepted")
FAILED = Close(1011, "failed", "the app or the guard failed")
TRY_LATER = Close(1013, "try_later", "it cannot be decided now whether the client may connect")
HELLO_MALFORMED = Close(4400, "hello_malformed", "the first message was no hello")
TOKEN_REFUSED = Close(4401, "token_refused", "the token of the hello was not accepted")
NOT_ALLOWED = Close(4403, "not_allowed", "the token was accepted, and what it is good for is not enough")
HELLO_LATE = Close(4408, "hello_late", "no hello came in time")
TOO_MANY = Close(4429, "too_many", "there were too many connections, or too many refused messages one after another")

CLOSES = tuple(one for one in list(vars().values()) if isinstance(one, Close))
"""Every way, by code."""


def of_status(status: int) -> Close:
    """How to say on an accepted socket what would have been said with this status before it was."""
    if status >= 500:
        return TRY_LATER
    return {401: TOKEN_REFUSED, 429: TOO_MANY}.get(status, NOT_ALLOWED)
