"""The store of one process: a dictionary. The default, and the yardstick of the contract.

Each operation runs without an await, so nothing sees it half done. Expired entries are dropped when they are met and
swept a few at a time with every batch, round and round over a list of the keys that is taken anew when it is used up,
so that the cost of a batch does not grow with the number of entries. Every batch looks at more entries than it added,
and at the bound at many more, so that a full store is usable again when its entries have expired.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import assert_never

from mcp_guard.clock import Clock, SystemClock
from mcp_guard.failures import ConfigurationError, StoreUnavailable
from mcp_guard.protocol import gcra
from mcp_guard.stores.base import Bucket, Delete, Get, Level, Operation, Put, Renew, Result, Spend, Take

SWEEP_STEP = 4
"""Entries looked at for expiry with each batch, and twice for each entry that the batch added."""

SWEEP_STEP_AT_BOUND = 256
"""Entries looked at for expiry before a batch when the store is full."""


@dataclass(slots=True)
class _Entry:
    value: bytes
    expires: float


@dataclass(eq=False)
class MemoryStore:
    """State in this process alone: lost when it ends, invisible to other workers.

    `max_entries` bounds values and buckets together; at the bound new keys are refused with `StoreUnavailable`,
    nothing is evicted.
    """

    clock: Clock = field(default_factory=SystemClock)
    max_entries: int = 1_000_000
    _values: dict[str, _Entry] = field(default_factory=dict, init=False, repr=False)
    _buckets: dict[str, float] = field(default_factory=dict, init=False, repr=False)
    _to_sweep: list[str] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.max_entries < 1:
            raise ConfigurationError(f"max_entries must be at least 1, not {self.max_entries}")

    async def start(self) -> None:
        """Nothing to connect to."""

    async def close(self) -> None:
        """Nothing to let go of; the entries stay for a later start."""

    async def run(self, operations: Sequence[Operation]) -> list[Result]:
        """See the contract."""
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
        return len(self._values) + len(self._buckets)

    def _carry_out(self, operation: Operation, now: float) -> Result:
        match operation:
            case Get():
                return self._read(operation.key, now)
            case Renew():
                return self._renew(operation, now)
            case Spend():
                return self._spend(operation.buckets, now)
            case Put():
                return self._put(operation, now)
            case Take():
                value = self._read(operation.key, now)
                self._values.pop(operation.key, None)
                return value
            case Delete():
                present = self._read(operation.key, now) is not None
                self._values.pop(operation.key, None)
                return present
            case _:
                assert_never(operation)

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
        if value == operation.expected:
            self._write(operation.key, operation.expected, operation.ttl, now)
        return value

    def _put(self, operation: Put, now: float) -> bool:
        present = self._read(operation.key, now)
        if operation.only_if_absent and present is not None:
            return False
        if operation.only_if_equal is not None and present != operation.only_if_equal:
            return False
        self._write(operation.key, operation.value, operation.ttl, now)
        return True

    def _write(self, key: str, value: bytes, ttl: timedelta, now: float) -> None:
        if key not in self._values:
            self._check_room(1)
        self._values[key] = _Entry(value, now + ttl.total_seconds())

    def _check_room(self, wanted: int) -> None:
        if self.held + wanted > self.max_entries:
            raise StoreUnavailable(f"the memory store holds its bound of {self.max_entries} entries")

    def _spend(self, buckets: tuple[Bucket, ...], now: float) -> tuple[Level, ...]:
        held = self._buckets
        levels: list[Level] = []
        arrivals: dict[str, float] = {}
        fits = True
        for bucket in buckets:
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
            self._to_sweep = [*self._values, *self._buckets]
        for _ in range(min(step, len(self._to_sweep))):
            key = self._to_sweep.pop()
            entry = self._values.get(key)
            if entry is not None and entry.expires <= now:
                del self._values[key]
            if self._buckets.get(key, math.inf) <= now:
                del self._buckets[key]
