"""The sound model server is sound: real clients log in and work with it, in every era; and the registry holds."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import anyio
import httpx2
import pytest
from mcp.client import Client
from mcp.client.auth import OAuthClientProvider, TokenStorage
from mcp.client.session import ClientSession
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import AuthorizationCodeResult, OAuthClientInformationFull, OAuthClientMetadata, OAuthToken

from tests.support.model_server import FAULTS, USERS, ModelServer, UnknownFault
from tests.support.model_server.faults import ROWS
from tests.support.scripted_login import authorize
from tests.support.serving import serving

REDIRECT = "http://127.0.0.1:9/callback"
SOURCES = Path(__file__).parents[1] / "support" / "model_server"


class Memory(TokenStorage):
    """Keeps tokens and the registration for one test."""

    def __init__(self) -> None:
        self.tokens: OAuthToken | None = None
        self.client: OAuthClientInformationFull | None = None

    async def get_tokens(self) -> OAuthToken | None:
        return self.tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self.tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return self.client

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        self.client = client_info


def provider(url: str, user: str) -> OAuthClientProvider:
    """The SDK's own OAuth client, with a scripted person at the browser."""
    answers: dict[str, str] = {}

    async def browse(authorization_url: str) -> None:
        answers.update(
            await anyio.to_thread.run_sync(lambda: authorize(authorization_url, REDIRECT, user, USERS[user]))
        )

    async def callback() -> AuthorizationCodeResult:
        return AuthorizationCodeResult.model_validate(answers)

    metadata = OAuthClientMetadata.model_validate({"redirect_uris": [REDIRECT], "client_name": "a test"})
    return OAuthClientProvider(url, metadata, Memory(), browse, callback)


@pytest.fixture(scope="module")
def base() -> Iterator[str]:
    with serving(ModelServer) as server:
        yield server.url


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_the_sdk_client_logs_in_and_calls_tools_over_streamable_http(base: str, mode: str) -> None:
    async def scenario() -> None:
        url = f"{base}/mcp"
        async with (
            httpx2.AsyncClient(auth=provider(url, "alice"), timeout=10) as http,
            Client(streamable_http_client(url, http_client=http), mode=mode) as client,
        ):
            assert client.protocol_version == ("2025-11-25" if mode == "legacy" else "2026-07-28")
            assert {tool.name for tool in (await client.list_tools()).tools} >= {"whoami", "add", "admin_reset"}
            assert (await client.call_tool("whoami")).structured_content["subject"] == "alice"
            assert (await client.call_tool("add", {"a": 2, "b": 3})).structured_content == {"result": 5}

    anyio.run(scenario)


def test_the_sdk_client_logs_in_and_calls_tools_over_http_and_sse(base: str) -> None:
    async def scenario() -> None:
        url = f"{base}/sse"
        async with (
            sse_client(url, auth=provider(url, "bob"), timeout=10) as (incoming, outgoing),
            ClientSession(incoming, outgoing) as session,
        ):
            await session.initialize()
            assert (await session.call_tool("whoami", {})).structured_content["subject"] == "bob"

    anyio.run(scenario)


def test_fault_names_are_unique_and_their_requirements_are_catalogue_ids() -> None:
    assert len(FAULTS) == ROWS
    for name, fault in FAULTS.items():
        assert re.fullmatch(r"[a-z0-9_]+", name), name
        assert re.fullmatch(r"[A-Z]{3,5}-\d{3}", fault.requirement), name
        assert fault.sentence.endswith("."), name


def test_every_fault_is_a_switch_in_the_server_and_every_switch_a_fault() -> None:
    code = "".join(path.read_text("utf-8") for path in SOURCES.glob("*.py"))
    used = {name for name in FAULTS if re.search(rf'"{name}"', code)}
    assert sorted(set(FAULTS) - used) == []
    assert sorted(set(re.findall(r'has\("([a-z0-9_]+)"\)', code)) - set(FAULTS)) == []


def test_an_unknown_fault_is_refused_by_name() -> None:
    with pytest.raises(UnknownFault, match="no_such_fault"):
        ModelServer("http://127.0.0.1:1", {"no_such_fault"})
