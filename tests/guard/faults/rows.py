"""The rows of the fault table: what goes wrong, what is right then, and the figure that is due."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[3]
FINDINGS = Path(os.environ.get("FAULTS_FINDINGS", ROOT / ".faults"))
"""Where each test leaves what it measured."""


class Row(NamedTuple):
    """A fault. `attacks` are the entries of the corpus of attacks that it stands for."""

    fault: str
    behaviour: str
    due: str
    attacks: tuple[str, ...] = ()


ROWS: Mapping[str, Row] = {
    "start": Row(
        "Valkey down at the start",
        "the start is refused; without a lifespan, 503 until the store is there; never a store in memory",
        "unguarded requests 0; ready within 2 s of the return",
        ("st-01",),
    ),
    "dies": Row(
        "Valkey dies in mid-run",
        "what needs state 503; calls by token alone go on for a minute, under a quarter of the limit, then 503",
        "503 within 250 ms (p99); recovery within 1 s; at most 1 retry for a request",
        ("st-02",),
    ),
    "slow": Row(
        "Valkey pauses for 5 s",
        "each operation is given up at its deadline of 100 ms, then the breaker opens",
        "all answers within 300 ms (p99); loop lag under 50 ms; tasks bounded",
        ("st-03",),
    ),
    "hole": Row(
        "The connection to Valkey is a black hole for 5 s",
        "as above; afterwards the connection is made anew",
        "all answers within 300 ms (p99); loop lag under 50 ms; tasks bounded",
        ("st-14",),
    ),
    "readonly": Row(
        "The primary becomes a replica (failover by a sentinel)",
        "READONLY is a 503, and leads to the new primary; a write is never counted as done",
        "used twice 0; recovery within 2 s of the promotion",
        ("st-04",),
    ),
    "lost-writes": Row(
        "The primary is lost, and a replica promoted",
        "with `replicas=1` nothing of single use counts before a replica has it; the memory of claims begins anew",
        "used twice 0; recovery within 2 s of the promotion",
    ),
    "oom": Row(
        "Valkey is full (noeviction)",
        "writes 503; what needs none goes on; recovers by itself",
        "replays accepted 0; recovery within 1 s",
        ("st-05",),
    ),
    "evicting": Row(
        "Valkey evicts (allkeys-lru)", "the start is refused, and says why", "requests served 0", ("st-06",)
    ),
    "scripts": Row(
        "SCRIPT FLUSH, twenty times in 5 s", "the script is sent again, unnoticed", "failed requests 0", ("st-07",)
    ),
    "cluster": Row(
        "A cluster moves slots; then a node is down",
        "MOVED and ASK are followed; CLUSTERDOWN is a 503",
        "CROSSSLOT 0; 503 at most 1 % while slots move",
        ("st-08",),
    ),
    "errors": Row(
        "BUSY, LOADING, MISCONF, NOAUTH, NOPERM, too many clients",
        "503, and the class in the log",
        "401 to good tokens 0; let through 0",
        ("st-09",),
    ),
    "forgets": Row(
        "FLUSHALL; a restart without persistence",
        "sessions 404, and clients begin anew; states of before are refused",
        "replays accepted 0",
        ("st-12",),
    ),
    "foreign": Row(
        "Corrupt or foreign records",
        "as if there were none, and audited",
        "accepted 0; 5xx but 503 0",
        ("st-11", "st-15"),
    ),
    "cancel": Row(
        "Clients leave in the middle of a store's command",
        "the answer is dropped, and nobody gets another's",
        "answers of another 0 of 1,000",
        ("st-10",),
    ),
    "reply-lost": Row(
        "The reply is lost after the write",
        "503; the code is used up, and a second try is refused",
        "tokens issued twice 0",
        ("st-16",),
    ),
    "cleanup": Row(
        "PostgreSQL is killed in the middle of a cleanup",
        "the run fails and is logged; the next one goes on",
        "expired rows left 0",
    ),
    "clock": Row(
        "The workers' clocks go back 1 h, and forward 1 h and right again",
        "nothing that has expired comes alive; no session is lost; limits go by the store's clock",
        "expired tokens accepted 0; sessions lost 0; recovery at once",
        ("st-18",),
    ),
    "kills": Row(
        "Workers are killed (SIGKILL), one after the other",
        "another takes the place; its sessions are 404; the chains of the audit hold",
        "bad chains 0; paid twice 0; restart within 2 s",
    ),
    "floods": Row(
        "Floods of sessions, of streams and of keys of the limiter",
        "the flooder is refused (429); every key expires; nobody else notices",
        "memory grows by less than 64 MiB in all; errors of others 0",
    ),
}


def found(key: str, **figures: float | int | str) -> None:
    """Keep the figures of a row; the names of figures are written with underscores for blanks."""
    assert key in ROWS
    FINDINGS.mkdir(exist_ok=True)
    named = {name.replace("_", " "): figure for name, figure in figures.items()}
    print(json.dumps({key: named}))
    (FINDINGS / f"{key}.json").write_text(json.dumps(named), encoding="utf-8")


def findings() -> dict[str, dict[str, float | int | str]]:
    """What was measured, by row."""
    return {file.stem: json.loads(file.read_text("utf-8")) for file in FINDINGS.glob("*.json") if file.stem in ROWS}


def in_time(measured: float, due: float, usual: float) -> bool:
    """Whether a time is within twice what is due, and what was usual on this machine just before."""
    return measured <= 2 * due + usual
