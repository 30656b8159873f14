"""The steps that a stack of layers is compiled to, and the app that takes each exchange through them."""

from collections.abc import Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mcp_guard import rejections
from mcp_guard.asgi import ASGIApp, Receive, Scope, Send
from mcp_guard.exchange import Exchange, Step
from mcp_guard.failures import StoreUnavailable, Unavailable
from mcp_guard.layer import ADMITTED
from mcp_guard.rejections import Rejection
from mcp_guard.stores.base import Operation, Result, Store

if TYPE_CHECKING:
    from mcp_guard.check import Check, StatefulCheck


@dataclass(slots=True)
class Row:
    """A step of neighbouring checks without state, one after the other."""

    checks: list["Check"]

    async def decide(self, exchange: Exchange) -> bool:
        """Run the checks. Answers True when the request goes on to the next step."""
        for check in self.checks:
            admission = await check.admit(exchange.request)
            if admission is not ADMITTED and not exchange.admit(admission):
                return False
        return True


@dataclass(slots=True)
class Batch:
    """A step of neighbouring stateful checks on one store: one round trip for all of them."""

    store: Store
    checks: list["StatefulCheck"]

    def accepts(self, check: "StatefulCheck") -> bool:
        """Whether `check` may join: same store, and nothing it needs is only learned inside this batch."""
        learned = {kind for earlier in self.checks for kind in earlier.adds}
        return check.store is self.store and learned.isdisjoint(check.needs)

    async def decide(self, exchange: Exchange) -> bool:
        """Ask for all, run once, let each judge its own results.

        A check that refuses without asking refuses after those before it had their say: what they count is counted.
        """
        operations: list[Operation] = []
        asked: list[tuple[StatefulCheck, int, int]] = []
        refusal: Rejection | Unavailable | None = None
        for check in self.checks:
            start = len(operations)
            try:
                operations.extend(check.ask(exchange.request))
            except (Rejection, Unavailable) as fault:
                refusal = fault
                break
            asked.append((check, start, len(operations)))
        results, silence = await self._run(operations)
        for check, start, end in asked:
            if silence is not None and start < end:
                admission = check.without_store(exchange.request, silence)
            else:
                admission = check.answer(exchange.request, results[start:end])
            if admission is not ADMITTED and not exchange.admit(admission, self.store):
                return False
        if refusal is not None:
            raise refusal
        return True

    async def _run(self, operations: list[Operation]) -> tuple[list[Result], StoreUnavailable | None]:
        """The results, or why there are none."""
        try:
            return (await self.store.run(operations) if operations else []), None
        except StoreUnavailable as silence:
            return [], silence


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Compiled layers around an app; itself an ASGI app, without a lifespan."""

    steps: tuple[Step, ...]
    app: ASGIApp

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Coroutine[Any, Any, None]:
        kind = scope["type"]
        if kind == "http":
            return Exchange(scope, receive, send).run(self.steps, self.app)
        if kind == "websocket":
            return Exchange(scope, receive, send).run(self.handshake_steps(), refuse_handshake)
        raise RuntimeError(f"mcp_guard does not pass on the ASGI scope type {kind!r}")

    async def refuse(self, fault: Unavailable, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse a request without judging it, because the layers cannot be started."""

        async def refusing(scope: Scope, receive: Receive, send: Send) -> None:
            raise fault

        await Exchange(scope, receive, send).run(self.handshake_steps(), refusing)

    def handshake_steps(self) -> tuple[Step, ...]:
        """The steps that judge a WebSocket handshake as well."""
        rows = [step for step in self.steps if isinstance(step, Row)]
        return tuple(Row([check for check in row.checks if check.judges_handshakes]) for row in rows)


async def refuse_handshake(scope: Scope, receive: Receive, send: Send) -> None:
    """What stands in place of the app for a WebSocket: nothing is served."""
    raise rejections.SCOPE_NOT_GUARDED.because("no layer of the stack admits WebSockets")
