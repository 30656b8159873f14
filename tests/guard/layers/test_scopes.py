"""A request needs every scope of its resource and of all the tools it calls."""

import json
from dataclasses import dataclass
from typing import Any

import pytest

from mcp_guard import rejections
from mcp_guard.check import Check, compile_layers
from mcp_guard.facts import Call, Principal, Resource, ScopePolicy, SenderKey
from mcp_guard.layer import Admission, RequestHead
from mcp_guard.layers.scopes import Scopes
from mcp_guard.protocol.mcp import Headers, bodiless_call, read_call
from tests.guard.asgi import CountingApp, Outcome, drive
from tests.guard.stubs import principal, rpc

ADD = frozenset({"mcp:admin", "mcp:math"})
MCP = Resource(
    "https://mcp.example/mcp",
    "/mcp",
    scopes=frozenset({"mcp:tools"}),
    policy=ScopePolicy(tools={"add": ADD, "delete": frozenset({"mcp:delete"}), "free": frozenset()}),
)
"""The tools `add` and `delete` need scopes of their own, `free` and all others none."""
RANKED = Resource(
    MCP.url,
    MCP.path,
    scopes=MCP.scopes,
    policy=ScopePolicy(
        methods={"tasks/*": frozenset({"mcp:jobs"})},
        tools={"delete_*": frozenset({"mcp:write"}), "delete_user": frozenset({"mcp:people"})},
        uris={"file:///data/*": frozenset({"mcp:read"})},
        implies={"mcp:admin": frozenset({"mcp:write", "mcp:tools"}), "mcp:write": frozenset({"mcp:read"})},
    ),
)
"""Patterns, and scopes that imply others."""
METADATA = "https://mcp.example/.well-known/oauth-protected-resource/mcp"


@dataclass(frozen=True)
class Given(Check):
    """Adds facts that were decided on beforehand; the call is read from the body as the intake reads it."""

    adds = (Principal, Resource, Call)

    granted: frozenset[str]
    resource: Resource = MCP
    forget_call: bool = False
    thumbprint: str | None = None

    async def admit(self, request: RequestHead) -> Admission:
        who = principal("alice", scopes=self.granted)
        body = await request.body(1024 * 1024)
        call = read_call(json.loads(body), Headers()) if body else bodiless_call(None)
        known = (who, self.resource, SenderKey(self.thumbprint, b""))
        return Admission(facts=known if self.forget_call else (*known, call))


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


@pytest.mark.parametrize("request_id", [1, "a", 0])
async def test_the_refusal_is_a_json_rpc_error_for_this_request(request_id: str | int) -> None:
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


async def test_a_tool_call_that_names_no_tool_needs_what_every_tool_does() -> None:
    every = ("mcp:tools", "mcp:admin", "mcp:math", "mcp:delete")
    assert (await send(rpc(), *every)).status == 200
    outcome = await send(rpc(), "mcp:tools")
    assert outcome.json()["error"]["data"] == {"scope": "mcp:admin mcp:delete mcp:math mcp:tools"}


@pytest.mark.parametrize("name", ["Add", "add ", "addx", "ADD"])
async def test_a_tool_is_known_by_its_exact_name(name: str) -> None:
    assert (await send(rpc(name=name), "mcp:tools")).status == 200


async def test_other_methods_that_name_a_tool_call_none() -> None:
    assert (await send(rpc("prompts/get", name="add"), "mcp:tools")).status == 200


@pytest.mark.parametrize(
    ("granted", "status"),
    [
        ("mcp:tools mcp:write", 200),
        ("mcp:admin", 200),
        ("mcp:tools mcp:read", 403),
        ("mcp:tools mcp:writer", 403),
        ("mcp:tools mcp", 403),
        ("mcp:tools mcp:*", 403),
        ("mcp:write", 403),
    ],
)
async def test_a_tool_that_matches_a_pattern_needs_its_scopes_or_what_implies_them(granted: str, status: int) -> None:
    app = CountingApp()
    assert (await send(rpc(name="delete_x"), *granted.split(), resource=RANKED, app=app)).status == status
    assert app.calls == (status == 200)


async def test_every_pattern_that_matches_counts() -> None:
    assert (await send(rpc(name="delete_user"), "mcp:admin", resource=RANKED)).status == 403
    assert (await send(rpc(name="delete_user"), "mcp:tools", "mcp:people", resource=RANKED)).status == 403
    assert (await send(rpc(name="delete_user"), "mcp:admin", "mcp:people", resource=RANKED)).status == 200


async def test_a_challenge_leaves_out_what_another_scope_in_it_implies() -> None:
    calls = [
        {"jsonrpc": "2.0", "id": 1, "method": "resources/read", "params": {"uri": "file:///data/x"}},
        {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "delete_x"}},
    ]
    outcome = await send(json.dumps(calls).encode(), "mcp:tools", resource=RANKED)
    assert outcome.json()["error"]["data"] == {"scope": "mcp:tools mcp:write"}
    assert (await send(json.dumps(calls).encode(), "mcp:tools", "mcp:write", resource=RANKED)).status == 200


@pytest.mark.parametrize("method", ["tasks/get", "tasks/cancel"])
async def test_a_notification_whose_method_needs_a_scope_is_refused_too(method: str) -> None:
    app = CountingApp()
    body = json.dumps({"jsonrpc": "2.0", "method": method, "params": {}}).encode()
    outcome = await send(body, "mcp:tools", resource=RANKED, app=app)
    assert (outcome.status, app.calls) == (403, 0)
    assert outcome.json()["id"] is None
    assert (await send(body, "mcp:tools", "mcp:jobs", resource=RANKED)).status == 200


async def test_the_challenge_to_a_bound_token_is_of_its_own_scheme() -> None:
    outcome = await send(rpc(name="add"), "mcp:tools", thumbprint="t")
    challenge = outcome.value(b"www-authenticate") or b""
    assert challenge.startswith(b"DPoP ")
    assert b'error="insufficient_scope"' in challenge


async def test_a_policy_that_cannot_work_lets_nothing_through() -> None:
    app = CountingApp()
    broken = Resource(MCP.url, MCP.path, policy=ScopePolicy(tools={"a*b": frozenset({"s"})}))
    assert (await send(rpc("ping"), "s", resource=broken, app=app)).status == 503
    assert app.calls == 0


async def test_a_resource_without_scopes_needs_none() -> None:
    assert (await send(rpc(name="add"), resource=Resource("https://mcp.example/mcp", "/mcp"))).status == 200


async def test_a_check_that_cannot_tell_what_is_asked_refuses() -> None:
    app = CountingApp()
    assert (await send(rpc(name="whoami"), "mcp:tools", app=app, forget_call=True)).status == 503
    assert app.calls == 0
