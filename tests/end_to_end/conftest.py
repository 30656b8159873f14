"""The demo as its user starts it: a process, with users named on the command line."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

USERS = {"alice": "wonder-land-1", "bob": "the-builder-2"}
END_WITHIN_SECONDS = 20


@dataclass(frozen=True)
class RunningDemo:
    """A demo process that answers."""

    origin: str
    process: "subprocess.Popen[str]"
    audit: Path
    errors: Path

    @property
    def mcp(self) -> str:
        return f"{self.origin}/mcp"

    @property
    def sse(self) -> str:
        return f"{self.origin}/sse"


@contextmanager
def started_demo(folder: Path) -> Iterator[RunningDemo]:
    """A demo process that ends with the block."""
    audit, errors = folder / "audit.jsonl", folder / "errors.txt"
    users = ",".join(f"{name}:{password}" for name, password in USERS.items())
    command = [sys.executable, "-m", "mcp_guard.cli", "demo", "--port", "0", "--users", users, "--audit", str(audit)]
    with errors.open("w") as written:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=written, text=True)
    try:
        if process.stdout is None:
            raise RuntimeError("the demo's output was not captured")
        line = process.stdout.readline()
        origin = line.partition(" at ")[2].partition("/mcp")[0]
        if not origin.startswith("http://127.0.0.1:"):
            raise RuntimeError(f"the demo did not say where it is: {line!r} {errors.read_text()}")
        yield RunningDemo(origin, process, audit, errors)
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(END_WITHIN_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDemo]:
    with started_demo(tmp_path_factory.mktemp("demo")) as running:
        yield running
