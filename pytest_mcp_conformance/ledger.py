"""What the run concluded: one verdict a check, one outcome a requirement."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field

from pytest_mcp_conformance.catalogue import Requirement
from pytest_mcp_conformance.exchange import Exchange
from pytest_mcp_conformance.failures import Finding, Inconclusive, Judgement
from pytest_mcp_conformance.verdicts import ASSESSED, Outcome, grade, worst
from pytest_mcp_conformance.waivers import Waiver

NO_CHECK_YET = "no check yet"
NOT_SELECTED = "not selected"


@dataclass(frozen=True)
class Verdict:
    """One check's conclusion and what it rests on."""

    id: str
    check: str
    outcome: Outcome
    judgement: Judgement | None
    evidence: tuple[Exchange, ...]
    broken: bool = False

    @property
    def reason(self) -> str:
        return "" if self.judgement is None else self.judgement.reason

    @property
    def finding(self) -> Finding | None:
        return self.judgement if isinstance(self.judgement, Finding) else None


@dataclass
class Ledger:
    """All verdicts of a run."""

    requirements: Mapping[str, Requirement]
    waivers: Mapping[str, Waiver]
    today: dt.date
    verdicts: list[Verdict] = field(default_factory=list)
    unselected: set[str] = field(default_factory=set)

    def conclude(self, judged: str, check: str, judgement: Judgement | None, evidence: tuple[Exchange, ...]) -> Verdict:
        """Record a check's conclusion. A pass that rests on no exchange is none."""
        if judgement is None and not evidence:
            judgement = Inconclusive("the check asked the target nothing")
        outcome = grade(judgement, self.requirements.get(judged))
        waiver = self.waivers.get(judged)
        if outcome in {Outcome.FAIL, Outcome.WARN} and waiver is not None and waiver.holds(self.today):
            outcome = Outcome.WAIVED
        return self._add(Verdict(judged, check, outcome, judgement, evidence))

    def broke(self, judged: str, check: str, error: BaseException, evidence: tuple[Exchange, ...]) -> Verdict:
        """Record that a check itself went wrong; nothing is known about the target."""
        judgement = Inconclusive(f"the check itself broke ({type(error).__name__})")
        return self._add(Verdict(judged, check, Outcome.INCONCLUSIVE, judgement, evidence, broken=True))

    def _add(self, verdict: Verdict) -> Verdict:
        self.verdicts.append(verdict)
        return verdict

    def by_requirement(self) -> dict[str, list[Verdict]]:
        """The verdicts of each requirement that was checked, in id order."""
        found: dict[str, list[Verdict]] = {}
        for verdict in sorted(self.verdicts, key=lambda verdict: verdict.id):
            found.setdefault(verdict.id, []).append(verdict)
        return found

    def outcomes(self) -> dict[str, Outcome]:
        """The outcome of each requirement that was checked: the worst of its checks'."""
        found = self.by_requirement()
        return {judged: worst(verdict.outcome for verdict in verdicts) for judged, verdicts in found.items()}

    def counts(self) -> dict[Outcome, int]:
        """How many requirements have each outcome."""
        outcomes = list(self.outcomes().values())
        return {outcome: outcomes.count(outcome) for outcome in Outcome}

    @property
    def assessed(self) -> int:
        """How many requirements were judged."""
        return sum(outcome in ASSESSED for outcome in self.outcomes().values())

    def undecided_musts(self) -> list[str]:
        """MUST requirements that are inconclusive or not run: with any of these, no certificate."""
        open_outcomes = {Outcome.INCONCLUSIVE, Outcome.NOT_RUN}
        return [
            judged
            for judged, outcome in self.outcomes().items()
            if outcome in open_outcomes and judged in self.requirements and self.requirements[judged].level == "MUST"
        ]

    def stale_waivers(self) -> list[Waiver]:
        """Waivers that have expired, or whose requirement no longer fails."""
        outcomes = self.outcomes()
        return [
            waiver
            for waiver in self.waivers.values()
            if not waiver.holds(self.today) or outcomes.get(waiver.id) in {Outcome.PASS, Outcome.NOT_APPLICABLE}
        ]
