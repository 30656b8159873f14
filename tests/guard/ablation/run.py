"""Takes out one check at a time in a copy of the sources, and runs the tests that have to notice.

Before that, the tests have to pass in the copy as it is: a test that fails there anyway notices nothing.
"""

import importlib.util
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Final, TypeAlias

from tests.guard.ablation.catalogue import CATALOGUE, Ablation
from tests.guard.ablation.warm import COPIED, Ran, Running, begin, ended

ROOT: Final = Path(__file__).parents[3]
PAGE: Final = ROOT / "docs" / "reference" / "ablation.md"
PARALLEL: Final = 2
PASSED: Final = 0
_ROW: Final = re.compile(r"^\| `([\w-]+)` \| .* \| `(test_\w+)` \|$", re.MULTILINE)

Job: TypeAlias = tuple[Callable[[Path], Running], Callable[[Ran, Path], None]]
"""What begins in a copy, and what is done with it when it has ended."""

HEADING: Final = """# Checks and the tests that defend them

Each check was taken out of a copy of the sources, alone, and the tests that are named for it were run: the last column
names the first test that failed. Before that, all of them passed in the copy as it is. `make ablation` does that again
and writes this page; `make ablation ARGS="host-known origin"` does it for the checks whose names begin so.
Nobody has yet taken out a check that is "not run" here.

| check | what it decides | refuses with | noticed by |
|---|---|---|---|
"""


def without(one: Ablation, source: str) -> str:
    """`source` without the check.

    Raises:
        ValueError: the text of the check does not stand there exactly once.
    """
    if source.count(one.text) != 1:
        raise ValueError(f"{one.id}: {one.module} has {source.count(one.text)} times {one.text!r}")
    return source.replace(one.text, one.instead)


def copy_into(folder: Path) -> Path:
    for name in COPIED:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def write(module: Path, source: str) -> None:
    """Write a module, and forget how it was compiled: two versions may have one size and one second."""
    module.write_text(source)
    Path(importlib.util.cache_from_source(str(module))).unlink(missing_ok=True)


def work(copies: Sequence[Path], jobs: Iterable[Job]) -> None:
    """Do the jobs, one in each copy at a time."""
    waiting, free, running = list(jobs), list(copies), dict[Running, Callable[[Ran, Path], None]]()
    while waiting or running:
        while waiting and free:
            start, finish = waiting.pop(0)
            running[start(free.pop())] = finish
        for one in tuple(ended(tuple(running))):
            running.pop(one)(one.ran, one.copy)
            free.append(one.copy)


def passing(tests: tuple[str, ...], sound: set[tuple[str, ...]]) -> Job:
    """Tests that have to pass with every check in its place, to be counted on."""

    def judge(ran: Ran, copy: Path) -> None:
        if ran.code == PASSED:
            sound.add(tests)
        else:
            print(f"with every check in its place: {' '.join(tests)}\n{ran.said[-2000:]}", flush=True)

    return partial(begin, tests=tests), judge


def noticing(one: Ablation, noticed: dict[str, str | None]) -> Job:
    """The tests of a check without it."""
    source = ""

    def start(copy: Path) -> Running:
        nonlocal source
        source = (copy / one.module).read_text()
        write(copy / one.module, without(one, source))
        return begin(copy, one.tests)

    def finish(ran: Ran, copy: Path) -> None:
        write(copy / one.module, source)
        noticed[one.id] = ran.noticed_by
        print(f"{one.id}: {one.decides}: {ran.noticed_by or f'NOBODY ({ran.code}: {ran.said[-300:]})'}", flush=True)

    return start, finish


def run(ablations: Sequence[Ablation]) -> dict[str, str | None]:
    """Which test noticed that a check was missing, by its id; None when none did, or one fails in any case."""
    noticed: dict[str, str | None] = {one.id: None for one in ablations}
    sound: set[tuple[str, ...]] = set()
    with ExitStack() as folders:
        made = [folders.enter_context(tempfile.TemporaryDirectory(prefix="ablation-")) for _ in range(PARALLEL)]
        copies = [copy_into(Path(folder)) for folder in made]
        work(copies, [passing(tests, sound) for tests in dict.fromkeys(one.tests for one in ablations)])
        work(copies, [noticing(one, noticed) for one in ablations if one.tests in sound])
    return noticed


def written(page: str) -> dict[str, str]:
    """Which test noticed, by the id of the check, as a page says it."""
    return dict(_ROW.findall(page))


def table(noticed: Mapping[str, str | None]) -> str:
    """The page; a check that is not in `noticed` was never taken out."""
    rows = [_row(one, _named(noticed, one.id)) for one in CATALOGUE]
    count = sum(noticed.get(one.id) is not None for one in CATALOGUE)
    return f"{HEADING}{''.join(rows)}\n{count} of {len(CATALOGUE)} were noticed.\n"


def _row(one: Ablation, by: str) -> str:
    return f"| `{one.id}` | {one.decides} | {f'`{one.refuses}`' if one.refuses else '-'} | {by} |\n"


def _named(noticed: Mapping[str, str | None], check: str) -> str:
    if check not in noticed:
        return "not run"
    return f"`{noticed[check]}`" if noticed[check] else "**nobody**"


def main(beginnings: Sequence[str]) -> int:
    """Run all, or those whose ids begin so, and write the page. Answers 1 when nobody noticed one of them."""
    chosen = [one for one in CATALOGUE if not beginnings or one.id.startswith(tuple(beginnings))]
    noticed = run(chosen)
    before = written(PAGE.read_text()) if PAGE.exists() else {}
    PAGE.write_text(table({**before, **noticed}))
    missed = [name for name, test in noticed.items() if test is None]
    print(f"{len(noticed) - len(missed)} of {len(noticed)} were noticed; not: {', '.join(missed) or 'none'}")
    return int(bool(missed) or not chosen)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
