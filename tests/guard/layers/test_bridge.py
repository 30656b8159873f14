"""The app sees the verified principal in its own terms, and never the token."""

import json
import sys
from collections.abc import Callable
from typing import Any

import anyio
import fastmcp
import httpx
import pytest
from fastmcp.server.dependencies import get_access_token as fastmcp_access_token
from mcp.server.auth.middleware.auth_context import auth_context_var, get_access_token
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.mcpserver import MCPServer
from starlette.applications import Starlette
from starlette.authentication import requires
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from mcp_guard.asgi import ASGIApp, Receive, Scope, Send
from mcp_guard.facts import Principal
from mcp_guard.failures import ConfigurationError
from mcp_guard.layer import Admission
from mcp_guard.layers.bridge import Bridge, GuardedUser
from mcp_guard.layers.session import Session
from mcp_guard.stack import guard
from mcp_guard.stores.memory import MemoryStore
from tests.guard.asgi import CountingApp, body, drive, http_scope, served, start
from tests.guard.stubs import ALICE, BOB, PEOPLE, Facts, Says, principal
from tests.support.serving import serving

CANARY = "canary-token-string"
REFRESHED = principal("alice", token="c" * 16, scopes=frozenset({"mcp:tools", "mcp:admin"}))
EVERYBODY = {**PEOPLE, b"refreshed": REFRESHED}


class Hides(Says):
    """Stands for the token layer, which hides the credential from everything further in."""

    def __init__(self) -> None:
        super().__init__(Admission(hide=frozenset({b"authorization"})))


def layers() -> tuple[Any, ...]:
    """A stack that knows people by `x-as`, around an SDK server."""
    return (Hides(), Facts(EVERYBODY), Session(store=MemoryStore()), Bridge())


# ASGI


async def test_the_app_finds_the_user_in_the_scope_and_in_the_state(app: CountingApp) -> None:
    scope = http_scope(headers=[(b"x-as", b"bob")], state={"kept": 1})
    await drive(guard(app, Facts(), Bridge()), scope)

    user = app.scopes[0]["user"]
    assert isinstance(user, AuthenticatedUser)
    assert user.is_authenticated
    assert app.scopes[0]["state"] == {"kept": 1, "user": user}
    assert app.scopes[0]["auth"].scopes == ["mcp:tools"]
    assert scope["state"] == {"kept": 1}
    assert "user" not in scope
    token = user.access_token
    assert token.model_dump() == {
        "token": "sha256:" + "b" * 16,
        "client_id": "client-1",
        "scopes": ["mcp:tools"],
        "expires_at": 1_900_000_000,
        "resource": "https://mcp.example/mcp",
        "subject": "bob",
        "claims": {"sub": "bob", "plan": "gold", "iss": "https://issuer.example"},
    }


async def test_the_sdks_token_stays_what_an_app_makes_of_it_and_no_other_request_sees_that(app: CountingApp) -> None:
    guarded = guard(app, Facts(), Bridge())
    for _ in range(2):
        await drive(guarded, http_scope(headers=[(b"x-as", b"alice")]))
    one, other = (scope["user"] for scope in app.scopes)
    assert one.access_token is one.access_token
    changed = one.access_token.model_copy(update={"scopes": ["mcp:admin"]})
    one.access_token = changed
    assert one.access_token is changed
    assert other.access_token.scopes == ["mcp:tools"]


async def test_the_issuer_is_the_verified_one_whatever_the_claims_say(app: CountingApp) -> None:
    forged = principal("bob", claims={"iss": "https://evil.example"})
    await drive(guard(app, Facts({b"alice": forged}), Bridge()))
    assert app.scopes[0]["user"].access_token.claims["iss"] == "https://issuer.example"


async def test_the_sdks_context_is_set_around_the_app_alone() -> None:
    seen: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(get_access_token())
        await send(start())
        await send(body())
        raise ZeroDivisionError("and it is taken back all the same")

    assert auth_context_var.get() is None
    await drive(guard(app, Facts(), Bridge()), http_scope(headers=[(b"x-as", b"alice")]))
    assert seen[0].subject == "alice"
    assert auth_context_var.get() is None


async def test_two_at_the_same_time_are_not_mixed_up() -> None:
    seen: dict[bytes, set[str | None]] = {b"alice": set(), b"bob": set()}

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        who = next(value for name, value in scope["headers"] if name == b"x-as")
        for _ in range(5):
            token = get_access_token()
            seen[who] |= {token.subject if token else None, scope["user"].access_token.subject}
            await anyio.lowlevel.checkpoint()
        await send(start())
        await send(body())

    guarded = guard(app, Facts(), Bridge())
    async with anyio.create_task_group() as group:
        for number in range(20):
            group.start_soon(drive, guarded, http_scope(headers=[(b"x-as", (b"alice", b"bob")[number % 2])]))
    assert seen == {b"alice": {"alice"}, b"bob": {"bob"}}


async def test_principals_with_the_same_subject_are_different_users(app: CountingApp) -> None:
    people = {b"alice": ALICE, b"bob": principal("alice", issuer="https://other.example", token="b" * 16)}
    guarded = guard(app, Facts(people), Bridge())
    for who in people:
        await drive(guarded, http_scope(headers=[(b"x-as", who)]))
    issuers = [scope["user"].access_token.claims["iss"] for scope in app.scopes]
    assert issuers == ["https://issuer.example", "https://other.example"]


async def test_a_principal_whose_claims_changed_is_introduced_anew(app: CountingApp) -> None:
    changed = principal("alice", token=ALICE.token_fingerprint, claims={"plan": "none"})
    guarded = guard(app, Facts({b"alice": ALICE, b"changed": changed}), Bridge())
    for who in (b"alice", b"changed"):
        await drive(guarded, http_scope(headers=[(b"x-as", who)]))
    assert [scope["user"].access_token.claims["plan"] for scope in app.scopes] == ["gold", "none"]


async def test_what_an_app_does_to_its_user_does_not_reach_the_next_request(app: CountingApp) -> None:
    guarded = guard(app, Facts(), Bridge())
    await drive(guarded)
    app.scopes[0]["user"].access_token.claims["plan"] = "stolen"
    app.scopes[0]["user"].access_token.scopes.append("mcp:admin")
    app.scopes[0]["auth"].scopes.append("mcp:admin")
    await drive(guarded)
    token = app.scopes[1]["user"].access_token
    assert (token.claims["plan"], token.scopes, app.scopes[1]["auth"].scopes) == ("gold", ["mcp:tools"], ["mcp:tools"])


async def test_without_a_resource_the_token_names_none(app: CountingApp) -> None:
    class Knows(Says):
        adds = (Principal,)

    await drive(guard(app, Knows(Admission(facts=(BOB,))), Bridge()))
    assert app.scopes[0]["user"].access_token.resource is None


def test_without_a_principal_the_bridge_has_no_place(app: CountingApp) -> None:
    with pytest.raises(ConfigurationError, match="Bridge needs Principal"):
        guard(app, Bridge())


@pytest.mark.parametrize("sdk", [True, False])
async def test_starlettes_own_tools_work(sdk: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not sdk:
        monkeypatch.setitem(sys.modules, "mcp.server.auth.middleware.auth_context", None)

    async def whoami(request: Request) -> JSONResponse:
        assert request.state.user is request.user
        return JSONResponse([request.user.is_authenticated, request.user.display_name, request.auth.scopes])

    @requires("mcp:admin")
    async def admin(request: Request) -> JSONResponse:
        return JSONResponse("admin")

    routes = [Route("/mcp", whoami, methods=["POST"]), Route("/admin", admin, methods=["POST"])]
    facts, inner = Facts(EVERYBODY), Bridge()
    guarded = Starlette(routes=routes, middleware=[Middleware(facts.wrap), Middleware(inner.wrap)])

    plain = [(b"x-as", b"bob")]
    name = "client-1" if sdk else "bob"
    assert (await drive(guarded, http_scope(headers=plain))).json() == [True, name, ["mcp:tools"]]
    assert (await drive(guarded, http_scope(path="/admin", headers=plain))).status == 403
    assert (await drive(guarded, http_scope(path="/admin", headers=[(b"x-as", b"refreshed")]))).json() == "admin"


async def test_without_the_sdk_the_user_is_one_of_starlettes_kind(
    app: CountingApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mcp.server.auth.middleware.auth_context", None)
    await drive(guard(app, Facts(), Bridge()))
    user = app.scopes[0]["user"]
    assert isinstance(user, GuardedUser)
    assert (user.identity, user.display_name, user.is_authenticated, user.principal) == ("alice", "alice", True, ALICE)


# Real servers


def sdk_server() -> ASGIApp:
    """A server of the official SDK whose tools say what they see."""
    server = MCPServer("seen", log_level="ERROR")

    @server.tool()
    def whoami() -> str:
        token = get_access_token()
        return json.dumps(None if token is None else token.model_dump())

    return server.streamable_http_app(json_response=True)


def sdk_server_over_sse() -> ASGIApp:
    """The same over HTTP+SSE."""
    server = MCPServer("seen", log_level="ERROR")

    @server.tool()
    def whoami() -> str:
        token = get_access_token()
        return json.dumps(None if token is None else token.model_dump())

    return server.sse_app()


def fastmcp_server(**settings: Any) -> ASGIApp:
    """A FastMCP server whose tools say what they see."""
    server: fastmcp.FastMCP[Any] = fastmcp.FastMCP("seen")

    @server.tool
    def whoami() -> str:
        token = fastmcp_access_token()
        return json.dumps(None if token is None else token.model_dump())

    @server.tool
    def headers() -> str:
        from fastmcp.server.dependencies import get_http_headers

        return json.dumps(get_http_headers(include_all=True))

    return server.http_app(json_response=True, **settings)


class Caller:
    """A client of the 2025-06-18 revision that says who it is."""

    def __init__(self, http: httpx.Client) -> None:
        self.http = http
        self.session: dict[str, str] = {}

    def post(self, who: str, message: dict[str, Any]) -> httpx.Response:
        headers = {
            "x-as": who,
            "authorization": f"Bearer {CANARY}",
            "accept": "application/json, text/event-stream",
            "mcp-protocol-version": "2025-06-18",
            **self.session,
        }
        return self.http.post("/mcp", json={"jsonrpc": "2.0", **message}, headers=headers)

    def open(self, who: str) -> None:
        opened = self.post(who, INITIALIZE)
        assert opened.status_code == 200, opened.text
        self.session = {"mcp-session-id": opened.headers["mcp-session-id"]}
        assert self.post(who, {"method": "notifications/initialized"}).status_code == 202

    def call(self, who: str, tool: str = "whoami") -> Any:
        """What the tool answers."""
        answer = self.post(who, {"id": 2, "method": "tools/call", "params": {"name": tool, "arguments": {}}})
        assert answer.status_code == 200, answer.text
        return json.loads(answer.json()["result"]["content"][0]["text"])


INITIALIZE = {
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    },
}


def behind_a_guard(server: Callable[[], ASGIApp]) -> Callable[[str], ASGIApp]:
    return lambda _: served(guard(server(), *layers()))


def in_a_middleware_list(_: str) -> ASGIApp:
    return fastmcp_server(middleware=[Middleware(layer.wrap) for layer in layers()])


@pytest.mark.parametrize(
    "build",
    [behind_a_guard(sdk_server), behind_a_guard(fastmcp_server), in_a_middleware_list],
    ids=["sdk", "fastmcp", "fastmcp middleware"],
)
def test_tools_of_real_servers_see_the_user_of_each_request(build: Callable[[str], ASGIApp]) -> None:
    with serving(build) as server, httpx.Client(base_url=server.url, timeout=10) as http:
        alice, bob = Caller(http), Caller(http)
        alice.open("alice")
        bob.open("bob")

        for caller, who, fingerprint in ((alice, "alice", "a"), (bob, "bob", "b"), (alice, "refreshed", "c")):
            seen = caller.call(who)
            assert seen["subject"] == who.replace("refreshed", "alice")
            assert seen["client_id"] == "client-1"
            assert seen["claims"]["iss"] == "https://issuer.example"
            assert seen["token"] == f"sha256:{fingerprint * 16}"
            assert CANARY not in json.dumps(seen)
        assert alice.call("refreshed")["scopes"] == ["mcp:admin", "mcp:tools"]


def test_the_token_is_in_no_header_that_a_tool_can_read() -> None:
    with serving(behind_a_guard(fastmcp_server)) as server, httpx.Client(base_url=server.url, timeout=10) as http:
        alice = Caller(http)
        alice.open("alice")
        seen = alice.call("alice", "headers")
    assert seen["x-as"] == "alice"
    assert CANARY not in json.dumps(seen)


def test_a_thief_reaches_no_tool_of_a_real_server_and_the_owner_goes_on() -> None:
    with serving(behind_a_guard(sdk_server)) as server, httpx.Client(base_url=server.url, timeout=10) as http:
        alice = Caller(http)
        alice.open("alice")
        stolen = alice.post("bob", {"id": 2, "method": "tools/call", "params": {"name": "whoami", "arguments": {}}})
        assert stolen.status_code == 404
        assert alice.call("alice")["subject"] == "alice"


async def test_tools_over_http_sse_see_the_user_and_a_thief_cannot_post() -> None:
    with serving(behind_a_guard(sdk_server_over_sse)) as server:
        async with (
            httpx.AsyncClient(base_url=server.url, timeout=10) as http,
            http.stream("GET", "/sse", headers={"x-as": "alice"}) as stream,
        ):
            lines = stream.aiter_lines()
            url = await data_of(lines)

            async def post(who: str, message: dict[str, Any]) -> int:
                sent = await http.post(url, json={"jsonrpc": "2.0", **message}, headers={"x-as": who})
                return sent.status_code

            assert await post("bob", INITIALIZE) == 404
            assert await post("alice", INITIALIZE) == 202
            await data_of(lines)
            await post("alice", {"method": "notifications/initialized"})
            call = {"id": 2, "method": "tools/call", "params": {"name": "whoami", "arguments": {}}}
            assert await post("bob", call) == 404
            assert await post("alice", call) == 202
            answer = json.loads(await data_of(lines))
    assert json.loads(answer["result"]["content"][0]["text"])["subject"] == "alice"


async def data_of(lines: Any) -> str:
    """The data of the next event."""
    with anyio.fail_after(10):
        async for line in lines:
            if line.startswith("data: "):
                return str(line.removeprefix("data: "))
    raise AssertionError("the stream ended")
