"""Print the table, and write it as JSON when a path is given: `python -m tests.benchmarks [FILE]`."""

import asyncio
import json
import math
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from tests.benchmarks import affinity, in_process, many, proofs, round_trips, tokens, whole_server, workers
from tests.benchmarks.in_process import Row


async def measure() -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        return [
            *await in_process.measure(Path(folder) / "audit.jsonl"),
            *await tokens.measure(),
            *await proofs.measure(),
            *await round_trips.measure(Path(folder)),
            *await whole_server.measure(Path(folder)),
            *await many.measure(),
            *await workers.measure(),
            *await affinity.measure(),
        ]


def shown(row: Row) -> str:
    goal = "" if math.isinf(row.goal) else f"{'≥' if row.at_least else '≤'} {row.goal:g}"
    verdict = "" if not goal else ("holds" if row.holds else "missed")
    return f"{row.name:<56} {row.figure:>10.3f} {row.unit:<6} {goal:<8} {verdict}"


def main() -> None:
    rows = asyncio.run(measure())
    print("\n".join(shown(row) for row in rows))
    if len(sys.argv) > 1:
        finite = [{**asdict(row), "goal": None if math.isinf(row.goal) else row.goal} for row in rows]
        Path(sys.argv[1]).write_text(json.dumps(finite, indent=2) + "\n")


if __name__ == "__main__":
    main()
