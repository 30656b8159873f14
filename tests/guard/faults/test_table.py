"""The page of the fault table says what the rows say, and is written when every row was measured."""

import json
from pathlib import Path

import pytest

from tests.guard.attacks.pending import FAULTS
from tests.guard.faults import rows, table
from tests.guard.faults.rows import ROWS, in_time


def test_the_page_has_every_row_with_figures() -> None:
    lines = {line for line in table.PAGE.read_text("utf-8").splitlines() if line.startswith("| ")}
    for row in ROWS.values():
        begin = f"| {row.fault} | {row.behaviour} | {row.due} | "
        measured = [line.removeprefix(begin).removesuffix(" |") for line in lines if line.startswith(begin)]
        assert len(measured) == 1, row.fault
        assert any(character.isdigit() for character in measured[0]), row.fault


def test_every_attack_on_the_store_has_its_row() -> None:
    attacks = {f"st-{number:02d}" for numbers in FAULTS.values() for number in numbers}
    assert {attack for row in ROWS.values() for attack in row.attacks} == attacks


def test_the_page_is_written_when_every_row_was_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(rows, "FINDINGS", tmp_path / "findings")
    page = tmp_path / "faults.md"
    page.write_text(f"before\n{table.BEGIN}stale\n{table.END}after\n")
    first, *others = ROWS
    rows.found(first, p99_ms=12.5, replays_accepted=0)
    assert table.main(page) == 1
    assert f"not measured: {', '.join(sorted(others))}" in capsys.readouterr().err
    assert "stale" in page.read_text()
    for key in others:
        rows.found(key, count=3)
    assert table.main(page) == 0
    text = page.read_text()
    assert "stale" not in text
    assert "| p99 ms 12.5; replays accepted 0 |" in text
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert json.loads((tmp_path / "findings" / f"{first}.json").read_text()) == {"p99 ms": 12.5, "replays accepted": 0}


@pytest.mark.parametrize(("measured", "is_in_time"), [(0.0, True), (2.5, True), (2.51, False)])
def test_a_time_may_be_twice_what_is_due_and_what_was_usual(measured: float, is_in_time: bool) -> None:
    assert in_time(measured, due=1.0, usual=0.5) is is_in_time
