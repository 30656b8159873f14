"""Tasks and handles of the SDK's own server, in both eras, over the wire: they are their owner's alone."""

import json
import secrets
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any

import httpx2
import pytest
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.extension import Extension, MethodBinding
from mcp.server.mcpserver import MCPServer
from mcp.server.transport_security import TransportSecuritySettings
from mcp.shared.exceptions import MCPError
from mcp.types import CallToolRequestParams, RequestParams
from pydantic import Field

from mcp_guard.asgi import ASGIApp, Message, Receive, Scope, Send
from mcp_guard.keyring import KeyRing
from mcp_guard.layers.bridge import Bridge
from mcp_guard.layers.handles import Handle, Handles
from mcp_guard.layers.intake import Intake
from mcp_guard.layers.session import Session
from mcp_guard.layers.tasks import Tasks
from mcp_guard.stack import guard
from mcp_guard.stores.base import Store
from mcp_guard.stores.memory import MemoryStore
from mcp_guard.stores.valkey import ValkeyStore
from tests.guard.stubs import Facts
from tests.support.serving import serving
from tests.support.valkey_server import shared_server

LEGACY, MODERN = "2025-11-25", "2026-07-28"
TASK_NOT_FOUND = {"code": -32602, "message": "Task not found"}
HANDLE_NOT_FOUND = {"code": -32602, "message": "Handle not found"}
UNCHECKED = TransportSecuritySettings(enable_dns_rebinding_protection=False)
BASKET = Handle(kind="basket", minted={"open_basket": "$.basket"}, used={"add": ("$.basket", "$.others[*].basket")})


class OneTask(RequestParams):
    """Parameters of the methods that name a task."""

    task_id: str = Field(alias="taskId")


class Jobs(Extension):
    """The tasks extension in its simplest form: who knows an id may use it."""

    identifier = "io.modelcontextprotocol/tasks"

    def __init__(self) -> None:
        self.tasks: dict[str, str] = {}

    def methods(self) -> list[MethodBinding]:
        return [
            MethodBinding("jobs/start", RequestParams, self.start),
            MethodBinding("tasks/get", OneTask, self.get),
            MethodBinding("tasks/update", OneTask, self.update),
            MethodBinding("tasks/cancel", OneTask, self.cancel),
            MethodBinding("tasks/list", RequestParams, self.listed),
        ]

    async def intercept_tool_call(
        self, params: CallToolRequestParams, ctx: ServerRequestContext[Any, Any], call_next: CallNext
    ) -> HandlerResult:
        if params.name != "slow":
            return await call_next(ctx)
        return {"resultType": "task", "ttlMs": 60_000, **self.new()}

    async def start(self, ctx: ServerRequestContext[Any, Any], params: RequestParams) -> HandlerResult:
        """The result of 2025-11-25, which the SDK's server does not let through for a tool."""
        return {"task": {"ttl": 60_000, **self.new()}}

    def new(self) -> dict[str, Any]:
        identifier = secrets.token_hex(16)
        self.tasks[identifier] = "working"
        return self.shown(identifier)

    def shown(self, identifier: str) -> dict[str, Any]:
        try:
            return {"taskId": identifier, "status": self.tasks[identifier]}
        except KeyError:
            raise MCPError(-32602, "the server itself knows no such task") from None

    async def get(self, ctx: ServerRequestContext[Any, Any], params: OneTask) -> HandlerResult:
        return self.shown(params.task_id)

    async def update(self, ctx: ServerRequestContext[Any, Any], params: OneTask) -> HandlerResult:
        self.tasks[params.task_id] = "updated"
        return {}

    async def cancel(self, ctx: ServerRequestContext[Any, Any], params: OneTask) -> HandlerResult:
        self.tasks[params.task_id] = "cancelled"
        return {}

    async def listed(self, ctx: ServerRequestContext[Any, Any], params: RequestParams) -> HandlerResult:
        return {"tasks": [self.shown(one) for one in self.tasks]}


@dataclass
class Shop:
    """A guarded server, the bodies that reached it, and people to use it."""

    jobs: Jobs = field(default_factory=Jobs)
    baskets: dict[str, int] = field(default_factory=dict)
    bodies: list[bytes] = field(default_factory=list)
    urls: list[str] = field(default_factory=list)
    url: str = ""
    sessions: dict[str, str] = field(default_factory=dict)

    def app(self, *, json_response: bool) -> ASGIApp:
        server = MCPServer("shop", extensions=[self.jobs], log_level="CRITICAL")

        @server.tool()
        def slow() -> str:
            """Answered by a task."""
            return "never"

        @server.tool()
        def open_basket() -> dict[str, str]:
            """A new basket."""
            identifier = secrets.token_hex(16)
            self.baskets[identifier] = 0
            return {"basket": identifier}

        @server.tool()
        def add(basket: str, others: list[dict[str, str]] | None = None) -> int:
            """Put something into each basket."""
            for one in (basket, *(other["basket"] for other in others or ())):
                self.baskets[one] += 1
            return self.baskets[basket]

        inner = server.streamable_http_app(json_response=json_response, transport_security=UNCHECKED)

        async def seen(scope: Scope, receive: Receive, send: Send) -> None:
            async def receive_and_keep() -> Message:
                message = await receive()
                if message["type"] == "http.request":
                    self.bodies.append(message["body"])
                return message

            await inner(scope, receive_and_keep if scope["type"] == "http" else receive, send)

        return seen

    def ask(self, who: str, era: str, method: str, **params: Any) -> Any:
        """The JSON-RPC answer to one request; of a stream, its last message."""
        answer = self.post(who, era, method, params)
        assert answer.status_code == 200, answer.text
        if answer.headers["content-type"].startswith("application/json"):
            return answer.json()
        lines = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: {")]
        return json.loads(lines[-1])

    def post(self, who: str, era: str, method: str, params: dict[str, Any]) -> httpx2.Response:
        headers = {"x-as": who, "accept": "application/json, text/event-stream", "mcp-protocol-version": era}
        if era == MODERN:
            meta: dict[str, Any] = {f"io.modelcontextprotocol/{name}": value for name, value in self.said().items()}
            params = {**params, "_meta": meta}
            named = params.get("name", params.get("taskId"))
            headers |= {"mcp-method": method, **({} if named is None else {"mcp-name": named})}
        elif method != "initialize":
            headers["mcp-session-id"] = self.session(who)
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        return httpx2.post(self.url, json=body, headers=headers, timeout=30)

    def said(self) -> dict[str, Any]:
        return {
            "protocolVersion": MODERN,
            "clientInfo": {"name": "test", "version": "1"},
            "clientCapabilities": {"extensions": {Jobs.identifier: {}}},
        }

    def session(self, who: str) -> str:
        if who not in self.sessions:
            params = {"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
            self.sessions[who] = self.post(who, LEGACY, "initialize", params).headers["mcp-session-id"]
        return self.sessions[who]

    def start(self, who: str, era: str) -> str:
        """A new task of `who`; answers its id."""
        if era == MODERN:
            return str(self.ask(who, era, "tools/call", name="slow", arguments={})["result"]["taskId"])
        return str(self.ask(who, era, "jobs/start")["result"]["task"]["taskId"])

    def listen(self, who: str, ids: list[str]) -> tuple[list[str], str]:
        """The ids of a subscription that the server is shown, and what it acknowledges."""
        headers = {"x-as": who, "accept": "application/json, text/event-stream", "mcp-protocol-version": MODERN}
        meta = {f"io.modelcontextprotocol/{name}": value for name, value in self.said().items()}
        params = {"notifications": {"taskIds": ids, "toolsListChanged": True}, "_meta": meta}
        body = {"jsonrpc": "2.0", "id": "l", "method": "subscriptions/listen", "params": params}
        headers["mcp-method"] = "subscriptions/listen"
        with httpx2.stream("POST", self.url, json=body, headers=headers, timeout=30) as answer:
            acknowledged = next(line for line in answer.iter_lines() if line.startswith("data: {"))
        shown: list[str] = json.loads(self.bodies[-1])["params"]["notifications"]["taskIds"]
        return shown, acknowledged


@contextmanager
def opened(*, json_response: bool, stores: Sequence[Store] = ()) -> Iterator[Shop]:
    """A shop with a worker for each store, all with one ring; one worker with a store in memory by default."""
    shop, ring = Shop(), KeyRing.generate()

    def build(store: Store, url: str) -> ASGIApp:
        stateful = (
            Session(store=store, ring=ring),
            Tasks(store=store, ring=ring),
            Handles(store=store, ring=ring, handles=(BASKET,)),
        )
        return guard(shop.app(json_response=json_response), Facts(), Intake(), *stateful, Bridge())

    with ExitStack() as until_closed:
        for store in stores or (MemoryStore(),):
            shop.urls.append(f"{until_closed.enter_context(serving(partial(build, store))).url}/mcp")
        shop.url = shop.urls[0]
        yield shop


@pytest.fixture(params=[True, False], ids=["json", "stream"])
def shop(request: pytest.FixtureRequest) -> Iterator[Shop]:
    with opened(json_response=request.param) as shop:
        yield shop


@pytest.mark.parametrize("era", [LEGACY, MODERN])
def test_ses_25_another_principals_task_is_answered_like_an_unknown_one(shop: Shop, era: str) -> None:
    task = shop.start("alice", era)
    assert shop.ask("alice", era, "tasks/get", taskId=task)["result"]["status"] == "working"
    reached = len(shop.bodies)
    for method in ("tasks/get", "tasks/update", "tasks/cancel", "tasks/result"):
        foreign = shop.post("bob", era, method, {"taskId": task})
        unknown = shop.post("bob", era, method, {"taskId": secrets.token_hex(16)})
        assert (foreign.status_code, foreign.content) == (unknown.status_code, unknown.content)
        assert foreign.json()["error"] == TASK_NOT_FOUND
        assert {**foreign.headers, "date": ""} == {**unknown.headers, "date": ""}
    assert len(shop.bodies) == reached + (era == LEGACY and 1), "of Bob, the opening of a session reached the server"
    assert shop.jobs.tasks == {task: "working"}
    assert shop.ask("alice", era, "tasks/update", taskId=task, inputResponses={})["result"] is not None
    assert shop.jobs.tasks == {task: "updated"}


@pytest.mark.parametrize("era", [LEGACY, MODERN])
def test_ses_25_a_list_of_tasks_shows_each_its_own(shop: Shop, era: str) -> None:
    for who in ("alice", "bob", "alice"):
        shop.start(who, era)
    first, second, third = shop.jobs.tasks
    shown = {who: shop.ask(who, era, "tasks/list")["result"]["tasks"] for who in ("alice", "bob")}
    assert [one["taskId"] for one in shown["alice"]] == [first, third]
    assert [one["taskId"] for one in shown["bob"]] == [second]


def test_ses_25_of_a_subscription_the_server_is_shown_the_callers_own_tasks() -> None:
    with opened(json_response=False) as shop:
        task = shop.start("alice", MODERN)
        assert shop.listen("alice", [task, "never"])[0] == [task]
        foreign, unknown = shop.listen("bob", [task]), shop.listen("bob", ["never"])
        assert foreign == unknown
        assert foreign[0] == []


@pytest.mark.parametrize("era", [LEGACY, MODERN])
def test_a_handle_of_a_tool_is_its_owners_alone(shop: Shop, era: str) -> None:
    opened = shop.ask("alice", era, "tools/call", name="open_basket", arguments={})["result"]
    basket = opened["structuredContent"]["basket"]
    bobs = shop.ask("bob", era, "tools/call", name="open_basket", arguments={})["result"]["structuredContent"]["basket"]
    for others in ([{"basket": basket}], json.dumps([{"basket": basket}])):
        mine = shop.ask("alice", era, "tools/call", name="add", arguments={"basket": basket, "others": others})
        assert "isError" not in mine["result"] or mine["result"]["isError"] is False
    assert shop.baskets[basket] == 4, "the server reads JSON in a string"
    for arguments in (
        {"basket": basket},
        {"basket": bobs, "others": [{"basket": basket}]},
        {"basket": bobs, "others": json.dumps([{"basket": basket}])},
        {"basket": secrets.token_hex(16)},
    ):
        assert shop.ask("bob", era, "tools/call", name="add", arguments=arguments)["error"] == HANDLE_NOT_FOUND
    assert shop.baskets == {basket: 4, bobs: 0}


def test_workers_that_share_a_store_and_a_ring_agree_on_whose_a_handle_is() -> None:
    prefix, patient = f"{secrets.token_hex(8)}:", timedelta(seconds=10)
    stores = [ValkeyStore(shared_server().url, prefix=prefix, deadline=patient) for _ in range(2)]
    with opened(json_response=True, stores=stores) as shop:
        task = shop.start("alice", MODERN)
        opening = shop.ask("alice", MODERN, "tools/call", name="open_basket", arguments={})
        basket = opening["result"]["structuredContent"]["basket"]
        for url in shop.urls:
            shop.url = url
            assert shop.ask("alice", MODERN, "tasks/get", taskId=task)["result"]["status"] == "working"
            assert shop.ask("bob", MODERN, "tasks/get", taskId=task)["error"] == TASK_NOT_FOUND
            assert shop.ask("bob", MODERN, "tasks/list")["result"]["tasks"] == []
            add: dict[str, Any] = {"name": "add", "arguments": {"basket": basket}}
            assert "result" in shop.ask("alice", MODERN, "tools/call", **add)
            assert shop.ask("bob", MODERN, "tools/call", **add)["error"] == HANDLE_NOT_FOUND
    assert shop.baskets == {basket: 2}
