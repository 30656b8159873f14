"""The generic cell rate algorithm (ITU-T I.371): a limit that remembers one timestamp.

The timestamp is the theoretical arrival time: when the bucket would be full again. A request moves it forward by its
cost; it fits while that stays within one period of now.
"""

import math
from typing import NamedTuple

ROUNDING = 1e-3
"""Share of one unit by which a sum of floating point intervals may be off.

A burst of 1,000 units over 10 s is exact up to four months after the clock's start; no unit is ever given away.
"""


class Verdict(NamedTuple):
    """`arrival` is to be remembered when the request is let through. Times are in seconds."""

    allowed: bool
    arrival: float
    remaining: int
    retry_after_seconds: float
    reset_seconds: float


def decide(burst: int, period_seconds: float, cost: int, arrival: float, now: float) -> Verdict:
    """Whether `cost` units fit at `now` into a bucket of `burst` units that refills in `period_seconds`."""
    interval = period_seconds / burst
    start = max(arrival, now)
    finish = start + interval * cost
    wait = finish - now - period_seconds
    allowed = wait <= interval * ROUNDING
    used = (finish if allowed else start) - now
    left = math.floor((period_seconds - used) / interval + ROUNDING)
    return Verdict(allowed, finish, max(0, left), 0.0 if allowed else wait, used)
