"""B7: a request that is carried to the worker that holds its session, against the same request at that worker.

Two workers on one Valkey, each a process with a stateful server on the real SDK behind the complete stack. One request
is in flight at a time, and the workers are asked in turn, in short slices, so that drift of the machine falls on both
alike. The processors' time is that of both workers.
"""

import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from tests.benchmarks.in_process import Row
from tests.benchmarks.timing import processor_seconds
from tests.benchmarks.whole_server import answer
from tests.guard.affinity.process import Process, Speaker, call, deployment, speaking
from tests.support.valkey_server import valkey_server

CALLS = 100
SLICES = 8


async def measure() -> list[Row]:
    """Measure the cost of carrying a request."""
    with (
        valkey_server() as store,
        tempfile.TemporaryDirectory(prefix="mcp-") as folder,
        deployment(2, store.url, Path(folder), json_response=True) as running,
    ):
        async with speaking(running.token("alice")) as alice:
            await alice.open(running.processes[0])
        asked = [Asked(alice, at, running.processes) for at in running.processes]
        for one in [*asked, *asked * SLICES]:
            await one.slice()
    local, carried = (statistics.median(one.times[CALLS:]) * 1e6 for one in asked)
    busy_locally, busy_carrying = (sum(one.busy[1:]) / (CALLS * SLICES) * 1e6 for one in asked)
    unbounded = float("inf")
    return [
        Row("B7 real SDK tools/call in a session, at its worker", local, "µs", unbounded),
        Row("B7 the same by way of another worker", carried, "µs", unbounded),
        Row("B7 carried / at its worker", carried / local, "×", 2.0),
        Row("B7 carried / at its worker, processors' time", busy_carrying / busy_locally, "×", unbounded),
    ]


class Asked:
    """One worker that is asked; `times` are in seconds a call, `busy` in seconds of all workers' processors a slice."""

    def __init__(self, alice: Speaker, at: Process, workers: Sequence[Process]) -> None:
        body = json.dumps(call("add", a=1, b=2)).encode()
        fields = {**alice.headers, "content-length": str(len(body))}
        lines = ["POST /mcp HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
        self.request = "\r\n".join(lines).encode() + b"\r\n\r\n" + body
        self.port = urlsplit(at.url).port
        self.workers = workers
        self.times: list[float] = []
        self.busy: list[float] = []

    async def slice(self) -> None:
        """A few calls, one after the other, on one connection."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        before = self.busy_until_now()
        for _ in range(CALLS):
            began = time.perf_counter()
            writer.write(self.request)
            await answer(reader)
            self.times.append(time.perf_counter() - began)
        self.busy.append(self.busy_until_now() - before)
        writer.close()
        await writer.wait_closed()

    def busy_until_now(self) -> float:
        """How long all workers have been on a processor, in seconds."""
        return sum(processor_seconds(worker.popen.pid) for worker in self.workers)
