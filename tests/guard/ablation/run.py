"""Takes out one check at a time in a copy of the sources, and runs the tests that have to notice."""

import asyncio
import re
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from tests.guard.ablation.catalogue import CATALOGUE, Ablation

ROOT: Final = Path(__file__).parents[3]
TABLE: Final = ROOT / "docs" / "reference" / "ablation.md"
PARALLEL: Final = 2
LONGEST_SECONDS: Final = 300
FAILED: Final = 1
"""What pytest exits with when tests ran and some failed; nothing else counts as noticed."""
_FIRST: Final = re.compile(r"^FAILED \S+?::(test_\w+)", re.MULTILINE)
_COPIED: Final = ("mcp_guard", "tests")

HEADING: Final = """# Checks and the tests that defend them

Each check was taken out of a copy of the sources, alone, and the tests named for it were run: the last column names the
first test that failed. `make ablation` does that again and writes this page.

| check | what it decides | noticed by |
|---|---|---|
"""


class Outcome(NamedTuple):
    """`noticed_by` is the first test that failed; None when the check was missed by nobody."""

    ablation: Ablation
    noticed_by: str | None


def without(one: Ablation, source: str) -> str:
    """`source` without the check.

    Raises:
        ValueError: the text of the check does not stand there exactly once.
    """
    if source.count(one.text) != 1:
        raise ValueError(f"{one.id}: {one.module} has {source.count(one.text)} times {one.text!r}")
    return source.replace(one.text, one.instead)


async def tests_fail(ablation: Ablation | None, tests: Sequence[str]) -> str | None:
    """The first of `tests` that fails without the check, or with all checks when there is no `ablation`.

    Raises:
        RuntimeError: the tests could not be run.
    """
    with tempfile.TemporaryDirectory(prefix="ablation-") as folder:
        copy = Path(folder)
        for name in _COPIED:
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", copy)
        if ablation is not None:
            module = copy / ablation.module
            module.write_text(without(ablation, module.read_text()))
        command = (sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--tb=no", *tests)
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            *command, cwd=copy, stdout=pipe, stderr=asyncio.subprocess.STDOUT
        )
        try:
            async with asyncio.timeout(LONGEST_SECONDS):
                said, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    found = _FIRST.search(said.decode())
    if process.returncode == FAILED and found is not None:
        return found[1]
    if process.returncode != 0:
        raise RuntimeError(f"{tests} exited with {process.returncode}:\n{said.decode()[-2000:]}")
    return None


async def run(ablations: Sequence[Ablation]) -> list[Outcome]:
    slots = asyncio.Semaphore(PARALLEL)

    async def one(ablation: Ablation) -> Outcome:
        async with slots:
            outcome = Outcome(ablation, await tests_fail(ablation, ablation.tests))
        print(f"{ablation.id}: {outcome.noticed_by or 'NOBODY NOTICED'}", flush=True)
        return outcome

    return list(await asyncio.gather(*map(one, ablations)))


def table(outcomes: Sequence[Outcome]) -> str:
    rows = [f"| `{one.id}` | {one.check} | {f'`{by}`' if by else '**nobody**'} |\n" for one, by in outcomes]
    noticed = sum(by is not None for _, by in outcomes)
    return f"{HEADING}{''.join(rows)}\n{noticed} of {len(outcomes)} were noticed.\n"


def main() -> int:
    """Run all, write the table. Answers 1 when a check was missed by nobody."""
    outcomes = asyncio.run(run(CATALOGUE))
    TABLE.write_text(table(outcomes))
    return int(any(by is None for _, by in outcomes))


if __name__ == "__main__":
    sys.exit(main())
