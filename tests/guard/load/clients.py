"""Clients on plain sockets, for thousands of them at once, and the process of the server that they load."""

import contextlib
import json
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.guard.stubs import rpc

WITHIN_SECONDS = 20.0
ANSWERED = b'"result":{"content":[]}}'
AT_ONCE = 100
"""Connections that are opened before their answers are waited for; fewer than the server lets wait."""


@dataclass(eq=False)
class Target:
    """The process of `tests.guard.load.server`, and tokens that are good there."""

    process: "subprocess.Popen[str]"
    port: int
    tokens: Sequence[str]
    folder: Path

    def memory_kib(self) -> int:
        """What the process has in memory (VmRSS)."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text("ascii").splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
        raise AssertionError("the server's process has no memory: it ended")

    def sockets(self) -> int:
        """How many sockets the process has open, the one it listens on included."""
        found = 0
        for one in Path(f"/proc/{self.process.pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                found += str(one.readlink()).startswith("socket:")
        return found

    def sockets_left(self, beside: int) -> int:
        """How many more than `beside` it has open, once it has seen that clients have gone away."""
        end = time.monotonic() + 5
        while (left := self.sockets() - beside) > 0 and time.monotonic() < end:
            time.sleep(0.05)
        return left

    def settled_memory_kib(self) -> int:
        """The same, when what was asked of the server is done and it has been idle for a moment."""
        time.sleep(1.0)
        return self.memory_kib()

    def request(self, method: str, number: int, *, target: str = "/mcp", data: bytes = b"") -> bytes:
        """A request of the principal `number`, as bytes."""
        lines = [
            f"{method} {target} HTTP/1.1",
            f"Host: 127.0.0.1:{self.port}",
            f"Authorization: Bearer {self.tokens[number % len(self.tokens)]}",
            "Accept: application/json, text/event-stream",
        ]
        if data:
            lines += ["Content-Type: application/json", f"Content-Length: {len(data)}"]
        return "\r\n".join([*lines, "", ""]).encode() + data

    def connect(self, *, receive_buffer: int | None = None) -> socket.socket:
        """A connection."""
        made = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        if receive_buffer is not None:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        made.settimeout(WITHIN_SECONDS)
        try:
            made.connect(("127.0.0.1", self.port))
        except OSError:
            made.close()
            raise
        return made

    def streams(self, count: int) -> "Streams":
        """So many open streams, of all principals in turn."""
        opened = Streams()
        for first in range(0, count, AT_ONCE):
            some = [self.connect() for _ in range(first, min(first + AT_ONCE, count))]
            for number, one in enumerate(some, first):
                one.sendall(self.request("GET", number))
            for one in some:
                read = read_until(one, b": open\n\n")
                assert read.startswith(b"HTTP/1.1 200 "), read[:200]
            opened.sockets += some
        return opened

    def call(self, connection: socket.socket, number: int = 0, tool: str = "add") -> bytes:
        """One call on a connection that is kept; the answer."""
        connection.sendall(self.request("POST", number, data=rpc("tools/call", tool)))
        return read_until(connection, ANSWERED)

    def call_seconds(self, for_seconds: float) -> list[float]:
        """How long each of a row of calls took, one after the other, sorted."""
        taken = []
        with contextlib.closing(self.connect()) as connection:
            end = time.monotonic() + for_seconds
            while (before := time.perf_counter()) and time.monotonic() < end:
                self.call(connection)
                taken.append(time.perf_counter() - before)
                time.sleep(0.002)
        return sorted(taken)

    def terminate(self) -> None:
        """Ask the process to stop."""
        self.process.send_signal(signal.SIGTERM)

    def audit(self) -> list[dict[str, object]]:
        """The records of the audit."""
        return [json.loads(line) for line in (self.folder / "audit.jsonl").read_text("utf-8").splitlines()]


def read_until(connection: socket.socket, mark: bytes) -> bytes:
    """What comes, until it holds `mark`."""
    read = b""
    while mark not in read:
        chunk = connection.recv(65536)
        assert chunk, f"the connection was closed after {read[-300:]!r}"
        read += chunk
    return read


def read_all(connection: socket.socket) -> bytes:
    """What comes, until the connection is closed."""
    read = b""
    while chunk := connection.recv(65536):
        read += chunk
    return read


@dataclass(eq=False)
class Streams:
    """Streams that are open, on a socket each."""

    sockets: list[socket.socket] = field(default_factory=list)

    def closed(self) -> int:
        """How many of them were closed by the server; what they were sent besides is dropped."""
        poll = select.poll()
        known = {one.fileno(): one for one in self.sockets}
        for number in known:
            poll.register(number, select.POLLIN)
        return sum(not known[number].recv(65536) for number, _ in poll.poll(0))

    def close(self) -> None:
        for one in self.sockets:
            one.close()


@contextlib.contextmanager
def running(kind: str, folder: Path, principals: int) -> Iterator[Target]:
    """A server of its own process, until the block ends."""
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "tests.guard.load.server", kind, str(folder), str(principals)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, "the server did not start"
            tokens = json.loads((folder / "tokens.json").read_text("utf-8"))
            yield Target(process, int(line), tokens, folder)
        finally:
            process.kill()


def allow_open_files(count: int) -> None:
    """Let this process and those it starts have so many files open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert hard == resource.RLIM_INFINITY or hard >= count, f"at most {hard} files may be open here, {count} are needed"
    if soft != resource.RLIM_INFINITY and soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value below which `share` of the sorted values lie."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def report(title: str, rows: dict[str, float | int | str]) -> None:
    """Print figures as a table, and as one line of JSON."""
    width = max(len(name) for name in rows)
    print(f"\n{title} ({os.cpu_count()} cores)")
    for name, value in rows.items():
        print(f"  {name:<{width}}  {value:,.2f}" if isinstance(value, float) else f"  {name:<{width}}  {value}")
    print(json.dumps({"measured": title, **rows}))
