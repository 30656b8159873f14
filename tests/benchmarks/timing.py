"""Timing of calls in process, in rounds in turn, so that drift of the machine falls on all alike; and of processes."""

import gc
import os
import statistics
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

ROUNDS = 9
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


async def microseconds(
    candidates: Mapping[str, Callable[[], Awaitable[None]]], calls: int, rounds: int = ROUNDS
) -> dict[str, float]:
    """The median cost of one call of each candidate in µs: `rounds` rounds of `calls` calls, candidates in turn."""
    costs: dict[str, list[float]] = {name: [] for name in candidates}
    for name, call in candidates.items():
        await loop(call, max(1, calls // 10))
        del name
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds):
            for name, call in candidates.items():
                costs[name].append(await loop(call, calls))
    finally:
        gc.enable()
    return {name: statistics.median(values) for name, values in costs.items()}


async def loop(call: Callable[[], Awaitable[None]], calls: int) -> float:
    """The processor's time for one call in µs: what else runs on the machine counts less than by the clock."""
    began = time.process_time()
    for _ in range(calls):
        await call()
    return (time.process_time() - began) / calls * 1e6


def processor_seconds(pid: int) -> float:
    """How long a process has been on a processor (proc(5): utime and stime)."""
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND
