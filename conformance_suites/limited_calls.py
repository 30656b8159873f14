"""Calls of the tool whose limit the operator declared. No refusal is waited for here."""

from __future__ import annotations

from collections.abc import Callable

from conformance_suites.calls import Caller, did_it
from pytest_mcp_conformance import Inconclusive, NotRun
from pytest_mcp_conformance.credentials import Credential
from pytest_mcp_conformance.declarations import Declarations, LimitedTool
from pytest_mcp_conformance.exchange import Exchange, Request
from pytest_mcp_conformance.probe import Probe
from pytest_mcp_conformance.target import Target

CONFIRMATIONS = 3


class LimitedCalls:
    """Calls of one user."""

    def __init__(self, target: Target, credential: Credential, limit: LimitedTool) -> None:
        """Raises: NotRun, Inconclusive: as `Caller`."""
        self.caller = Caller(target, credential)
        self.limit = limit
        self._credential = credential
        self._probe: Probe = target.probe

    def request(self) -> Request:
        """The call, without a credential."""
        return self.caller.call(self.limit.name)

    def call(self, request: Request | None = None) -> Exchange:
        """Send the call, or the request in its place, with the user's credential."""
        sent = (request or self.request()).with_headers(self._credential.header)
        return self._probe.send(sent, heed_limits=False)

    def refused(self, exchange: Exchange) -> bool:
        """Whether a call was not carried out."""
        return not did_it(exchange)

    def burst(self, most: int) -> list[Exchange]:
        """Calls until one is refused, `most` at most.

        Raises:
            Inconclusive: the first is refused for another reason than its rate.
        """
        seen = [self.call()]
        first = seen[0]
        if self.refused(first) and first.status not in {429, 503}:
            raise Inconclusive(f"{self.limit.name} cannot be called: {first.summary}")
        while len(seen) < most and not self.refused(seen[-1]):
            seen.append(self.call())
        return seen

    def spent_seconds(self, seen: list[Exchange]) -> float:
        """How long the server took for these answers, together."""
        return sum(exchange.elapsed_seconds for exchange in seen)

    def passes(self, attempt: Callable[[], Exchange]) -> Exchange | None:
        """An answer that shows that `attempt` is carried out while the plain call is refused, several times in turn:
        once may be the limit letting up. None when it does not.
        """
        answer = None
        for _ in range(CONFIRMATIONS):
            answer = attempt()
            if self.refused(answer) or not self.refused(self.call()):
                return None
        return answer

    def prove_exhausted(self) -> None:
        """Raises: Inconclusive when the limit has let up, so that refusals prove nothing."""
        if not self.refused(self.call()):
            raise Inconclusive("the limit let up before the check was over")


def limited_calls(target: Target, credential: Credential, declared: Declarations) -> LimitedCalls:
    """Raises: NotRun when no limited tool is declared."""
    if declared.limited_tool is None:
        raise NotRun("no tool with a small limit is declared (limited_tool), and no other limit is used up")
    return LimitedCalls(target, credential, declared.limited_tool)
