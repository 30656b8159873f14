"""Requests with a bound token that should be refused, made so that a refusal proves something."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from conformance_suites.forgeries import Tally
from pytest_mcp_conformance.exchange import Exchange, Request
from pytest_mcp_conformance.possession import MakeHeaders, Possession
from pytest_mcp_conformance.target import Presentation


class Attempts:
    """Sends them, and counts the clear refusals."""

    def __init__(self, possession: Possession) -> None:
        self._possession = possession
        self.tally = Tally()

    def served(self, make: MakeHeaders, request: Request | None = None) -> Exchange | None:
        """The exchange when the token in it was authenticated; else None."""
        seen = self.made(make, request)
        return seen.exchange if seen.authenticated else None

    def made(self, make: MakeHeaders, request: Request | None = None) -> Presentation:
        """What became of one."""
        seen = self._possession.present(make, request)
        self.tally.count(seen)
        return seen


@contextmanager
def attempts(possession: Possession) -> Iterator[Attempts]:
    """A batch of attempts between two good requests.

    Raises:
        NotApplicable, NotRun, Inconclusive: as `Possession.controlled`; or no attempt was clearly refused.
    """
    with possession.controlled():
        made = Attempts(possession)
        yield made
    made.tally.settle()
