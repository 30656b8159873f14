"""A run of the load against a deployment, and what it tells about the time before, in and after a fault."""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.guard.faults.deployment import Deployment
from tests.guard.faults.load import Sample
from tests.guard.faults.serve import AUTHORITY
from tests.support.valkey_server import until

RATE = float(os.environ.get("FAULTS_RATE", "200"))
STREAMS = 50
READY_SECONDS = 60.0
GOOD = ("call", "session", "initialize", "ask", "pay", "delete", "stream")
NEVER = ("forged", "stranger", "replay")
"""What must not be let through, whatever happens to the store."""
BEARER = ("call", "ask")
"""What needs no state but the limiter's and revocations."""
STATEFUL = ("session", "initialize", "pay", "delete", "stream")


@dataclass(eq=False)
class Run:
    """The samples of a run, once it has ended."""

    deployment: Deployment
    samples: list[Sample] = field(default_factory=list)

    def of(
        self, kinds: Sequence[str] = GOOD, since: float = 0.0, to: float = float("inf"), status: int | None = None
    ) -> list[Sample]:
        """Requests of these kinds that began in a time, with this status."""
        return [
            one
            for one in self.samples
            if one.kind in kinds and since <= one.at <= to and (status is None or one.status == status)
        ]

    def milliseconds(self, samples: Sequence[Sample], share: float = 0.99) -> float:
        """How long `share` of these took at most; 0 when there are none."""
        taken = sorted(one.seconds for one in samples)
        return round(1000 * taken[min(len(taken) - 1, int(len(taken) * share))], 1) if taken else 0.0

    def statuses(self, kinds: Sequence[str] = GOOD, since: float = 0.0, to: float = float("inf")) -> Counter[int]:
        return Counter(one.status for one in self.of(kinds, since, to))

    def recovered_seconds(self, kinds: Sequence[str], back: float) -> float:
        """How long after `back` a whole second of these requests begins of which none is refused for the store."""
        late = [one.at for one in self.of(kinds, back) if one.status in (503, 0, -1)]
        free = back
        for at in late:
            if at - free >= 1.0:
                break
            free = at
        return round(free - back, 2)

    def security(self) -> dict[str, int]:
        """What must be 0 in every run."""
        let_through = {kind: self.of([kind], status=200) for kind in NEVER}
        return {
            "unauthorised accepts": len(let_through["forged"]) + len(let_through["stranger"]),
            "replays accepted": len(let_through["replay"]),
            "paid twice": sum(count > 1 for count in self.deployment.paid().values()),
            "answers of another": sum(one.wrong for one in self.samples),
            "401 to good tokens": len(self.of(GOOD, status=401)),
            "5xx but 503": sum(one.status > 500 and one.status != 503 for one in self.samples)
            + sum(one.status == 500 for one in self.samples),
            "503 without Retry-After": sum(one.status == 503 and not one.retry_after for one in self.samples),
        }

    def assert_safe(self) -> dict[str, int]:
        """That nothing was let through that must not be. Answers the figures."""
        assert len(self.of(NEVER)) > 0, "nothing was tried"
        figures = self.security()
        assert not any(figures.values()), (figures, self.deployment.log()[-2000:])
        return figures


@contextlib.contextmanager
def loaded(deployment: Deployment, *, rate: float = RATE, streams: int = STREAMS) -> Iterator[Run]:
    """The load on a deployment until the block ends; then the run has its samples."""
    run, out = Run(deployment), deployment.folder / "samples"
    spec = {
        "port": deployment.port,
        "authority": AUTHORITY,
        "tokens": deployment.tokens,
        "rate": rate,
        "streams": streams,
        "out": str(out),
    }
    command = [sys.executable, "-m", "tests.guard.faults.load", json.dumps(spec)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield run
            process.stdin.close()
            process.wait(READY_SECONDS)
        finally:
            process.kill()
    assert process.returncode == 0
    run.samples = read(out)


def read(file: Path) -> list[Sample]:
    return [Sample(*json.loads(line)) for line in file.read_text("ascii").splitlines()]


def pass_seconds(seconds: float) -> float:
    """Let the load go on. Answers when that was over."""
    time.sleep(seconds)
    return time.monotonic()


def wait_for(true: Callable[[], bool], what: str, within_seconds: float = READY_SECONDS) -> float:
    """Wait until something is true. Answers when it was."""
    until(true, what, within_seconds)
    return time.monotonic()
