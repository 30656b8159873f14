"""The examples of the documentation, run as they stand."""

import json
import runpy
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from joserfc import jwt
from joserfc.jwk import ECKey

from mcp_guard.asgi import ASGIApp, Message
from mcp_guard.oauth import hash_password
from tests.house.tree import ROOT

EXAMPLES = ROOT / "docs" / "examples"
ORIGIN = "https://mcp.example.com"
RESOURCE = f"{ORIGIN}/mcp"
METADATA = f"{ORIGIN}/.well-known/oauth-protected-resource/mcp"
REVISION = "2026-07-28"
CALL = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "tools/call",
    "params": {
        "name": "whoami",
        "arguments": {},
        "_meta": {
            "io.modelcontextprotocol/protocolVersion": REVISION,
            "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
            "io.modelcontextprotocol/clientCapabilities": {},
        },
    },
}
HEADERS = {
    "Accept": "application/json, text/event-stream",
    "MCP-Protocol-Version": REVISION,
    "Mcp-Method": "tools/call",
    "Mcp-Name": "whoami",
}


@dataclass(frozen=True)
class Issuer:
    """An identity provider on loopback: metadata and keys, and tokens signed with them."""

    url: str
    key: ECKey

    def token(self, **claims: Any) -> str:
        now = int(time.time())
        usual = {"iss": self.url, "aud": RESOURCE, "sub": "ada", "client_id": "c1", "jti": "1", "iat": now}
        header = {"alg": "ES256", "typ": "at+jwt", "kid": "k1"}
        return jwt.encode(header, {**usual, "exp": now + 300, "scope": "mcp:tools", **claims}, self.key)


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    key = ECKey.generate_key("P-256")
    documents: dict[str, Any] = {"/jwks": {"keys": [{**key.as_dict(private=False), "kid": "k1", "alg": "ES256"}]}}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = documents.get(self.path)
            self.send_response(404 if found is None else 200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(found).encode())

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        url = f"http://127.0.0.1:{server.server_port}"
        documents["/.well-known/oauth-authorization-server"] = {"issuer": url, "jwks_uri": f"{url}/jwks"}
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield Issuer(url, key)
        server.shutdown()
        thread.join()


@asynccontextmanager
async def served(name: str, folder: Path = EXAMPLES) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the example's `app`, within the app's lifespan."""
    app = runpy.run_path(str(folder / name))["app"]
    async with alive(app), httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=ORIGIN) as client:
        yield client


@asynccontextmanager
async def alive(app: ASGIApp) -> AsyncIterator[None]:
    """The lifespan of `app`, as a server would run it."""
    events: list[Message] = [{"type": "lifespan.startup"}]
    started, ended = anyio.Event(), anyio.Event()
    said: list[Message] = []

    async def receive() -> Message:
        if not events:
            await ended.wait()
            return {"type": "lifespan.shutdown"}
        return events.pop()

    async def send(message: Message) -> None:
        said.append(message)
        started.set()

    async def live() -> None:
        await app({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, receive, send)

    async with anyio.create_task_group() as group:
        group.start_soon(live)
        with anyio.fail_after(10):
            await started.wait()
        assert said == [{"type": "lifespan.startup.complete"}]
        yield
        ended.set()


async def assert_asks_strangers_for_a_token(client: httpx.AsyncClient) -> dict[str, Any]:
    """Answers the metadata document that the challenge leads to."""
    answer = await client.post("/mcp", json=CALL, headers=HEADERS)
    assert answer.status_code == 401
    assert f'resource_metadata="{METADATA}"' in answer.headers["www-authenticate"]
    document: dict[str, Any] = (await client.get(METADATA)).json()
    assert document["resource"] == RESOURCE
    return document


async def assert_users_reach_the_tools(client: httpx.AsyncClient, issuer: Issuer) -> None:
    document = await assert_asks_strangers_for_a_token(client)
    assert document["authorization_servers"] == [issuer.url]
    good = {**HEADERS, "Authorization": f"Bearer {issuer.token()}"}
    answer = await client.post("/mcp", json=CALL, headers=good)
    assert answer.status_code == 200, answer.text
    assert "ada" in answer.text
    foreign = {**HEADERS, "Authorization": f"Bearer {issuer.token(aud='https://other.example.com/mcp')}"}
    assert (await client.post("/mcp", json=CALL, headers=foreign)).status_code == 401


def test_every_example_is_run_here() -> None:
    here = Path(__file__).read_text("utf-8")
    assert [path.name for path in EXAMPLES.glob("*.py") if f'served("{path.name}")' not in here] == []


async def test_one_layer_keeps_pages_of_other_origins_out() -> None:
    async with served("one_layer.py") as client:
        answer = await client.post("/mcp", json=CALL, headers={**HEADERS, "Origin": "https://evil.example"})
        assert answer.status_code == 403
        preflight = {"Origin": "https://app.example.com", "Access-Control-Request-Method": "POST"}
        answer = await client.options("/mcp", headers=preflight)
        assert answer.status_code == 204
        assert answer.headers["access-control-allow-origin"] == "https://app.example.com"


async def test_users_of_an_existing_provider_reach_the_tools_and_strangers_do_not(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MCP_OAUTH_ISSUER", issuer.url)
    async with served("existing_provider.py") as client:
        await assert_users_reach_the_tools(client, issuer)


async def test_a_basket_is_used_by_whoever_opened_it_alone(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MCP_OAUTH_ISSUER", issuer.url)

    async def call(who: str, tool: str, **arguments: str) -> dict[str, Any]:
        body = {**CALL, "params": {**CALL["params"], "name": tool, "arguments": arguments}}  # type: ignore[dict-item]
        fields = {**HEADERS, "Mcp-Name": tool, "Authorization": f"Bearer {issuer.token(sub=who)}"}
        answer = (await client.post("/mcp", json=body, headers=fields)).text
        found: dict[str, Any] = json.loads(answer[answer.index("{") :])
        return found

    async with served("bound_handles.py") as client:
        basket = (await call("ada", "open_basket"))["result"]["structuredContent"]["basket"]
        assert (await call("ada", "add", basket=basket, item="tea"))["result"]["structuredContent"] == {"result": 1}
        stolen, unknown = [await call("bob", "add", basket=one, item="tea") for one in (basket, "never")]
        shown = (ROOT / "docs" / "how-to" / "bind-handles.md").read_text("utf-8")
        assert stolen == unknown == json.loads(shown.split("```json\n")[1].split("```")[0])


async def test_the_program_of_the_readme_works(issuer: Issuer, tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    program = readme.split("```python\n")[1].split("```")[0].replace("https://login.example.com/", issuer.url)
    (tmp_path / "readme.py").write_text(program, "utf-8")
    async with served("readme.py", tmp_path) as client:
        await assert_users_reach_the_tools(client, issuer)


async def test_a_server_with_its_own_login_says_where_to_log_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pem = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    for name, content in (("signing-key.pem", pem), ("users.toml", f'alice = "{hash_password("secret")}"\n'.encode())):
        path = tmp_path / name
        path.touch(mode=0o600)
        path.write_bytes(content)
    async with served("own_login.py") as client:
        document = await assert_asks_strangers_for_a_token(client)
        assert document["authorization_servers"] == [ORIGIN]
        metadata = (await client.get("/.well-known/oauth-authorization-server")).json()
        assert metadata["issuer"] == ORIGIN
        assert metadata["code_challenge_methods_supported"] == ["S256"]
