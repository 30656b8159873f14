"""Refusals of the authorization server: those a client reads as JSON, and those a person reads as a page."""

from collections.abc import Sequence

from mcp_guard.rejections import Kind, Rejection

INVALID_REQUEST = "invalid_request"
INVALID_CLIENT = "invalid_client"
INVALID_GRANT = "invalid_grant"
INVALID_SCOPE = "invalid_scope"
INVALID_TARGET = "invalid_target"
INVALID_DPOP_PROOF = "invalid_dpop_proof"
USE_DPOP_NONCE = "use_dpop_nonce"
UNAUTHORIZED_CLIENT = "unauthorized_client"
UNSUPPORTED_GRANT_TYPE = "unsupported_grant_type"
UNSUPPORTED_RESPONSE_TYPE = "unsupported_response_type"
ACCESS_DENIED = "access_denied"
TEMPORARILY_UNAVAILABLE = "temporarily_unavailable"

_LEGAL = frozenset(chr(code) for code in [*range(0x20, 0x22), *range(0x23, 0x5C), *range(0x5D, 0x7F)])


def legal_description(text: str) -> str:
    """`text` in the characters that `error_description` may have (RFC 6749 §5.2); others become a question mark."""
    return "".join(character if character in _LEGAL else "?" for character in text)


class OAuthError(Exception):
    """An error response as JSON (RFC 6749 §5.2, RFC 7591 §3.2.2). The description never quotes what was sent.

    `reason` is for the operator; it is the description when it is not given.
    """

    def __init__(
        self,
        error: str,
        description: str,
        *,
        status: int = 400,
        headers: Sequence[tuple[bytes, bytes]] = (),
        reason: str | None = None,
    ) -> None:
        super().__init__(f"{error}: {description}")
        self.error = error
        self.description = legal_description(description)
        self.status = status
        self.headers = tuple(headers)
        self.reason = reason or description


class RedirectableError(Exception):
    """An error that the client is told at its redirect URI, once the user is known (RFC 6749 §4.1.2.1)."""

    def __init__(self, error: str, description: str) -> None:
        super().__init__(f"{error}: {description}")
        self.error = error
        self.description = legal_description(description)


class PageError(Exception):
    """An error that is shown to the person, without a redirect anywhere (OAuth 2.1 §4.1.2.1)."""

    def __init__(self, status: int, title: str, message: str, *, headers: Sequence[tuple[bytes, bytes]] = ()) -> None:
        super().__init__(f"{status} {title}: {message}")
        self.status = status
        self.title = title
        self.message = message
        self.headers = tuple(headers)


def for_audit(status: int, error: str, reason: str) -> Rejection:
    """A refusal as the audit knows it: its slug is `oauth_` and the error code, or `oauth_page` for a page."""
    return Kind(f"oauth_{error}", status, reason, "RFC 6749 §5.2", error).because(reason)


def too_many_requests(retry_after_seconds: int, what: str) -> OAuthError:
    """429 with `Retry-After` (RFC 6585 §4)."""
    return OAuthError(
        TEMPORARILY_UNAVAILABLE, what, status=429, headers=[(b"retry-after", str(retry_after_seconds).encode())]
    )
