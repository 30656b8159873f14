"""Presenting forged tokens, and telling a batch of refusals from one that proves nothing."""

from __future__ import annotations

from pytest_mcp_conformance import Inconclusive
from pytest_mcp_conformance.strategies.tokens import Bent
from pytest_mcp_conformance.target import Presentation, Target


def present(target: Target, bent: Bent) -> Presentation:
    """Present a forged token as a bearer token."""
    return target.present(f"Bearer {bent.token}")


class Tally:
    """Counts the clear refusals of a batch: a batch without any proves nothing."""

    def __init__(self) -> None:
        self.refused = 0

    def count(self, seen: Presentation) -> None:
        self.refused += seen.refused

    def settle(self) -> None:
        """Raises: Inconclusive when no forged token was clearly refused."""
        if not self.refused:
            raise Inconclusive("no answer told whether the forged tokens were authenticated")
