"""The checks that are taken out are there, and the page names a test for each; `make ablation` takes them out."""

import subprocess
import sys
from pathlib import Path

import pytest

from mcp_guard.rejections import KINDS
from tests.guard.ablation.catalogue import CATALOGUE, Ablation
from tests.guard.ablation.run import PAGE, ROOT, passing, table, without, written
from tests.guard.ablation.warm import Ran

RUNS = """
import sys
from pathlib import Path
from tests.guard.ablation.warm import begin, ended

(one,) = ended([begin(Path(sys.argv[1]), sys.argv[2:])])
print(one.ran.noticed_by)
"""


@pytest.mark.parametrize("one", CATALOGUE, ids=lambda one: one.id)
def test_a_check_that_can_be_taken_out_stands_in_its_module_once(one: Ablation) -> None:
    source = (ROOT / one.module).read_text()
    changed = without(one, source)
    assert changed != source
    compile(changed, one.module, "exec")
    assert all((ROOT / test).is_file() for test in one.tests)


def test_each_check_has_an_id_of_its_own() -> None:
    assert len({one.id for one in CATALOGUE}) == len(CATALOGUE)


@pytest.mark.parametrize("slug", KINDS)
def test_each_kind_of_refusal_is_that_of_a_check(slug: str) -> None:
    assert slug in {one.refuses for one in CATALOGUE}


def test_each_layer_has_a_check() -> None:
    layers = {str(path.relative_to(ROOT)) for path in (ROOT / "mcp_guard" / "layers").glob("[!_]*.py")}
    assert layers - {one.module for one in CATALOGUE} == set()


def test_the_page_has_every_check_and_none_that_nobody_notices() -> None:
    page = PAGE.read_text()
    assert page == table(written(page)), 'run: make ablation ARGS="…" with the ids of the checks that are new'


def noticed_by(copy: Path, *tests: str) -> str:
    """In an interpreter of its own, since that of pytest has threads, which no fork takes along."""
    done = subprocess.run(
        [sys.executable, "-c", RUNS, copy, *tests], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_only_a_test_that_fails_has_noticed_something(tmp_path: Path) -> None:
    (tmp_path / "test_rows.py").write_text("def test_holds():\n    pass\n\n\ndef test_breaks():\n    assert False\n")
    (tmp_path / "test_broken.py").write_text("import nothing_of_that_name\n")
    assert noticed_by(tmp_path, "test_rows.py") == "test_breaks"
    assert noticed_by(tmp_path, "test_rows.py", "-k", "holds") == "None"
    assert noticed_by(tmp_path, "test_broken.py") == "None"


def test_tests_that_fail_with_every_check_in_its_place_are_not_counted_on(tmp_path: Path) -> None:
    sound: set[tuple[str, ...]] = set()
    for code in (1, 2, 5, -9):
        passing((f"{code}",), sound)[1](Ran(code, ""), tmp_path)
    passing(("0",), sound)[1](Ran(0, ""), tmp_path)
    assert sound == {("0",)}
