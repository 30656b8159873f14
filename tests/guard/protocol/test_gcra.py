"""The generic cell rate algorithm: exactly the burst passes, and waiting as told is enough."""

import math
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_guard.protocol.gcra import decide

BURSTS = st.integers(1, 1000)
PERIODS = st.floats(10, 86_400)
INSTANTS = st.floats(0, 1e7)


def spend_all(burst: int, period: float, now: float) -> float:
    """The arrival time after the whole burst was taken, one unit at a time, at one instant."""
    arrival = 0.0
    for taken in range(1, burst + 1):
        verdict = decide(burst, period, 1, arrival, now)
        assert verdict.allowed, f"unit {taken} of {burst} was refused"
        assert verdict.remaining == burst - taken
        assert verdict.retry_after_seconds == 0
        arrival = verdict.arrival
    return arrival


@given(BURSTS, PERIODS, INSTANTS)
def test_exactly_the_burst_passes_at_one_instant_and_waiting_as_told_is_enough(
    burst: int, period: float, now: float
) -> None:
    arrival = spend_all(burst, period, now)
    refused = decide(burst, period, 1, arrival, now)

    assert not refused.allowed
    assert refused.remaining == 0
    assert refused.retry_after_seconds == pytest.approx(period / burst, rel=1e-3)

    later = now + refused.retry_after_seconds
    assert decide(burst, period, 1, arrival, later).allowed
    early = now + refused.retry_after_seconds * 0.99
    assert not decide(burst, period, 1, arrival, early).allowed


@given(BURSTS, PERIODS, INSTANTS)
def test_a_bucket_is_whole_again_after_its_period(burst: int, period: float, now: float) -> None:
    arrival = spend_all(burst, period, now)
    spend_all(burst, period, max(arrival, now + period))


@given(
    st.integers(1, 100),
    st.floats(10, 3600),
    st.lists(st.tuples(st.floats(0, 60), st.integers(1, 5)), max_size=60),
)
def test_in_no_span_does_more_pass_than_the_burst_and_what_refilled(
    burst: int, period: float, arrivals: list[tuple[float, int]]
) -> None:
    now, arrival, taken = 1000.0, 0.0, 0
    for wait, cost in arrivals:
        now += wait
        verdict = decide(burst, period, cost, arrival, now)
        if verdict.allowed:
            arrival, taken = verdict.arrival, taken + cost
        assert taken <= burst + (now - 1000.0) * burst / period + 0.01
        assert 0 <= verdict.remaining <= burst


def test_a_refusal_is_remembered_by_nobody() -> None:
    arrival = decide(1, 60, 1, 0, 100).arrival
    for instant in (101, 120, 159):
        assert not decide(1, 60, 1, arrival, instant).allowed
    assert decide(1, 60, 1, arrival, 160).allowed


@pytest.mark.parametrize(("cost", "allowed", "remaining"), [(1, True, 4), (5, True, 0), (6, False, 5)])
def test_a_cost_fits_up_to_the_burst(cost: int, allowed: bool, remaining: int) -> None:
    verdict = decide(5, 60, cost, 0, 1000)
    assert (verdict.allowed, verdict.remaining) == (allowed, remaining)


def test_the_reset_is_how_long_until_the_bucket_is_full() -> None:
    verdict = decide(10, 60, 3, 0, 1000)
    assert verdict.reset_seconds == pytest.approx(18)
    assert decide(10, 60, 10, verdict.arrival, 1000 + 18).allowed
    refused = decide(10, 60, 8, verdict.arrival, 1000)
    assert refused.reset_seconds == pytest.approx(18)
    assert refused.retry_after_seconds == pytest.approx(6)


# Stores count in microseconds, some in whole ones, some as the sum of two floating point numbers.

Step = tuple[int, int]
"""How many microseconds after the last request, and how many units it asks for."""

STEPS = st.lists(st.tuples(st.integers(0, 30_000_000), st.integers(1, 3)), min_size=1, max_size=100)


def in_seconds(burst: int, period_us: int, begin_us: int, steps: list[Step]) -> list[tuple[bool, int]]:
    """What `decide` says of each request, on a clock of floating point seconds."""
    answers, arrival, now_us = [], 0.0, begin_us
    for wait_us, cost in steps:
        now_us += wait_us
        verdict = decide(burst, period_us / 1e6, cost, arrival, now_us / 1e6)
        arrival = verdict.arrival if verdict.allowed else arrival
        answers.append((verdict.allowed, verdict.remaining))
    return answers


def exactly(burst: int, period_us: int, begin_us: int, steps: list[Step]) -> list[tuple[bool, int]]:
    """The same without any rounding."""
    interval = Fraction(period_us, burst)
    answers, arrival, now = [], Fraction(0), Fraction(begin_us)
    for wait_us, cost in steps:
        now += wait_us
        start = max(arrival, now)
        allowed = start + interval * cost - now <= period_us
        arrival = start + interval * cost if allowed else arrival
        used = max(arrival, now) - now
        answers.append((allowed, math.floor((period_us - used) / interval)))
    return answers


def in_whole_microseconds(burst: int, period_us: int, begin_us: int, steps: list[Step]) -> list[tuple[bool, int]]:
    """The same in integers: what a unit takes is rounded down, so that the burst always fits."""
    interval = period_us // burst
    answers, arrival, now = [], 0, begin_us
    for wait_us, cost in steps:
        now += wait_us
        start = max(arrival, now)
        allowed = start + interval * cost - now <= period_us
        arrival = start + interval * cost if allowed else arrival
        answers.append((allowed, (period_us - max(0, arrival - now)) // interval))
    return answers


def in_two_parts(burst: int, period_us: int, begin_us: int, steps: list[Step]) -> list[tuple[bool, int]]:
    """The same in floating point microseconds since 1970: an instant, and what was added since."""
    period, interval = float(period_us), period_us / burst
    answers, base, added, now = [], 0.0, 0.0, float(begin_us)
    for wait_us, cost in steps:
        now += wait_us
        lag = base - now + added
        if lag <= 0:
            base, added, lag = now, 0.0, 0.0
        allowed = lag + interval * cost - period <= interval * 1e-3
        if allowed:
            added, lag = added + interval * cost, lag + interval * cost
        answers.append((allowed, max(0, math.floor((period - lag) / interval + 1e-3))))
    return answers


@given(st.integers(1, 1000), st.integers(10_000_000, 3_600_000_000), st.integers(0, 10**13), STEPS)
def test_seconds_agree_with_exact_arithmetic_and_with_microseconds_within_one_unit(
    burst: int, period_us: int, begin_us: int, steps: list[Step]
) -> None:
    ours = in_seconds(burst, period_us, begin_us, steps)
    for other in (exactly, in_whole_microseconds, in_two_parts):
        theirs = other(burst, period_us, begin_us + 1_800_000_000_000_000, steps)
        taken = [sum(cost for (ok, _), (_, cost) in zip(said, steps, strict=True) if ok) for said in (ours, theirs)]
        largest = max(cost for _, cost in steps)
        assert abs(taken[0] - taken[1]) <= largest, other.__name__
        if [ok for ok, _ in ours] == [ok for ok, _ in theirs]:
            apart = max(abs(left - other_left) for (_, left), (_, other_left) in zip(ours, theirs, strict=True))
            assert apart <= 1, other.__name__


@pytest.mark.parametrize("way", [in_seconds, exactly, in_whole_microseconds, in_two_parts])
@pytest.mark.parametrize(("burst", "period_us"), [(100, 60_000_000), (7, 60_000_000), (600, 60_000_000), (3, 10**9)])
def test_whatever_the_arithmetic_exactly_the_burst_passes(way: Any, burst: int, period_us: int) -> None:
    answers = way(burst, period_us, 1_800_000_000_000_001, [(0, 1)] * (burst + 5))
    assert [ok for ok, _ in answers] == [True] * burst + [False] * 5
    assert [left for _, left in answers[:burst]] == list(range(burst - 1, -1, -1))
