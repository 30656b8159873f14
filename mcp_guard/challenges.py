"""The challenges that a protected resource answers with (RFC 9110 §11.6.1, RFC 6750 §3, RFC 9728 §5.1, RFC 9449 §7.1).

A client that reads one challenge alone reads the first: that of the scheme it used, or of Bearer when it used none.
"""

from collections.abc import Sequence
from functools import lru_cache

from mcp_guard.asgi import RawHeaders
from mcp_guard.facts import SenderKey
from mcp_guard.layer import RequestHead
from mcp_guard.protocol.authorization_header import BEARER, DPOP, bearer_challenge, dpop_challenge
from mcp_guard.protocol.metadata import well_known_url
from mcp_guard.rejections import Kind

FIELD = b"www-authenticate"


def challenges(
    url: str, scopes: frozenset[str], schemes: Sequence[str], kind: Kind, used: str | None = None
) -> RawHeaders:
    """One field for each of `schemes`, for the resource at `url`; that of the scheme in use says the error.

    Raises:
        ValueError: a value has characters that must not be in a challenge.
    """
    first = used if used in schemes else schemes[0]
    ordered = [first, *[scheme for scheme in schemes if scheme != first]]
    return [(FIELD, challenge(scheme, url, scopes, kind if scheme == first else None)) for scheme in ordered]


@lru_cache(1024)
def challenge(scheme: str, url: str, scopes: frozenset[str], kind: Kind | None) -> bytes:
    """The challenge of one scheme, with the error of `kind`, if it has one."""
    error, description = ("", "") if kind is None or not kind.error else (kind.error, kind.description)
    write = dpop_challenge if scheme == DPOP else bearer_challenge
    return write(well_known_url(url), scopes, error=error, error_description=description)


def scheme_of(request: RequestHead) -> str:
    """The scheme by which the caller was let through, for refusals further in."""
    sender = request.get(SenderKey)
    return BEARER if sender is None or sender.thumbprint is None else DPOP
