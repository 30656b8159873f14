"""Layers that stand in for others: they say what they are told to say, without a decision of their own."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any

from mcp_guard.asgi import RawHeaders
from mcp_guard.check import Check, StatefulCheck
from mcp_guard.clock import ManualClock
from mcp_guard.facts import Call, ClientAddress, MessageKind, Principal, Resource, RpcMessage
from mcp_guard.layer import ADMITTED, Admission, RequestHead
from mcp_guard.stores.base import Operation, Result
from mcp_guard.stores.memory import MemoryStore

ISSUER = "https://issuer.example"
MCP = Resource("https://mcp.example/mcp", "/mcp")
SSE = Resource("https://mcp.example/sse", "/sse", messages="/messages/")


def principal(subject: str, *, client: str = "client-1", token: str = "0" * 16, **members: Any) -> Principal:
    """A verified principal; `token` is the fingerprint of its token."""
    given: dict[str, Any] = {
        "issuer": ISSUER,
        "tenant": None,
        "scopes": frozenset({"mcp:tools"}),
        "expires_at": 1_900_000_000.0,
        "claims": {"sub": subject, "plan": "gold"},
        **members,
    }
    return Principal(subject=subject, client_id=client, token_fingerprint=token, **given)


ALICE = principal("alice", token="a" * 16)
BOB = principal("bob", token="b" * 16)
PEOPLE = {b"alice": ALICE, b"bob": BOB}


@dataclass(frozen=True)
class Facts(Check):
    """Adds the facts that layers further out would have found: whoever `x-as` names, and what the body asks."""

    adds = (Principal, Resource, Call, ClientAddress)

    people: dict[bytes, Principal] = field(default_factory=lambda: dict(PEOPLE))

    async def admit(self, request: RequestHead) -> Admission:
        who = self.people[request.value(b"x-as") or b"alice"]
        resource = SSE if request.path.startswith(("/sse", "/messages")) else MCP
        client = request.scope["client"]
        modern = request.value(b"mcp-protocol-version") == b"2026-07-28"
        call = parse(await request.body(8 * 1024 * 1024), modern=modern)
        return Admission(facts=(who, resource, call, ClientAddress(ip_address(client[0]))))


def parse(data: bytes, *, modern: bool = False) -> Call:
    """The call that a body makes."""
    content = json.loads(data) if data else []
    batch = isinstance(content, list) and bool(data)
    members = content if isinstance(content, list) else [content]
    messages = tuple(
        RpcMessage(
            MessageKind.REQUEST if "method" in one and "id" in one else MessageKind.NOTIFICATION,
            one.get("method"),
            one.get("id"),
            one.get("params", {}).get("name"),
            one.get("params", {}),
        )
        for one in members
    )
    return Call(messages, "2026-07-28" if modern else None, modern, batch)


def rpc(method: str = "tools/call", name: str | None = None, request_id: str | int | None = 1) -> bytes:
    """The body of one JSON-RPC request."""
    params = {} if name is None else {"name": name}
    return json.dumps({"jsonrpc": "2.0", "id": request_id, "method": method, "params": params}).encode()


@dataclass(frozen=True)
class Says(Check):
    """Decides what it is told to; `seen` keeps the heads that it was shown."""

    admission: Admission | Callable[[RequestHead], Admission] = ADMITTED
    fault: BaseException | None = None
    seen: list[RequestHead] = field(default_factory=list, compare=False)

    async def admit(self, request: RequestHead) -> Admission:
        self.seen.append(request)
        if self.fault is not None:
            raise self.fault
        return self.admission(request) if callable(self.admission) else self.admission


@dataclass(frozen=True)
class Reads(Says):
    """Reads the body before it decides."""

    limit_bytes: int = 8 * 1024 * 1024

    async def admit(self, request: RequestHead) -> Admission:
        await request.body(self.limit_bytes)
        return await super().admit(request)


@dataclass(frozen=True, kw_only=True)
class Asks(StatefulCheck):
    """Asks for `operations`; keeps the results; raises `ask_fault` or `answer_fault` when it has one."""

    operations: Sequence[Operation] = ()
    admission: Admission = ADMITTED
    ask_fault: Exception | None = None
    answer_fault: Exception | None = None
    results: list[list[Result]] = field(default_factory=list, compare=False)

    def ask(self, request: RequestHead) -> Sequence[Operation]:
        if self.ask_fault is not None:
            raise self.ask_fault
        return self.operations

    def answer(self, request: RequestHead, results: Sequence[Result]) -> Admission:
        self.results.append(list(results))
        if self.answer_fault is not None:
            raise self.answer_fault
        return self.admission


@dataclass
class Watching:
    """A watch that keeps what it was shown and raises where it is told to."""

    name: str = "watch"
    wants_body: bool = True
    at_start: Exception | None = None
    at_body: Exception | None = None
    at_end: Exception | None = None
    operations: Sequence[Operation] = ()
    seen: list[Any] = field(default_factory=list)
    ended: int = 0

    def on_start(self, status: int, headers: RawHeaders) -> Sequence[Operation]:
        self.seen.append(status)
        if self.at_start is not None:
            raise self.at_start
        return self.operations

    def on_body(self, chunk: bytes) -> Sequence[Operation]:
        self.seen.append(chunk)
        if self.at_body is not None:
            raise self.at_body
        return ()

    def settle(self, results: Sequence[Result]) -> None:
        self.seen.append(list(results))

    def on_end(self) -> None:
        self.ended += 1
        if self.at_end is not None:
            raise self.at_end


@dataclass(eq=False)
class CountingStore(MemoryStore):
    """The memory store, with its round trips kept, that is out of order while `fault` is set."""

    clock: ManualClock = field(default_factory=ManualClock)
    batches: list[list[Operation]] = field(default_factory=list)
    fault: Exception | None = None

    async def run(self, operations: Sequence[Operation]) -> list[Result]:
        self.batches.append(list(operations))
        if self.fault is not None:
            raise self.fault
        return await super().run(operations)
