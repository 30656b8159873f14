"""What a policy asks of each message, name by name and pattern by pattern."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_guard.facts import Call, MessageKind, Resource, RpcMessage, ScopePolicy
from mcp_guard.failures import ConfigurationError
from mcp_guard.protocol.mcp import Headers, read_call
from mcp_guard.protocol.scope_policy import LISTS, rules_of

ALWAYS = "tools"
POLICY = ScopePolicy(
    methods={"tasks/*": frozenset({"jobs"}), "prompts/get": frozenset({"ask"})},
    tools={
        "delete_*": frozenset({"write"}),
        "delete_all": frozenset({"admin", "danger"}),
        "d*": frozenset({"d"}),
        "free": frozenset(),
    },
    prompts={"plan": frozenset({"plan"}), "secret_*": frozenset({"secret"})},
    uris={
        "file:///data/*": frozenset({"data"}),
        "file:///data/keys/*": frozenset({"keys"}),
        "note:today": frozenset({"today"}),
        "config://app": frozenset({"config"}),
    },
)
TOOLS = {"write", "admin", "danger", "d"}
PROMPTS = {"plan", "secret"}
URIS = {"data", "keys", "today", "config"}


def resource(policy: ScopePolicy = POLICY, *always: str) -> Resource:
    return Resource("https://mcp.example/mcp", "/mcp", scopes=frozenset(always or {ALWAYS}), policy=policy)


def needed(*messages: dict[str, Any]) -> set[str]:
    """What a body needs, read as the intake reads it, beside what every request does."""
    body: object = messages[0] if len(messages) == 1 else list(messages)
    required = rules_of(resource()).call(read_call(json.loads(json.dumps(body)), Headers()))
    assert ALWAYS in required
    return set(required) - {ALWAYS}


def ask(method: str, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}


@pytest.mark.parametrize(
    ("name", "scopes"),
    [
        ("delete_file", {"write", "d"}),
        ("delete_", {"write", "d"}),
        ("delete", {"d"}),
        ("delete_all", {"write", "d", "admin", "danger"}),
        ("delete_all_of_it", {"write", "d"}),
        ("Delete_file", set()),
        ("xdelete_file", set()),
        (" delete_file", set()),
        ("free", set()),
        ("*", set()),
        ("", set()),
    ],
)
def test_of_all_patterns_that_match_a_tool_everything_is_needed(name: str, scopes: set[str]) -> None:
    assert needed(ask("tools/call", name=name)) == scopes
    assert needed({"jsonrpc": "2.0", "method": "tools/call", "params": {"name": name}}) == scopes, "without an id too"


@pytest.mark.parametrize("params", [{}, {"name": None}, {"name": 7}, {"name": ["free"]}, {"title": "free"}])
def test_a_message_whose_target_cannot_be_told_needs_everything_of_its_kind(params: dict[str, Any]) -> None:
    assert needed(ask("tools/call", **params)) == TOOLS
    assert needed(ask("prompts/get", **params)) == {"ask"} | PROMPTS
    for method in ("resources/read", "resources/subscribe", "resources/unsubscribe"):
        assert needed(ask(method, **params)) == URIS


def test_a_method_may_need_scopes_whatever_it_is_about() -> None:
    assert needed(ask("tasks/get", taskId="t")) == {"jobs"}
    assert needed(ask("tasks/invented")) == {"jobs"}
    assert needed({"jsonrpc": "2.0", "method": "tasks/cancel", "params": {}}) == {"jobs"}
    assert needed(ask("prompts/get", name="plan")) == {"ask", "plan"}
    assert needed(ask("task/get")) == needed(ask("tools/list")) == needed(ask("initialize")) == set()


def test_a_batch_needs_what_all_of_its_messages_do() -> None:
    both = needed(ask("tools/call", name="delete_x"), ask("resources/read", uri="note:today"), ask("tools/list"))
    assert both == {"write", "d", "today"}


def test_a_request_without_a_body_and_a_response_need_what_every_request_does() -> None:
    rules = rules_of(resource())
    assert rules.call(Call((), None, False)) == {ALWAYS}
    assert rules.call(Call((RpcMessage(MessageKind.RESPONSE, None, 1, None),), None, False)) == {ALWAYS}


@pytest.mark.parametrize(
    ("uri", "scopes"),
    [
        ("file:///data/x", {"data"}),
        ("file:///data/keys/k", {"data", "keys"}),
        ("file:///data", {"data"}),
        ("file:///data/x?y=z", {"data"}),
        ("file:///database", set()),
        ("file:///other", set()),
        ("note:today", {"today"}),
        ("note:today?v=1", {"today"}),
        ("note:today/", {"today"}),
        ("note:yesterday", set()),
        ("config://app", {"config"}),
        ("config://app/", {"config"}),
        ("config://app/x", set()),
    ],
)
def test_a_uri_needs_what_the_patterns_that_match_do(uri: str, scopes: set[str]) -> None:
    for method in ("resources/read", "resources/subscribe", "resources/unsubscribe"):
        assert needed(ask(method, uri=uri)) == scopes
    assert needed(ask("completion/complete", ref={"type": "ref/resource", "uri": uri})) == scopes
    assert needed(ask("subscriptions/listen", notifications={"resourceSubscriptions": [uri]})) == scopes


@pytest.mark.parametrize(
    "uri",
    [
        "FILE:///data/x",
        "file:///dat%61/x",
        "file:///data%2fx",
        "file:///other/../data/x",
        "file:///./data/x",
        "file:////data/x",
        "file:/data/x",
        "file://localhost/data/x",
        "note:today#f",
        "no uri",
        "",
    ],
)
def test_a_uri_that_another_reader_takes_for_another_needs_everything(uri: str) -> None:
    assert needed(ask("resources/read", uri=uri)) == URIS
    assert needed(ask("completion/complete", ref={"type": "ref/resource", "uri": uri})) == URIS
    assert needed(ask("subscriptions/listen", notifications={"resourceSubscriptions": ["note:x", uri]})) == URIS


@pytest.mark.parametrize(
    ("reference", "scopes"),
    [
        ({"type": "ref/prompt", "name": "plan"}, {"plan"}),
        ({"type": "ref/prompt", "name": "secret_one", "uri": "note:today"}, {"secret"}),
        ({"type": "ref/prompt", "name": "open"}, set()),
        ({"type": "ref/prompt", "uri": "note:x"}, PROMPTS),
        ({"type": "ref/resource", "name": "open"}, URIS),
        ({"type": "ref/resource", "uri": "file:///data/{name}"}, {"data", "keys"}),
        ({"type": "ref/resource", "uri": "file:///data/keys/{name}"}, {"data", "keys"}),
        ({"type": "ref/resource", "uri": "file:///{+path}"}, {"data", "keys"}),
        ({"type": "ref/resource", "uri": "note:{day}"}, {"today"}),
        ({"type": "ref/resource", "uri": "memo:{day}"}, set()),
        ({"type": "ref/resource", "uri": "config://app/{rest}"}, {"config"}),
        ({"type": "ref/resource", "uri": "{+uri}"}, URIS),
        ({"type": "ref/resource", "uri": "FILE:///{+path}"}, URIS),
        ({"type": "ref/tool", "name": "open"}, PROMPTS | URIS),
        ({"type": "ref/prompt", "name": "open", "Name": "plan"}, PROMPTS | URIS),
        ({"type": "ref/prompt", "name": "open", "TYPE": "ref/resource"}, PROMPTS | URIS),
        ({"name": "open"}, PROMPTS | URIS),
        ("ref/prompt", PROMPTS | URIS),
        (None, PROMPTS | URIS),
    ],
)
def test_completions_need_what_their_reference_does(reference: object, scopes: set[str]) -> None:
    assert needed(ask("completion/complete", ref=reference)) == scopes


@pytest.mark.parametrize(
    ("wanted", "scopes"),
    [
        ({"toolsListChanged": True}, set()),
        ({"resourceSubscriptions": []}, set()),
        ({"resourceSubscriptions": None}, set()),
        ({"resourceSubscriptions": ["note:x", "note:today"]}, {"today"}),
        ({"resourceSubscriptions": ["note:x", 7]}, URIS),
        ({"resourceSubscriptions": "note:today"}, URIS),
        ({"resourceSubscriptions": {"note:today": 1}}, URIS),
        ({"resource_subscriptions": ["note:x"]}, URIS),
        ({"ResourceSubscriptions": ["note:x"]}, URIS),
        (["note:today"], URIS),
        (None, set()),
    ],
)
def test_a_subscription_needs_what_its_resources_do(wanted: object, scopes: set[str]) -> None:
    assert needed(ask("subscriptions/listen", notifications=wanted)) == scopes


@pytest.mark.parametrize(
    ("method", "entry", "scopes"),
    [
        ("tools/list", {"name": "delete_x"}, {"write", "d"}),
        ("tools/list", {"name": "open"}, set()),
        ("tools/list", {"title": "open"}, TOOLS),
        ("tools/list", "open", TOOLS),
        ("prompts/list", {"name": "plan"}, {"ask", "plan"}),
        ("prompts/list", {"name": "open"}, {"ask"}),
        ("resources/list", {"uri": "file:///data/x", "name": "x"}, {"data"}),
        ("resources/list", {"uri": "FILE:///x", "name": "x"}, URIS),
        ("resources/list", {"name": "x"}, URIS),
        ("resources/templates/list", {"uriTemplate": "file:///data/keys/{x}"}, {"data", "keys"}),
        ("resources/templates/list", {"uriTemplate": "file:///data/{x}"}, {"data"}),
        ("resources/templates/list", {"uriTemplate": "file:///{x}"}, set()),
        ("resources/templates/list", {"uriTemplate": "note:today"}, {"today"}),
        ("resources/templates/list", {"uriTemplate": "FILE:///data/{x}"}, URIS),
        ("resources/templates/list", {"name": "x"}, URIS),
    ],
)
def test_an_entry_of_a_list_needs_what_its_use_does(method: str, entry: object, scopes: set[str]) -> None:
    assert rules_of(resource()).entry(LISTS[method], entry) == scopes


def test_one_star_alone_is_every_name() -> None:
    everywhere = ScopePolicy(tools={"*": frozenset({"a"})}, uris={"*": frozenset({"b"})}, methods={"*": frozenset("c")})
    rules = rules_of(resource(everywhere))
    for method, params in (("tools/call", {"name": "x"}), ("resources/read", {"uri": "note:x"}), ("ping", {})):
        call = read_call(ask(method, **params), Headers())
        expected = {"tools/call": {"a", "c"}, "resources/read": {"b", "c"}, "ping": {"c"}}[method]
        assert rules.call(call) == {ALWAYS} | expected


def test_all_scopes_are_known_those_of_the_hierarchy_included() -> None:
    rules = rules_of(resource(ScopePolicy(tools={"x": frozenset({"write"})}, implies={"admin": frozenset({"write"})})))
    assert rules.everything == {"tools", "write", "admin"}
    assert rules.parts == {"write"}
    assert rules_of(resource(ScopePolicy())).parts == frozenset()


def test_what_is_implied_at_any_distance_is_granted() -> None:
    implies = {"admin": frozenset({"write", "danger"}), "write": frozenset({"read"}), "read": frozenset({"tools"})}
    rules = rules_of(resource(ScopePolicy(tools={"x": frozenset({"danger"})}, implies=implies)))
    assert rules.missing({"tools", "danger"}, {"admin"}) == frozenset()
    assert rules.missing({"tools", "danger"}, {"write"}) == {"danger"}
    assert rules.missing({"write"}, {"read", "tools", "danger", "unknown"}) == {"write"}
    assert rules.missing({"admin"}, {"adminx", "admi", "ADMIN", "*"}) == {"admin"}


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (ScopePolicy(tools={"a*b": frozenset("s")}), "tools: 'a\\*b' must be"),
        (ScopePolicy(tools={"*a": frozenset("s")}), "tools: '\\*a' must be"),
        (ScopePolicy(tools={"a**": frozenset("s")}), "tools: 'a\\*\\*' must be"),
        (ScopePolicy(methods={"": frozenset("s")}), "methods: '' must be"),
        (ScopePolicy(prompts={"a": frozenset({"a b"})}), "prompts: 'a': 'a b' is not a scope"),
        (ScopePolicy(uris={"FILE:///x": frozenset("s")}), "uris: 'FILE:///x' must be"),
        (ScopePolicy(uris={"file:///x/../*": frozenset("s")}), "uris: 'file:///x/../\\*' must be"),
        (ScopePolicy(uris={"fil*": frozenset("s")}), "uris: 'fil\\*' must be"),
        (ScopePolicy(uris={"file:///data/{x}": frozenset("s")}), "uris: 'file:///data/{x}' must be"),
        (ScopePolicy(implies={"a": frozenset({"b"}), "b": frozenset({"a"})}), "implies: a, b: each would"),
        (ScopePolicy(implies={"a": frozenset({"a"})}), "implies: a: each would"),
        (ScopePolicy(implies={"a": frozenset({"raed"})}), "implies: raed: nothing needs it"),
        (ScopePolicy(implies={"a b": frozenset({"tools"})}), "implies: 'a b' is not a scope"),
        (ScopePolicy(implies={"a": frozenset({""})}), "implies: 'a': '' is not a scope"),
    ],
)
def test_what_cannot_work_is_named(policy: ScopePolicy, message: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{message}"):
        rules_of(resource(policy))


@given(name=st.text(), other=st.text(min_size=1))
def test_a_beginning_matches_what_begins_so_and_nothing_else(name: str, other: str) -> None:
    if "*" in other:
        return
    rules = rules_of(resource(ScopePolicy(tools={f"{other}*": frozenset("s")})))
    assert rules.tools.name(name) == ({"s"} if name[: len(other)] == other else set())
    assert rules.tools.name(other + name) == {"s"}
