"""The circuit breaker: after failures in a row nothing is asked for a while but one probe at a time."""

from dataclasses import dataclass

FAILURES_TO_OPEN = 3
PROBE_SECONDS = 0.2
"""How long an open breaker rests before each probe; a server that is back is used again within about that time."""


@dataclass(slots=True)
class Breaker:
    """Times are in seconds of the event loop's clock."""

    failures: int = 0
    next_probe: float = 0.0

    def admits(self, now: float) -> bool:
        """Whether to ask now. While open, True once in `PROBE_SECONDS`."""
        if self.failures < FAILURES_TO_OPEN:
            return True
        if now < self.next_probe:
            return False
        self.next_probe = now + PROBE_SECONDS
        return True

    def succeeded(self) -> None:
        self.failures = 0

    def failed(self, now: float) -> None:
        self.failures += 1
        self.next_probe = now + PROBE_SECONDS

    def open(self, now: float) -> None:
        """Open without waiting for more failures."""
        self.failures = max(self.failures, FAILURES_TO_OPEN)
        self.next_probe = now + PROBE_SECONDS
