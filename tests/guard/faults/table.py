"""Print the fault table as measured, and write it into its page: `python -m tests.guard.faults.table`."""

import os
import sys
from pathlib import Path

from tests.guard.faults.rows import ROOT, ROWS, findings

PAGE = ROOT / "docs" / "reference" / "faults.md"
BEGIN, END = "<!-- measured -->\n", "<!-- end -->\n"
HEAD = "| fault | what is right | figure due | measured |\n| --- | --- | --- | --- |\n"


def rendered(measured: dict[str, dict[str, float | int | str]]) -> str:
    """The table."""
    lines = []
    for key, row in ROWS.items():
        figures = "; ".join(f"{name} {figure}" for name, figure in measured.get(key, {}).items())
        lines.append(f"| {row.fault} | {row.behaviour} | {row.due} | {figures or 'not in this run'} |\n")
    return HEAD + "".join(lines)


def written(text: str, table: str) -> str:
    """The page with the table in its place."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + table + END + after


def main(page: Path = PAGE) -> int:
    """Answers 1 when a row was not measured; then the page stays as it is."""
    measured = findings()
    table = rendered(measured)
    print(f"{table}\n{os.cpu_count()} cores")
    missing = sorted(ROWS.keys() - measured.keys())
    if missing:
        print(f"not measured: {', '.join(missing)}; the page is left as it is", file=sys.stderr)
        return 1
    page.write_text(written(page.read_text("utf-8"), table), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
