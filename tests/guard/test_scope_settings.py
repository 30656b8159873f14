"""The scope policy of a deployment from its environment."""

import os
import re

import pytest

from mcp_guard.check import compile_layers
from mcp_guard.config import load
from mcp_guard.deployment import from_settings
from mcp_guard.facts import Call, Principal, Resource, ScopePolicy
from mcp_guard.failures import ConfigurationError
from mcp_guard.layer import Admission
from mcp_guard.layers.scopes import Scopes
from mcp_guard.layers.token import Token
from mcp_guard.layers.visibility import Visibility
from tests.guard.asgi import CountingApp, Outcome, drive
from tests.guard.stubs import ALICE, Says, parse, rpc
from tests.house.tree import ROOT

GUIDE = (ROOT / "docs" / "how-to" / "require-scopes.md").read_text("utf-8")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in os.environ:
        if name.startswith("MCP_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("MCP_PUBLIC_URL", "http://127.0.0.1:8000/mcp")
    monkeypatch.setenv("MCP_OAUTH_ISSUER", "https://as.example.com")
    monkeypatch.setenv("MCP_REQUIRED_SCOPES", "mcp:tools")
    return monkeypatch


def resources() -> tuple[Resource, ...]:
    (token,) = [layer for layer in from_settings(load()) if isinstance(layer, Token)]
    return token.resources


def test_without_settings_there_is_no_policy() -> None:
    (resource,) = resources()
    assert resource.policy == ScopePolicy()
    assert resource.scopes == {"mcp:tools"}


def test_each_kind_of_pattern_has_a_setting(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("MCP_METHOD_SCOPES", "tasks/*=mcp:jobs")
    environment.setenv("MCP_TOOL_SCOPES", " delete_*=mcp:write , search = mcp:read  mcp:search,")
    environment.setenv("MCP_PROMPT_SCOPES", "plan=mcp:read")
    environment.setenv("MCP_URI_SCOPES", "file:///data?a=b=mcp:read,note:*=mcp:notes")
    environment.setenv("MCP_SCOPE_HIERARCHY", "mcp:admin=mcp:write mcp:notes,mcp:write=mcp:read mcp:tools")
    environment.setenv("MCP_SSE_URL", "http://127.0.0.1:8000/sse")
    streamable, events = resources()
    assert streamable.policy == events.policy
    assert (events.path, events.messages) == ("/sse", "/messages/")
    assert events.scopes == {"mcp:tools"}
    assert streamable.policy == ScopePolicy(
        methods={"tasks/*": frozenset({"mcp:jobs"})},
        tools={"delete_*": frozenset({"mcp:write"}), "search": frozenset({"mcp:read", "mcp:search"})},
        prompts={"plan": frozenset({"mcp:read"})},
        uris={"file:///data?a=b": frozenset({"mcp:read"}), "note:*": frozenset({"mcp:notes"})},
        implies={
            "mcp:admin": frozenset({"mcp:write", "mcp:notes"}),
            "mcp:write": frozenset({"mcp:read", "mcp:tools"}),
        },
    )


@pytest.mark.parametrize(("value", "hides"), [(None, True), ("true", True), ("false", False)])
def test_lists_hide_what_is_forbidden_unless_they_are_told_not_to(
    environment: pytest.MonkeyPatch, value: str | None, hides: bool
) -> None:
    if value is not None:
        environment.setenv("MCP_HIDE_FORBIDDEN", value)
    assert any(isinstance(layer, Visibility) for layer in from_settings(load())) == hides


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("MCP_TOOL_SCOPES", "search", "MCP_TOOL_SCOPES: 'search' must be NAME=SCOPE"),
        ("MCP_TOOL_SCOPES", "a=b,search=", "MCP_TOOL_SCOPES: 'search=' must be NAME=SCOPE"),
        ("MCP_TOOL_SCOPES", "=mcp:read", "MCP_TOOL_SCOPES: '=mcp:read' must be NAME=SCOPE"),
        ("MCP_TOOL_SCOPES", "a=b,a=c", "MCP_TOOL_SCOPES: 'a' appears twice"),
        ("MCP_TOOL_SCOPES", "a*b=s", "MCP_TOOL_SCOPES: tools: 'a\\*b' must be a name"),
        ("MCP_TOOL_SCOPES", 'a=s"', "MCP_TOOL_SCOPES: tools: 'a': 's\"' is not a scope"),
        ("MCP_METHOD_SCOPES", "*/call=s", "MCP_METHOD_SCOPES: methods: '\\*/call' must be"),
        ("MCP_PROMPT_SCOPES", "**=s", "MCP_PROMPT_SCOPES: prompts: '\\*\\*' must be"),
        ("MCP_URI_SCOPES", "FILE:///x=s", "MCP_URI_SCOPES: uris: 'FILE:///x' must be"),
        ("MCP_SCOPE_HIERARCHY", "a=b,b=a", "MCP_SCOPE_HIERARCHY: implies: a, b: each would imply itself"),
        ("MCP_SCOPE_HIERARCHY", "a=mcp:raed", "MCP_SCOPE_HIERARCHY: implies: mcp:raed: nothing needs it"),
        ("MCP_HIDE_FORBIDDEN", "perhaps", "MCP_HIDE_FORBIDDEN: "),
    ],
)
def test_what_cannot_work_is_named_with_its_setting_and_entry(
    environment: pytest.MonkeyPatch, setting: str, value: str, message: str
) -> None:
    environment.setenv(setting, value)
    with pytest.raises(ConfigurationError, match=f"^{message}"):
        resources()


class Knows(Says):
    """Says what it is told to, as the layers further out would."""

    adds = (Principal, Resource, Call)


async def refused(body: bytes) -> Outcome:
    """The answer to Alice, who has `mcp:tools`, of a deployment with the settings of the environment."""
    known = Knows(Admission(facts=(ALICE, resources()[0], parse(body))))
    return await drive(compile_layers((known, Scopes()), CountingApp()), None, body)


async def test_the_guide_shows_settings_that_work_and_the_refusal_as_it_is(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("MCP_PUBLIC_URL", "https://mcp.example.com/mcp")
    for name, value in re.findall(r"^export (\w+)='(.*)'$", GUIDE, re.MULTILINE):
        environment.setenv(name, value)
    assert not load().hide_forbidden
    outcome = await refused(rpc(name="delete_all"))
    assert f"HTTP/1.1 {outcome.status} Forbidden" in GUIDE
    assert f"www-authenticate: {(outcome.value(b'www-authenticate') or b'').decode()}\n" in GUIDE
    assert f"\n{outcome.body.decode()}\n" in GUIDE
    assert (await refused(rpc(name="open"))).status == 200


@pytest.mark.parametrize(
    ("setting", "value"), [("MCP_TOOL_SCOPES", "del*te=s"), ("MCP_SCOPE_HIERARCHY", "mcp:write=mcp:raed")]
)
def test_the_guide_shows_what_is_said_of_settings_that_cannot_work(
    environment: pytest.MonkeyPatch, setting: str, value: str
) -> None:
    environment.setenv(setting, value)
    with pytest.raises(ConfigurationError) as caught:
        resources()
    assert f"\n{caught.value}\n" in GUIDE
