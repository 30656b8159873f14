"""The cleanup: now and then removes what has expired, in a store that does not do so by itself.

Nothing depends on it but space: an expired entry is absent, swept or not. A run that fails is logged, counted and
followed by the next one. Several workers may each have a cleanup on one store; the store lets one sweep at a time.
"""

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, NamedTuple, Protocol

from mcp_guard.clock import Clock, SystemClock
from mcp_guard.failures import ConfigurationError

logger = logging.getLogger("mcp_guard")

DEFAULT_EVERY = timedelta(minutes=5)

CHUNK = 1_000
"""Entries removed at a time: a few milliseconds of work between which others get their turn."""


class Sweepable(Protocol):
    """A store that has to be swept."""

    async def sweep(self, limit: int) -> Mapping[str, int] | None:
        """Remove what has expired, `limit` entries of a kind at a time. Answers how many, by kind.

        None says that somebody else is sweeping.
        """


class Statistics(NamedTuple):
    """What a cleanup has done since it was made.

    `skipped` counts the runs in which somebody else was sweeping. `last_run` is in seconds since 1970; it and
    `last_duration_seconds` are None before the first run that swept.
    """

    runs: int = 0
    failures: int = 0
    skipped: int = 0
    removed: Mapping[str, int] = {}
    last_duration_seconds: float | None = None
    last_run: float | None = None


@dataclass(eq=False)
class Cleanup:
    """`every` is the time from one run to the next, lengthened or shortened at random by up to the share `jitter`.

    With opentelemetry-api the counters `mcp_guard.cleanup.runs` (attribute `outcome`: swept, skipped, failed) and
    `mcp_guard.cleanup.removed` (attribute `kind`) say the same as `statistics`.
    """

    store: Sweepable
    every: timedelta = DEFAULT_EVERY
    jitter: float = 0.1
    clock: Clock = field(default_factory=SystemClock)
    statistics: Statistics = field(default=Statistics(), init=False)
    _task: asyncio.Task[None] | None = field(default=None, init=False, repr=False)
    _meters: tuple[Any, Any] | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.every <= timedelta(0):
            raise ConfigurationError(f"every must be longer than 0 s, not {self.every.total_seconds():g} s")
        if not 0 <= self.jitter <= 1:
            raise ConfigurationError(f"jitter must be from 0 to 1, not {self.jitter}")
        self._meters = _meters()

    async def start(self) -> None:
        """Begin; the first run is one pause away. Safe to call again."""
        if self._task is None:
            self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Stop, in the middle of a run if need be. Safe to call again."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def pause_seconds(self) -> float:
        """How long to wait before the next run."""
        share = secrets.randbelow(1 << 32) / ((1 << 32) - 1)
        return self.every.total_seconds() * (1 + self.jitter * (2 * share - 1))

    async def run_once(self) -> None:
        """Sweep once and take note of how it went; a failure is logged."""
        began, wall = self.clock.monotonic(), self.clock.wall()
        before = self.statistics
        try:
            removed = await self.store.sweep(CHUNK)
        except Exception:
            logger.exception("a cleanup failed; the next one follows")
            self.statistics = before._replace(failures=before.failures + 1)
            self._export("failed", {})
            return
        if removed is None:
            logger.info("cleanup: another worker is sweeping")
            self.statistics = before._replace(skipped=before.skipped + 1)
            self._export("skipped", {})
            return
        seconds = self.clock.monotonic() - began
        grown = {kind: before.removed.get(kind, 0) + count for kind, count in removed.items()}
        self.statistics = before._replace(
            runs=before.runs + 1, removed={**before.removed, **grown}, last_duration_seconds=seconds, last_run=wall
        )
        counts = ", ".join(f"{kind} {count}" for kind, count in removed.items())
        logger.info("cleanup: removed %d in %.3f s (%s)", sum(removed.values()), seconds, counts)
        self._export("swept", removed)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self.pause_seconds())
            await self.run_once()

    def _export(self, outcome: str, removed: Mapping[str, int]) -> None:
        if self._meters is None:
            return
        runs, entries = self._meters
        runs.add(1, {"outcome": outcome})
        for kind, count in removed.items():
            entries.add(count, {"kind": kind})


def _meters() -> tuple[Any, Any] | None:
    """The counters of runs and of removed entries; None without opentelemetry-api."""
    try:
        from opentelemetry import metrics
    except ImportError:
        return None
    meter = metrics.get_meter("mcp_guard")
    return (
        meter.create_counter("mcp_guard.cleanup.runs", unit="{run}", description="Cleanups by outcome"),
        meter.create_counter("mcp_guard.cleanup.removed", unit="{entry}", description="Expired entries removed"),
    )
