"""Sessions in the store: whose a handle is, how long, at which worker; what to ask for it and how to judge the answer.

The record at `mcp:session:<session id>` is a binding (`mcp_guard.bindings`) with the resource it is for, the key that
the token it was opened with is bound to, the instant at which it ends however much it is used, and the worker that
holds it. The handles of one principal are members of a set,
so that one can be refused more of them without a look at anybody else's.
"""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from mcp_guard import bindings, rejections, revocation
from mcp_guard.bindings import Binding
from mcp_guard.clock import Clock
from mcp_guard.facts import Principal, Resource
from mcp_guard.failures import ConfigurationError
from mcp_guard.keyring import KeyRing
from mcp_guard.rejections import Rejection
from mcp_guard.secret import fingerprint
from mcp_guard.stores.base import Delete, Enter, Leave, Members, Operation, Put, Renew, Result, Stay, members_of

DEFAULT_TTL: Final = timedelta(seconds=1800)
DEFAULT_LIFETIME: Final = timedelta(hours=24)
DEFAULT_PER_PRINCIPAL: Final = 256
RETRY_SECONDS: Final = 60
"""When to try again for one more session; one may end at any time."""

MAX_REMEMBERED: Final = 10_000
_PLAIN_ID = re.compile(r"[A-Za-z0-9._~+/=-]{1,128}")


def session_key(handle: str) -> str:
    """`mcp:session:<session id>`, or a digest of an id that is long or unusual."""
    if _PLAIN_ID.fullmatch(handle):
        return f"mcp:session:{handle}"
    return f"mcp:session:sha256:{hashlib.sha256(handle.encode()).hexdigest()}"


def endpoint_handle(path: str, query: str) -> str:
    """The handle of an HTTP+SSE stream: where its messages are sent. The blank keeps it apart from every session id."""
    return f"POST {path}?{query}"


@dataclass(frozen=True)
class SessionTerms:
    """How long sessions live, and how many one principal has.

    `ttl` is how long a session lives without being used (an open stream counts as use), `lifetime` how long at most.
    `cache` is for how long a worker may believe what the store said of a session: so long may one that was ended at
    another worker be let through here when the announcement of its end is lost.
    """

    ttl: timedelta = DEFAULT_TTL
    lifetime: timedelta = DEFAULT_LIFETIME
    per_principal: int = DEFAULT_PER_PRINCIPAL
    cache: timedelta = timedelta(0)

    def __post_init__(self) -> None:
        if self.ttl < timedelta(seconds=1):
            raise ConfigurationError(f"ttl must be at least one second, not {self.ttl}")
        if self.lifetime < self.ttl:
            raise ConfigurationError(f"lifetime must be at least the ttl of {self.ttl}, not {self.lifetime}")
        if self.per_principal < 1:
            raise ConfigurationError(f"per_principal must be at least 1, not {self.per_principal}")
        if not timedelta(0) <= self.cache <= self.ttl / 3:
            raise ConfigurationError(f"cache must be from 0 to a third of the ttl of {self.ttl}, not {self.cache}")


@dataclass(eq=False)
class Sessions:
    """What is asked of the store for sessions, and what its answers mean. `home` tells where new ones are held."""

    terms: SessionTerms
    ring: KeyRing
    clock: Clock
    home: Callable[[], str | None]
    _believed: dict[str, tuple[bytes, float]] = field(default_factory=dict, init=False, repr=False)

    def opening(self, principal: Principal) -> tuple[Operation, ...]:
        """What to ask before one more session is opened."""
        return (Members(_set_of(principal)),)

    def check_room(self, result: Result) -> None:
        """Judge the answer.

        Raises:
            Rejection: `limit_exceeded`, when the principal has all the sessions it may have.
        """
        if len(members_of(result)) >= self.terms.per_principal:
            raise self._too_many()

    def bind(self, handle: str, principal: Principal, resource: Resource | None) -> tuple[Operation, ...]:
        """What binds a new handle to its owner, and to `resource` unless the handle itself names the place."""
        key, home = session_key(handle), self.home()
        members: dict[str, str | int] = {"until": self._until()}
        if resource is not None:
            members["resource"] = resource.url
        if principal.confirmation.jkt is not None:
            members["jkt"] = principal.confirmation.jkt
        if home is not None:
            members["home"] = home
        record = bindings.bind(self.ring, key, principal, **members)
        return (
            Enter(_set_of(principal), key, self.terms.ttl, self.terms.per_principal),
            Put(key, record, self.terms.ttl, only_if_absent=True),
        )

    def check_bound(self, entered: Result, written: Result) -> None:
        """Judge the answers.

        Raises:
            Rejection: `limit_exceeded`; `guard_fault`, when the handle is one that was handed out before.
        """
        if entered is not True:
            raise self._too_many()
        if written is not True:
            raise rejections.GUARD_FAULT.because("the app minted a session id that is already bound")

    def using(self, handle: str, principal: Principal) -> tuple[Operation, ...]:
        """What to ask when a handle is presented; nothing when the last answer may still be believed."""
        key = session_key(handle)
        known = self._believed.get(key)
        if known is not None and known[1] > self.clock.monotonic():
            return ()
        return self.renewing(handle, principal)

    def renewing(self, handle: str, principal: Principal) -> tuple[Operation, ...]:
        """What keeps a session of this principal alive, and does nothing for any other."""
        key = session_key(handle)
        return (
            Renew(key, bindings.owner_prefix(principal), self.terms.ttl),
            Stay(_set_of(principal), key, self.terms.ttl),
        )

    def judge(self, handle: str, principal: Principal, resource: Resource, found: Result) -> Binding:
        """The binding of a handle that was presented; `found` is the answer to the first of `using`.

        Raises:
            Rejection: `session_not_found`: it is not, or no longer, a session of this principal with this key at this
                resource.
        """
        key = session_key(handle)
        if not isinstance(found, bytes):
            raise _unknown(handle, "is unknown")
        binding = bindings.read(self.ring, key, found)
        if binding is None:
            raise _unknown(handle, "has a record that was not made with the key ring")
        if not binding.belongs_to(principal):
            raise _unknown(handle, "belongs to another principal")
        if binding.members.get("jkt") != principal.confirmation.jkt:
            raise _unknown(handle, "was opened with a token that is bound to another key, or to none")
        if binding.members.get("resource", resource.url) != resource.url:
            raise _unknown(handle, "belongs to another resource")
        if binding.members.get("until", 0) <= self.clock.wall():
            raise _unknown(handle, "has reached the end of its lifetime")
        if self.terms.cache:
            self._believe(key, found)
        return binding

    def believed(self, handle: str) -> bytes | None:
        """The record that the store had for a handle, while that may be believed."""
        known = self._believed.get(session_key(handle))
        return None if known is None else known[0]

    def ending(self, handle: str, principal: Principal) -> tuple[Operation, ...]:
        """What ends a session, everywhere."""
        key = session_key(handle)
        self._believed.pop(key, None)
        return (Delete(key), Leave(_set_of(principal), key), revocation.announce(key))

    def hear(self, message: bytes) -> None:
        """Forget a session that was ended elsewhere."""
        self._believed.pop(message.decode("ascii", "replace"), None)

    def _believe(self, key: str, record: bytes) -> None:
        """Believe what the store has just said; what was only believed is not believed any longer for it."""
        known = self._believed.pop(key, None)
        if known is not None and known[0] is record:
            self._believed[key] = known
            return
        if len(self._believed) >= MAX_REMEMBERED:
            del self._believed[next(iter(self._believed))]
        self._believed[key] = (record, self.clock.monotonic() + self.terms.cache.total_seconds())

    def _until(self) -> int:
        return int(self.clock.wall() + self.terms.lifetime.total_seconds())

    def _too_many(self) -> Rejection:
        return rejections.LIMIT_EXCEEDED.because(
            f"the principal has {self.terms.per_principal} sessions", [(b"retry-after", str(RETRY_SECONDS).encode())]
        )


def _set_of(principal: Principal) -> str:
    """The set of a principal's sessions."""
    return f"mcp:sessions:{principal.key}"


def _unknown(handle: str, why: str) -> Rejection:
    return rejections.SESSION_NOT_FOUND.because(f"session {fingerprint(handle)} {why}")
