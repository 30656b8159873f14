"""The store: the one place where state lives that outlives a request.

A store runs a batch of operations. What it promises, whatever it is made of:

- Each operation is atomic: no other operation, of this or another process, is seen half done.
- The operations of one batch are carried out in order and cost one round trip. A batch is not a transaction: a failure
  in the middle leaves the earlier operations done. Whoever needs several things to happen together uses one operation.
- Every key expires. An expired key is absent from the instant it expires, by the store's own clock.
- A batch either answers every operation or raises `StoreUnavailable`; an operation whose outcome is unknown has raised.
- Nothing is evicted to make room: a full store raises `StoreUnavailable`.

Keys are ASCII strings of at most 512 characters, made of a prefix of ours and a digest or an identifier that was
validated; nothing a client sent goes into a key as it came. Values are bytes of at most 64 KiB.
"""

from collections.abc import Sequence
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
    """Read a value and, when it is exactly `expected`, restart its time to live. Answers `bytes`, or None when absent.

    Whoever presents another's handle learns nothing and does not keep it alive.
    """

    key: str
    expected: bytes
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


Operation: TypeAlias = Get | Put | Take | Delete | Renew | Spend
Result: TypeAlias = bytes | bool | tuple[Level, ...] | None


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

    async def close(self) -> None:
        """Let go of connections, after the last `run`. Safe to call again, and on a store that never started."""
