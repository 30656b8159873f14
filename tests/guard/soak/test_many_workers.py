"""Many sessions of all eras on several workers over one Valkey: none is lost, none is another's, also when one dies.

The small crowd runs with every test run, the large ones with `make soak`.
"""

import json
import os
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.guard.affinity.process import Deployment, deployment
from tests.guard.soak.crowd import Crowd, Member, Stateless, crowd
from tests.support.valkey_server import valkey_server

SIZES = [
    pytest.param((2, 60, 10, 2), id="small"),
    pytest.param((2, 1_000, 50, 6), id="two workers", marks=pytest.mark.load),
    pytest.param((4, 1_000, 50, 6), id="four workers", marks=pytest.mark.load),
]
"""Workers, sessions, principals, and how often each session asks."""


@pytest.fixture(scope="module")
def store() -> Iterator[str]:
    with valkey_server() as server:
        yield server.url


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="mcp-") as folder:
        yield Path(folder)


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
async def test_no_session_is_lost_and_none_is_anothers(
    size: tuple[int, int, int, int], store: str, folder: Path
) -> None:
    workers, sessions, principals, times = size
    with deployment(workers, store, folder) as running:
        async with crowd(running, sessions, principals, seed=workers) as all_of_them:
            began = time.monotonic()
            await all_of_them.open()
            await all_of_them.ask(times)
            await all_of_them.steal()
            counts = all_of_them.tally.counts
            stateless = sum(isinstance(member, Stateless) for member in all_of_them.members)
            assert all_of_them.tally.notes == []
            assert counts == {"served": sessions * times + stateless, "refused": sessions - stateless}
            all_alive = counts.copy()

            lost = await one_worker_dies(running, all_of_them)
            show(size, all_alive, lost, time.monotonic() - began)


async def one_worker_dies(running: Deployment, all_of_them: Crowd) -> int:
    """Kill one worker: what it held is lost, as 404, and opened again; nothing else is. Answers how much was lost."""
    victim, tally = running.processes[0], all_of_them.tally
    held = [member for member in all_of_them.members if member.home is victim]
    victim.signal(signal.SIGKILL)
    victim.popen.wait(10)
    before = tally.counts.copy()
    await all_of_them.ask()
    assert tally.counts["lost"] - before["lost"] == len(held), tally.notes
    assert tally.counts["served"] - before["served"] == len(all_of_them.members) - len(held)

    async def open_again(member: Member, at: Any) -> None:
        if member.home is victim:
            await member.open(at)

    before = tally.counts.copy()
    await all_of_them.everyone(open_again)
    await all_of_them.ask()
    assert tally.counts["served"] - before["served"] == len(all_of_them.members)
    assert {kind for kind in tally.counts if tally.counts[kind]} <= {"served", "refused", "lost"}, tally.notes
    return len(held)


def show(size: tuple[int, int, int, int], counts: Counter[str], lost: int, seconds: float) -> None:
    """Print what was measured, and add it to the file that MCP_SOAK_REPORT names. `counts` are of before the death."""
    workers, sessions, principals, _ = size
    figures = {
        "workers": workers,
        "sessions": sessions,
        "principals": principals,
        "served": counts["served"],
        "wrong 404": counts["lost"],
        "cross-principal successes": counts["stolen"] + counts["wrong_user"],
        "thefts refused": counts["refused"],
        "lost with the killed worker": lost,
        "seconds": round(seconds, 1),
    }
    print(json.dumps(figures))
    report = os.environ.get("MCP_SOAK_REPORT")
    if report:
        with Path(report).open("a") as lines:
            lines.write(json.dumps(figures) + "\n")
