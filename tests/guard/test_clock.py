"""The clock of the system: a step back is not followed, a step forward is, there and back."""

import time

import pytest

from mcp_guard.clock import SystemClock


class Stepped:
    """A wall clock that is set wrong."""

    offset = 0.0

    def __call__(self) -> float:
        return time.time() + self.offset


@pytest.mark.parametrize(
    ("offset", "followed"), [(0.0, 0.0), (3600.0, 3600.0), (0.5, 0.5), (-0.5, 0.0), (-3600.0, 0.0)]
)
def test_a_step_forward_is_followed_and_a_step_back_is_not(offset: float, followed: float) -> None:
    stepped = Stepped()
    clock = SystemClock(stepped)
    stepped.offset = offset
    assert clock.wall() == pytest.approx(time.time() + followed, abs=0.1)
    stepped.offset = 0.0
    assert clock.wall() == pytest.approx(time.time(), abs=0.1), "it is right again at once"


def test_time_passes_after_a_step_back() -> None:
    stepped = Stepped()
    clock = SystemClock(stepped)
    stepped.offset = -3600.0
    before, began = clock.wall(), time.monotonic()
    while time.monotonic() < began + 0.02:
        assert clock.wall() >= before
    assert 0.02 <= clock.wall() - before < 1.0


def test_the_clock_of_the_system_is_right() -> None:
    clock = SystemClock()
    before = time.monotonic()
    assert before <= clock.monotonic() <= time.monotonic()
    assert clock.wall() == pytest.approx(time.time(), abs=0.1)
