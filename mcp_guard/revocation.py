"""Revoked grants: what makes access tokens stop working before they expire.

Every token of the embedded authorization server carries a `grant` claim, the opaque name of the consent it comes from.
A grant is revoked by writing its key; whoever accepts the tokens asks for that key, in the same store, with the
operation `ask_revoked`, and refuses the token when the result says so. The question rides in any batch that is run
anyway.
"""

from datetime import timedelta

from mcp_guard.secret import digest
from mcp_guard.stores.base import Get, Put, Result

GRANT_CLAIM = "grant"
"""The claim that names the grant; a string."""

PREFIX = "mcp:grant-revoked:"


def ask_revoked(grant: str) -> Get:
    """The operation that asks whether `grant` is revoked. Any string is safe: its digest goes into the key."""
    return Get(f"{PREFIX}{digest(grant)}")


def is_revoked(result: Result) -> bool:
    """Whether the result of `ask_revoked` says that the grant is revoked."""
    return result is not None


def revoke(grant: str, keep: timedelta) -> Put:
    """The operation that revokes `grant`; `keep` must outlive everything that was issued from it."""
    return Put(f"{PREFIX}{digest(grant)}", b"1", keep)
