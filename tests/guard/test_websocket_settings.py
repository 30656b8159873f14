"""Whether a deployment opens WebSockets, from its environment."""

import os

import pytest

from mcp_guard.config import load
from mcp_guard.deployment import from_settings
from mcp_guard.failures import ConfigurationError
from mcp_guard.layers.websocket import WebSocket


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in [name for name in os.environ if name.startswith("MCP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("MCP_PUBLIC_URL", "http://127.0.0.1:8000/mcp")
    monkeypatch.setenv("MCP_OAUTH_ISSUER", "https://as.example.com")
    return monkeypatch


def opening() -> list[WebSocket]:
    return [layer for layer in from_settings(load()) if isinstance(layer, WebSocket)]


@pytest.mark.parametrize(("said", "hello"), [("header", False), ("hello", True)])
def test_the_setting_opens_sockets_at_the_resource(environment: pytest.MonkeyPatch, said: str, hello: bool) -> None:
    environment.setenv("MCP_WEBSOCKET", said)
    (layer,) = opening()
    assert layer.terms.hello is hello
    assert [resource.path for resource in layer.resources] == ["/mcp"]


@pytest.mark.parametrize("said", [None, "off"])
def test_otherwise_there_are_none(environment: pytest.MonkeyPatch, said: str | None) -> None:
    if said is not None:
        environment.setenv("MCP_WEBSOCKET", said)
    assert opening() == []


def test_another_word_is_refused(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("MCP_WEBSOCKET", "true")
    with pytest.raises(ConfigurationError, match="MCP_WEBSOCKET"):
        load()


def test_a_resource_that_takes_bound_tokens_alone_cannot_have_them(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("MCP_WEBSOCKET", "header")
    environment.setenv("MCP_DPOP", "required")
    with pytest.raises(ConfigurationError, match="MCP_WEBSOCKET: resources: dpop is required"):
        from_settings(load())
