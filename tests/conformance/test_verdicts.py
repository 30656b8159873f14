from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from pytest_mcp_conformance import Advice, Finding, Inconclusive, NotApplicable, NotRun, catalogue
from pytest_mcp_conformance.catalogue import Requirement
from pytest_mcp_conformance.failures import Judgement
from pytest_mcp_conformance.ledger import Ledger
from pytest_mcp_conformance.verdicts import Outcome, grade, worst
from pytest_mcp_conformance.waivers import read_waivers
from tests.conformance.answers import answered

TODAY = dt.date(2026, 11, 21)


def finding(kind: type[Finding] = Finding) -> Finding:
    return kind("wrong", evidence=answered(200), expected="401", got="200")


def requirement_with(level: str, severities: set[str]) -> Requirement:
    return next(r for r in catalogue.load().values() if r.level == level and r.severity in severities)


@pytest.mark.parametrize(
    ("level", "severities", "expected"),
    [
        ("MUST", {"low", "medium"}, Outcome.FAIL),
        ("SHOULD", {"high", "critical"}, Outcome.FAIL),
        ("best-practice", {"critical"}, Outcome.FAIL),
        ("SHOULD", {"low"}, Outcome.WARN),
        ("best-practice", {"medium"}, Outcome.WARN),
        ("MAY", {"low"}, Outcome.WARN),
    ],
)
def test_a_finding_fails_by_level_or_severity_and_else_warns(
    level: str, severities: set[str], expected: Outcome
) -> None:
    assert grade(finding(), requirement_with(level, severities)) is expected


def test_advice_never_exceeds_a_warning() -> None:
    assert grade(finding(Advice), requirement_with("MUST", {"critical"})) is Outcome.WARN


@pytest.mark.parametrize(
    ("judgement", "expected"),
    [
        (None, Outcome.PASS),
        (NotApplicable("x"), Outcome.NOT_APPLICABLE),
        (NotRun("x"), Outcome.NOT_RUN),
        (Inconclusive("x"), Outcome.INCONCLUSIVE),
        (finding(), Outcome.FAIL),
    ],
)
def test_every_conclusion_has_its_own_word(judgement: Judgement | None, expected: Outcome) -> None:
    assert grade(judgement, None) is expected


def test_a_judgement_of_no_kind_is_refused() -> None:
    with pytest.raises(TypeError, match="no kind of judgement"):
        grade(Judgement("x"), None)


def test_the_worst_of_several_checks_counts() -> None:
    assert worst([Outcome.PASS, Outcome.WARN, Outcome.FAIL, Outcome.NOT_RUN]) is Outcome.FAIL
    assert worst([Outcome.PASS, Outcome.NOT_RUN]) is Outcome.NOT_RUN
    assert worst([Outcome.PASS, Outcome.NOT_APPLICABLE]) is Outcome.PASS


def ledger(waivers: str = "", tmp_path: Path | None = None) -> Ledger:
    file = None
    if tmp_path is not None:
        file = tmp_path / "waivers.toml"
        file.write_text(waivers, "utf-8")
    return Ledger(catalogue.load(), read_waivers(file), TODAY)


def test_a_pass_that_rests_on_nothing_is_inconclusive() -> None:
    verdict = ledger().conclude("PRM-001", "test_x", None, ())
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert ledger().conclude("PRM-001", "test_x", None, (answered(200),)).outcome is Outcome.PASS


def test_a_broken_check_says_nothing_about_the_target() -> None:
    book = ledger()
    assert book.broke("PRM-001", "test_x", KeyError("x"), ()).outcome is Outcome.INCONCLUSIVE
    assert book.assessed == 0


WAIVER = '[[waiver]]\nid = "PRM-001"\nreason = "moving next month"\nowner = "ops"\nexpires = {}\n'


def test_a_waiver_holds_through_its_last_day_and_no_longer(tmp_path: Path) -> None:
    for day, expected in (("2026-11-21", Outcome.WAIVED), ("2026-11-20", Outcome.FAIL)):
        book = ledger(WAIVER.format(day), tmp_path)
        assert book.conclude("PRM-001", "test_x", finding(), (answered(404),)).outcome is expected


def test_a_waiver_does_not_turn_the_undecided_into_anything(tmp_path: Path) -> None:
    book = ledger(WAIVER.format("2027-01-01"), tmp_path)
    assert book.conclude("PRM-001", "test_x", Inconclusive("x"), ()).outcome is Outcome.INCONCLUSIVE


def test_expired_and_needless_waivers_are_stale(tmp_path: Path) -> None:
    assert ledger(WAIVER.format("2026-11-20"), tmp_path).stale_waivers()
    book = ledger(WAIVER.format("2027-01-01"), tmp_path)
    assert not book.stale_waivers()
    book.conclude("PRM-001", "test_x", None, (answered(200),))
    assert [waiver.id for waiver in book.stale_waivers()] == ["PRM-001"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", r"no \[\[waiver\]\] table"),
        ("[[waiver", "is not TOML"),
        ('[[waiver]]\nid = "PRM-001"\n', "exactly the members id, reason, owner, expires"),
        (WAIVER.format('"soon"'), "expires of the waiver of PRM-001 must be a date"),
        (WAIVER.format("2027-01-01").replace('"ops"', '" "'), "owner of a waiver must be text"),
    ],
)
def test_a_file_of_waivers_that_cannot_be_read_is_refused_with_the_reason(
    tmp_path: Path, text: str, sentence: str
) -> None:
    with pytest.raises(pytest.UsageError, match=sentence):
        ledger(text, tmp_path)


def test_undecided_musts_are_named() -> None:
    book = ledger()
    book.conclude("PRM-001", "test_x", NotRun("no token"), ())
    book.conclude("PRM-004", "test_y", NotRun("no token"), ())
    assert book.undecided_musts() == ["PRM-001"]
