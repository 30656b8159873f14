"""A deployment under load, as the tests see it: its process, and what its workers wrote."""

import contextlib
import json
import os
import select
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from mcp_guard.auditlog import Head, verify
from mcp_guard.keyring import new_key
from tests.guard.faults.app import memory_kib
from tests.guard.faults.serve import MCP_URL, Settings
from tests.guard.signing import SigningKey, good_claims, jwk_set
from tests.support.valkey_server import until

START_SECONDS = 120.0
PRINCIPALS = 20


class Measured(NamedTuple):
    """A look of a worker at itself: when (monotonic), the lag of its event loop since the last one, tasks, memory."""

    at: float
    lag_ms: float
    tasks: int
    memory_kib: int


@dataclass(eq=False)
class Deployment:
    """Workers that serve on `port`; `tokens` are good there."""

    process: "subprocess.Popen[str]"
    port: int
    folder: Path
    key: SigningKey
    settings: Settings

    @property
    def tokens(self) -> dict[str, str]:
        """A token for each principal of the load."""
        return {name: self.token(name) for name in (f"user-{number}" for number in range(PRINCIPALS))}

    def token(self, subject: str, seconds: int = 7200) -> str:
        """A token that is good for so long."""
        now = int(time.time())
        claims = {**good_claims(), "aud": MCP_URL, "sub": subject, "iat": now - 1, "exp": now + seconds}
        return self.key.token(claims).decode()

    def workers(self) -> list[int]:
        """The process ids of the workers that run and have served."""
        known = [int(path.name.removeprefix("gauge-")) for path in self.folder.glob("gauge-*")]
        return [pid for pid in known if memory_kib(pid)]

    def measured(self, since: float = 0.0, to: float = float("inf")) -> list[Measured]:
        """What all workers measured in a time."""
        lines = [line for path in self.folder.glob("gauge-*") for line in path.read_text("ascii").splitlines()]
        return [one for one in (Measured(*json.loads(line)) for line in lines) if since <= one.at <= to]

    def paid(self) -> Counter[str]:
        """How often each payment was made."""
        file = self.folder / "paid"
        return Counter(file.read_text("ascii").split()) if file.exists() else Counter()

    def audit(self) -> list[dict[str, Any]]:
        """The records of all chains.

        Raises:
            AssertionError: a chain is broken.
        """
        records = []
        for file in sorted(self.folder.glob("audit.*.jsonl")):
            lines = file.read_bytes().splitlines(keepends=True)
            assert isinstance(verify(lines), Head), f"{file.name}: {verify(lines)}"
            records += [json.loads(line) for line in lines]
        return records

    def log(self) -> str:
        """What was logged."""
        return (self.folder / "log").read_text("utf-8")

    def step_clock(self, seconds: float) -> None:
        """Set the clock of all workers wrong by so much, against the right time."""
        write_offset(self.folder, seconds)

    def stop(self) -> None:
        """End it in its own time."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(20)


def write_offset(folder: Path, seconds: float) -> None:
    """Replace the file whole: workers read it all the time."""
    new = folder / "clock.new"
    new.write_bytes(struct.pack("d", seconds))
    new.rename(folder / "clock")


@contextlib.contextmanager
def launched(store: str, **differing: Any) -> Iterator[Deployment]:
    """A deployment, started; it may not be ready yet, or have failed to start."""
    key = SigningKey.new()
    with tempfile.TemporaryDirectory(prefix="mcp-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        write_offset(folder, 0.0)
        settings = Settings(name, store, new_key().reveal(), jwk_set(key), **differing)
        command = [sys.executable, "-m", "tests.guard.faults.serve"]
        with (folder / "log").open("ab") as log:
            process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=log, text=True, env=settings.environment()
            )
        assert process.stdout is not None
        try:
            ready, _, _ = select.select([process.stdout], [], [], START_SECONDS)
            line = process.stdout.readline() if ready else ""
            assert line, (folder / "log").read_text("utf-8")
            deployment = Deployment(process, int(line), folder, key, settings)
            yield deployment
            deployment.stop()
        finally:
            if process.poll() is None:
                process.kill()
                process.wait(10)
            process.stdout.close()


@contextlib.contextmanager
def deployed(store: str, **differing: Any) -> Iterator[Deployment]:
    """A deployment whose workers are all ready."""
    with launched(store, **differing) as deployment:
        until(lambda: len(deployment.workers()) == deployment.settings.workers, "all workers", START_SECONDS)
        yield deployment


def kill(pid: int) -> float:
    """End a process at once. Answers when."""
    os.kill(pid, signal.SIGKILL)
    return time.monotonic()
