"""The only reader of time.

Two clocks: `wall` for everything that is compared with a timestamp from outside (exp, nbf, iat, audit lines),
`monotonic` for everything that measures a duration (limits, time-to-live, cooldowns). A step of the system clock
therefore moves no limit and no time-to-live.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol


class Clock(Protocol):
    """A source of time."""

    def wall(self) -> float:
        """Seconds since 1970-01-01T00:00:00Z; may step in either direction."""

    def monotonic(self) -> float:
        """Seconds since an arbitrary start; never steps back."""


class SystemClock:
    """The operating system's clocks. `read` is its wall clock.

    A step back of that is not followed as long as the clock lives, so that nothing that has expired comes alive again:
    it is never behind what it was at first and what has passed since. A step forward is followed, there and back.
    """

    monotonic = staticmethod(time.monotonic)

    def __init__(self, read: Callable[[], float] = time.time) -> None:
        self._read = read
        self._began = read() - time.monotonic()

    def wall(self) -> float:
        """See `Clock`."""
        return max(self._read(), self._began + time.monotonic())


@dataclass
class ManualClock:
    """A clock that stands still until it is moved; for tests and for replaying recorded traffic."""

    now: float = 1_800_000_000.0
    ticks: float = 1_000.0

    def wall(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.ticks

    def advance(self, seconds: float) -> None:
        """Move both clocks forward by `seconds` (at least 0).

        Raises:
            ValueError: `seconds` is negative.
        """
        if seconds < 0:
            raise ValueError(f"seconds must be at least 0, not {seconds}")
        self.now += seconds
        self.ticks += seconds

    def step(self, seconds: float) -> None:
        """Step the wall clock alone, as an operator or NTP would."""
        self.now += seconds
