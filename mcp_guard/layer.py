"""The vocabulary of a decision: what a check is shown, and what it may say.

A check is shown a `RequestHead` and says an `Admission`, or raises a `Rejection`. It does no I/O on the connection
itself: answers, headers, observers and hidden fields are all said in the admission and carried out by `check`.
"""

from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

from mcp_guard.asgi import ASGIApp, RawHeaders, Scope
from mcp_guard.stores.base import Operation, Result

Fact = TypeVar("Fact")


class RequestHead:
    """A request as every layer sees it: its line, a private copy of its header fields, and the facts learned so far.

    The header fields are copied before the first `receive()`, because some servers append trailers to the live list.
    Field names are lower case, as ASGI promises. `fields` has the first value of each name.
    """

    __slots__ = (
        "_names",
        "_read",
        "facts",
        "fields",
        "headers",
        "method",
        "outgoing",
        "path",
        "query",
        "raw_path",
        "scope",
    )

    def __init__(self, scope: Scope, facts: dict[type, Any], read: "BodyReader", outgoing: "Outgoing") -> None:
        self.scope = scope
        self.method: str = scope.get("method", "GET")
        self.path: str = scope["path"]
        self.raw_path: bytes | None = scope.get("raw_path")
        self.query: bytes = scope.get("query_string", b"")
        self.headers: RawHeaders = scope["headers"]
        self.fields: dict[bytes, bytes] = dict(reversed(self.headers))
        self.facts = facts
        self.outgoing = outgoing
        self._names: bytes | None = None
        self._read = read

    @property
    def routed_path(self) -> str:
        """The path as the app's router sees it: without the prefix of the app's mount point (ASGI `root_path`)."""
        root = self.scope.get("root_path", "")
        if root and self.path.startswith(f"{root}/"):
            return self.path[len(root) :]
        return self.path

    @property
    def names(self) -> bytes:
        """The names of all fields in order, one a line."""
        if self._names is None:
            self._names = b"\n".join([name for name, _ in self.headers])
        return self._names

    def values(self, name: bytes) -> list[bytes]:
        """Every value of the field `name` (lower case), in order."""
        if name not in self.fields:
            return []
        if len(self.fields) == len(self.headers):
            return [self.fields[name]]
        return [value for key, value in self.headers if key == name]

    def value(self, name: bytes) -> bytes | None:
        """The first value of the field `name` (lower case), None when it is absent."""
        return self.fields.get(name)

    def fact(self, kind: type[Fact]) -> Fact:
        """A fact that a layer further out added; `needs` guarantees it is there.

        Raises:
            LookupError: the layer does not declare `kind` among its `needs`.
        """
        try:
            found: Fact = self.facts[kind]
        except KeyError:
            raise LookupError(f"{kind.__name__} is not known here; a layer that uses it must declare it") from None
        return found

    def get(self, kind: type[Fact]) -> Fact | None:
        """A fact that may be absent."""
        found: Fact | None = self.facts.get(kind)
        return found

    def body(self, limit_bytes: int) -> Coroutine[Any, Any, bytes]:
        """The whole body, which is replayed to the app afterwards. Reading starts here and not before.

        Raises:
            BodyTooLarge: as soon as more than `limit_bytes` have arrived.
            ClientDisconnected: the client went away.
        """
        return self._read(limit_bytes)


BodyReader = Callable[[int], Coroutine[Any, Any, bytes]]


class BodyTooLarge(Exception):
    """The body is larger than the reader's limit."""


class ClientDisconnected(Exception):
    """The client went away before its request was complete."""


class ResponseCut(Exception):
    """A response that had begun was ended by the guard; the server closes the connection."""


class Watch(Protocol):
    """An observer of the response, made for one exchange by the check that admitted it.

    The operations it answers with are run before the message goes out, so that a handle is bound before the client
    can use it. `settle` judges their results. Whatever a watch raises turns the response into a refusal when it has
    not started, and cuts it when it has.
    """

    def on_start(self, status: int, headers: RawHeaders) -> Sequence[Operation]:
        """The response begins. `headers` are those of the app, before any are added."""

    def on_body(self, chunk: bytes) -> Sequence[Operation]:
        """Part of the response body. Called only while `wants_body` is True."""

    def settle(self, results: Sequence[Result]) -> None:
        """The results of the operations last answered with; not called when there were none."""

    def on_end(self) -> None:
        """The exchange is over, however it ended. Must not raise."""

    @property
    def wants_body(self) -> bool:
        """Whether the body still matters. Read before each chunk."""


class Rewrite(Protocol):
    """A change of the response, made for one exchange by the check that admitted it.

    Layers further in, and their watches, see the response of the app; those further out see what becomes of it here.
    What it raises counts as what a watch raises.
    """

    def on_start(self, status: int, headers: RawHeaders) -> RawHeaders:
        """The response begins with these fields. Answers those that go out; without `Content-Length`, if it changes."""

    async def on_body(self, chunk: bytes, more: bool) -> bytes:
        """Part of the body, and whether more follows. Answers what goes out now; all of it by the time none follows."""

    @property
    def wants_body(self) -> bool:
        """Whether the rest of the body is to be shown. Read before each chunk."""


class Outgoing(Protocol):
    """The response on its way out, for a layer that watches over open streams."""

    @property
    def pending(self) -> int:
        """The number, from 1, of the part of the body that the server was handed and has not taken yet; 0 for none."""

    def end(self, reason: str) -> None:
        """End the response as if the app had ended it, and stop the app. `reason` is for the log. Does not wait."""

    def cut(self, reason: str) -> None:
        """End the response unfinished: the server closes the connection. Stops the app, and does not wait."""


class Managed(Protocol):
    """Something a layer depends on that is started before the first request and closed after the last."""

    async def start(self) -> None:
        """Make ready. Layers that are wrapped one by one may share it: safe to call on something that was started.

        Raises:
            ConfigurationError: it cannot work as it is set up.
            Unavailable: it cannot be reached now.
        """

    async def close(self) -> None:
        """Let go. Safe to call again, and on something that never started."""


@runtime_checkable
class Draining(Protocol):
    """Something a layer depends on that has open ends, which a shutdown does not wait for."""

    def drain(self) -> None:
        """The server is about to stop: end what would go on for ever. Does not wait."""


@runtime_checkable
class Settling(Protocol):
    """Something a layer depends on that still needs the app for a while when the server has stopped."""

    async def settle(self) -> None:
        """Wait, but not for ever, until the app is not needed any more. Called before the app is told to shut down."""


@runtime_checkable
class Inhabiting(Protocol):
    """Something a layer depends on that hands requests of its own to the app."""

    def inhabit(self, state: dict[str, Any] | None) -> None:
        """Told the state of the lifespan before `start` (ASGI lifespan §Lifespan State): the app fills it while it
        starts, and each request is to have a copy. None where the server has none.
        """


@dataclass(frozen=True, slots=True)
class Answer:
    """A response given by a layer itself; the app is not called."""

    status: int
    body: bytes = b""
    headers: Sequence[tuple[bytes, bytes]] = ()


Around = Callable[[], AbstractContextManager[Any]]


class Admission(NamedTuple):
    """What a check says of a request it lets through. All members are optional; `ADMITTED` says nothing more.

    `facts` are handed inward. `response_headers` are set on every response from here on, refusals included, in place
    of the app's own of the same name; `default_headers` only where the app has none of that name. `hide` are request
    fields (lower case) that are not handed inward. `scope` are members replaced in the scope handed inward; `body` is
    handed inward in place of the client's. `watch` observes the response, `rewrite` changes it; of one admission, the
    watch sees it first. `around` is entered around the call of the app. `answer` ends the request here with a response;
    `divert` hands it to another app in place of the layers further in.
    """

    facts: tuple[object, ...] = ()
    response_headers: Sequence[tuple[bytes, bytes]] = ()
    default_headers: Sequence[tuple[bytes, bytes]] = ()
    hide: frozenset[bytes] = frozenset()
    scope: Mapping[str, Any] = MappingProxyType({})
    body: bytes | None = None
    watch: Watch | None = None
    rewrite: Rewrite | None = None
    around: Around | None = None
    answer: Answer | None = None
    divert: ASGIApp | None = None


ADMITTED = Admission()
