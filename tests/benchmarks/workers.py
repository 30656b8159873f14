"""B7: two workers on one Valkey against one, and whether sessions are found at whichever worker is asked.

Each worker is a process with a server on the real SDK behind the complete stack. The load is this process's, and on two
cores it takes its share of what two workers have; the share is told. Stateless calls measure throughput; sessions that
were opened at one worker are then asked for at random at either, where a 404 is wrong.
"""

import asyncio
import os
import secrets
import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from itertools import cycle, islice
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from tests.benchmarks.in_process import Row
from tests.benchmarks.peers import BODY, headers
from tests.benchmarks.timing import processor_seconds
from tests.benchmarks.whole_server import answer
from tests.guard.affinity.process import AUTHORITY, Deployment, Process, call, deployment, speaking
from tests.support.valkey_server import valkey_server

CONNECTIONS = 16
SLICE_SECONDS = 1.5
SLICES = 5
SESSIONS = 20
CALLS_OF_EACH = 20


class Slice(NamedTuple):
    """One slice of load: requests per second; requests per second of the workers' processors; the load's share."""

    rate: float
    efficiency: float
    share: float


async def measure() -> list[Row]:
    """Measure B7, but for the cost of carrying a request."""
    with (
        valkey_server() as store,
        tempfile.TemporaryDirectory(prefix="mcp-") as folder,
        deployment(2, store.url, Path(folder), json_response=True) as running,
    ):
        request = stateless(running)
        slices: dict[int, list[Slice]] = {1: [], 2: []}
        for number in (2, *(1, 2) * SLICES):
            slices[number].append(await load(running.processes[:number], request))
        del slices[2][0]
        wrong = await wrongly_unknown(running)
    one, two = (Slice(*map(statistics.median, zip(*slices[number], strict=True))) for number in (1, 2))
    unbounded = float("inf")
    return [
        Row("B7 real SDK tools/call at one worker", one.rate, "req/s", -unbounded, at_least=True),
        Row("B7 at two workers on one Valkey / at one", two.rate / one.rate, "×", 1.8, at_least=True),
        Row("B7 the load generator's share of the processors, one", 100 * one.share, "%", unbounded),
        Row("B7 the load generator's share of the processors, two", 100 * two.share, "%", unbounded),
        Row("B7 two / one, for each second of a worker's processor", two.efficiency / one.efficiency, "×", unbounded),
        Row(f"B7 wrong 404s in {SESSIONS * CALLS_OF_EACH} calls at random workers", wrong, "", 0.0),
    ]


def stateless(running: Deployment) -> bytes:
    """A call that any worker can serve, as bytes."""
    lines = [b"POST /mcp HTTP/1.1", *(b"%s: %s" % pair for pair in headers(AUTHORITY, running.token("alice")))]
    return b"\r\n".join(lines) + b"\r\n\r\n" + BODY


async def load(workers: Sequence[Process], request: bytes) -> Slice:
    """Ask the workers for a while, over as many connections at each."""
    busy, own, began = busy_of(workers), time.process_time(), time.perf_counter()
    ports = islice(cycle([urlsplit(worker.url).port or 0 for worker in workers]), CONNECTIONS)
    count = sum(await asyncio.gather(*(drive(port, request, began + SLICE_SECONDS) for port in ports)))
    seconds = time.perf_counter() - began
    share = (time.process_time() - own) / seconds / len(os.sched_getaffinity(0))
    return Slice(count / seconds, count / (busy_of(workers) - busy), share)


def busy_of(workers: Sequence[Process]) -> float:
    """How long workers have been on a processor, in seconds."""
    return sum(processor_seconds(worker.popen.pid) for worker in workers)


async def drive(port: int, request: bytes, end: float) -> int:
    """One connection: one request after another until `end`."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    count = 0
    while time.perf_counter() < end:
        writer.write(request)
        await answer(reader)
        count += 1
    writer.close()
    await writer.wait_closed()
    return count


async def wrongly_unknown(running: Deployment) -> int:
    """How many calls in sessions of as many principals, opened in turn at the workers, are answered with 404."""
    wrong = 0
    async with AsyncExitStack() as stack:
        for place in range(SESSIONS):
            speaker = await stack.enter_async_context(speaking(running.token(f"person-{place}")))
            await speaker.open(running.processes[place % len(running.processes)])
            for _ in range(CALLS_OF_EACH):
                response = await speaker.post(secrets.choice(running.processes), call("add", a=1, b=2))
                wrong += response.status_code == 404
    return wrong
