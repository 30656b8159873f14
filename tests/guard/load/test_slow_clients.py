"""Clients that do not read cost little and are cut off; others do not notice them (dos-08)."""

import time
from contextlib import closing
from pathlib import Path

import pytest

from tests.guard.load.clients import Streams, Target, allow_open_files, percentile, report, running

GROWTH_MIB = 20.0
CUT_WITHIN_SECONDS = 40.0
SMALL_BUFFER_BYTES = 4096


def stalled(target: Target, count: int) -> Streams:
    """Clients of streams that are written to a hundred times a second, which they do not read."""
    streams = Streams()
    for number in range(count):
        one = target.connect(receive_buffer=SMALL_BUFFER_BYTES)
        one.sendall(target.request("GET", number, target="/mcp?busy"))
        streams.sockets.append(one)
    return streams


@pytest.mark.load
def test_clients_that_do_not_read_cost_little_and_are_cut_off(tmp_path: Path) -> None:
    """dos-08"""
    count = 200
    allow_open_files(1000)
    with running("guarded", tmp_path / "guarded", 20) as target:
        alone = target.call_seconds(5.0)
        before, sockets = target.settled_memory_kib(), target.sockets()
        with closing(stalled(target, count)) as streams:
            began = time.monotonic()
            growth = 0.0
            beside = target.call_seconds(10.0)
            while target.sockets() > sockets and time.monotonic() < began + CUT_WITHIN_SECONDS + 10:
                growth = max(growth, (target.memory_kib() - before) / 1024)
                time.sleep(0.5)
            cut_after = time.monotonic() - began
            left = target.sockets() - sockets
            streams.close()
        again = target.call_seconds(1.0)
    report(
        f"{count} clients that do not read 1 KiB events, 100 a second",
        {
            "memory grows by, MiB": growth,
            "the last is cut off after, s": cut_after,
            "not cut off": left,
            "a call without them, p99 in ms": 1000 * percentile(alone, 0.99),
            "a call beside them, p99 in ms": 1000 * percentile(beside, 0.99),
            "a call after them, p99 in ms": 1000 * percentile(again, 0.99),
        },
    )
    assert left == 0
    assert cut_after <= CUT_WITHIN_SECONDS
    assert growth <= GROWTH_MIB
