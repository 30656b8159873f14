"""Real clients follow a refusal: they ask for the scope that they lack, the person consents, and the call succeeds."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import anyio
import httpx2
import pytest
from mcp.client import Client
from mcp.client.auth import OAuthClientProvider
from mcp.client.sse import sse_client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.server.auth.middleware.auth_context import get_access_token
from mcp.server.mcpserver import MCPServer
from mcp.server.transport_security import TransportSecuritySettings
from mcp.shared.auth import AuthorizationCodeResult, OAuthClientMetadata
from pydantic import AnyUrl
from starlette.applications import Starlette
from starlette.types import ASGIApp

from mcp_guard.auditlog import AuditLog, MemorySink
from mcp_guard.facts import Resource, ScopePolicy
from mcp_guard.oauth import AuthorizationServer, StaticUsers
from mcp_guard.profiles import Handling, standard
from mcp_guard.stack import Guard, guard
from mcp_guard.stores.memory import MemoryStore
from tests.end_to_end.conftest import USERS
from tests.end_to_end.headless import INSTALLED, LIMIT_SECONDS, NODE, home
from tests.end_to_end.logins import Login, Memory
from tests.end_to_end.third_party import REDIRECT, program
from tests.end_to_end.walker import call_back, walk
from tests.support.serving import serving

USER, PASSWORD = "alice", USERS["alice"]
POLICY = ScopePolicy(
    tools={"delete_*": frozenset({"mcp:write"}), "reset": frozenset({"mcp:admin"})},
    prompts={"secret_*": frozenset({"mcp:write"})},
    uris={"note:private/*": frozenset({"mcp:write"})},
    implies={"mcp:admin": frozenset({"mcp:write"})},
)
SCOPES = {"mcp:tools": "Use the tools", "mcp:write": "Change things", "mcp:admin": "Do anything"}


@dataclass
class Place:
    """A guarded server, its login, and what was decided there."""

    audit: MemorySink
    origin: str = ""
    hide: bool = True

    def build(self, origin: str) -> Guard:
        self.origin, store = origin, MemoryStore()
        mcp, sse = f"{origin}/mcp", f"{origin}/sse"
        everyone = frozenset({"mcp:tools"})
        resources = (
            Resource(mcp, "/mcp", scopes=everyone, policy=POLICY),
            Resource(sse, "/sse", messages="/messages/", scopes=everyone, policy=POLICY),
        )
        logins = AuthorizationServer(
            issuer=origin,
            store=store,
            users=StaticUsers.from_pairs({USER: PASSWORD}),
            resources=resources,
            scopes=SCOPES,
        )
        layers = standard(
            resources=resources,
            authorization_server=logins,
            store=store,
            audit=AuditLog(self.audit),
            handling=Handling(hide=self.hide),
        )
        return guard(server(), *layers)

    def refusals(self) -> list[str]:
        return [one["reason"] for one in self.audit.records() if one["verdict"] == "insufficient_scope"]


def server() -> ASGIApp:
    """Streamable HTTP in both eras, and HTTP+SSE."""
    mcp = MCPServer("step up", log_level="CRITICAL")

    @mcp.tool()
    def scopes() -> str:
        """What the token grants."""
        token = get_access_token()
        return "" if token is None else " ".join(sorted(token.scopes))

    @mcp.tool()
    def delete_note() -> str:
        """Needs a scope of its own, by a pattern."""
        return "deleted"

    @mcp.tool()
    def reset() -> str:
        """Needs another, which implies that of `delete_note`."""
        return "reset"

    @mcp.prompt()
    def plan() -> str:
        """Open to everybody."""
        return "plan"

    @mcp.prompt()
    def secret_plan() -> str:
        """Needs a scope."""
        return "secret plan"

    @mcp.resource("note:public/hello")
    def public() -> str:
        return "hello"

    @mcp.resource("note:private/diary")
    def private() -> str:
        return "dear diary"

    @mcp.resource("note:private/{name}")
    def named(name: str) -> str:
        return name

    unchecked = TransportSecuritySettings(enable_dns_rebinding_protection=False)
    streamable = mcp.streamable_http_app(transport_security=unchecked)
    routes = [*streamable.routes, *mcp.sse_app(transport_security=unchecked).routes]
    return Starlette(routes=routes, lifespan=lambda app: mcp.session_manager.run())


@contextmanager
def opened(*, hide: bool = True) -> Iterator[Place]:
    place = Place(MemorySink(), hide=hide)
    with serving(place.build):
        yield place


@pytest.fixture
def place() -> Iterator[Place]:
    with opened() as place:
        yield place


@dataclass
class Person:
    """Logs in and consents, and keeps the URLs that the client sent the browser to."""

    sent_to: list[str] = field(default_factory=list)
    login: Login = field(default_factory=lambda: Login(USER, PASSWORD))
    storage: Memory = field(default_factory=Memory)

    async def redirect(self, url: str) -> None:
        self.sent_to.append(url)
        await self.login.redirect(url)

    async def callback(self) -> AuthorizationCodeResult:
        return await self.login.callback()

    def provider(self, url: str) -> OAuthClientProvider:
        """The SDK's OAuth, as its documentation sets it up."""
        metadata = OAuthClientMetadata(client_name="steps up", redirect_uris=[AnyUrl("http://127.0.0.1:3999/callback")])
        return OAuthClientProvider(
            server_url=url,
            client_metadata=metadata,
            storage=self.storage,
            redirect_handler=self.redirect,
            callback_handler=self.callback,
        )

    @property
    def asked(self) -> list[set[str]]:
        """The scopes of each authorization request."""
        return [set(parse_qs(urlsplit(url).query)["scope"][0].split()) for url in self.sent_to]


async def told(client: Client, tool: str) -> str:
    result = await client.call_tool(tool, {})
    text: str = result.content[0].text  # type: ignore[union-attr]
    return text


async def names(client: Client) -> tuple[set[str], set[str], set[str], set[str]]:
    """What is listed: tools, prompts, resources and templates."""
    return (
        {one.name for one in (await client.list_tools()).tools},
        {one.name for one in (await client.list_prompts()).prompts},
        {str(one.uri) for one in (await client.list_resources()).resources},
        {one.uri_template for one in (await client.list_resource_templates()).resource_templates},
    )


OPEN = ({"scopes"}, {"plan"}, {"note:public/hello"}, set[str]())
FOR_WRITERS = (
    {"scopes", "delete_note"},
    {"plan", "secret_plan"},
    {"note:public/hello", "note:private/diary"},
    {"note:private/{name}"},
)


@pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])
async def test_the_sdk_client_steps_up_and_its_call_succeeds(place: Place, mode: str) -> None:
    person = Person()
    async with (
        httpx2.AsyncClient(auth=person.provider(f"{place.origin}/mcp")) as http,
        Client(streamable_http_client(f"{place.origin}/mcp", http_client=http), mode=mode) as client,
    ):
        assert await told(client, "scopes") == "mcp:tools"
        assert person.storage.client is not None
        assert await names(client) == OPEN
        assert await told(client, "delete_note") == "deleted"
        assert await told(client, "scopes") == "mcp:tools mcp:write"
        assert await told(client, "delete_note") == "deleted"
        assert await told(client, "reset") == "reset"
    assert person.asked == [{"mcp:tools"}, {"mcp:tools", "mcp:write"}, {"mcp:tools", "mcp:write", "mcp:admin"}]
    assert place.refusals() == ["the token lacks mcp:write", "the token lacks mcp:admin"]


@pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])
async def test_lists_show_what_a_step_up_has_opened(place: Place, mode: str) -> None:
    person = Person()
    for expected in (OPEN, FOR_WRITERS):
        async with (
            httpx2.AsyncClient(auth=person.provider(f"{place.origin}/mcp")) as http,
            Client(streamable_http_client(f"{place.origin}/mcp", http_client=http), mode=mode) as client,
        ):
            assert await names(client) == expected
            assert (await client.get_prompt("secret_plan", {})).messages[0].content.text == "secret plan"  # type: ignore[union-attr]
            read = await client.read_resource("note:private/diary")
            assert read.contents[0].text == "dear diary"  # type: ignore[union-attr]
    assert person.asked == [{"mcp:tools"}, {"mcp:tools", "mcp:write"}]


async def test_lists_over_http_and_sse_hide_what_the_stream_was_not_opened_for(place: Place) -> None:
    person = Person()
    url = f"{place.origin}/sse"
    async with Client(sse_client(url, auth=person.provider(url)), mode="legacy") as client:
        assert await names(client) == OPEN
        assert await told(client, "delete_note") == "deleted"
        assert await names(client) == OPEN, "the answers come on the stream that was opened before"
    async with Client(sse_client(url, auth=person.provider(url)), mode="legacy") as client:
        assert await names(client) == FOR_WRITERS


@pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])
async def test_lists_show_everything_where_the_operator_wants_it(mode: str) -> None:
    person = Person()
    with opened(hide=False) as place:
        async with (
            httpx2.AsyncClient(auth=person.provider(f"{place.origin}/mcp")) as http,
            Client(streamable_http_client(f"{place.origin}/mcp", http_client=http), mode=mode) as client,
        ):
            assert (await names(client))[0] == {"scopes", "delete_note", "reset"}


@pytest.mark.filterwarnings("ignore:Using in-memory token storage:UserWarning")
async def test_fastmcps_client_steps_up_and_its_call_succeeds(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    import webbrowser

    import fastmcp

    visited: list[str] = []
    async with anyio.create_task_group() as browser:

        def come_back(url: str) -> None:
            call_back(walk(url, USER, PASSWORD))

        def open_browser(url: str, *_: object, **__: object) -> bool:
            visited.append(url)
            browser.start_soon(anyio.to_thread.run_sync, come_back, url)
            return True

        monkeypatch.setattr(webbrowser, "open", open_browser)
        async with fastmcp.Client(f"{place.origin}/mcp", auth="oauth") as client:
            assert {tool.name for tool in await client.list_tools()} == {"scopes"}
            result: Any = await client.call_tool("delete_note", {})
            assert result.content[0].text == "deleted"
    assert len(visited) == 2


REFRESHING = ["authorization_code", "refresh_token"]
SDKS: list[dict[str, Any]] = [
    {"sdk": "2", "mode": "legacy", "grant_types": REFRESHING},
    {"sdk": "2", "mode": {"pin": "2026-07-28"}, "grant_types": REFRESHING},
    # With a refresh token, 1.x refreshes in place of a step up, and is refused again with the scopes that it had.
    {"sdk": "1", "grant_types": ["authorization_code"]},
]


@pytest.mark.clients
@pytest.mark.parametrize("settings", SDKS, ids=["2 legacy", "2 modern", "1"])
def test_the_typescript_sdk_steps_up_and_its_call_succeeds(place: Place, settings: dict[str, Any]) -> None:
    whole = {**settings, "mcp": f"{place.origin}/mcp", "redirect_uri": REDIRECT, "tool": "delete_note"}
    asked: list[set[str]] = []
    with program("step_up", whole) as client:
        answer = client.answer()
        while "authorize" in answer and len(asked) < 3:
            asked.append(set(parse_qs(urlsplit(answer["authorize"]).query)["scope"][0].split()))
            answer = client.ask(walk(answer["authorize"], USER, PASSWORD))
    assert answer["text"] == "deleted"
    assert set(answer["scope"].split()) == {"mcp:tools", "mcp:write"}
    assert asked == [{"mcp:tools"}, {"mcp:tools", "mcp:write"}]
    assert place.refusals() == ["the token lacks mcp:write"]


@pytest.mark.clients
async def test_mcp_remote_steps_up_and_its_call_succeeds(place: Place, tmp_path: Path) -> None:
    server = StdioServerParameters(
        command=str(NODE),
        args=[str(INSTALLED / ".bin" / "mcp-remote"), f"{place.origin}/mcp", "--allow-http"],
        env={**home(tmp_path, USER), "MCP_REMOTE_CONFIG_DIR": str(tmp_path / "remote")},
        cwd=tmp_path,
    )
    with anyio.fail_after(LIMIT_SECONDS):
        async with Client(stdio_client(server, errlog=sys.stderr), mode="legacy") as client:
            assert await told(client, "scopes") == "mcp:tools"
            assert await told(client, "delete_note") == "deleted"
            assert await told(client, "scopes") == "mcp:tools mcp:write"
    assert place.refusals() == ["the token lacks mcp:write"]
