"""Handles that an app gives out in tool results belong to whoever they were given to."""

import json
from datetime import timedelta
from typing import Any

import pytest

from mcp_guard.auditlog import AuditLog, MemorySink
from mcp_guard.bindings import bind
from mcp_guard.failures import ConfigurationError, StoreUnavailable
from mcp_guard.keyring import KeyRing
from mcp_guard.layers.audit import Audit
from mcp_guard.layers.handles import MAX_HANDLE_CHARACTERS, MAX_MINTED, MAX_USED, Handle, Handles, key_of
from mcp_guard.stack import guard
from mcp_guard.stores.base import Put
from tests.guard.asgi import CountingApp, Outcome, drive, http_scope
from tests.guard.stubs import ALICE, MCP, SSE, CountingStore, Facts

RING = KeyRing((b"k" * 32,))
NOT_FOUND = {"code": -32602, "message": "Handle not found"}
JSON, STREAM = b"application/json", b"text/event-stream"
BASKET = Handle(
    kind="basket",
    minted={"open": "$.basket", "copy": ("$.new", "$.all[*].id")},
    used={"add": ("$.basket", "$.baskets[*]"), "pay": "$.order.basket.id", "copy": "$.from"},
)
ORDER = Handle(kind="order", minted={"pay": "$.order"}, used={"track": "$.order", "add": "$.order"})
Message = dict[str, Any]


class Place:
    """A guarded app that answers what a test says, and people to use it."""

    def __init__(self, *handles: Handle, ttl: timedelta = timedelta(hours=1)) -> None:
        self.store = CountingStore()
        self.app = CountingApp()
        self.audit = MemorySink()
        layer = Handles(store=self.store, ring=RING, handles=handles or (BASKET, ORDER), ttl=ttl)
        self.guarded = guard(self.app, Audit(log=AuditLog(self.audit), clock=self.store.clock), Facts(), layer)

    async def ask(
        self, message: object, says: object = None, *, who: bytes = b"alice", kind: bytes = JSON, path: str = "/mcp"
    ) -> Outcome:
        self.app.headers = ((b"content-type", kind),)
        text = json.dumps(result() if says is None else says)
        self.app.chunks = [f"event: message\ndata: {text}\n\n".encode() if kind == STREAM else text.encode()]
        self.store.batches.clear()
        data = json.dumps(message).encode()
        return await drive(self.guarded, http_scope(path=path, headers=[(b"x-as", who)]), data)

    async def open(self, handle: object = "b-1", who: bytes = b"alice", **how: Any) -> Outcome:
        return await self.ask(call("open"), result(basket=handle), who=who, **how)

    async def add(self, handle: object = "b-1", who: bytes = b"alice", **how: Any) -> Outcome:
        return await self.ask(call("add", basket=handle), who=who, **how)

    def reason(self) -> tuple[str, str]:
        record = self.audit.records()[-1]
        return record["verdict"], record["reason"]


def call(tool: str, request_id: object = 1, **arguments: Any) -> Message:
    params = {"name": tool, "arguments": arguments}
    return {"jsonrpc": "2.0", "id": request_id, "method": "tools/call", "params": params}


def result(request_id: object = 1, **structured: Any) -> Message:
    text = {"type": "text", "text": json.dumps(structured)}
    return {"jsonrpc": "2.0", "id": request_id, "result": {"content": [text], "structuredContent": structured}}


def told(*content: Message, **members: Any) -> Message:
    return {"jsonrpc": "2.0", "id": 1, "result": {"content": list(content), **members}}


def refused(answer: Outcome) -> bool:
    return answer.status == 200 and answer.json().get("error") == NOT_FOUND


@pytest.mark.parametrize("kind", [JSON, STREAM])
async def test_a_handle_is_used_by_whoever_it_was_given_to_and_by_nobody_else(kind: bytes) -> None:
    place = Place()
    answer = await place.open(kind=kind)
    assert b"b-1" in answer.body
    mine = await place.add()
    assert (mine.json(), place.app.calls) == (result(), 2)
    theirs = await place.add(who=b"bob")
    assert refused(theirs)
    assert place.app.calls == 2


async def test_anothers_handle_is_answered_like_one_that_never_was_and_only_the_audit_tells() -> None:
    place = Place()
    unknown = await place.add(who=b"bob")
    assert place.reason()[0] == "handle_not_found"
    assert "is unknown" in place.reason()[1]
    await place.open()
    foreign = await place.add(who=b"bob")
    assert "belongs to another principal" in place.reason()[1]
    assert "b-1" not in place.reason()[1]
    assert (foreign.status, foreign.headers, foreign.body) == (unknown.status, unknown.headers, unknown.body)
    assert len(place.store.batches) == 1


async def test_a_handle_is_of_one_kind_at_one_resource() -> None:
    place = Place()
    await place.open()
    assert refused(await place.ask(call("track", order="b-1")))
    assert refused(await place.add(path="/sse"))
    assert len({key_of(MCP, "a", "x"), key_of(MCP, "b", "x"), key_of(SSE, "a", "x")}) == 3


async def test_it_is_bound_before_it_goes_out() -> None:
    place = Place()
    place.store.fault = StoreUnavailable("down")
    answer = await place.open()
    assert (answer.body, answer.complete) == (b"", False)
    place.store.fault = None
    assert refused(await place.add())


async def test_a_handle_that_belongs_to_another_does_not_go_out() -> None:
    place = Place()
    await place.open()
    for kind in (JSON, STREAM):
        answer = await place.open(who=b"bob", kind=kind)
        assert (answer.body, answer.complete) == (b"", False)
    assert refused(await place.add(who=b"bob"))
    assert not refused(await place.add())


async def test_use_and_a_new_gift_to_its_owner_keep_a_handle_alive() -> None:
    place = Place()
    await place.open()
    for use in (place.add, place.open, place.add):
        place.store.clock.advance(3599)
        assert not refused(await use())
    place.store.clock.advance(3600)
    assert refused(await place.add())


async def test_anothers_try_keeps_no_handle_alive() -> None:
    place = Place()
    await place.open()
    place.store.clock.advance(3000)
    await place.add(who=b"bob")
    place.store.clock.advance(600)
    assert refused(await place.add())


async def test_while_the_store_is_silent_what_uses_a_handle_is_refused_and_nothing_else() -> None:
    place = Place()
    await place.open()
    place.store.fault = StoreUnavailable("down")
    answer = await place.add()
    assert (answer.status, answer.value(b"retry-after")) == (503, b"1")
    assert (await place.ask(call("other", basket="b-1"))).status == 200


async def test_a_record_that_was_not_made_here_counts_as_absent() -> None:
    place = Place()
    key = key_of(MCP, "basket", "b-1")
    await place.store.run([Put(key, bind(KeyRing((b"x" * 32,)), key, ALICE), timedelta(hours=1))])
    assert refused(await place.add())
    assert "not made here" in place.reason()[1]


# --- where handles are used -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("add", {"basket": "b-1"}),
        ("add", {"baskets": ["b-1", "b-1"]}),
        ("add", {"baskets": {"any": "b-1"}}),
        ("add", {"baskets": '["b-1"]'}),
        ("pay", {"order": {"basket": {"id": "b-1"}}}),
        ("pay", {"order": '{"basket":{"id":"b-1"}}'}),
        ("pay", {"order": {"basket": ' {"id" : "b-1"}'}}),
        ("copy", {"from": "b-1"}),
    ],
)
async def test_every_declared_place_is_judged(tool: str, arguments: Message) -> None:
    place = Place()
    await place.open()
    assert not refused(await place.ask(call(tool, **arguments)))
    assert place.app.calls == 2
    assert refused(await place.ask(call(tool, **arguments), who=b"bob"))
    assert place.app.calls == 2


@pytest.mark.parametrize(
    "arguments",
    [
        {"basket": "b-2"},
        {"basket": "b-1", "baskets": ["b-1", "b-2"]},
        {"basket": "b-1", "order": "o-1"},
        {"basket": " b-1"},
        {"basket": "B-1"},
        {"basket": '"b-1"'},
        {"basket": ["b-1"]},
        {"basket": {"id": "b-1"}},
        {"basket": True},
        {"basket": 1.0},
        {"basket": ""},
        {"basket": "x" * (MAX_HANDLE_CHARACTERS + 1)},
        {"basket": "x" * 1_000_000},
        {"baskets": "b-1"},
        {"baskets": '{"a":"b-1","a":"b-2"}'},
        {"baskets": '["b-1",'},
        {"baskets": "\ud800"},
        {"baskets": [f"b-{number}" for number in range(MAX_USED + 1)]},
    ],
    ids=lambda arguments: json.dumps(arguments)[:40],
)
async def test_whatever_is_not_the_callers_own_handle_is_answered_like_an_unknown_one(arguments: Message) -> None:
    place = Place()
    await place.open()
    unknown = await place.add("never")
    answer = await place.ask(call("add", **arguments))
    assert (answer.status, answer.headers, answer.body) == (unknown.status, unknown.headers, unknown.body)
    assert place.app.calls == 1


@pytest.mark.parametrize(
    "odd", [True, 1.0, ["1"], {"id": "1"}, "x" * (MAX_HANDLE_CHARACTERS + 1)], ids=lambda odd: str(odd)[:9]
)
async def test_what_cannot_be_a_handle_is_refused_without_asking_the_store(odd: object) -> None:
    place = Place()
    for handle in ("True", "1", "1.0"):
        await place.open(handle)
    assert refused(await place.add(odd))
    assert place.store.batches == []


async def test_a_request_may_use_a_bounded_number_of_handles() -> None:
    place = Place()
    await place.open("b-0")
    many = [f"b-{number}" for number in range(MAX_USED + 1)]
    await place.ask(call("copy", **{"from": "b-0"}), result(all=[{"id": one} for one in many]))
    assert not refused(await place.ask(call("add", baskets=many[1:])))
    assert refused(await place.ask(call("add", baskets=many)))
    assert place.store.batches == []


@pytest.mark.parametrize(
    "arguments", [{}, {"basket": None}, {"baskets": []}, {"baskets": [None]}, {"baskets": 7}, {"other": "b-1"}], ids=str
)
async def test_where_nothing_is_used_nothing_is_asked(arguments: Message) -> None:
    place = Place()
    assert (await place.ask(call("add", **arguments))).json() == result()
    assert place.store.batches == []


@pytest.mark.parametrize("arguments", [None, [], 7, "", '{"basket":"b-1"}', "b-1"], ids=repr)
async def test_arguments_of_another_shape_let_no_handle_pass(arguments: object) -> None:
    place = Place()
    await place.open()
    message = call("add")
    message["params"]["arguments"] = arguments
    answer = await place.ask(message, who=b"bob")
    assert refused(answer) == isinstance(arguments, str)
    del message["params"]["arguments"]
    assert not refused(await place.ask(message))


async def test_other_methods_and_tools_are_left_alone() -> None:
    place = Place()
    await place.ask({**call("add", basket="b-9"), "method": "prompts/get"})
    await place.ask(call("unknown", basket="b-9"), result(basket="b-9"))
    assert (place.app.calls, place.store.batches) == (2, [])


async def test_every_call_of_a_batch_is_judged_and_learned_from() -> None:
    place = Place()
    opened = [result("y", basket="b-2"), result("x", basket="b-1"), result(7, basket="b-7")]
    answer = await place.ask([call("open", "x"), call("open", "y"), call("add", "z")], opened)
    assert answer.json() == opened
    both = [call("add", 1, basket="b-1"), call("add", 2, basket="b-2")]
    assert (await place.ask(both, [])).json() == []
    assert refused(await place.ask([*both, call("add", 3, basket="b-7")])), "that id belongs to no call"
    assert (await place.ask([*both, call("add", 3, basket="b-7")])).json()["id"] is None


async def test_calls_that_share_an_id_are_learned_from_by_the_places_of_each() -> None:
    place = Place()
    await place.ask([call("open"), call("pay")], [result(basket="b-1", order="o-1")])
    assert not refused(await place.ask(call("add", basket="b-1", order="o-1")))


# --- where handles are given out --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("says", "handles"),
    [
        (result(basket="b-1"), ["b-1"]),
        (result(basket=7), [7, "7"]),
        (result(basket="7"), [7, "7"]),
        (result(basket=-(10**40)), [-(10**40)]),
        (result(basket=""), [""]),
        (result(basket="日本 \ud800\x00\n"), ["日本 \ud800\x00\n"]),
        (result(basket="x" * MAX_HANDLE_CHARACTERS), ["x" * MAX_HANDLE_CHARACTERS]),
        (told({"type": "text", "text": '{"basket": "b-1"}'}), ["b-1"]),
        (told({"type": "image", "data": ""}, {"type": "text", "text": '{"basket":"b-1"}'}), ["b-1"]),
        (told({"type": "text", "text": '{"basket":"b-1"}'}, structuredContent=None), ["b-1"]),
        (told({"type": "text", "text": '{"basket":"b-1"}'}, isError=False), ["b-1"]),
    ],
    ids=lambda says: json.dumps(says)[:60],
)
async def test_a_handle_is_learned_wherever_the_result_has_it(says: Message, handles: list[object]) -> None:
    place = Place()
    assert (await place.ask(call("open"), says)).body == json.dumps(says).encode()
    for handle in handles:
        assert not refused(await place.add(handle))
        assert refused(await place.add(handle, who=b"bob"))


async def test_a_text_that_is_no_json_is_the_handle_where_the_path_is_the_whole() -> None:
    place = Place(Handle(kind="basket", minted={"open": "$"}, used={"add": "$.basket"}))
    for text in ("b-1", '"b-2"', "007", "[" * 100_000):
        await place.ask(call("open"), told({"type": "text", "text": text}))
    assert not refused(await place.add("b-1"))
    assert not refused(await place.add("b-2"))
    assert not refused(await place.add("007"))
    assert refused(await place.add("7"))


async def test_all_handles_of_a_result_are_learned_in_one_round_trip() -> None:
    place = Place()
    await place.open()
    await place.ask(call("copy", **{"from": "b-1"}), result(new="b-2", all=[{"id": "b-3"}, {"id": "b-1"}, {"no": 1}]))
    assert len(place.store.batches) == 2
    assert not refused(await place.ask(call("add", baskets=["b-1", "b-2", "b-3"])))


@pytest.mark.parametrize(
    "says",
    [
        result(basket=None),
        result(basket=True),
        result(basket=1.5),
        result(basket=["b-1"]),
        result(other="b-1"),
        result(2, basket="b-1"),
        result("1", basket="b-1"),
        {**result(basket="b-1"), "id": ["b-1"]},
        {"jsonrpc": "2.0", "id": 1, "error": {"code": 1, "message": "no", "data": {"result": 1, "basket": "b-1"}}},
        {"jsonrpc": "2.0", "id": 1, "result": ["b-1"]},
        {"jsonrpc": "2.0", "method": "notifications/message", "params": {"result": {"basket": "b-1"}}},
        told({"type": "text", "text": '{"basket":"b-1"}'}, isError=True),
        told(structuredContent={"basket": "b-1"}, isError=True),
        told({"type": "text", "text": "b-1"}),
        told({"type": "text", "text": None}),
        told({"type": "resource"}),
        told(),
        {"jsonrpc": "2.0", "id": 1, "result": {"content": {"type": "text", "text": '{"basket":"b-1"}'}}},
        {"jsonrpc": "2.0", "id": 1, "result": {"content": ["text"]}},
        [],
    ],
    ids=lambda says: json.dumps(says)[:60],
)
async def test_what_is_no_handle_passes_unchanged_and_binds_nothing(says: object) -> None:
    place = Place()
    assert (await place.ask(call("open"), says)).body == json.dumps(says).encode()
    assert refused(await place.add("b-1"))


async def test_handles_that_cannot_be_bound_do_not_go_out() -> None:
    place = Place()
    too_long = await place.open("x" * (MAX_HANDLE_CHARACTERS + 1))
    assert (too_long.body, too_long.complete) == (b"", False)
    await place.open()
    many = [{"id": number} for number in range(MAX_MINTED + 1)]
    too_many = await place.ask(call("copy", **{"from": "b-1"}), result(all=many))
    assert (too_many.body, too_many.complete) == (b"", False)
    assert (await place.ask(call("copy", **{"from": "b-1"}), result(all=many[1:]))).complete


async def test_a_notification_of_a_tool_call_is_judged_and_teaches_nothing() -> None:
    place = Place()
    opening = call("open")
    del opening["id"]
    await place.ask(opening, {**result(basket="b-1"), "id": None})
    assert refused(await place.add())


async def test_a_call_without_a_handle_costs_no_round_trip_and_its_response_is_not_read() -> None:
    place = Place()
    place.app.headers = ((b"content-length", b"2"), (b"content-type", JSON))
    answer = await drive(place.guarded, http_scope(), json.dumps(call("other")).encode())
    assert answer.value(b"content-length") == b"2"
    assert place.store.batches == []


# --- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"kind": "Basket"}, "kind must be"),
        ({"kind": ""}, "kind must be"),
        ({"kind": "x" * 65}, "kind must be"),
        ({"kind": "a:b"}, "kind must be"),
        ({"minted": {}}, "handle basket: needs a tool"),
        ({"used": {}}, "handle basket: needs a tool"),
    ],
)
def test_a_kind_that_cannot_work_is_no_setting(members: Message, message: str) -> None:
    given: Message = {"kind": "basket", "minted": {"open": "$.id"}, "used": {"add": "$.id"}, **members}
    with pytest.raises(ConfigurationError, match=message):
        Handle(**given)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"handles": ()}, "handles: name at least one"),
        ({"handles": (BASKET, BASKET)}, "handles: name at least one"),
        ({"handles": (BASKET,), "ttl": timedelta(0)}, "ttl must be"),
        (
            {"handles": (Handle(kind="b", minted={"open": "$.id"}, used={"add": ("$.a", "$.b[")}),)},
            r"handle b: used\['add'\] '\$\.b\[': character 4: ",
        ),
        (
            {"handles": (Handle(kind="b", minted={"open": "id"}, used={"add": "$.a"}),)},
            r"handle b: minted\['open'\] 'id': character 1: ",
        ),
    ],
)
def test_a_layer_that_cannot_work_is_not_made(settings: Message, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Handles(store=CountingStore(), ring=RING, **settings)
