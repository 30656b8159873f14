"""Clients of others, unmodified, log in at the demo and call a tool as the user who logged in."""

import json
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client

from tests.end_to_end.conftest import USERS, RunningDemo
from tests.end_to_end.headless import INSTALLED, LIMIT_SECONDS, NODE, home, run
from tests.end_to_end.third_party import REDIRECT, let_the_second_end, program
from tests.end_to_end.walker import walk
from tests.support.serving import listen

pytestmark = pytest.mark.clients


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("options", [[], ["--transport", "sse-only"]], ids=["streamable", "sse"])
async def test_mcp_remote(demo: RunningDemo, tmp_path: Path, user: str, options: list[str]) -> None:
    """A stdio server to any client, here the Python SDK's, and a client of HTTP itself."""
    url = demo.sse if options else demo.mcp
    server = StdioServerParameters(
        command=str(NODE),
        args=[str(INSTALLED / ".bin" / "mcp-remote"), url, "--allow-http", *options],
        env={**home(tmp_path, user), "MCP_REMOTE_CONFIG_DIR": str(tmp_path / "remote")},
        cwd=tmp_path,
    )
    with anyio.fail_after(LIMIT_SECONDS):
        async with Client(stdio_client(server, errlog=sys.stderr), mode="legacy") as client:
            result = await client.call_tool("whoami", {})
    assert result.structured_content is not None
    assert result.structured_content["user"] == user


@pytest.mark.parametrize("era", ["legacy", "modern", "auto"])
def test_the_inspector(demo: RunningDemo, tmp_path: Path, era: str) -> None:
    with listen() as free:
        port = free.getsockname()[1]
    environment = {
        **home(tmp_path, "alice"),
        "MCP_AUTO_OPEN_ENABLED": "true",
        "MCP_INSPECTOR_SECRET_STORE": "memory",
    }
    command = [str(NODE), str(INSTALLED / ".bin" / "mcp-inspector"), "--cli", demo.mcp, "--transport", "http"]
    command += ["--protocol-era", era, "--callback-url", f"http://127.0.0.1:{port}/oauth/callback"]
    command += ["--method", "tools/call", "--tool-name", "whoami", "--format", "json"]
    said = run(command, environment, tmp_path)
    answer = json.loads(said.splitlines()[-1])
    assert answer["result"]["structuredContent"]["user"] == "alice"


SDKS: list[dict[str, Any]] = [
    {"sdk": "1"},
    {"sdk": "2", "mode": "legacy"},
    {"sdk": "2", "mode": "auto"},
    {"sdk": "2", "mode": {"pin": "2026-07-28"}},
    {"sdk": "2", "mode": "legacy", "dpop": True},
    {"sdk": "2", "mode": "auto", "dpop": True},
]


@pytest.mark.parametrize("settings", SDKS, ids=lambda settings: " ".join(str(value) for value in settings.values()))
def test_the_typescript_sdk(demo: RunningDemo, settings: dict[str, Any]) -> None:
    let_the_second_end()
    with program("sdk_client", {**settings, "mcp": demo.mcp, "redirect_uri": REDIRECT}) as client:
        called = client.ask(walk(client.answer()["authorize"], "alice", USERS["alice"]))
    assert json.loads(called["text"])["user"] == "alice"
    assert called["token_type"] == ("DPoP" if "dpop" in settings else "Bearer")
