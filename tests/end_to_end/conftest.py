"""The demo as its user starts it: a process, with users named on the command line."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

USERS = {"alice": "wonder-land-1", "bob": "the-builder-2"}
START_WITHIN_SECONDS = 20


@dataclass(frozen=True)
class RunningDemo:
    """A demo process that answers."""

    origin: str
    process: "subprocess.Popen[str]"
    audit: Path

    @property
    def mcp(self) -> str:
        return f"{self.origin}/mcp"

    @property
    def sse(self) -> str:
        return f"{self.origin}/sse"


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDemo]:
    audit = tmp_path_factory.mktemp("demo") / "audit.jsonl"
    users = ",".join(f"{name}:{password}" for name, password in USERS.items())
    command = [sys.executable, "-m", "mcp_guard.cli", "demo", "--port", "0", "--users", users, "--audit", str(audit)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        if process.stdout is None:
            raise RuntimeError("the demo's output was not captured")
        line = process.stdout.readline()
        origin = line.partition(" at ")[2].partition("/mcp")[0]
        if not origin.startswith("http://127.0.0.1:"):
            raise RuntimeError(f"the demo did not say where it is: {line!r}")
        yield RunningDemo(origin, process, audit)
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(START_WITHIN_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()
