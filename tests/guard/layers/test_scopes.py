"""A request needs every scope of its resource and of all the tools it calls."""

import json
from dataclasses import dataclass
from typing import Any

import pytest

from mcp_guard import rejections
from mcp_guard.check import Check, compile_layers
from mcp_guard.facts import Call, MessageKind, Principal, Resource, RpcMessage
from mcp_guard.layer import Admission, RequestHead
from mcp_guard.layers.scopes import Scopes, needed
from tests.guard.asgi import CountingApp, Outcome, drive
from tests.guard.stubs import parse, principal, rpc

ADD = frozenset({"mcp:admin", "mcp:math"})
MCP = Resource(
    "https://mcp.example/mcp",
    "/mcp",
    scopes=frozenset({"mcp:tools"}),
    tool_scopes={"add": ADD, "delete": frozenset({"mcp:delete"}), "free": frozenset()},
)
"""The tools `add` and `delete` need scopes of their own, `free` and all others none."""
METADATA = "https://mcp.example/.well-known/oauth-protected-resource/mcp"


@dataclass(frozen=True)
class Given(Check):
    """Adds facts that were decided on beforehand; the call is read from the body."""

    adds = (Principal, Resource, Call)

    granted: frozenset[str]
    resource: Resource = MCP
    forget_call: bool = False

    async def admit(self, request: RequestHead) -> Admission:
        who = principal("alice", scopes=self.granted)
        call = parse(await request.body(1024 * 1024))
        return Admission(facts=(who, self.resource) if self.forget_call else (who, self.resource, call))


async def send(body: bytes, *granted: str, app: CountingApp | None = None, **given: Any) -> Outcome:
    return await drive(compile_layers((Given(frozenset(granted), **given), Scopes()), app or CountingApp()), None, body)


@pytest.mark.parametrize("body", [rpc(name="whoami"), rpc(name="free"), rpc("tools/list"), b""])
async def test_the_scopes_of_the_resource_are_enough_where_a_tool_needs_none(body: bytes) -> None:
    assert (await send(body, "mcp:tools")).status == 200


@pytest.mark.parametrize("body", [rpc(name="whoami"), rpc("tools/list"), rpc("initialize"), b""])
@pytest.mark.parametrize("granted", [(), ("mcp:toolsx",), ("MCP:TOOLS",), ("mcp:admin", "mcp:math")])
async def test_every_request_needs_the_scopes_of_the_resource(body: bytes, granted: tuple[str, ...]) -> None:
    app = CountingApp()
    outcome = await send(body, *granted, app=app)
    assert outcome.status == 403
    assert app.calls == 0
    assert (
        outcome.value(b"www-authenticate")
        == (
            'Bearer error="insufficient_scope", error_description="The token lacks a scope", '
            f'resource_metadata="{METADATA}", scope="mcp:tools"'
        ).encode()
    )


async def test_a_tool_with_scopes_of_its_own_needs_them_all() -> None:
    assert (await send(rpc(name="add"), "mcp:tools", "mcp:admin", "mcp:math")).status == 200
    for lacking in ("mcp:tools", "mcp:admin", "mcp:math"):
        granted = {"mcp:tools", "mcp:admin", "mcp:math"} - {lacking}
        assert (await send(rpc(name="add"), *granted)).status == 403


async def test_one_challenge_names_everything_that_the_request_needs() -> None:
    outcome = await send(rpc(name="add"), "mcp:tools")
    assert b'scope="mcp:admin mcp:math mcp:tools"' in (outcome.value(b"www-authenticate") or b"")


@pytest.mark.parametrize("request_id", [1, "a", 0, None])
async def test_the_refusal_is_a_json_rpc_error_for_this_request(request_id: str | int | None) -> None:
    outcome = await send(rpc(name="delete", request_id=request_id), "mcp:tools")
    assert outcome.json() == {
        "jsonrpc": "2.0",
        "id": request_id,
        "error": {
            "code": rejections.SCOPE_MISSING,
            "message": "The token lacks a scope",
            "data": {"scope": "mcp:delete mcp:tools"},
        },
    }


@pytest.mark.parametrize(
    ("names", "status"),
    [
        (("whoami", "free"), 200),
        (("whoami", "add"), 403),
        (("add", "whoami"), 403),
        (("add",), 403),
        (("delete", "delete"), 200),
    ],
)
async def test_each_call_of_a_batch_counts(names: tuple[str, ...], status: int) -> None:
    body = json.dumps([json.loads(rpc(name=name, request_id=number)) for number, name in enumerate(names)]).encode()
    assert (await send(body, "mcp:tools", "mcp:delete")).status == status


async def test_a_batch_is_refused_with_the_scopes_of_all_its_calls() -> None:
    body = json.dumps([json.loads(rpc(name=name)) for name in ("add", "delete")]).encode()
    outcome = await send(body, "mcp:tools")
    assert outcome.json()["error"]["data"] == {"scope": "mcp:admin mcp:delete mcp:math mcp:tools"}
    assert outcome.json()["id"] is None


async def test_a_call_without_an_id_needs_its_scopes_too() -> None:
    body = json.dumps({"jsonrpc": "2.0", "method": "tools/call", "params": {"name": "delete"}}).encode()
    assert (await send(body, "mcp:tools")).status == 403


@pytest.mark.parametrize("kind", list(MessageKind))
def test_a_tool_call_that_names_no_tool_needs_what_every_tool_does(kind: MessageKind) -> None:
    call = Call((RpcMessage(kind, "tools/call", 1, None),), None, False)
    assert needed(MCP, call) == {"mcp:tools", "mcp:admin", "mcp:math", "mcp:delete"}


@pytest.mark.parametrize("name", ["Add", "add ", "addx", "ADD"])
def test_a_tool_is_known_by_its_exact_name(name: str) -> None:
    assert needed(MCP, parse(rpc(name=name))) == {"mcp:tools"}


def test_other_methods_that_name_a_tool_call_none() -> None:
    assert needed(MCP, parse(rpc("prompts/get", name="add"))) == {"mcp:tools"}


async def test_a_resource_without_scopes_needs_none() -> None:
    assert (await send(rpc(name="add"), resource=Resource("https://mcp.example/mcp", "/mcp"))).status == 200


async def test_a_check_that_cannot_tell_what_is_asked_refuses() -> None:
    app = CountingApp()
    assert (await send(rpc(name="whoami"), "mcp:tools", app=app, forget_call=True)).status == 503
    assert app.calls == 0
