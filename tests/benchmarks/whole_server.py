"""B4: real servers on uvicorn, of the SDK and of FastMCP: unguarded, behind the guard, with their own authentication.

Each server is a process of its own; the load is this process's: a few keep-alive connections, one request in flight on
each. The servers are loaded in turn, in short slices, so that drift of the machine falls on all alike.
"""

import asyncio
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tests.benchmarks.in_process import Row
from tests.benchmarks.peers import BODY, headers
from tests.benchmarks.timing import processor_seconds

CONNECTIONS = 8
SLICE_SECONDS = 1.5
SLICES = 5


class Slice(NamedTuple):
    """What came of one slice: requests per second, and seconds of the server's processor for each request."""

    rate: float
    busy: float


async def measure(folder: Path) -> list[Row]:
    """Measure B4; `folder` takes the audit file."""
    slices = await in_turn(("bare", "guard", "sdk", "collected"), folder)
    slices |= await in_turn(("fastmcp", "fastmcp-guard", "fastmcp-auth"), folder)
    rates = {kind: [one.rate for one in of_kind] for kind, of_kind in slices.items()}
    median = {kind: statistics.median(values) for kind, values in rates.items()}

    def against(kind: str, other: str) -> float:
        return statistics.median(one / two for one, two in zip(rates[kind], rates[other], strict=True))

    unbounded = float("-inf")
    return [
        Row("B4 real SDK tools/call on uvicorn, unguarded", median["bare"], "req/s", unbounded, at_least=True),
        Row("B4 the same behind the guard", median["guard"], "req/s", unbounded, at_least=True),
        Row("B4 the same behind the SDK's own auth", median["sdk"], "req/s", unbounded, at_least=True),
        Row("B4 guard / unguarded", against("guard", "bare"), "×", 0.94, at_least=True),
        Row("B4 SDK auth / unguarded", against("sdk", "bare"), "×", unbounded, at_least=True),
        Row("B4 FastMCP tools/call on uvicorn, unguarded", median["fastmcp"], "req/s", unbounded, at_least=True),
        Row("B4 FastMCP, guard / unguarded", against("fastmcp-guard", "fastmcp"), "×", 0.94, at_least=True),
        Row("B4 FastMCP, its own auth / unguarded", against("fastmcp-auth", "fastmcp"), "×", unbounded, at_least=True),
        Row("B4 unguarded with gc.freeze / without", against("bare", "collected"), "×", unbounded, at_least=True),
    ]


async def in_turn(
    kinds: Sequence[str], folder: Path, store: str = "", connections: int = CONNECTIONS, seconds: float = SLICE_SECONDS
) -> dict[str, list[Slice]]:
    """Load a server of each kind in slices, the servers in turn. All run at the same time."""
    servers = {kind: Server(kind, folder, store) for kind in kinds}
    try:
        for server in servers.values():
            server.wait()
            await load(server, seconds / 3, connections)
        slices: dict[str, list[Slice]] = {kind: [] for kind in kinds}
        for _ in range(SLICES):
            for kind, server in servers.items():
                slices[kind].append(await load(server, seconds, connections))
    finally:
        for server in servers.values():
            server.stop()
    return slices


class Server:
    """One server process; it prints its port and a token."""

    def __init__(self, kind: str, folder: Path, store: str) -> None:
        command = [sys.executable, "-m", "tests.benchmarks.server", kind, str(folder / f"{kind}.jsonl"), store]
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

    def busy(self) -> float:
        """How long it has been on a processor, in seconds."""
        return processor_seconds(self._process.pid)

    def request(self) -> bytes:
        """The call, as bytes."""
        fields = headers(f"127.0.0.1:{self.port}", self.token)
        lines = [b"POST /mcp HTTP/1.1", *(b"%s: %s" % pair for pair in fields)]
        return b"\r\n".join(lines) + b"\r\n\r\n" + BODY


async def load(server: Server, seconds: float, connections: int) -> Slice:
    """Ask for `seconds`, with one request in flight on each connection."""
    before, began = server.busy(), time.perf_counter()
    count = sum(await asyncio.gather(*(drive(server, began + seconds) for _ in range(connections))))
    return Slice(count / (time.perf_counter() - began), (server.busy() - before) / count)


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
