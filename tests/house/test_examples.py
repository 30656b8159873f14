"""The examples of the documentation, run as they stand."""

import runpy
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import pytest

from tests.house.tree import ROOT

EXAMPLES = ROOT / "docs" / "examples"
ORIGIN = "https://mcp.example.com"
HEADERS = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
PING = {"jsonrpc": "2.0", "id": 1, "method": "ping"}


async def refuses_pages_of_other_origins(client: httpx.AsyncClient) -> None:
    answer = await client.post("/mcp", json=PING, headers={**HEADERS, "Origin": "https://evil.example"})
    assert answer.status_code == 403
    answer = await client.options(
        "/mcp", headers={"Origin": "https://app.example.com", "Access-Control-Request-Method": "POST"}
    )
    assert answer.status_code == 204
    assert answer.headers["access-control-allow-origin"] == "https://app.example.com"


async def asks_strangers_for_a_token(client: httpx.AsyncClient) -> None:
    answer = await client.post("/mcp", json=PING, headers=HEADERS)
    assert answer.status_code == 401
    where = f"{ORIGIN}/.well-known/oauth-protected-resource/mcp"
    assert f'resource_metadata="{where}"' in answer.headers["www-authenticate"]
    document = (await client.get(where)).json()
    assert document["resource"] == f"{ORIGIN}/mcp"
    assert document["authorization_servers"]


CHECKS: dict[str, Callable[[httpx.AsyncClient], Awaitable[None]]] = {
    "one_layer.py": refuses_pages_of_other_origins,
    "existing_provider.py": asks_strangers_for_a_token,
    "own_login.py": asks_strangers_for_a_token,
}


def test_every_example_has_its_check() -> None:
    assert sorted(path.name for path in EXAMPLES.iterdir() if path.suffix == ".py") == sorted(CHECKS)


@pytest.mark.parametrize("name", CHECKS)
async def test_an_example_does_what_its_page_says(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    app = runpy.run_path(str(EXAMPLES / name))["app"]
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url=ORIGIN) as client:
        await CHECKS[name](client)
