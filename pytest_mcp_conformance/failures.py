"""What a check can conclude, as exceptions. A check that returns has passed.

Each kind of finding is its own class and is raised at the place of judgement: Hypothesis tells bugs apart by the
class and the line of the exception, so a shared `fail()` would merge two bugs into one while shrinking.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_mcp_conformance.exchange import Exchange


class Judgement(Exception):
    """Any conclusion but a pass. `reason` is one sentence and never holds a secret."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class NotApplicable(Judgement):
    """The requirement says nothing about this target, and the check has seen why."""


class NotRun(Judgement):
    """A prerequisite is missing (a credential, a login, an option); nothing was judged."""


class Inconclusive(Judgement):
    """The check ran and could not decide: a control failed, a limit hit, an answer that proves nothing."""


class RateLimited(Inconclusive):
    """The target answered 429 and its Retry-After was too long to wait for."""


class BudgetExhausted(Inconclusive):
    """The request budget of the run is spent."""


class Finding(Judgement):
    """The target does not meet the requirement. Subclass it once for each way of failing.

    Args:
        reason: what is wrong, one sentence.
        evidence: the exchange, or exchanges, that show it; the last one is printed as `curl`.
        expected: what a conforming server does.
        got: what this one did; `exchange.summary` is usually right.
        counterexample: the input that shows it, as small as it could be made. Empty when there is no input space.
    """

    advisory = False

    def __init__(
        self,
        reason: str,
        *,
        evidence: Exchange | Sequence[Exchange],
        expected: str,
        got: str,
        counterexample: str = "",
    ) -> None:
        super().__init__(reason)
        self.evidence: tuple[Exchange, ...] = tuple(evidence) if isinstance(evidence, Sequence) else (evidence,)
        self.expected = expected
        self.got = got
        self.counterexample = counterexample


class Advice(Finding):
    """A finding on a weaker part of a requirement: never more than a warning, whatever the requirement's level."""

    advisory = True
