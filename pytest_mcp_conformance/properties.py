"""Searches an input space for a counterexample, with Hypothesis, and brings back the smallest one found."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Generic, TypeVar
from zlib import crc32

from pytest_mcp_conformance.failures import Finding, Inconclusive, Judgement
from pytest_mcp_conformance.options import Profile, Settings
from pytest_mcp_conformance.probe import Probe

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

_Input = TypeVar("_Input")
SHRINKING_REQUESTS = 60


class Space:
    """Runs the properties of one check. Same seed, same inputs."""

    def __init__(self, settings: Settings, probe: Probe, check_id: str) -> None:
        self._settings = settings
        self._probe = probe
        self._check_id = check_id

    def search(
        self,
        judge: Callable[[_Input], None],
        strategy: SearchStrategy[_Input],
        *,
        classics: Iterable[_Input] = (),
        max_examples: int | None = None,
    ) -> None:
        """Call `judge` with each classic and then with generated inputs; it raises a Finding for an input that shows
        one.

        `max_examples` is the number for a judge that sends many requests, in the standard profile; the others try a
        part or a multiple of it.

        Raises:
            Finding: of the smallest input found. Inconclusive: `judge` could not decide, or the finding did not come
            again.
        """
        for classic in classics:
            judge(classic)
        hunt = _Hunt(judge, self._probe)
        limit = self._settings.profile.examples
        wanted = limit if max_examples is None else max(1, max_examples * limit // Profile.STANDARD.examples)
        self._run(hunt, strategy, wanted)
        if hunt.smallest is not None:
            _confirm(judge, *hunt.smallest)
        if hunt.stopped is not None:
            raise hunt.stopped

    def _run(self, hunt: _Hunt[_Input], strategy: SearchStrategy[_Input], examples: int) -> None:
        from hypothesis import HealthCheck, Phase, given, seed, settings
        from hypothesis.errors import Flaky

        def attempt(value: _Input) -> None:
            hunt.attempt(value)

        configured = settings(
            max_examples=examples,
            phases=(Phase.generate, Phase.shrink),
            deadline=None,
            database=None,
            print_blob=False,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        )
        number = crc32(f"{self._settings.seed} {self._check_id}".encode())
        try:
            seed(number)(configured(given(strategy)(attempt)))()
        except Finding:
            return
        except Flaky as error:
            raise Inconclusive("the same input was answered differently from one time to the next") from error


class _Hunt(Generic[_Input]):
    """Remembers every verdict, so that Hypothesis never asks the target the same thing twice, and stops asking once the
    requests set aside for shrinking are spent. `smallest` is the last finding raised, which Hypothesis makes the
    smallest.
    """

    def __init__(self, judge: Callable[[_Input], None], probe: Probe) -> None:
        self._judge = judge
        self._probe = probe
        self._verdicts: dict[str, Finding | None] = {}
        self._shrinking_ends: int | None = None
        self.smallest: tuple[_Input, Finding] | None = None
        self.stopped: Judgement | None = None

    def attempt(self, value: _Input) -> None:
        key = repr(value)
        if key not in self._verdicts:
            if self.stopped is not None or self._is_spent():
                return
            self._verdicts[key] = self._ask(value)
        finding = self._verdicts[key]
        if finding is not None:
            self.smallest = value, finding
            raise finding

    def _ask(self, value: _Input) -> Finding | None:
        try:
            self._judge(value)
        except Finding as finding:
            if self._shrinking_ends is None:
                self._shrinking_ends = self._probe.ledger.requests + SHRINKING_REQUESTS
            return finding
        except Judgement as judgement:
            self.stopped = judgement
        return None

    def _is_spent(self) -> bool:
        return self._shrinking_ends is not None and self._probe.ledger.requests >= self._shrinking_ends


def _confirm(judge: Callable[[_Input], None], value: _Input, finding: Finding) -> None:
    """Raise the finding once more, freshly made; a limit met only now does not unsay it."""
    try:
        judge(value)
    except Finding as again:
        if type(again) is type(finding):
            raise again from None
    except Inconclusive:
        raise finding from None
    raise Inconclusive(f"the same input did not show the same twice: {finding.reason}") from None
