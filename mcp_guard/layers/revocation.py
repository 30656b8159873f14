"""Refuses tokens whose grant was revoked (RFC 7009 §2), before they expire.

Decides: whether the store holds the revocation of the grant that the principal's token names in its claim `grant`.
Refuses with `token_revoked` (401) and a challenge. A token without that claim is not asked about. Does not: revoke; the
authorization server writes the key that is asked for. Needs the principal and the resource. Must stand after: token.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from mcp_guard import rejections
from mcp_guard.check import StatefulCheck
from mcp_guard.facts import Principal, Resource
from mcp_guard.layer import ADMITTED, Admission, RequestHead
from mcp_guard.protocol.authorization_header import bearer_challenge
from mcp_guard.protocol.metadata import well_known_url
from mcp_guard.revocation import GRANT_CLAIM, ask_revoked, is_revoked
from mcp_guard.stores.base import Operation, Result


@dataclass(frozen=True, kw_only=True)
class Revocation(StatefulCheck):
    """No settings but the store, which must be the one that the authorization server writes to."""

    needs = (Principal, Resource)

    def ask(self, request: RequestHead) -> Sequence[Operation]:
        grant = request.fact(Principal).claims.get(GRANT_CLAIM)
        return () if grant is None else _question(str(grant))

    def answer(self, request: RequestHead, results: Sequence[Result]) -> Admission:
        if any(is_revoked(result) for result in results):
            raise rejections.TOKEN_REVOKED.because(
                "the grant of the token was revoked",
                [(b"www-authenticate", _challenge(request.fact(Resource).url, request.fact(Resource).scopes))],
            )
        return ADMITTED


@lru_cache(10_000)
def _question(grant: str) -> Sequence[Operation]:
    return (ask_revoked(grant),)


@lru_cache(256)
def _challenge(url: str, scopes: frozenset[str]) -> bytes:
    kind = rejections.TOKEN_REVOKED
    return bearer_challenge(well_known_url(url), scopes, error=kind.error, error_description=kind.description)
