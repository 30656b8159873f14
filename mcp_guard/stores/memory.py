"""The store of one process: a dictionary. The default, and the yardstick of the contract.

Each operation runs without an await, so nothing sees it half done. Expired entries are dropped when they are met and
swept a few at a time with every batch, round and round over a list of the keys that is taken anew when it is used up,
so that the cost of a batch does not grow with the number of entries. Every batch looks at more entries than it added,
and at the bound at many more, so that a full store is usable again when its entries have expired.
"""

import contextlib
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from mcp_guard.clock import Clock, SystemClock
from mcp_guard.failures import ConfigurationError, StoreUnavailable
from mcp_guard.protocol import gcra
from mcp_guard.stores.base import (
    Announce,
    Claim,
    Delete,
    Enter,
    Get,
    Hear,
    Leave,
    Level,
    Members,
    Operation,
    Put,
    Renew,
    Result,
    Spend,
    Stay,
    Take,
)
from mcp_guard.workers import declared_workers

logger = logging.getLogger("mcp_guard")

SWEEP_STEP = 4
"""Entries looked at for expiry with each batch, and twice for each entry that the batch added."""

SWEEP_STEP_AT_BOUND = 256
"""Entries looked at for expiry before a batch when the store is full."""


_NOBODY: Mapping[str, float] = {}


@dataclass(slots=True)
class _Entry:
    value: bytes
    expires: float


@dataclass(eq=False)
class MemoryStore:
    """State in this process alone: lost when it ends, invisible to other workers.

    `max_entries` bounds all that is kept; at the bound new keys are refused with `StoreUnavailable`, none is evicted.
    It does not start in a process that is one of several workers. With `insecure_per_worker` it does: each worker then
    counts limits by itself, knows only sessions of its own, and takes what is good for one use once more.
    """

    clock: Clock = field(default_factory=SystemClock)
    max_entries: int = 1_000_000
    insecure_per_worker: bool = False
    _values: dict[str, _Entry] = field(default_factory=dict, init=False, repr=False)
    _buckets: dict[str, float] = field(default_factory=dict, init=False, repr=False)
    _sets: dict[str, dict[str, float]] = field(default_factory=dict, init=False, repr=False)
    _claims: dict[str, float] = field(default_factory=dict, init=False, repr=False)
    _members: int = field(default=0, init=False, repr=False)
    _hearers: dict[str, list[Hear]] = field(default_factory=dict, init=False, repr=False)
    _epoch: float = field(init=False, repr=False)
    _to_sweep: list[str] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.max_entries < 1:
            raise ConfigurationError(f"max_entries must be at least 1, not {self.max_entries}")
        self._epoch = self.clock.wall()

    async def start(self) -> None:
        """Nothing to connect to.

        Raises:
            ConfigurationError: there are several workers, which would each have a memory of their own.
        """
        workers = declared_workers()
        if workers > 1 and not self.insecure_per_worker:
            raise ConfigurationError(
                f"a MemoryStore is one process's own, and there are {workers} workers: "
                "give them a ValkeyStore or a PostgresStore to share"
            )
        if workers > 1:
            logger.warning(
                "INSECURE: each of %d workers has a memory of its own: limits count once for each, sessions of one "
                "worker are unknown to the others, and what is good for one use is good for one at each",
                workers,
            )

    async def close(self) -> None:
        """Nothing to let go of; the entries stay for a later start."""

    async def run(self, operations: Sequence[Operation]) -> list[Result]:
        """See the contract."""
        return self.run_now(operations)

    def run_now(self, operations: Sequence[Operation]) -> list[Result]:
        """Carry out a batch without waiting for anything; otherwise as `run`."""
        now = self.clock.monotonic()
        before = self.held
        if before >= self.max_entries:
            self._sweep(now, SWEEP_STEP_AT_BOUND)
        results = [self._carry_out(operation, now) for operation in operations]
        self._sweep(now, SWEEP_STEP + 2 * max(0, self.held - before))
        return results

    @property
    def held(self) -> int:
        """The number of entries in memory, those included that have expired and were not swept yet."""
        return len(self._values) + len(self._buckets) + len(self._claims) + self._members

    def listen(self, topic: str, hear: Hear) -> Callable[[], None]:
        """See the contract."""
        hearers = self._hearers.setdefault(topic, [])
        hearers.append(hear)

        def stop() -> None:
            with contextlib.suppress(ValueError):
                hearers.remove(hear)

        return stop

    def _carry_out(self, operation: Operation, now: float) -> Result:
        try:
            carry_out = _HOW[type(operation)]
        except KeyError:
            raise TypeError(f"{operation!r} is no operation of a store") from None
        return carry_out(self, operation, now)

    def _get(self, operation: Get, now: float) -> bytes | None:
        return self._read(operation.key, now)

    def _take(self, operation: Take, now: float) -> bytes | None:
        value = self._read(operation.key, now)
        self._values.pop(operation.key, None)
        return value

    def _delete(self, operation: Delete, now: float) -> bool:
        present = self._read(operation.key, now) is not None
        self._values.pop(operation.key, None)
        return present

    def _members_of(self, operation: Members, now: float) -> tuple[str, ...]:
        return self._inside(operation.key, now)

    def _read(self, key: str, now: float) -> bytes | None:
        entry = self._values.get(key)
        if entry is None:
            return None
        if entry.expires <= now:
            del self._values[key]
            return None
        return entry.value

    def _renew(self, operation: Renew, now: float) -> bytes | None:
        value = self._read(operation.key, now)
        if value is not None and value.startswith(operation.prefix):
            self._write(operation.key, value, operation.ttl, now)
        return value

    def _put(self, operation: Put, now: float) -> bool:
        present = self._read(operation.key, now)
        if operation.only_if_absent and present is not None:
            return False
        if operation.only_if_equal is not None and present != operation.only_if_equal:
            return False
        self._write(operation.key, operation.value, operation.ttl, now)
        return True

    def _is_inside(self, key: str, member: str, now: float) -> bool:
        return self._sets.get(key, _NOBODY).get(member, -math.inf) > now

    def _inside(self, key: str, now: float) -> tuple[str, ...]:
        """The members of a set; those that have expired are put out."""
        expired = [member for member, expires in self._sets.get(key, _NOBODY).items() if expires <= now]
        for member in expired:
            self._put_out(key, member)
        return tuple(self._sets.get(key, _NOBODY))

    def _put_out(self, key: str, member: str) -> None:
        members = self._sets.get(key)
        if members is not None and members.pop(member, None) is not None:
            self._members -= 1
            if not members:
                del self._sets[key]

    def _enter(self, operation: Enter, now: float) -> bool:
        key, member = operation.key, operation.member
        if not self._is_inside(key, member, now):
            self._put_out(key, member)
            full = len(self._sets.get(key, _NOBODY)) >= operation.limit
            if full and len(self._inside(key, now)) >= operation.limit:
                return False
            self._check_room(1)
            self._members += 1
        self._sets.setdefault(key, {})[member] = now + operation.ttl.total_seconds()
        return True

    def _stay(self, operation: Stay, now: float) -> bool:
        if not self._is_inside(operation.key, operation.member, now):
            return False
        self._sets[operation.key][operation.member] = now + operation.ttl.total_seconds()
        return True

    def _leave(self, operation: Leave, now: float) -> bool:
        inside = self._is_inside(operation.key, operation.member, now)
        self._put_out(operation.key, operation.member)
        return inside

    def _claim(self, operation: Claim, now: float) -> bool:
        if operation.issued < self._epoch or self._claims.get(operation.key, -math.inf) > now:
            return False
        if operation.key not in self._claims:
            self._check_room(1)
        self._claims[operation.key] = now + operation.ttl.total_seconds()
        return True

    def _announce(self, operation: Announce, now: float) -> bool:
        for hear in tuple(self._hearers.get(operation.topic, ())):
            try:
                hear(operation.message)
            except Exception:
                logger.exception("a listener of %s failed", operation.topic)
        return True

    def _write(self, key: str, value: bytes, ttl: timedelta, now: float) -> None:
        if key not in self._values:
            self._check_room(1)
        self._values[key] = _Entry(value, now + ttl.total_seconds())

    def _check_room(self, wanted: int) -> None:
        if self.held + wanted > self.max_entries:
            raise StoreUnavailable(f"the memory store holds its bound of {self.max_entries} entries")

    def _spend(self, operation: Spend, now: float) -> tuple[Level, ...]:
        held = self._buckets
        levels: list[Level] = []
        arrivals: dict[str, float] = {}
        fits = True
        for bucket in operation.buckets:
            arrival = held.get(bucket.key, now)
            verdict = gcra.decide(bucket.burst, bucket.period.total_seconds(), bucket.cost, arrival, now)
            levels.append(Level(verdict.allowed, verdict.remaining, verdict.retry_after_seconds, verdict.reset_seconds))
            arrivals[bucket.key] = verdict.arrival
            fits = fits and verdict.allowed
        if fits:
            self._check_room(len([key for key in arrivals if key not in held]))
            held.update(arrivals)
        return tuple(levels)

    def _sweep(self, now: float, step: int) -> None:
        if not self._to_sweep:
            self._to_sweep = [*self._values, *self._buckets, *self._sets, *self._claims]
        for _ in range(min(step, len(self._to_sweep))):
            key = self._to_sweep.pop()
            entry = self._values.get(key)
            if entry is not None and entry.expires <= now:
                del self._values[key]
            if self._buckets.get(key, math.inf) <= now:
                del self._buckets[key]
            if self._claims.get(key, math.inf) <= now:
                del self._claims[key]
            if key in self._sets:
                self._inside(key, now)


_HOW: Mapping[type[Operation], Callable[[MemoryStore, Any, float], Result]] = {
    Get: MemoryStore._get,
    Put: MemoryStore._put,
    Take: MemoryStore._take,
    Delete: MemoryStore._delete,
    Renew: MemoryStore._renew,
    Spend: MemoryStore._spend,
    Enter: MemoryStore._enter,
    Stay: MemoryStore._stay,
    Leave: MemoryStore._leave,
    Members: MemoryStore._members_of,
    Claim: MemoryStore._claim,
    Announce: MemoryStore._announce,
}
