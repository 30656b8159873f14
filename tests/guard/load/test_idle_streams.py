"""Idle streams are held, and the guard adds little to what the server below needs for each (B6, dos-09)."""

import time
from contextlib import closing
from pathlib import Path

import pytest

from tests.guard.load.clients import Target, allow_open_files, percentile, report, running

PER_PRINCIPAL = 25
GUARD_KIB_PER_STREAM = 6.0
TOTAL_MIB = 250


def held(target: Target, count: int, for_seconds: float) -> tuple[float, float, list[float]]:
    """Open the streams and hold them. Answers KiB for each, MiB of all, and how long calls took meanwhile."""
    target.call_seconds(0.5)
    before = target.settled_memory_kib()
    with closing(target.streams(count)) as streams:
        after = target.settled_memory_kib()
        end = time.monotonic() + for_seconds
        taken = target.call_seconds(for_seconds)
        time.sleep(max(0.0, end - time.monotonic()))
        assert streams.closed() == 0, "a stream was dropped"
        total = target.memory_kib()
    return (after - before) / count, total / 1024, taken


@pytest.mark.parametrize(
    ("count", "for_seconds"),
    [pytest.param(100, 1.0), pytest.param(10_000, 60.0, marks=pytest.mark.load)],
)
def test_idle_streams_are_held_at_a_small_price(tmp_path: Path, count: int, for_seconds: float) -> None:
    """B6, dos-09"""
    allow_open_files(count + 500)
    principals = max(1, count // PER_PRINCIPAL)
    with running("bare", tmp_path / "bare", principals) as target:
        bare, bare_total, bare_beside = held(target, count, min(for_seconds, 10.0))
    with running("guarded", tmp_path / "guarded", principals) as target:
        alone = target.call_seconds(min(for_seconds, 10.0))
        each, total, beside = held(target, count, for_seconds)
    report(
        f"{count:,} idle streams of {principals} principals",
        {
            "bare, KiB for each stream": bare,
            "guarded, KiB for each stream": each,
            "the guard adds, KiB for each stream": each - bare,
            "bare, MiB in all": bare_total,
            "guarded, MiB in all": total,
            "a call without streams, p99 in ms": 1000 * percentile(alone, 0.99),
            "a call beside them, bare, p99 in ms": 1000 * percentile(bare_beside, 0.99),
            "a call beside them, p99 in ms": 1000 * percentile(beside, 0.99),
            "held for, s": for_seconds,
            "dropped": 0,
        },
    )
    assert total <= TOTAL_MIB
    if count >= 10_000:
        assert each - bare <= GUARD_KIB_PER_STREAM
