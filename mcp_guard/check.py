"""The base classes of layers.

A layer is a frozen dataclass of settings, validated in `__post_init__`, that knows how to wrap an app. What it decides
is apart from how it is carried out: `Check.admit` and the two halves of `StatefulCheck` decide, `mcp_guard.exchange`
carries out.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, ClassVar, TypeAlias

from mcp_guard.asgi import ASGIApp
from mcp_guard.conversation import answering
from mcp_guard.facts import Principal
from mcp_guard.failures import ConfigurationError, StoreUnavailable
from mcp_guard.handshake import Handshakes
from mcp_guard.layer import Admission, Managed, RequestHead
from mcp_guard.lifespan import Guard
from mcp_guard.pipeline import Batch, Pipeline, Row
from mcp_guard.stores.base import Operation, Result, Store


@dataclass(frozen=True)
class Layer:
    """What all layers have in common: the facts they need and add, and `wrap`.

    `owes` are facts that have to be judged further in: a stack in which no later layer needs them is not built.
    `judges_handshakes` says that the layer also sees WebSocket handshakes that are refused in any case, and requests
    that are refused because the stack cannot be started.
    """

    needs: ClassVar[tuple[type[Any], ...]] = ()
    adds: ClassVar[tuple[type[Any], ...]] = ()
    judges_handshakes: ClassVar[bool] = False

    @property
    def owes(self) -> Sequence[type[Any]]:
        """What this layer let through on condition."""
        return ()

    def wrap(self, app: ASGIApp) -> ASGIApp:
        """This layer alone around `app`; fits Starlette's and FastMCP's `Middleware(layer.wrap)`."""
        return guarded((self,), app)

    def managed(self) -> Sequence[Managed]:
        """What must be started before the layer can decide."""
        return ()


@dataclass(frozen=True)
class Check(Layer, ABC):
    """A layer whose decision needs no store."""

    @abstractmethod
    async def admit(self, request: RequestHead) -> Admission:
        """Let the request through, saying what was learned.

        Raises:
            Rejection: the request goes no further.
            Unavailable: the decision cannot be made now; refused with 503.
        """


@dataclass(frozen=True, kw_only=True)
class StatefulCheck(Layer, ABC):
    """A layer whose decision needs the store: two pure halves around one batch of operations."""

    store: Store

    def managed(self) -> Sequence[Managed]:
        return (self.store,)

    @abstractmethod
    def ask(self, request: RequestHead) -> Sequence[Operation]:
        """What to ask of the store; empty when the request can be judged without it.

        Raises:
            Rejection: the request goes no further.
        """

    @abstractmethod
    def answer(self, request: RequestHead, results: Sequence[Result]) -> Admission:
        """Judge the results, one for each operation asked, in order.

        Raises:
            Rejection: the request goes no further.
        """

    def without_store(self, request: RequestHead, fault: StoreUnavailable) -> Admission:
        """Decide although the store did not answer what was asked. Refuses, unless a check knows a stricter way.

        Raises:
            Rejection: the request goes no further.
            StoreUnavailable: it cannot be decided; refused with 503.
        """
        raise fault


@dataclass(frozen=True)
class Junction(Check, ABC):
    """A check that also takes requests in by another way than through the layers further out."""

    @abstractmethod
    def join(self, inward: ASGIApp) -> None:
        """Told once, while the stack is built: the layers further in, around the app.

        Raises:
            ConfigurationError: it stands in another stack already.
        """


@dataclass(frozen=True)
class Opening(Check, ABC):
    """A check that lets WebSockets through to the app, which no stack without one does.

    Both a handshake and each message on its socket then pass all layers of the stack, as the requests that they are
    taken for (`mcp_guard.handshake`).
    """

    @abstractmethod
    def handshakes(self, outer: Pipeline, inner: Pipeline) -> Handshakes:
        """What opens sockets: `inner` are all layers of the stack, `outer` those in front of the principal."""


AnyLayer: TypeAlias = Check | StatefulCheck


def compile_layers(layers: Sequence[Layer], app: ASGIApp) -> Pipeline:
    """One pass over `layers`, outermost first, around `app`. Neighbouring stateful checks share a store batch.

    Raises:
        ConfigurationError: a layer is neither a `Check` nor a `StatefulCheck`.
    """
    steps: list[Row | Batch] = []
    for position, layer in enumerate(layers):
        last = steps[-1] if steps else None
        if isinstance(layer, StatefulCheck):
            if isinstance(last, Batch) and last.accepts(layer):
                last.checks.append(layer)
            else:
                steps.append(Batch(layer.store, [layer]))
        elif isinstance(layer, Check):
            if isinstance(last, Row):
                last.checks.append(layer)
            else:
                steps.append(Row([layer]))
            if isinstance(layer, Junction):
                inward = compile_layers(layers[position + 1 :], app)
                layer.join(inward)
                return Pipeline(tuple(steps), inward)
        else:
            raise ConfigurationError(f"layers: {type(layer).__name__} is neither a Check nor a StatefulCheck")
    return Pipeline(tuple(steps), app)


def guarded(layers: Sequence[Layer], app: ASGIApp) -> Guard:
    """`app` behind `layers`, which start and close what they depend on.

    Raises:
        ConfigurationError: a layer is neither a `Check` nor a `StatefulCheck`, or what it owes is judged by none.
    """
    check_debts(layers)
    managed = tuple({id(one): one for layer in layers for one in layer.managed()}.values())
    opening = next((layer for layer in layers if isinstance(layer, Opening)), None)
    if opening is None:
        return Guard(compile_layers(layers, app), app, managed)
    inward = answering(app)
    outer = list(takewhile(lambda layer: Principal not in layer.adds, layers))
    inner = compile_layers(layers, inward)
    return Guard(inner, app, managed, opening.handshakes(compile_layers(outer, inward), inner))


def check_debts(layers: Sequence[Layer]) -> None:
    """Check that whatever a layer leaves to be judged is judged further in.

    Raises:
        ConfigurationError: naming the layer and the fact.
    """
    for position, layer in enumerate(layers):
        judged = {needed for later in layers[position + 1 :] for needed in later.needs}
        for owed in layer.owes:
            if owed not in judged:
                raise ConfigurationError(
                    f"{type(layer).__name__} leaves {owed.__name__} to be judged, and no layer further in does"
                )
