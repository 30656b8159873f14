"""Tokens that are bound to a key, in front of servers of the official SDK and of FastMCP, and at several workers."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import httpx2
import pytest
from fastmcp import FastMCP
from mcp.client import Client
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client

from mcp_guard import StaticKeys, TrustedIssuer, guard, standard
from mcp_guard.asgi import ASGIApp
from mcp_guard.auditlog import AuditLog, NullSink
from mcp_guard.demo_server import demo_server
from mcp_guard.facts import Principal, Resource, fact
from mcp_guard.profiles import Proofs
from tests.benchmarks.peers import ISSUER, Keys
from tests.end_to_end.proving import Prover
from tests.end_to_end.test_workers import PUBLIC
from tests.end_to_end.test_workers import serving as serving_workers
from tests.support.serving import serving
from tests.support.valkey_server import ValkeyServer, valkey_server

MODERN = "2026-07-28"
META = {
    "io.modelcontextprotocol/protocolVersion": MODERN,
    "io.modelcontextprotocol/clientInfo": {"name": "t", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}
WHOAMI = {
    "jsonrpc": "2.0",
    "id": 2,
    "method": "tools/call",
    "params": {"name": "whoami", "arguments": {}, "_meta": META},
}
ROUTING = {
    "accept": "application/json, text/event-stream",
    "mcp-protocol-version": MODERN,
    "mcp-method": "tools/call",
    "mcp-name": "whoami",
}
AT_ONCE = 50


def fastmcp_server() -> ASGIApp:
    """A server of FastMCP that says who the guard let through."""
    server = FastMCP("bound")

    @server.tool
    def whoami() -> str:
        from fastmcp.server.dependencies import get_http_request

        return json.dumps({"user": fact(get_http_request().scope, Principal).subject})

    app: ASGIApp = server.http_app()
    return app


def guarded(build: Callable[[], ASGIApp], keys: Keys, origin: str, proofs: Proofs) -> ASGIApp:
    resources = [
        Resource(f"{origin}/mcp", "/mcp", dpop="required"),
        Resource(f"{origin}/sse", "/sse", messages="/messages/", dpop="required"),
    ]
    issuers = [TrustedIssuer(ISSUER, StaticKeys(keys.jwks()))]
    return guard(build(), *standard(resources=resources, issuers=issuers, audit=AuditLog(NullSink()), proofs=proofs))


def bound(keys: Keys, url: str, subject: str = "alice") -> Prover:
    """A client with a token for `url`."""
    prover = Prover()
    prover.token = keys.token(url, sub=subject, cnf={"jkt": prover.thumbprint})
    return prover


async def name_of_caller(client: Client) -> str:
    result = await client.call_tool("whoami", {})
    answer: dict[str, Any] = json.loads(result.content[0].text)  # type: ignore[union-attr]
    return str(answer["user"])


@pytest.mark.parametrize("nonces", [False, True], ids=["plain", "with nonces"])
@pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])
@pytest.mark.parametrize("build", [demo_server, fastmcp_server], ids=["the SDK", "FastMCP"])
async def test_the_sdk_client_calls_a_tool_with_a_proof_for_each_request(
    build: Callable[[], ASGIApp], mode: str, nonces: bool
) -> None:
    keys = Keys()
    with serving(lambda origin: guarded(build, keys, origin, Proofs(nonces=nonces))) as at:
        prover = bound(keys, f"{at.url}/mcp")
        async with (
            httpx2.AsyncClient(auth=prover) as http,
            Client(streamable_http_client(f"{at.url}/mcp", http_client=http), mode=mode) as client,
        ):
            assert [await name_of_caller(client) for _ in range(3)] == ["alice"] * 3
    assert bool(prover.told) is nonces


async def test_the_sdk_client_uses_http_and_sse_with_a_proof_for_each_request() -> None:
    keys = Keys()
    with serving(lambda origin: guarded(demo_server, keys, origin, Proofs())) as at:
        prover = bound(keys, f"{at.url}/sse", "bob")
        async with Client(sse_client(f"{at.url}/sse", auth=prover), mode="legacy") as client:
            assert await name_of_caller(client) == "bob"


def test_a_token_of_an_unproved_sender_is_refused_where_only_bound_ones_are_taken() -> None:
    keys = Keys()
    with serving(lambda origin: guarded(demo_server, keys, origin, Proofs())) as at:
        url = f"{at.url}/mcp"
        fields = {**ROUTING, "authorization": f"Bearer {keys.token(url)}"}
        answer = httpx.post(url, json=WHOAMI, headers=fields, trust_env=False)
        assert answer.status_code == 401
        assert [one.partition(" ")[0] for one in answer.headers.get_list("www-authenticate")] == ["DPoP"]
        document = httpx.get(f"{at.url}/.well-known/oauth-protected-resource/mcp", trust_env=False).json()
        assert document["dpop_bound_access_tokens_required"] is True
        assert "ES256" in document["dpop_signing_alg_values_supported"]


@pytest.fixture(scope="module")
def valkey() -> Iterator[ValkeyServer]:
    with valkey_server() as server:
        yield server


def test_dpop_05_of_one_proof_sent_fifty_times_to_two_workers_one_is_let_through(
    tmp_path: Path, valkey: ValkeyServer
) -> None:
    with serving_workers(tmp_path, valkey.url) as served:
        prover = bound(served.keys, PUBLIC)
        url = f"http://127.0.0.1:{served.port}/mcp"
        fields = {**ROUTING, **prover.fields("POST", PUBLIC), "host": "127.0.0.1:8000"}

        def send(_: int) -> int:
            return httpx.post(url, json=WHOAMI, headers=fields, timeout=60, trust_env=False).status_code

        with ThreadPoolExecutor(AT_ONCE) as pool:
            statuses = sorted(pool.map(send, range(AT_ONCE)))
        assert statuses == [200, *[401] * (AT_ONCE - 1)]
        fresh = {**ROUTING, **prover.fields("POST", PUBLIC), "host": "127.0.0.1:8000"}
        assert httpx.post(url, json=WHOAMI, headers=fresh, timeout=60, trust_env=False).status_code == 200
