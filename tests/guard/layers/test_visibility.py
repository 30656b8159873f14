"""A list shows each caller what it may use, wherever the list is and however it is sent."""

import json
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_guard.check import Check, compile_layers
from mcp_guard.facts import Principal, Resource, ScopePolicy
from mcp_guard.layer import Admission, RequestHead
from mcp_guard.layers.visibility import Visibility
from tests.guard.asgi import CountingApp, Outcome, drive, http_scope
from tests.guard.stubs import principal

Message = dict[str, Any]
JSON, STREAM = b"application/json", b"text/event-stream"
MCP = Resource(
    "https://mcp.example/mcp",
    "/mcp",
    policy=ScopePolicy(
        methods={"prompts/get": frozenset({"ask"})},
        tools={"delete_*": frozenset({"write"})},
        prompts={"secret": frozenset({"write"})},
        uris={"file:///data/*": frozenset({"read"})},
        implies={"write": frozenset({"read", "ask"})},
    ),
)
TOOLS = [{"name": "open"}, {"name": "delete_one"}, {"name": "delete_all", "title": "open"}, {"name": "close"}]
OPEN_TOOLS = [TOOLS[0], TOOLS[3]]


@dataclass(frozen=True)
class Given(Check):
    """Adds facts that were decided on beforehand."""

    adds = (Principal, Resource)

    granted: frozenset[str]
    resource: Resource

    async def admit(self, request: RequestHead) -> Admission:
        return Admission(facts=(principal("alice", scopes=self.granted), self.resource))


def ask(method: str = "tools/list", request_id: str | int = 1, **params: Any) -> Message:
    return {"jsonrpc": "2.0", "id": request_id, "method": method, "params": params}


def result(request_id: object = 1, **members: Any) -> Message:
    return {"jsonrpc": "2.0", "id": request_id, "result": members}


def event(message: object) -> bytes:
    return f"event: message\r\nid: 7\r\ndata: {json.dumps(message)}\r\n\r\n".encode()


async def exchange(
    question: object,
    *says: bytes,
    granted: str = "",
    kind: bytes = JSON,
    resource: Resource = MCP,
    headers: tuple[tuple[bytes, bytes], ...] = (),
) -> Outcome:
    app = CountingApp(headers=((b"content-type", kind), *headers), chunks=says)
    layers = compile_layers((Given(frozenset(granted.split()), resource), Visibility()), app)
    body = b"" if question is None else json.dumps(question).encode()
    return await drive(layers, http_scope("GET" if question is None else "POST"), body)


async def shown(question: object, answer: object, granted: str = "") -> Any:
    """What becomes of an answer; the same in JSON and in an event of a stream."""
    whole = await exchange(question, json.dumps(answer).encode(), granted=granted)
    stream = await exchange(question, b": hello\n\n", event(answer), granted=granted, kind=STREAM)
    assert whole.complete
    assert stream.complete
    comment, one = [part for part in stream.body.replace(b"\r\n", b"\n").split(b"\n\n") if part]
    assert comment == b": hello"
    fields = dict(line.split(b": ", 1) for line in one.split(b"\n"))
    assert fields[b"id"] == b"7"
    assert json.loads(fields[b"data"]) == whole.json()
    return whole.json()


async def test_tools_that_the_caller_may_not_call_are_hidden() -> None:
    answer = result(tools=TOOLS, nextCursor="c", _meta={"a": 1})
    assert await shown(ask(), answer) == result(tools=OPEN_TOOLS, nextCursor="c", _meta={"a": 1})
    assert await shown(ask(), answer, "read") == result(tools=OPEN_TOOLS, nextCursor="c", _meta={"a": 1})
    assert await shown(ask(), answer, "write") == answer


@pytest.mark.parametrize(
    ("method", "member", "entries", "granted", "names"),
    [
        ("prompts/list", "prompts", [{"name": "plan"}, {"name": "secret"}], "", []),
        ("prompts/list", "prompts", [{"name": "plan"}, {"name": "secret"}], "ask", ["plan"]),
        ("prompts/list", "prompts", [{"name": "plan"}, {"name": "secret"}], "write", ["plan", "secret"]),
        (
            "resources/list",
            "resources",
            [{"uri": "file:///data/x", "name": "x"}, {"uri": "note:y", "name": "y"}, {"uri": "NOTE:z", "name": "z"}],
            "",
            ["y"],
        ),
        (
            "resources/list",
            "resources",
            [{"uri": "file:///data/x", "name": "x"}, {"uri": "NOTE:z", "name": "z"}],
            "read",
            ["x", "z"],
        ),
        (
            "resources/templates/list",
            "resourceTemplates",
            [{"uriTemplate": "file:///data/{x}", "name": "x"}, {"uriTemplate": "file:///{+y}", "name": "y"}],
            "",
            ["y"],
        ),
        (
            "resources/templates/list",
            "resourceTemplates",
            [{"uriTemplate": "file:///data/{x}", "name": "x"}],
            "write",
            ["x"],
        ),
    ],
)
async def test_so_are_prompts_resources_and_templates(
    method: str, member: str, entries: list[Message], granted: str, names: list[str]
) -> None:
    answer = await shown(ask(method), result(**{member: entries}), granted)
    assert [one["name"] for one in answer["result"][member]] == names


@pytest.mark.parametrize("entry", ["delete_one", None, 7, {"title": "x"}, {"name": None}, {"name": ["open"]}, {}])
async def test_an_entry_without_a_name_is_hidden_from_who_lacks_any_scope(entry: object) -> None:
    assert (await shown(ask(), result(tools=[entry, TOOLS[0]])))["result"]["tools"] == [TOOLS[0]]
    assert (await shown(ask(), result(tools=[entry]), "write"))["result"]["tools"] == [entry]


@pytest.mark.parametrize("known", [1, "1", 1.0, True, 2, None, [1], {"id": 1}])
@pytest.mark.parametrize("method", ["tools/list", "tools/call", "prompts/list"])
async def test_the_id_of_an_answer_is_no_way_around(known: object, method: str) -> None:
    """A server sends both answers on one stream when a client uses an id for two requests at once."""
    answer = result(known, tools=TOOLS, prompts=[{"name": "secret"}], resources="none")
    found = await shown(ask(method, name="open"), answer)
    assert found == {**answer, "result": {"tools": OPEN_TOOLS, "prompts": [], "resources": "none"}}
    nameless = {"jsonrpc": "2.0", "result": {"tools": TOOLS}}
    assert (await shown(ask(method, name="open"), nameless))["result"] == {"tools": OPEN_TOOLS}


@pytest.mark.parametrize(
    "members", [{"error": {"code": -1, "message": "x", "data": {"tools": TOOLS}}}, {"result": "x"}]
)
async def test_what_is_no_result_is_left_as_it_is(members: Message) -> None:
    answer = {"jsonrpc": "2.0", "id": 1, **members, "tools": TOOLS}
    assert await shown(ask(), answer) == answer


async def test_each_answer_to_a_batch_is_judged() -> None:
    batch = [ask("tools/list", 1), ask("tools/list", 2), ask("tools/call", 3, name="open")]
    answers = [result(1, tools=TOOLS), result(2, tools=TOOLS), result(3, content=[])]
    assert await shown(batch, answers) == [result(1, tools=OPEN_TOOLS), result(2, tools=OPEN_TOOLS), answers[2]]


async def test_a_stream_of_another_request_shows_no_more() -> None:
    listed, pushed = result(5, tools=TOOLS), {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}
    outcome = await exchange(None, event(listed), event(pushed), kind=STREAM)
    assert outcome.body.endswith(event(pushed))
    first = outcome.body.removesuffix(event(pushed))
    assert json.loads(first.partition(b"data: ")[2]) == result(5, tools=OPEN_TOOLS)


@given(points=st.lists(st.integers(0, 600), max_size=6), kind=st.sampled_from([JSON, STREAM]))
async def test_the_chunks_of_an_answer_do_not_matter(points: list[int], kind: bytes) -> None:
    answer = result(tools=[*TOOLS, {"name": "ä \u2028"}])
    data = json.dumps(answer).encode() if kind == JSON else b"data: {}\n\n" + event(answer)
    edges = [0, *sorted(point % (len(data) + 1) for point in points), len(data)]
    outcome = await exchange(ask(), *(data[a:b] for a, b in pairwise(edges)), kind=kind)
    assert outcome.complete
    assert b"open" in outcome.body
    assert b"delete_" not in outcome.body


async def test_of_a_stream_only_what_is_not_complete_is_held() -> None:
    said = [event({"jsonrpc": "2.0", "method": "notifications/progress"}), event(result(tools=TOOLS)), event("end")]
    outcome = await exchange(ask(), *said, kind=STREAM)
    sent = [chunk for chunk in outcome.chunks if chunk]
    assert sent[0] == said[0]
    assert sent[2] == said[2]
    assert len(sent) == 3


@pytest.mark.parametrize("granted", ["", "write"])
async def test_no_list_goes_out_as_one_that_shared_caches_may_keep(granted: str) -> None:
    answer = await shown(ask(), result(tools=[TOOLS[0]], ttlMs=1000, cacheScope="public"), granted)
    assert answer["result"] == {"tools": [TOOLS[0]], "ttlMs": 1000, "cacheScope": "private"}
    other = result(cacheScope="public", contents=[])
    assert await shown(ask("resources/read", uri="note:x"), other, granted) == other


@pytest.mark.parametrize("text", [b'{"result": {"tools": [{"name": "delete_one"}]', b'{"tools": delete_one}'])
async def test_a_list_that_cannot_be_read_does_not_go_out(text: bytes) -> None:
    for kind, said in ((JSON, text), (STREAM, b"data: " + text + b"\n\n")):
        outcome = await exchange(ask(), said, kind=kind)
        assert not outcome.complete
        assert b"delete_one" not in outcome.body


async def test_an_encoded_answer_is_refused() -> None:
    outcome = await exchange(ask(), b"x", headers=((b"content-encoding", b"gzip"),))
    assert outcome.status == 503


async def test_a_member_that_is_spelled_with_escapes_is_found() -> None:
    text = json.dumps(result(tools=TOOLS)).replace('"tools"', '"\\u0074ools"').encode()
    assert (await exchange(ask(), text)).json() == result(tools=OPEN_TOOLS)


@pytest.mark.parametrize("policy", [ScopePolicy(), ScopePolicy(implies={"write": frozenset({"read"})})])
async def test_without_a_policy_nothing_is_looked_at(policy: ScopePolicy) -> None:
    resource = Resource(MCP.url, MCP.path, scopes=frozenset({"read"}), policy=policy)
    text = b'{"result": {"tools": not json at all'
    outcome = await exchange(ask(), text, resource=resource, headers=((b"content-length", b"36"),))
    assert outcome.body == text
    assert outcome.value(b"content-length") == b"36"
