"""The generic cell rate algorithm: exactly the burst passes, and waiting as told is enough."""

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
