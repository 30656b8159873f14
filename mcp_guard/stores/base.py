"""The store: the one place where state lives that outlives a request.

A store runs a batch of operations. What it promises, whatever it is made of:

- Each operation is atomic: no other operation, of this or another process, is seen half done.
- The operations of one batch are carried out in order and cost one round trip. A batch is not a transaction: a failure
  in the middle leaves the earlier operations done. Whoever needs several things to happen together uses one operation.
- Every key expires. An expired key is absent from the instant it expires, by the store's own clock.
- A batch either answers every operation or raises `StoreUnavailable`; an operation whose outcome is unknown has raised.
- Nothing is evicted to make room: a full store raises `StoreUnavailable`.
- Values, buckets, sets and claims are apart: the same key may name one of each, and they do not meet.

Keys are ASCII strings of at most 512 characters, made of a prefix of ours and a digest or an identifier that was
validated; nothing a client sent goes into a key as it came. Values are bytes of at most 64 KiB.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import NamedTuple, Protocol, TypeAlias


@dataclass(frozen=True, slots=True)
class Get:
    """Read a value. Answers `bytes`, or None when the key is absent."""

    key: str


@dataclass(frozen=True, slots=True)
class Put:
    """Write a value with its time to live. Answers True when it was written.

    `only_if_absent` writes only when the key is absent (claim, first use). `only_if_equal` writes only when the
    present value is exactly that one (compare and set). At most one of the two is given.
    """

    key: str
    value: bytes
    ttl: timedelta
    only_if_absent: bool = False
    only_if_equal: bytes | None = None


@dataclass(frozen=True, slots=True)
class Take:
    """Read a value and remove it, so that exactly one taker gets it. Answers `bytes`, or None when absent."""

    key: str


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove a key. Answers True when it was present."""

    key: str


@dataclass(frozen=True, slots=True)
class Renew:
    """Read a value and, when it begins with `prefix`, restart its time to live. Answers `bytes`, or None when absent.

    A record begins with its owner: whoever presents another's handle learns nothing and does not keep it alive.
    """

    key: str
    prefix: bytes
    ttl: timedelta


@dataclass(frozen=True, slots=True)
class Bucket:
    """One limit: at most `burst` at once, refilled at `burst` per `period` (GCRA).

    `cost` is how many units the request takes, at least 1 and at most `burst`.
    """

    key: str
    burst: int
    period: timedelta
    cost: int = 1


@dataclass(frozen=True, slots=True)
class Spend:
    """Take from several buckets at once: from all of them, or, when one is exhausted, from none.

    Answers a `Level` for each bucket, in order. Buckets are read at one instant of the store's clock. Each bucket is
    named once.
    """

    buckets: tuple[Bucket, ...]


@dataclass(frozen=True, slots=True)
class Enter:
    """Become a member of a set of at most `limit`, or restart the time of one's membership. Answers True when inside.

    Each member has a time to live of its own; expired ones do not count. A full set answers False: nobody is put out
    to make room. `limit` is at least 0; `member` obeys the rules of keys.
    """

    key: str
    member: str
    ttl: timedelta
    limit: int


@dataclass(frozen=True, slots=True)
class Stay:
    """Restart the time of a membership. Answers False, and changes nothing, when `member` is not inside."""

    key: str
    member: str
    ttl: timedelta


@dataclass(frozen=True, slots=True)
class Leave:
    """End a membership. Answers True when there was one."""

    key: str
    member: str


@dataclass(frozen=True, slots=True)
class Members:
    """Who is inside. Answers a tuple of members, in no particular order."""

    key: str


@dataclass(frozen=True, slots=True)
class Claim:
    """Use something that may be used once. Answers True for its first use, and for no other.

    `issued` is when the thing was issued, in seconds since 1970; it is refused when that is before the store's memory
    began, because a store that forgot (it was flushed, or restarted without persistence) cannot know whether the thing
    was used before. `ttl` must outlive the thing.
    """

    key: str
    ttl: timedelta
    issued: float


@dataclass(frozen=True, slots=True)
class Announce:
    """Tell everyone who listens to `topic`, in this process and in others. Answers True.

    Nothing is promised about delivery: whoever depends on it asks the store as well. `message` is at most 4 KiB.
    """

    topic: str
    message: bytes


class Level(NamedTuple):
    """How full a bucket is after a `Spend`.

    `allowed` is False for the bucket that was exhausted; when any is, nothing was taken from any, and the levels of the
    others are what they would have been. `remaining` is the number of units left, at least 0. `retry_after` is how long
    until the refused cost fits (zero when allowed). `reset` is how long until the bucket is full again.
    """

    allowed: bool
    remaining: int
    retry_after_seconds: float
    reset_seconds: float

    @property
    def retry_after(self) -> timedelta:
        return timedelta(seconds=self.retry_after_seconds)

    @property
    def reset(self) -> timedelta:
        return timedelta(seconds=self.reset_seconds)


Operation: TypeAlias = Get | Put | Take | Delete | Renew | Spend | Enter | Stay | Leave | Members | Claim | Announce
Result: TypeAlias = bytes | bool | tuple[Level, ...] | tuple[str, ...] | None


def levels_of(result: Result) -> tuple[Level, ...]:
    """The levels that a `Spend` answered with.

    Raises:
        TypeError: the result is another operation's.
    """
    if isinstance(result, tuple):
        levels = tuple([one for one in result if isinstance(one, Level)])
        if len(levels) == len(result):
            return levels
    raise TypeError("a Spend answers with levels")


def members_of(result: Result) -> tuple[str, ...]:
    """The members that a `Members` answered with.

    Raises:
        TypeError: the result is another operation's.
    """
    if isinstance(result, tuple):
        members = tuple([one for one in result if isinstance(one, str)])
        if len(members) == len(result):
            return members
    raise TypeError("a Members answers with texts")


Hear: TypeAlias = Callable[[bytes], None]
"""Called with each message of a topic; must neither wait nor raise."""


class Store(Protocol):
    """The contract; see the module's docstring for what is promised."""

    async def start(self) -> None:
        """Connect and check that the store is fit for use. Called before the first `run`; safe to call again.

        Raises:
            ConfigurationError: the store is set up in a way that cannot be safe.
            StoreUnavailable: the store cannot be reached.
        """

    async def run(self, operations: Sequence[Operation]) -> list[Result]:
        """Carry out a batch. Answers one result for each operation, in order.

        Raises:
            StoreUnavailable: the batch, or a part of it, may not have been carried out.
        """

    def listen(self, topic: str, hear: Hear) -> Callable[[], None]:
        """Hear what is announced under `topic` from now on, also by others. Answers how to stop.

        Called before or after `start`. A listener hears nothing while the store cannot be reached.
        """

    async def close(self) -> None:
        """Let go of connections, after the last `run`. Safe to call again, and on a store that never started."""
