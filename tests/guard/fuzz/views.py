"""What the guard decided on, what the app was handed, and how other readers would have taken that.

The stack is made of the layers that read a request before anything else is known of it. Inside of them stands a
witness, which keeps what they have made of the request.
"""

import json
import posixpath
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

from starlette.requests import Request

from mcp_guard.asgi import ASGIApp, RawHeaders, Receive, Scope, Send
from mcp_guard.check import Check
from mcp_guard.facts import Call, MessageKind, RpcMessage
from mcp_guard.layer import ADMITTED, Admission, RequestHead
from mcp_guard.layers.host import Host
from mcp_guard.layers.intake import Intake
from mcp_guard.layers.origin import Origin
from mcp_guard.layers.proxy import Proxy
from mcp_guard.layers.wire import INERT, SINGLE, Wire
from mcp_guard.protocol.mcp import NAME_MEMBERS
from mcp_guard.stack import guard


@dataclass(frozen=True)
class Decided:
    """The request as the guard saw it when it was done with it."""

    method: str
    path: str
    raw_path: bytes | None
    query: bytes
    headers: RawHeaders
    call: Call


@dataclass(frozen=True)
class Handed:
    """The same request as the app was handed it. `whole` says whether its body arrived to its end."""

    scope: Scope
    body: bytes
    whole: bool


@dataclass(frozen=True)
class Witness(Check):
    """Keeps what the layers further out decided on."""

    needs = (Call,)

    seen: list[Decided] = field(default_factory=list)

    async def admit(self, request: RequestHead) -> Admission:
        line = (request.method, request.path, request.raw_path, request.query)
        self.seen.append(Decided(*line, list(request.headers), request.fact(Call)))
        return ADMITTED


@dataclass
class App:
    """Reads its request and answers."""

    seen: list[Handed] = field(default_factory=list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            # uvicorn and the others go on without a lifespan; a WebSocket is not let through.
            raise RuntimeError("there is no lifespan")
        body, more, whole = b"", True, True
        while more:
            message = await receive()
            whole = message["type"] == "http.request"
            body, more = body + message.get("body", b""), message.get("more_body", False)
        self.seen.append(Handed(scope, body, whole))
        headers = [(b"content-type", b"application/json"), (b"content-length", b"2")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"{}"})


@dataclass
class Views:
    """A guarded app, and both sides of each request that reached it."""

    guarded: ASGIApp
    witness: Witness
    app: App

    @classmethod
    def of(cls, origin: str) -> "Views":
        witness, app = Witness(), App()
        layers = (Wire(), Proxy(), Host(origin), Origin(origin), Intake(), witness)
        return cls(guard(app, *layers), witness, app)

    def compare(self) -> int:
        """Compare both sides of the requests since the last time. Answers how many reached the app.

        Raises:
            AssertionError: two readers do not agree on one of them.
        """
        decided, handed = list(self.witness.seen), list(self.app.seen)
        self.witness.seen.clear()
        self.app.seen.clear()
        assert len(decided) == len(handed), f"{len(decided)} were let through, {len(handed)} reached the app"
        for one, other in zip(decided, handed, strict=True):
            same_line(one, other.scope)
            same_fields(one, other.scope)
            same_body(one, other)
        return len(handed)


def same_line(decided: Decided, scope: Scope) -> None:
    """One path, whoever decodes, normalises or joins it."""
    line = (scope["method"], scope["path"], scope.get("raw_path"), scope["query_string"])
    assert line == (decided.method, decided.path, decided.raw_path, decided.query)
    path = decided.path
    assert decided.method == decided.method.upper()
    assert path.startswith("/")
    assert posixpath.normpath(path) == (path.rstrip("/") or "/"), path
    assert not set(path) & set(";\\?#%\x00\x7f"), path
    if decided.raw_path is not None:
        raw = decided.raw_path.decode("ascii")
        assert unquote(raw, errors="strict") == path
        target = urlsplit(f"http://a.example{raw}?{decided.query.decode('ascii')}")
        assert (unquote(target.path), target.fragment) == (path, "")
    assert Request(scope).url.path == path


def same_fields(decided: Decided, scope: Scope) -> None:
    """One value of each field that has one, whoever takes the first or last, folds names or trims values."""
    fields = [(bytes(name), bytes(value)) for name, value in scope["headers"]]
    assert fields == decided.headers
    names = [name for name, _ in fields]
    assert len({name.replace(b"-", b"_").upper() for name in names}) == len(set(names))
    assert INERT.isdisjoint(names)
    first, last = dict(reversed(fields)), dict(fields)
    for name in SINGLE:
        assert first.get(name) == last.get(name), name
    for name, value in fields:
        assert name == name.strip().lower()
        assert value == value.strip(b" \t"), name
        assert not any((byte < 0x20 and byte != 0x09) or byte == 0x7F for byte in value), name


def first_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return dict(reversed(pairs))


def folded(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """As Go's encoding/json does: the last member whose name is equal in any case."""
    return {name.casefold(): value for name, value in pairs}


def same_body(decided: Decided, handed: Handed) -> None:
    """One message, whoever parses it."""
    announced = dict(handed.scope["headers"]).get(b"content-length")
    if handed.whole and announced is not None:
        assert int(announced) == len(handed.body)
    call = decided.call
    if not call.messages:
        assert handed.body == b""
        return
    for reader in (json.loads, lambda body: json.loads(body, object_pairs_hook=first_of)):
        values = messages(reader(handed.body), call)
        assert [asked(value) for value in values] == [said(message) for message in call.messages]
        for value, message in zip(values, call.messages, strict=True):
            assert message.kind is MessageKind.RESPONSE or value.get("params", {}) == message.params
    loose = messages(json.loads(handed.body, object_pairs_hook=folded), call)
    assert [asked(value, str.casefold) for value in loose] == [said(message) for message in call.messages]
    if call.modern:
        mirrored = dict(handed.scope["headers"]).get(b"mcp-method")
        assert mirrored is None or mirrored.decode("ascii") == call.messages[0].method


def messages(value: Any, call: Call) -> list[dict[str, Any]]:
    assert isinstance(value, list) == call.batch
    return value if isinstance(value, list) else [value]


def said(message: RpcMessage) -> tuple[object, ...]:
    return message.method, message.id, message.name


def asked(value: dict[str, Any], spelled: Callable[[str], str] = str) -> tuple[object, ...]:
    """Method, id and name of a message, as a reader that spells members so would take them."""
    method = value.get("method")
    member = NAME_MEMBERS.get(method) if isinstance(method, str) else None
    params = value.get("params", {})
    name = None if member is None else params.get(spelled(member))
    return method, value.get("id"), name if isinstance(name, str) else None
