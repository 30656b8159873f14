"""Seals the `requestState` that the app hands out, and opens it when it comes back (MCP 2026-07-28 mrtr).

Decides: whether the state of a retried request is one that the app gave to this principal, for this request, at this
resource, not too long ago and, for the tools that ask for it, for the first time. Refuses with `state_invalid` (400),
whatever is wrong: only the audit tells. Does not: let a state stand for an authorization; each retry is judged by every
layer further out. Needs the principal, the resource and the call. Must stand after: token, intake, scopes and every
layer with a store, so that a state that may be used once is not used up by a request that is refused; before: whatever
hands the body on.

The app's state is encrypted, so that it tells a client nothing, and reaches the app as it was; the body is otherwise
handed on byte for byte. An app that seals its state itself may go on doing so. What a state is bound to, and which
requests are the same, is said in `mcp_guard.protocol.sealed_state`. Only requests of 2026-07-28 are concerned, and of
them `tools/call`, `prompts/get` and `resources/read`; the responses to others pass as they are. Older revisions have no
such state: a call of theirs that carries one is refused, because an app may read it in any revision. A state that is no
text or longer than 64 KiB ends the response unfinished.

A state that may be used once is used up when its request is handed to the app, whatever the app makes of it. Whether it
was used is remembered in the store; without an answer of the store the request is refused with `unavailable` (503).
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from mcp_guard import rejections
from mcp_guard.check import Check
from mcp_guard.clock import Clock, SystemClock
from mcp_guard.facts import Call, Principal, Resource, RpcMessage
from mcp_guard.failures import ConfigurationError
from mcp_guard.keyring import KeyRing
from mcp_guard.layer import ADMITTED, Admission, Managed, RequestHead
from mcp_guard.messages import MessageRewrite
from mcp_guard.protocol.sealed_state import (
    MEMBER,
    METHODS,
    Opened,
    StateError,
    binding,
    is_state,
    presented,
    seal,
    splice,
    unseal,
)
from mcp_guard.stores.base import Claim, Store

DEFAULT_TTL = timedelta(minutes=10)
TOOL_CALL = "tools/call"
INPUT_REQUIRED = "input_required"
CLOCKS_APART = timedelta(minutes=1)
"""How much longer the store remembers a use than the state lives by our own clock."""
WHOLE = sys.maxsize
"""No limit of our own: the body was read, and bounded, by the layer that found the call."""


@dataclass(frozen=True, kw_only=True)
class RequestState(Check):
    """`ring` is shared by all workers. `ttl` is how long a client may take to answer.

    `single_use` are the tools whose states may be used once; it needs a `store`, which all workers share.
    """

    needs = (Principal, Resource, Call)

    ring: KeyRing
    ttl: timedelta = DEFAULT_TTL
    single_use: frozenset[str] = frozenset()
    store: Store | None = None
    clock: Clock = field(default_factory=SystemClock)

    def __post_init__(self) -> None:
        if self.ttl < timedelta(seconds=1):
            raise ConfigurationError(f"ttl must be at least one second, not {self.ttl}")
        if self.single_use and self.store is None:
            raise ConfigurationError("single_use needs a store, which remembers what was used")

    def managed(self) -> Sequence[Managed]:
        return () if self.store is None else (self.store,)

    async def admit(self, request: RequestHead) -> Admission:
        call = request.fact(Call)
        concerned = [message for message in call.messages if message.method in METHODS]
        if not concerned:
            return ADMITTED
        if not call.modern:
            return _without_state(concerned)
        # A modern body is one message.
        message = concerned[0]
        principal, resource = request.fact(Principal), request.fact(Resource)
        sealing = _Sealing(self, principal, resource, message)
        try:
            text = presented(message.params)
            if text is None:
                return Admission(rewrite=sealing)
            opened = unseal(self.ring, text, binding(principal, resource, message), now=self.clock.wall())
            body = splice(await request.body(WHOLE), text, opened.state)
        except StateError as fault:
            raise rejections.STATE_INVALID.because(fault.reason) from None
        if self.store is not None and message.method == TOOL_CALL and message.name in self.single_use:
            await self._use_up(self.store, opened)
        shown = message._replace(params={**message.params, MEMBER: opened.state})
        return Admission((call._replace(messages=(shown,)),), body=body, rewrite=sealing)

    async def _use_up(self, store: Store, opened: Opened) -> None:
        """Use a state that may be used once.

        Raises:
            Rejection: it was used before, or that cannot be known any more.
            StoreUnavailable: the store does not answer.
        """
        left = timedelta(seconds=opened.expires - opened.issued)
        claim = Claim(f"mcp:state:{opened.identifier.hex()}", left + CLOCKS_APART, opened.issued)
        if await store.run([claim]) != [True]:
            raise rejections.STATE_INVALID.because("requestState may be used once, and was used")


def _without_state(messages: Sequence[RpcMessage]) -> Admission:
    """Let messages of an older revision through, which carry no state.

    Raises:
        Rejection: one of them does.
    """
    for message in messages:
        if any(is_state(name) for name in message.params):
            raise rejections.STATE_INVALID.because("requestState in a revision that has none")
    return ADMITTED


@dataclass(eq=False)
class _Sealing(MessageRewrite):
    """Seals the state in the response to one request."""

    marks = (MEMBER.encode(),)

    layer: RequestState
    principal: Principal
    resource: Resource
    asked: RpcMessage

    async def message(self, message: dict[str, Any]) -> dict[str, Any] | None:
        result = message.get("result")
        if not isinstance(result, dict) or result.get("resultType") != INPUT_REQUIRED or result.get(MEMBER) is None:
            return None
        return {**message, "result": {**result, MEMBER: self._sealed(result[MEMBER])}}

    def _sealed(self, state: object) -> str:
        """The seal of what the app gave as its state.

        Raises:
            Rejection: it cannot be sealed, so it does not go out.
        """
        if not isinstance(state, str):
            raise rejections.GUARD_FAULT.because("the app's requestState is no text")
        now = self.layer.clock.wall()
        bound = binding(self.principal, self.resource, self.asked)
        try:
            return seal(self.layer.ring, state, bound, issued=now, expires=now + self.layer.ttl.total_seconds())
        except StateError as fault:
            raise rejections.GUARD_FAULT.because(fault.reason) from None
