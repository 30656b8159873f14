"""The seven words, and how a judgement becomes one of them."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Protocol

from pytest_mcp_conformance.failures import Finding, Inconclusive, Judgement, NotApplicable, NotRun


class Outcome(StrEnum):
    """The verdict on one requirement."""

    FAIL = "fail"
    WARN = "warn"
    WAIVED = "waived"
    INCONCLUSIVE = "inconclusive"
    NOT_RUN = "not-run"
    PASS = "pass"  # noqa: S105
    NOT_APPLICABLE = "not-applicable"


WORST_FIRST = tuple(Outcome)
ASSESSED = frozenset({Outcome.PASS, Outcome.FAIL, Outcome.WARN, Outcome.WAIVED})


class Graded(Protocol):
    """The two members of a requirement that decide between fail and warn."""

    @property
    def level(self) -> str: ...

    @property
    def severity(self) -> str: ...


def grade(judgement: Judgement | None, requirement: Graded | None) -> Outcome:
    """The outcome of one check. A finding fails when the level is MUST or the severity critical or high, else it warns.

    A finding about a requirement the catalogue does not know fails.
    """
    if judgement is None:
        return Outcome.PASS
    if isinstance(judgement, Finding):
        return _weigh(judgement, requirement)
    if isinstance(judgement, NotApplicable):
        return Outcome.NOT_APPLICABLE
    if isinstance(judgement, NotRun):
        return Outcome.NOT_RUN
    if isinstance(judgement, Inconclusive):
        return Outcome.INCONCLUSIVE
    raise TypeError(
        f"{type(judgement).__name__} is no kind of judgement; derive it from Finding or raise one of the four"
    )


def _weigh(finding: Finding, requirement: Graded | None) -> Outcome:
    if finding.advisory:
        return Outcome.WARN
    if requirement is None or requirement.level == "MUST" or requirement.severity in {"critical", "high"}:
        return Outcome.FAIL
    return Outcome.WARN


def worst(outcomes: Iterable[Outcome]) -> Outcome:
    """The outcome of a requirement that several checks judged: the first of `WORST_FIRST` among theirs.

    Raises:
        ValueError: `outcomes` is empty.
    """
    return min(outcomes, key=WORST_FIRST.index)
