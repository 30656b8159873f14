"""What a body asks: JSON-RPC messages, the revision they are judged by, and the fields that mirror them."""

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_guard import rejections
from mcp_guard.facts import Call, MessageKind
from mcp_guard.protocol.mcp import (
    LEGACY_REVISIONS,
    MAX_BATCH,
    MODERN_REVISIONS,
    NAME_MEMBERS,
    REVISIONS,
    VERSION_MEMBER,
    Headers,
    bodiless_call,
    decode_header_value,
    read_call,
    readable_id,
)
from mcp_guard.rejections import Kind, Rejection

MODERN = MODERN_REVISIONS[0]
NO_HEADERS = Headers()


def request(method: str = "tools/call", request_id: Any = 1, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": request_id, "method": method, "params": params}


def modern(method: str = "tools/call", revision: Any = MODERN, request_id: Any = 1, **params: Any) -> dict[str, Any]:
    return request(method, request_id, _meta={VERSION_MEMBER: revision}, **params)


def refused(body: object, headers: Headers = NO_HEADERS, revisions: tuple[str, ...] = REVISIONS) -> Rejection:
    with pytest.raises(Rejection) as caught:
        read_call(body, headers, revisions)
    return caught.value


# --- JSON-RPC --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("request_id", [0, 1, -1, 2**63 - 1, -(2**63), "", "a", "é" * 256, "null"])
def test_a_request_keeps_its_id_as_it_is(request_id: str | int) -> None:
    call = read_call(request("ping", request_id), NO_HEADERS)
    assert call.request_id == request_id
    assert type(call.request_id) is type(request_id)
    assert call.messages[0].kind is MessageKind.REQUEST


@pytest.mark.parametrize("request_id", [None, True, False, 1.0, 1.5, 2**63, -(2**63) - 1, [], {}, "x" * 257])
def test_an_id_that_is_neither_string_nor_integer_is_refused(request_id: object) -> None:
    rejection = refused(request("ping", request_id))
    assert rejection.kind is rejections.NOT_JSON_RPC
    assert rejection.request_id is None


@pytest.mark.parametrize(
    "body",
    [
        None,
        1,
        "x",
        True,
        {},
        {"jsonrpc": "2.0"},
        {"jsonrpc": "2.0", "id": 1},
        {"id": 1, "method": "ping"},
        {"jsonrpc": "1.0", "id": 1, "method": "ping"},
        {"jsonrpc": 2.0, "id": 1, "method": "ping"},
        {"jsonrpc": ["2.0"], "id": 1, "method": "ping"},
        {"jsonrpc": "2.0", "id": 1, "method": 1},
        {"jsonrpc": "2.0", "id": 1, "method": ""},
        {"jsonrpc": "2.0", "id": 1, "method": None},
        {"jsonrpc": "2.0", "id": 1, "method": "m" * 257},
        {"jsonrpc": "2.0", "id": 1, "method": "tools/call\n"},
        {"jsonrpc": "2.0", "id": 1, "method": "ping", "params": []},
        {"jsonrpc": "2.0", "id": 1, "method": "ping", "params": None},
        {"jsonrpc": "2.0", "id": 1, "method": "ping", "params": "x"},
        {"jsonrpc": "2.0", "id": 1, "method": "ping", "result": {}},
        {"jsonrpc": "2.0", "id": 1, "method": "ping", "error": {"code": 1, "message": "x"}},
        {"jsonrpc": "2.0", "id": 1, "result": {}, "error": {"code": 1, "message": "x"}},
        {"jsonrpc": "2.0", "result": {}},
        {"jsonrpc": "2.0", "id": None, "result": {}},
        {"jsonrpc": "2.0", "id": True, "result": {}},
        {"jsonrpc": "2.0", "id": 1, "error": "x"},
        {"jsonrpc": "2.0", "id": 1, "error": {"code": "1", "message": "x"}},
        {"jsonrpc": "2.0", "id": 1, "error": {"code": True, "message": "x"}},
        {"jsonrpc": "2.0", "id": 1, "error": {"code": 1}},
    ],
)
def test_what_is_no_message_is_refused(body: object) -> None:
    assert refused(body).kind is rejections.NOT_JSON_RPC


# http-16, INP-004: readers that ignore case would take the second member for the first
@pytest.mark.parametrize("variant", ["Method", "METHOD", "param\u017f", "Id", "JsonRpc", "Result", "ERROR"])
def test_http_16_a_member_in_another_case_is_refused(variant: str) -> None:
    assert refused({**request("tools/list"), variant: "tools/call"}).kind is rejections.NOT_JSON_RPC


@pytest.mark.parametrize(
    "variant", ["_Meta", "Arguments", "argument\u017f", "Notifications", "Ref", "TaskId", "task_id"]
)
@pytest.mark.parametrize("method", ["tools/call", "tasks/get", "subscriptions/listen"])
def test_http_16_a_member_of_params_that_is_judged_has_one_spelling(method: str, variant: str) -> None:
    assert refused(request(method, name="x", **{variant: {}})).kind is rejections.NOT_JSON_RPC
    assert refused([request("ping"), request(method, **{variant: {}})]).kind is rejections.NOT_JSON_RPC


@pytest.mark.parametrize(
    ("method", "member", "variant"),
    [("tools/call", "name", "Name"), ("resources/read", "uri", "URI"), ("tasks/get", "taskId", "tas\u212aId")],
)
def test_http_16_a_name_in_another_case_is_refused(method: str, member: str, variant: str) -> None:
    assert refused(request(method, **{member: "safe", variant: "evil"})).kind is rejections.NOT_JSON_RPC


def test_unknown_members_are_let_through() -> None:
    assert read_call({**request("ping"), "trace": 1}, NO_HEADERS).messages[0].method == "ping"
    assert read_call(request("custom/thing", Name="x", name="y"), NO_HEADERS).messages[0].name is None


def test_a_message_without_an_id_is_a_notification() -> None:
    call = read_call({"jsonrpc": "2.0", "method": "notifications/initialized"}, Headers("2025-11-25"))
    assert call.messages[0].kind is MessageKind.NOTIFICATION
    assert call.request_id is None


@pytest.mark.parametrize(
    "body",
    [
        {"jsonrpc": "2.0", "id": 7, "result": {}},
        {"jsonrpc": "2.0", "id": "a", "error": {"code": -32603, "message": "x", "data": []}},
        {"jsonrpc": "2.0", "id": None, "error": {"code": -32700, "message": "x"}},
    ],
)
def test_a_response_of_a_client_is_read_in_the_eras_that_have_them(body: dict[str, Any]) -> None:
    message = read_call(body, Headers("2025-06-18")).messages[0]
    assert (message.kind, message.method, message.id) == (MessageKind.RESPONSE, None, body["id"])
    assert refused(body, Headers(MODERN)).kind is rejections.NOT_JSON_RPC


@pytest.mark.parametrize(("method", "member"), NAME_MEMBERS.items())
def test_a_message_knows_the_name_of_what_it_is_about(method: str, member: str) -> None:
    assert read_call(request(method, **{member: "it"}), NO_HEADERS).messages[0].name == "it"
    assert read_call(request(method, **{member: 7}), NO_HEADERS).messages[0].name is None
    assert read_call(request(method), NO_HEADERS).messages[0].name is None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
members = st.sampled_from(["jsonrpc", "id", "method", "params", "result", "error", "Method", "x"])
values = (
    json_values | st.sampled_from(["2.0", "tools/call", "initialize"]) | st.just({"_meta": {VERSION_MEMBER: MODERN}})
)
messages = st.dictionaries(members, values, max_size=6).map(lambda one: {"jsonrpc": "2.0", **one})
headers = st.builds(
    Headers,
    st.none() | st.sampled_from(REVISIONS) | st.text(max_size=12),
    st.none() | st.sampled_from(["tools/call", "x"]),
    st.none() | st.text(max_size=8),
)


@given(json_values | messages | st.lists(messages, max_size=4), headers)
def test_whatever_the_body_it_is_a_call_or_a_refusal(body: object, said: Headers) -> None:
    call: Call | None = None
    refusal: Rejection | None = None
    try:
        call = read_call(body, said)
    except Rejection as rejection:
        refusal = rejection
    if call is None:
        assert refusal is not None
        assert refusal.kind.status == 400
        assert refusal.request_id == readable_id(body)
        return
    declares = any(message.params.get("_meta") == {VERSION_MEMBER: MODERN} for message in call.messages)
    assert call.modern == (said.revision == MODERN)
    assert call.modern or not declares
    assert call.batch == isinstance(body, list)


# --- revisions -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("revision", [None, *LEGACY_REVISIONS])
def test_a_legacy_request_is_judged_by_its_body_alone(revision: str | None) -> None:
    call = read_call(request("tools/call", name="delete_all"), Headers(revision, "tools/list", "safe"))
    assert call == Call(call.messages, revision, modern=False)
    assert (call.messages[0].method, call.messages[0].name) == ("tools/call", "delete_all")


@pytest.mark.parametrize("revision", [None, *LEGACY_REVISIONS, MODERN])
def test_a_request_without_a_body_is_of_the_era_it_declares(revision: str | None) -> None:
    assert bodiless_call(revision) == Call((), revision, revision == MODERN)


# wire-06, HTTP-005
@pytest.mark.parametrize(
    "revision",
    [
        "",
        "9999-01-01",
        "1999-01-01",
        "2026-07-28, 2025-11-25",
        " 2026-07-28",
        "2026-07-28 ",
        "2025-11-25\x00",
        "latest",
        "2025-1-1",
    ],
)
def test_wire_06_a_revision_that_is_not_served_is_refused_with_those_that_are(revision: str) -> None:
    for body in (request(), modern(revision=revision, name="a")):
        rejection = refused(body, Headers(revision, "tools/call", "a"))
        assert rejection.kind is rejections.REVISION
        assert rejection.data is not None
        assert rejection.data["supported"] == list(REVISIONS)
        assert rejection.request_id == 1
    with pytest.raises(Rejection) as caught:
        bodiless_call(revision)
    assert caught.value.kind is rejections.REVISION


def test_a_strange_revision_is_not_repeated_to_the_client() -> None:
    data = refused(request(), Headers("<script>" * 9)).data
    assert data is not None
    assert data["requested"] == ""


@pytest.mark.parametrize("served", [("2025-11-25",), MODERN_REVISIONS])
def test_a_revision_that_is_switched_off_is_refused(served: tuple[str, ...]) -> None:
    other = MODERN if served == ("2025-11-25",) else "2025-11-25"
    assert refused(modern(revision=other), Headers(other, "tools/call"), served).kind is rejections.REVISION


# HTTP-006
def test_without_a_header_a_modern_deployment_refuses_and_names_its_revisions() -> None:
    rejection = refused(request("tools/list"), NO_HEADERS, MODERN_REVISIONS)
    assert rejection.kind is rejections.HEADER_BODY_MISMATCH
    assert rejection.data == {"supported": list(MODERN_REVISIONS)}


def test_a_modern_request_whose_fields_agree_is_read() -> None:
    call = read_call(modern(name="add"), Headers(MODERN, "tools/call", "add"))
    assert call == Call(call.messages, MODERN, modern=True)


MISMATCHES = [
    # wire-01
    ("wire-01", modern(name="add"), Headers(MODERN, "tools/list", "add")),
    # wire-02
    ("wire-02", modern(name="delete_all"), Headers(MODERN, "tools/call", "safe_tool")),
    ("wire-02", modern("resources/read", uri="file:///b"), Headers(MODERN, "resources/read", "file:///a")),
    ("wire-02", modern("prompts/get", name="b"), Headers(MODERN, "prompts/get", "a")),
    # wire-03
    ("wire-03", modern(name="add"), Headers(MODERN, None, "add")),
    ("wire-03", modern(name="add"), Headers(MODERN, "", "add")),
    ("wire-03", modern(name="add"), Headers(MODERN, "Tools/Call", "add")),
    ("wire-03", modern(name="add"), Headers(MODERN, "tools/call ", "add")),
    ("wire-03", modern(name="add"), Headers(MODERN, "tools/call", None)),
    ("wire-03", modern(name="add"), Headers(MODERN, "tools/call", "")),
    ("wire-03", modern(name="add"), Headers(MODERN, "tools/call", "Add")),
    ("wire-03", modern(name="add"), Headers(MODERN, "tools/call", "add ")),
    ("wire-03", modern(), Headers(MODERN, "tools/call", "add")),
    ("wire-03", modern(name=7), Headers(MODERN, "tools/call", "7")),
    ("wire-03", modern(name=7), Headers(MODERN, "tools/call", "=?base64?####?=")),
    # wire-06
    ("wire-06", request(name="add"), Headers(MODERN, "tools/call", "add")),
    ("wire-06", modern(revision="2025-11-25", name="add"), Headers(MODERN, "tools/call", "add")),
    ("wire-06", modern(revision="9999-01-01", name="add"), Headers(MODERN, "tools/call", "add")),
    ("wire-06", modern(revision=20260728, name="add"), Headers(MODERN, "tools/call", "add")),
    ("wire-06", modern(revision=None, name="add"), Headers(MODERN, "tools/call", "add")),
    # wire-10, DISC-004
    ("wire-10", modern(name="add"), Headers(None, "tools/call", "add")),
    ("wire-10", modern(name="add"), Headers("2025-03-26", "tools/call", "add")),
    ("wire-10", modern("initialize"), Headers("2025-11-25")),
    ("wire-10", modern(revision="2025-11-25"), Headers("2025-06-18")),
    ("wire-10", modern(revision="9999-01-01"), NO_HEADERS),
    ("wire-10", modern(revision=7), Headers("2025-11-25")),
    # HTTP-010
    ("HTTP-010", modern("tasks/get", taskId="mine"), Headers(MODERN, "tasks/get", "theirs")),
    ("HTTP-010", modern("tasks/cancel", taskId="mine"), Headers(MODERN, "tasks/cancel", "theirs")),
    ("HTTP-010", modern("tasks/update", taskId="mine"), Headers(MODERN, "tasks/update", "theirs")),
]


@pytest.mark.parametrize(("identifier", "body", "said"), MISMATCHES)
def test_a_field_that_contradicts_the_body_is_refused(identifier: str, body: dict[str, Any], said: Headers) -> None:
    rejection = refused(body, said)
    assert rejection.kind is rejections.HEADER_BODY_MISMATCH, identifier
    assert rejection.request_id == 1


def test_a_task_may_go_without_its_name_in_a_field() -> None:
    assert read_call(modern("tasks/get", taskId="t"), Headers(MODERN, "tasks/get")).messages[0].name == "t"
    assert read_call(modern("tasks/get", taskId="t"), Headers(MODERN, "tasks/get", "t")).modern


def test_a_name_that_the_method_does_not_have_earns_nothing() -> None:
    assert read_call(modern("tools/list"), Headers(MODERN, "tools/list", "anything")).messages[0].name is None


# HTTP-003
@pytest.mark.parametrize("method", [None, "notifications/cancelled"])
@pytest.mark.parametrize("params", [{}, {"params": {"_meta": {VERSION_MEMBER: MODERN}}}])
def test_a_modern_notification_is_taken_with_and_without_its_method_in_a_field(
    method: str | None, params: dict[str, Any]
) -> None:
    body = {"jsonrpc": "2.0", "method": "notifications/cancelled", **params}
    assert read_call(body, Headers(MODERN, method)).modern


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"jsonrpc": "2.0", "method": "notifications/cancelled"}, Headers(MODERN, "tools/list")),
        (
            {
                "jsonrpc": "2.0",
                "method": "notifications/cancelled",
                "params": {"_meta": {VERSION_MEMBER: "2025-11-25"}},
            },
            Headers(MODERN),
        ),
    ],
)
def test_a_modern_notification_whose_fields_contradict_it_is_refused(body: dict[str, Any], said: Headers) -> None:
    rejection = refused(body, said)
    assert rejection.kind is rejections.HEADER_BODY_MISMATCH
    assert rejection.request_id is None


# --- batches (http-18, HTTP-021) -------------------------------------------------------------------------------------


@pytest.mark.parametrize("revision", [None, "2025-03-26"])
@pytest.mark.parametrize("length", [1, 2, MAX_BATCH])
def test_http_18_a_batch_is_read_member_by_member_where_the_revision_has_them(
    revision: str | None, length: int
) -> None:
    call = read_call([request("tools/call", n, name=f"tool{n}") for n in range(length)], Headers(revision))
    assert call.batch
    assert call.request_id is None
    assert [message.name for message in call.messages] == [f"tool{n}" for n in range(length)]


@pytest.mark.parametrize("revision", ["2024-11-05", "2025-06-18", "2025-11-25", MODERN])
@pytest.mark.parametrize("body", [[], [request("ping")], [request("tools/call", name="a")] * 2])
def test_http_18_later_revisions_have_no_batches(revision: str, body: list[object]) -> None:
    assert refused(body, Headers(revision)).kind is rejections.BATCH


BAD_BATCHES: list[tuple[list[object], Kind]] = [
    ([], rejections.BATCH),
    ([request("ping")] * (MAX_BATCH + 1), rejections.BATCH),
    ([request("ping")] * 10_000, rejections.BATCH),
    ([request("initialize")], rejections.BATCH),
    ([request("ping"), modern()], rejections.BATCH),
    ([request("ping"), [request("ping")]], rejections.NOT_JSON_RPC),
    ([request("ping"), 1], rejections.NOT_JSON_RPC),
]


@pytest.mark.parametrize(("body", "kind"), BAD_BATCHES)
def test_http_18_a_batch_is_refused_as_a_whole(body: list[object], kind: Kind) -> None:
    assert refused(body).kind is kind


def test_a_deployment_without_the_revision_of_batches_has_none() -> None:
    assert refused([request("ping")], NO_HEADERS, ("2025-06-18", "2025-11-25")).kind is rejections.BATCH


# --- encoded field values (HTTP-011) ---------------------------------------------------------------------------------


def encoded(text: str | bytes) -> str:
    data = text.encode() if isinstance(text, str) else text
    return f"=?base64?{base64.b64encode(data).decode()}?="


@given(st.text(max_size=30))
def test_an_encoded_value_is_what_was_encoded(text: str) -> None:
    assert decode_header_value(encoded(text)) == text


@pytest.mark.parametrize(
    "value",
    [
        "=?base64?YQ?=",
        "=?base64?YQ=?=",
        "=?base64?YR==?=",
        "=?base64?YQ==\n?=",
        "=?base64?Y Q==?=",
        "=?base64?_-8=?=",
        "=?base64?####?=",
        "=?base64?é?=",
        encoded(b"\xff"),
        "café",
        "a\x00b",
        "a\x7f",
    ],
)
def test_a_value_without_one_reading_has_none(value: str) -> None:
    assert decode_header_value(value) is None


@pytest.mark.parametrize("value", ["add", "", "=?BASE64?YQ==?=", "=?base64?YQ==", "x=?base64?YQ==?=", "file:///a b\tc"])
def test_other_values_are_literal(value: str) -> None:
    assert decode_header_value(value) == value


def test_names_outside_ascii_are_compared_as_they_are_encoded() -> None:
    body = modern(name="löschen")
    assert read_call(body, Headers(MODERN, "tools/call", encoded("löschen"))).messages[0].name == "löschen"
    assert refused(body, Headers(MODERN, "tools/call", "löschen")).kind is rejections.HEADER_BODY_MISMATCH
    assert refused(body, Headers(MODERN, "tools/call", encoded("lesen"))).kind is rejections.HEADER_BODY_MISMATCH
