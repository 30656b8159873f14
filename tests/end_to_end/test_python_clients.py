"""The SDK's and FastMCP's own clients log in and call tools through the guard, in every era."""

import json
from typing import Any

import httpx2
import pytest
from mcp.client import Client
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client

from tests.end_to_end.conftest import USERS, RunningDemo
from tests.end_to_end.logins import provider

pytestmark = pytest.mark.anyio


async def ask_who(client: Client) -> dict[str, Any]:
    result = await client.call_tool("whoami", {})
    content: dict[str, Any] = json.loads(result.content[0].text)  # type: ignore[union-attr]
    return content


@pytest.mark.parametrize("mode", ["legacy", "auto", "2026-07-28"])
async def test_the_sdk_client_logs_in_and_calls_a_tool_over_streamable_http(demo: RunningDemo, mode: str) -> None:
    async with (
        httpx2.AsyncClient(auth=provider(demo.mcp, "alice", USERS["alice"])) as http,
        Client(streamable_http_client(demo.mcp, http_client=http), mode=mode) as client,
    ):
        answer = await ask_who(client)
        total = await client.call_tool("add", {"a": 2, "b": 3})
    assert answer["user"] == "alice"
    assert answer["scopes"] == ["mcp:tools"]
    assert total.content[0].text == "5"  # type: ignore[union-attr]


async def test_the_sdk_client_logs_in_and_calls_a_tool_over_http_and_sse(demo: RunningDemo) -> None:
    async with Client(sse_client(demo.sse, auth=provider(demo.sse, "bob", USERS["bob"])), mode="legacy") as client:
        answer = await ask_who(client)
    assert answer["user"] == "bob"


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_progress_of_a_long_call_streams_through_the_guard(demo: RunningDemo, mode: str) -> None:
    seen: list[float] = []

    async def note(progress: float, total: float | None, message: str | None) -> None:
        seen.append(progress)

    async with (
        httpx2.AsyncClient(auth=provider(demo.mcp, "alice", USERS["alice"])) as http,
        Client(streamable_http_client(demo.mcp, http_client=http), mode=mode) as client,
    ):
        result = await client.call_tool("count", {"seconds": 1}, progress_callback=note)
    assert result.content[0].text == "counted 5 steps"  # type: ignore[union-attr]
    assert seen == [1, 2, 3, 4, 5]


@pytest.mark.filterwarnings("ignore:Using in-memory token storage:UserWarning")
async def test_fastmcps_client_logs_in_and_calls_a_tool(demo: RunningDemo, monkeypatch: pytest.MonkeyPatch) -> None:
    import webbrowser

    import anyio
    import fastmcp

    from tests.end_to_end.walker import call_back, walk

    async with anyio.create_task_group() as browser:

        def come_back(url: str) -> None:
            call_back(walk(url, "alice", USERS["alice"]))

        def open_browser(url: str, *_: object, **__: object) -> bool:
            browser.start_soon(anyio.to_thread.run_sync, come_back, url)
            return True

        monkeypatch.setattr(webbrowser, "open", open_browser)
        async with fastmcp.Client(demo.mcp, auth="oauth") as client:
            result = await client.call_tool("whoami", {})
    assert json.loads(result.content[0].text)["user"] == "alice"
