"""The plugin proper, registered only in a run with `--mcp-target`: turns what checks raise into verdicts."""

from __future__ import annotations

import datetime as dt
import shlex
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from pytest_mcp_conformance import catalogue
from pytest_mcp_conformance.bench import Bench
from pytest_mcp_conformance.checks import LAST, MARK, comes_last, requirement_of
from pytest_mcp_conformance.failures import Judgement, NotApplicable, NotRun
from pytest_mcp_conformance.ledger import Ledger, Verdict
from pytest_mcp_conformance.options import PREFIX
from pytest_mcp_conformance.report.block import finding_block
from pytest_mcp_conformance.report.statement import make_statement, write_statement
from pytest_mcp_conformance.report.summary import summary_lines
from pytest_mcp_conformance.verdicts import Outcome
from pytest_mcp_conformance.waivers import read_waivers

EXIT_NOT_ASSESSED = 6
_LETTERS = {
    Outcome.PASS: ".",
    Outcome.FAIL: "F",
    Outcome.WARN: "W",
    Outcome.WAIVED: "w",
    Outcome.INCONCLUSIVE: "?",
    Outcome.NOT_RUN: "n",
    Outcome.NOT_APPLICABLE: "-",
}
_MARKUP = {Outcome.PASS: "green", Outcome.FAIL: "red", Outcome.WARN: "yellow", Outcome.INCONCLUSIVE: "yellow"}
_OUTCOME = "mcp_outcome"


class Engine:
    """One run."""

    def __init__(self, config: pytest.Config, bench: Bench) -> None:
        self._config = config
        self._bench = bench
        self._not_assessed = ""
        self._ledger = Ledger(catalogue.load(), read_waivers(bench.settings.waivers), dt.datetime.now(dt.UTC).date())
        _make_folder(bench.settings.report)
        config.addinivalue_line("markers", f"{MARK}(id): the catalogue requirement a check judges")
        config.addinivalue_line("markers", f"{LAST}: a check of what the whole run brought to light")

    def pytest_sessionstart(self) -> None:
        """Raises: pytest.UsageError when the target does not answer."""
        if self._config.option.collectonly:
            return
        try:
            challenge = self._bench.target.challenge
        except Judgement as judgement:
            raise pytest.UsageError(f"--mcp-target: {judgement.reason}") from None
        if challenge.response is None:
            raise pytest.UsageError(f"--mcp-target: {self._bench.settings.target} does not answer: {challenge.failure}")

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        items.sort(key=comes_last)
        only = self._bench.settings.only
        if not only:
            return
        unknown = sorted(
            word for word in only if not any(_selected(known, frozenset({word})) for known in self._ledger.requirements)
        )
        if unknown:
            raise pytest.UsageError(f"{PREFIX}-only: the catalogue knows no {', '.join(unknown)}")
        kept = [item for item in items if _selected(requirement_of(item), only)]
        self._ledger.unselected = {known for known in self._ledger.requirements if not _selected(known, only)}
        config.hook.pytest_deselected(items=[item for item in items if item not in kept])
        items[:] = kept

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        self._bench.probe.cited.clear()
        return (yield)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Raises: NotApplicable when the requirement is of other revisions than those judged by."""
        requirement = self._ledger.requirements.get(requirement_of(item))
        if requirement is None:
            return
        judged = self._bench.target.revisions
        self._bench.probe.cited.clear()  # finding that out is no evidence of what the check looks at
        if not judged & {str(revision) for revision in requirement.revisions}:
            spoken = ", ".join(sorted(judged))
            raise NotApplicable(f"the requirement is not of the revisions judged by ({spoken})")

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        judged = requirement_of(item)
        redact = self._bench.secrets.redact
        report.sections = [(name, redact(content)) for name, content in report.sections]
        if report.longrepr is not None and not isinstance(report.longrepr, tuple):
            report.longrepr = redact(str(report.longrepr))
        if judged and (call.when == "call" or (call.when == "setup" and call.excinfo is not None)):
            self._apply(report, item, self._conclude(judged, item, call))
        return report

    def _conclude(self, judged: str, item: pytest.Item, call: pytest.CallInfo[None]) -> Verdict:
        error = None if call.excinfo is None else call.excinfo.value
        evidence = tuple(self._bench.probe.cited)
        if isinstance(error, pytest.skip.Exception):
            error = NotRun(str(error))
        if error is None or isinstance(error, Judgement):
            return self._ledger.conclude(judged, item.name, error, evidence)
        return self._ledger.broke(judged, item.name, error, evidence)

    def _apply(self, report: pytest.TestReport, item: pytest.Item, verdict: Verdict) -> None:
        setattr(report, _OUTCOME, verdict.outcome)
        if verdict.broken:
            return
        if verdict.outcome is Outcome.FAIL:
            report.outcome, report.longrepr = "failed", self._block(verdict)
        elif verdict.outcome in {Outcome.PASS, Outcome.WARN}:
            report.outcome, report.longrepr = "passed", None
        else:
            reason = self._bench.secrets.redact(f"{verdict.outcome}: {verdict.reason}")
            report.outcome, report.longrepr = "skipped", (str(item.path), (item.location[1] or 0) + 1, reason)

    def _block(self, verdict: Verdict) -> str:
        if verdict.finding is None:
            return verdict.reason
        replay = f"pytest --mcp-target={shlex.quote(self._bench.settings.target)} {PREFIX}-only={verdict.id}"
        if self._bench.settings.seed:
            replay += f" {PREFIX}-seed={self._bench.settings.seed}"
        requirement = self._ledger.requirements.get(verdict.id)
        return finding_block(verdict, verdict.finding, requirement, self._bench.secrets, replay)

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(self, report: pytest.TestReport) -> tuple[str, str, Any] | None:
        outcome = getattr(report, _OUTCOME, None)
        if outcome is None:
            return None
        if outcome is Outcome.INCONCLUSIVE and report.failed:
            return "failed", "E", ("BROKEN", {"red": True})
        category = {Outcome.PASS: "passed", Outcome.FAIL: "failed"}.get(outcome, str(outcome))
        return category, _LETTERS[outcome], (outcome.upper(), {_MARKUP.get(outcome, "cyan"): True})

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        self._bench.close()
        if session.config.option.collectonly or exitstatus in {
            pytest.ExitCode.USAGE_ERROR,
            pytest.ExitCode.INTERNAL_ERROR,
        }:
            return
        self._not_assessed = self._why_not_assessed()
        if self._not_assessed and exitstatus != pytest.ExitCode.INTERRUPTED:
            session.exitstatus = EXIT_NOT_ASSESSED
        directory = self._bench.settings.report
        if directory is not None:
            try:
                write_statement(
                    directory, make_statement(self._ledger, self._bench, self._bench.probe.history, self._not_assessed)
                )
            except OSError as error:
                raise pytest.UsageError(f"{PREFIX}-report: {directory} cannot be written: {error.strerror}") from None

    def _why_not_assessed(self) -> str:
        controls = self._bench.target.controls
        if not self._ledger.assessed:
            return "no requirement was judged"
        if controls.run and not controls.passed:
            return f"all {controls.run} good requests with the run's own credential failed; is the token still valid?"
        return ""

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter, exitstatus: int) -> None:
        if self._config.option.collectonly or exitstatus in {
            pytest.ExitCode.USAGE_ERROR,
            pytest.ExitCode.INTERNAL_ERROR,
        }:
            return
        warned = [verdict for verdict in self._ledger.verdicts if verdict.outcome is Outcome.WARN]
        for verdict in warned:
            terminalreporter.write_sep("_", f"warn {verdict.id}")
            terminalreporter.write_line(self._block(verdict))
        terminalreporter.write_sep("=", "MCP conformance")
        for line in self._summary():
            terminalreporter.write_line(line)

    def _summary(self) -> Iterator[str]:
        for line in summary_lines(self._ledger, self._bench, self._not_assessed):
            yield self._bench.secrets.redact(line)


def _make_folder(directory: Path | None) -> None:
    """Raises: pytest.UsageError when the report could not be written there later."""
    try:
        if directory is not None:
            directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise pytest.UsageError(f"{PREFIX}-report: {directory} cannot be made: {error.strerror}") from None


def _selected(requirement_id: str, only: frozenset[str]) -> bool:
    return requirement_id in only or requirement_id.partition("-")[0] in only
