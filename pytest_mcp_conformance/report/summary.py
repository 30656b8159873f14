"""The end of a run in the terminal: counts, what was not assessed and why, what limits cost."""

from __future__ import annotations

from collections.abc import Iterator

from pytest_mcp_conformance.bench import Bench
from pytest_mcp_conformance.ledger import Ledger
from pytest_mcp_conformance.verdicts import ASSESSED, Outcome


def summary_lines(ledger: Ledger, bench: Bench, not_assessed: str) -> Iterator[str]:
    """The lines, redacted by the caller."""
    settings, target = bench.settings, bench.target
    speaks = ", ".join(sorted(target.revisions)) if ledger.verdicts else "unknown"
    yield f"target {settings.target}  revisions {speaks}  profile {settings.profile}  seed {settings.seed}"
    yield _count_line(ledger)
    yield from _unassessed(ledger)
    checked, known = len(ledger.outcomes()), len(ledger.requirements)
    rest = known - checked - len(ledger.unselected)
    words = [f"{rest} of the catalogue's {known} requirements have no check yet"]
    if ledger.unselected:
        words.append(f"{len(ledger.unselected)} were not selected")
    yield "; ".join(words)
    yield from _waivers(ledger)
    yield from _traffic(bench)
    undecided = ledger.undecided_musts()
    if not_assessed:
        yield f"NOT ASSESSED: {not_assessed}"
    elif undecided:
        yield f"no certificate: {len(undecided)} MUST requirements were not decided ({', '.join(undecided)})"


def _count_line(ledger: Ledger) -> str:
    counts = ledger.counts()
    parts = [f"{counts[outcome]} {outcome}" for outcome in Outcome if counts[outcome] and outcome in ASSESSED]
    return f"{ledger.assessed} requirements assessed: " + (", ".join(parts) or "none")


def _unassessed(ledger: Ledger) -> Iterator[str]:
    outcomes = ledger.outcomes()
    for outcome in (Outcome.INCONCLUSIVE, Outcome.NOT_RUN, Outcome.NOT_APPLICABLE):
        reasons: dict[str, list[str]] = {}
        for judged, verdicts in ledger.by_requirement().items():
            if outcomes[judged] is outcome:
                reason = next(verdict.reason for verdict in verdicts if verdict.outcome is outcome)
                reasons.setdefault(reason, []).append(judged)
        if reasons:
            yield f"{sum(map(len, reasons.values()))} {outcome}:"
        for reason, ids in reasons.items():
            yield f"  {', '.join(_ranges(ids))}: {reason}"


def _ranges(ids: list[str]) -> Iterator[str]:
    """The ids, with three or more in a row written as the first and the last."""
    runs: list[list[str]] = []
    for one in ids:
        area, number = one.split("-")
        follows = runs and runs[-1][-1] == f"{area}-{int(number) - 1:03d}"
        runs[-1].append(one) if follows else runs.append([one])
    for run in runs:
        yield f"{run[0]} to {run[-1]}" if len(run) > 2 else ", ".join(run)


def _waivers(ledger: Ledger) -> Iterator[str]:
    outcomes = ledger.outcomes()
    for waiver in ledger.waivers.values():
        if outcomes.get(waiver.id) is Outcome.WAIVED:
            requirement = ledger.requirements.get(waiver.id)
            severity = "" if requirement is None else f" ({requirement.severity})"
            yield f"waived {waiver.id}{severity} by {waiver.owner} until {waiver.expires}: {waiver.reason}"
    for waiver in ledger.stale_waivers():
        why = "has expired" if not waiver.holds(ledger.today) else "is no longer needed"
        yield f"the waiver of {waiver.id} {why}"


def _traffic(bench: Bench) -> Iterator[str]:
    sent = bench.probe.ledger
    budget = f"{sent.requests} requests of at most {bench.settings.max_requests}"
    yield f"{budget}; waited {sent.waited_seconds:.1f} s for the target's limits"
    if sent.refused_by_limit:
        yield f"the target's rate limit cost coverage: {sent.refused_by_limit} requests were refused with 429"
    for url, why in sent.not_contacted.items():
        yield f"not contacted: {url} ({why})"
