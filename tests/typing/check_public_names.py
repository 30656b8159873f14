"""Uses of the public names that must type-check, and misuses that must not."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import assert_type

from starlette.applications import Starlette
from starlette.middleware import Middleware

from mcp_guard import (
    Check,
    Guard,
    Layer,
    Limit,
    Limits,
    MemoryStore,
    Principal,
    Resource,
    StatefulCheck,
    StaticKeys,
    TrustedIssuer,
    fact,
    guard,
    standard,
)
from mcp_guard.asgi import ASGIApp, Scope
from mcp_guard.layer import Admission, RequestHead
from mcp_guard.layers.origin import Origin
from mcp_guard.stores.base import Get, Operation, Result, Store


def a_fact_has_the_type_it_is_asked_for_by(scope: Scope, request: RequestHead) -> None:
    assert_type(fact(scope, Principal), Principal)
    assert_type(request.fact(Resource), Resource)
    assert_type(request.get(Principal), Principal | None)


def a_stack_is_an_asgi_app(app: ASGIApp) -> Guard:
    issuer = TrustedIssuer("https://as.example.com", StaticKeys({"keys": []}))
    layers = standard(resources=[Resource("https://mcp.example.com/mcp", "/mcp")], issuers=[issuer])
    assert_type(layers, tuple[Layer, ...])
    guarded = guard(app, *layers)
    again: ASGIApp = guarded
    return guard(again, Origin("https://mcp.example.com/mcp"))


def a_layer_fits_a_list_of_middleware(app: ASGIApp) -> Starlette:
    return Starlette(middleware=[Middleware(Origin("https://mcp.example.com/mcp").wrap)])


def limits_are_durations() -> Limits:
    Limit(10, 60)  # type: ignore[arg-type]
    return Limits(principal=Limit(10, timedelta(minutes=1)))


def a_store_has_the_contract() -> Store:
    return MemoryStore()


@dataclass(frozen=True)
class Decides(Check):
    """A check says an admission; saying nothing is a type error."""

    async def admit(self, request: RequestHead) -> Admission:
        return Admission()


@dataclass(frozen=True)
class Forgets(Check):
    """Forgetting to decide does not type-check."""

    async def admit(self, request: RequestHead) -> None:  # type: ignore[override]
        """Decide nothing."""


@dataclass(frozen=True, kw_only=True)
class Asks(StatefulCheck):
    """The two halves of a stateful check."""

    def ask(self, request: RequestHead) -> Sequence[Operation]:
        return (Get("mcp:example"),)

    def answer(self, request: RequestHead, results: Sequence[Result]) -> Admission:
        return Admission()


def a_stateful_check_needs_its_store() -> None:
    Asks()  # type: ignore[call-arg]
    Asks(store=MemoryStore())


def a_check_without_a_decision_cannot_be_made() -> None:
    Check()  # type: ignore[abstract]
