"""B4: a real SDK server on uvicorn, unguarded, behind the guard, and behind the SDK's own authentication.

Each server is a process of its own; the load is this process's: a few keep-alive connections, one request in flight on
each. The servers are loaded in turn, in short slices, so that drift of the machine falls on all alike.
"""

import asyncio
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from tests.benchmarks.in_process import Row
from tests.benchmarks.peers import BODY, headers

CONNECTIONS = 8
SLICE_SECONDS = 1.5
SLICES = 5
KINDS = ("bare", "guard", "sdk")


async def measure(folder: Path) -> list[Row]:
    """Measure B4; `folder` takes the audit file."""
    servers = {kind: Server(kind, folder) for kind in KINDS}
    try:
        for server in servers.values():
            server.wait()
        rates: dict[str, list[float]] = {kind: [] for kind in KINDS}
        for kind, server in servers.items():
            await load(server, SLICE_SECONDS / 3)
            del kind
        for _ in range(SLICES):
            for kind, server in servers.items():
                rates[kind].append(await load(server, SLICE_SECONDS))
    finally:
        for server in servers.values():
            server.stop()
    median = {kind: statistics.median(values) for kind, values in rates.items()}
    ratio = statistics.median(g / b for g, b in zip(rates["guard"], rates["bare"], strict=True))
    sdk_ratio = statistics.median(s / b for s, b in zip(rates["sdk"], rates["bare"], strict=True))
    unbounded = float("-inf")
    return [
        Row("B4 real SDK tools/call on uvicorn, unguarded", median["bare"], "req/s", unbounded, at_least=True),
        Row("B4 the same behind the guard", median["guard"], "req/s", unbounded, at_least=True),
        Row("B4 the same behind the SDK's own auth", median["sdk"], "req/s", unbounded, at_least=True),
        Row("B4 guard / unguarded", ratio, "×", 0.94, at_least=True),
        Row("B4 SDK auth / unguarded", sdk_ratio, "×", unbounded, at_least=True),
    ]


class Server:
    """One server process; it prints its port and a token."""

    def __init__(self, kind: str, folder: Path) -> None:
        command = [sys.executable, "-m", "tests.benchmarks.server", kind, str(folder / f"{kind}.jsonl")]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=dict(os.environ))
        self.port = 0
        self.token = ""

    def wait(self) -> None:
        """Wait until it says that it listens."""
        if self._process.stdout is None:
            raise RuntimeError("the server's output is not captured")
        port, _, token = self._process.stdout.readline().strip().partition(" ")
        self.port, self.token = int(port), token

    def stop(self) -> None:
        """End the process."""
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def request(self) -> bytes:
        """The call, as bytes."""
        fields = headers(f"127.0.0.1:{self.port}", self.token)
        lines = [b"POST /mcp HTTP/1.1", *(b"%s: %s" % pair for pair in fields)]
        return b"\r\n".join(lines) + b"\r\n\r\n" + BODY


async def load(server: Server, seconds: float) -> float:
    """Requests per second over `seconds`."""
    end = time.perf_counter() + seconds
    began = time.perf_counter()
    counts = await asyncio.gather(*(drive(server, end) for _ in range(CONNECTIONS)))
    return sum(counts) / (time.perf_counter() - began)


async def drive(server: Server, end: float) -> int:
    """One connection: one request after another until `end`."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    request, count = server.request(), 0
    try:
        while time.perf_counter() < end:
            writer.write(request)
            await answer(reader)
            count += 1
    finally:
        writer.close()
        await writer.wait_closed()
    return count


async def answer(reader: asyncio.StreamReader) -> None:
    """Read one response and check that it is a 200."""
    head = await reader.readuntil(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(f"answered {head.splitlines()[0]!r}")
    lines = head.lower().split(b"\r\n")
    length = next((int(line[15:]) for line in lines if line.startswith(b"content-length:")), None)
    if length is not None:
        await reader.readexactly(length)
        return
    while True:
        size = int((await reader.readline()).strip(), 16)
        await reader.readexactly(size + 2)
        if size == 0:
            return
