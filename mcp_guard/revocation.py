"""Revocation: what makes access tokens and sessions stop working before they expire.

A person, a client of that issuer, one token or one grant of the embedded authorization server is revoked by writing its
key; whoever accepts tokens asks for the keys of each request, in a batch that is run anyway, so that a revocation
counts for every worker from the next request on. It is also announced, so that open streams end and whatever a worker
remembers is forgotten without waiting.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import lru_cache
from typing import Final, NamedTuple

from mcp_guard.clock import Clock, SystemClock
from mcp_guard.facts import Principal
from mcp_guard.secret import digest, fingerprint
from mcp_guard.stores.base import Announce, Get, Hear, Operation, Put, Result, Store

GRANT_CLAIM: Final = "grant"
"""The claim that names the grant of a token of the embedded authorization server; a string."""

TOPIC: Final = "mcp:revoked"
"""Where revocations and ends of sessions are announced; a message is the key that was written or removed, in ASCII."""

KEEP: Final = timedelta(hours=25)
"""How long a revocation is kept: longer than any token that is accepted lives, with an hour for clocks that differ."""

GRANT_PREFIX: Final = "mcp:grant-revoked:"
PREFIX: Final = "mcp:revoked:"
ALWAYS: Final = b"1"
"""The value that refuses whatever its key names, whenever it was issued."""


def ask_revoked(grant: str) -> Get:
    """The operation that asks whether `grant` is revoked. Any string is safe: its digest goes into the key."""
    return Get(f"{GRANT_PREFIX}{digest(grant)}")


def is_revoked(result: Result) -> bool:
    """Whether the result of `ask_revoked` says that the grant is revoked."""
    return result is not None


def revoke(grant: str, keep: timedelta) -> Put:
    """The operation that revokes `grant`; `keep` must outlive everything that was issued from it."""
    return Put(f"{GRANT_PREFIX}{digest(grant)}", ALWAYS, keep)


def announce(key: str) -> Announce:
    """The operation that tells every worker that `key` was written or removed."""
    return Announce(TOPIC, key.encode("ascii"))


@lru_cache(10_000)
def _questions(issuer: str, subject: str, client_id: str, token: str, grant: str | None) -> tuple[Get, ...]:
    of_grant = () if grant is None else (ask_revoked(grant),)
    return (Get(token_key(token)), Get(user_key(issuer, subject)), Get(client_key(issuer, client_id)), *of_grant)


def questions(principal: Principal) -> tuple[Get, ...]:
    """What to ask of the store to know whether the token behind `principal` is revoked."""
    grant = principal.claims.get(GRANT_CLAIM)
    named = None if grant is None else str(grant)
    return _questions(principal.issuer, principal.subject, principal.client_id, principal.token_fingerprint, named)


class Revoked(NamedTuple):
    """What is revoked: `token`, `user`, `client` or `grant`, and the key that says so."""

    kind: str
    key: str


def refused(principal: Principal, results: Sequence[Result]) -> Revoked | None:
    """What is revoked, by the results of `questions`; None when nothing is."""
    if results.count(None) == len(results):
        return None
    kinds = ("token", "user", "client", "grant")
    for kind, question, result in zip(kinds, questions(principal), results, strict=False):
        if result is not None and not _issued_after(principal, result):
            return Revoked(kind, question.key)
    return None


def _issued_after(principal: Principal, result: Result) -> bool:
    """Whether the token was issued after the instant that a revocation names; what cannot be told was not."""
    issued = principal.claims.get("iat")
    if isinstance(issued, bool) or not isinstance(issued, int | float) or not isinstance(result, bytes):
        return False
    if result == ALWAYS:
        return False
    try:
        return issued > float(result)
    except ValueError:
        return False


def user_key(issuer: str, subject: str) -> str:
    """The key that revokes every token that an issuer issued to a person until now."""
    return f"{PREFIX}user:{digest(json.dumps([issuer, subject]))}"


def client_key(issuer: str, client_id: str) -> str:
    """The key that revokes every token that an issuer issued to a client until now."""
    return f"{PREFIX}client:{digest(json.dumps([issuer, client_id]))}"


def token_key(token_fingerprint: str) -> str:
    """The key that revokes the token with this fingerprint."""
    return f"{PREFIX}token:{token_fingerprint}"


@dataclass(frozen=True)
class Revoker:
    """Revokes people, clients, tokens and grants for every worker on `store`, from each one's next request on.

    A person or a client can get new tokens afterwards: only what was issued until now is refused. `keep` must outlive
    every token that is accepted.
    """

    store: Store
    clock: Clock = field(default_factory=SystemClock)
    keep: timedelta = KEEP

    async def user(self, issuer: str, subject: str) -> None:
        """Refuse every token that was issued to this person until now."""
        await self._write(user_key(issuer, subject), self._now())

    async def client(self, issuer: str, client_id: str) -> None:
        """Refuse every token that was issued to this client until now."""
        await self._write(client_key(issuer, client_id), self._now())

    async def token(self, token: str) -> None:
        """Refuse this access token."""
        await self._write(token_key(fingerprint(token)), ALWAYS)

    async def grant(self, grant: str) -> None:
        """Refuse every token of this grant of the embedded authorization server."""
        await self._write(ask_revoked(grant).key, ALWAYS)

    def _now(self) -> bytes:
        return str(self.clock.wall()).encode("ascii")

    async def _write(self, key: str, value: bytes) -> None:
        operations: Sequence[Operation] = (Put(key, value, self.keep), announce(key))
        await self.store.run(operations)


@dataclass(eq=False)
class Listening:
    """Hears a topic of a store from `start` to `close`; something that a layer depends on (`Managed`)."""

    store: Store
    hear: Hear
    topic: str = TOPIC
    stop: Callable[[], None] | None = field(default=None, init=False)

    async def start(self) -> None:
        """Begin to listen, once."""
        if self.stop is None:
            self.stop = self.store.listen(self.topic, self.hear)

    async def close(self) -> None:
        """Listen no longer."""
        if self.stop is not None:
            self.stop()
            self.stop = None
