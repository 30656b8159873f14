"""Tasks belong to the principal they were created for; another's task is answered like one that never existed."""

import json
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_guard.auditlog import AuditLog, MemorySink
from mcp_guard.bindings import bind, kept_read
from mcp_guard.facts import Call, MessageKind, RpcMessage, fact
from mcp_guard.failures import ConfigurationError, StoreUnavailable
from mcp_guard.keyring import KeyRing
from mcp_guard.layers.audit import Audit
from mcp_guard.layers.tasks import MAX_LISTED, MAX_PRESENTED, Tasks, key_of
from mcp_guard.protocol.tasks import RELATED, asked, made, told
from mcp_guard.stack import guard
from mcp_guard.stores.base import Get, Put
from tests.guard.asgi import CountingApp, Outcome, drive, http_scope
from tests.guard.stubs import ALICE, BOB, MCP, SSE, CountingStore, Facts

RING = KeyRing((b"k" * 32,))
NOT_FOUND = {"code": -32602, "message": "Task not found"}
JSON, STREAM = b"application/json", b"text/event-stream"
Message = dict[str, Any]


class Place:
    """A guarded app that answers what a test says, and people to use it."""

    def __init__(self, **settings: Any) -> None:
        self.store = CountingStore()
        self.app = CountingApp()
        self.audit = MemorySink()
        tasks = Tasks(store=self.store, ring=RING, **settings)
        self.guarded = guard(self.app, Audit(log=AuditLog(self.audit), clock=self.store.clock), Facts(), tasks)

    async def ask(
        self,
        message: object = None,
        says: object = None,
        *,
        who: bytes = b"alice",
        kind: bytes = JSON,
        method: str = "POST",
        path: str = "/mcp",
        modern: bool = False,
    ) -> Outcome:
        """One request, to which the app says `says`: a message, several in a stream, or bytes as they stand."""
        self.app.headers = ((b"content-type", kind),)
        self.app.chunks = said(says if says is not None else {"jsonrpc": "2.0", "id": 1, "result": {}}, kind)
        self.store.batches.clear()
        headers = [(b"x-as", who), *([(b"mcp-protocol-version", b"2026-07-28")] if modern else [])]
        data = b"" if message is None else json.dumps(message).encode()
        return await drive(self.guarded, http_scope(method, path, headers=headers), data)

    async def create(self, task: str = "t-1", who: bytes = b"alice", **members: Any) -> Outcome:
        return await self.ask(call(), created(task, **members), who=who)

    async def get(self, task: object = "t-1", who: bytes = b"alice") -> Outcome:
        return await self.ask(request("tasks/get", taskId=task), who=who)

    def reason(self) -> tuple[str, str]:
        """The last verdict of the audit, and why."""
        record = self.audit.records()[-1]
        return record["verdict"], record["reason"]


def said(what: object, kind: bytes) -> list[bytes]:
    if isinstance(what, list) and kind == STREAM:
        return [one if isinstance(one, bytes) else event(one) for one in what]
    return [what if isinstance(what, bytes) else json.dumps(what).encode()]


def event(message: object, before: str = "") -> bytes:
    return f"{before}data: {json.dumps(message)}\n\n".encode()


def request(method: str, request_id: str | int = 1, **params: Any) -> Message:
    return {"jsonrpc": "2.0", "id": request_id, "method": method, "params": params}


def notification(method: str, **params: Any) -> Message:
    return {"jsonrpc": "2.0", "method": method, "params": params}


def call() -> Message:
    return request("tools/call", name="slow", arguments={}, task={"ttl": 60_000})


def task(identifier: str = "t-1", **members: Any) -> Message:
    times = {"createdAt": "2026-01-01T00:00:00Z", "lastUpdatedAt": "2026-01-01T00:00:00Z"}
    return {"taskId": identifier, "status": "working", **times, "ttl": 3_600_000, **members}


def result(**members: Any) -> Message:
    return {"jsonrpc": "2.0", "id": 1, "result": members}


def created(identifier: str = "t-1", **members: Any) -> Message:
    """CreateTaskResult of 2025-11-25."""
    return result(task=task(identifier, **members))


def created_by_extension(identifier: str = "t-1") -> Message:
    """CreateTaskResult of the extension."""
    shown = {name: value for name, value in task(identifier).items() if name != "ttl"}
    return result(resultType="task", ttlMs=3_600_000, **shown)


def status(identifier: str = "t-1") -> Message:
    return notification("notifications/tasks/status", **task(identifier))


def status_by_extension(identifier: str = "t-1") -> Message:
    return notification("notifications/tasks", **task(identifier))


def related(identifier: object = "t-1") -> Message:
    return {"_meta": {RELATED: {"taskId": identifier}}}


USES = {
    "get": request("tasks/get", taskId="t-1"),
    "result": request("tasks/result", taskId="t-1"),
    "cancel": request("tasks/cancel", taskId="t-1"),
    "update": request("tasks/update", taskId="t-1", inputResponses={}),
    "a method of later": request("tasks/later", taskId="t-1"),
    "related": request("elicitation/later", **related()),
}
CREATIONS = {"2025-11-25": created(), "extension": created_by_extension()}
STATUSES = {
    "2025-11-25": status(),
    "extension": status_by_extension(),
    "related": notification("notifications/progress", progress=1, **related()),
    "request": request("elicitation/create", message="?", **related()),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
@pytest.mark.parametrize("creation", CREATIONS.values(), ids=CREATIONS)
async def test_a_task_is_used_by_whoever_created_it_and_by_nobody_else(creation: Message, use: Message) -> None:
    place = Place()
    await place.ask(call(), creation)
    mine = await place.ask(use)
    assert (mine.status, place.app.calls) == (200, 2)
    theirs = await place.ask(use, who=b"bob")
    assert theirs.json() == {"jsonrpc": "2.0", "id": 1, "error": NOT_FOUND}
    assert (theirs.status, place.app.calls) == (200, 2)


@pytest.mark.parametrize("use", USES.values(), ids=USES)
async def test_anothers_task_is_answered_like_one_that_never_was_and_only_the_audit_tells(use: Message) -> None:
    place = Place()
    unknown = await place.ask(use, who=b"bob")
    assert place.reason()[0] == "task_not_found"
    assert "is unknown" in place.reason()[1]
    await place.create()
    foreign = await place.ask(use, who=b"bob")
    assert "belongs to another principal" in place.reason()[1]
    assert "t-1" not in place.reason()[1]
    assert (foreign.status, foreign.headers, foreign.body) == (unknown.status, unknown.headers, unknown.body)
    assert len(place.store.batches) == 1


async def test_a_task_of_one_resource_is_unknown_at_another() -> None:
    place = Place()
    await place.create()
    assert (await place.ask(USES["get"], path="/sse")).json()["error"] == NOT_FOUND
    assert key_of(MCP, "t-1") != key_of(SSE, "t-1")


async def test_the_task_is_bound_before_its_id_goes_out() -> None:
    place = Place()
    place.store.fault = StoreUnavailable("down")
    refused = await place.create()
    assert b"t-1" not in refused.body
    assert not refused.complete
    place.store.fault = None
    assert (await place.get()).json()["error"] == NOT_FOUND


@pytest.mark.parametrize("creation", CREATIONS.values(), ids=CREATIONS)
@given(sizes=st.lists(st.integers(1, 40), max_size=20))
async def test_a_task_is_learned_from_a_stream_however_it_is_cut(creation: Message, sizes: list[int]) -> None:
    place = Place()
    text = event(notification("notifications/progress", progress=1)) + event(creation, "event: message\nid: 7\n")
    chunks: list[bytes] = []
    rest = text
    for size in sizes:
        chunks, rest = [*chunks, rest[:size]], rest[size:]
    answer = await place.ask(call(), [*chunks, rest], kind=STREAM)
    assert answer.body == text
    assert "result" in (await place.get()).json()
    assert (await place.get(who=b"bob")).json()["error"] == NOT_FOUND


async def test_a_response_that_is_cut_into_parts_is_learned_from_too() -> None:
    place = Place()
    text = json.dumps(created()).encode()
    place.app.headers = ((b"content-type", JSON), (b"content-length", str(len(text)).encode()))
    place.app.chunks = [text[:30], text[30:31], text[31:]]
    answer = await drive(place.guarded, http_scope(headers=[(b"x-as", b"alice")]), json.dumps(call()).encode())
    assert answer.body == text
    assert "result" in (await place.get()).json()


async def test_an_escaped_spelling_of_the_member_is_learned_from_too() -> None:
    place = Place()
    await place.ask(call(), json.dumps(created()).replace("taskId", "task\\u0049d").encode())
    assert "error" not in (await place.get()).json()


@pytest.mark.parametrize("creation", CREATIONS.values(), ids=CREATIONS)
@pytest.mark.parametrize("kind", [JSON, STREAM])
async def test_a_task_that_is_bound_to_another_does_not_go_out(kind: bytes, creation: Message) -> None:
    place = Place()
    await place.ask(call(), creation)
    answer = await place.ask(call(), [creation] if kind == STREAM else creation, who=b"bob", kind=kind)
    assert b"t-1" not in answer.body
    assert not answer.complete
    assert "result" in (await place.get()).json()
    assert (await place.get(who=b"bob")).json()["error"] == NOT_FOUND


async def test_a_result_that_belongs_to_anothers_task_does_not_go_out() -> None:
    place = Place()
    await place.create()
    answer = await place.ask(call(), result(content=[], **related()), who=b"bob")
    assert (answer.body, answer.complete) == (b"", False)


async def test_its_owner_may_be_given_the_same_task_again() -> None:
    place = Place()
    await place.create()
    assert (await place.create()).json() == created()
    assert "result" in (await place.get()).json()


# --- how long ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("members", "seconds"),
    [
        ({"ttl": 3_600_000}, 3600),
        ({"ttl": 0}, 60),
        ({"ttl": 10**400}, 86_400 * 2),
        ({"ttl": None}, 86_400 * 2),
        ({"ttlMs": 7_200_000}, 7200),
        ({"ttlMs": None}, 86_400 * 2),
        ({"ttl": True}, 600),
        ({"ttl": -1}, 600),
        ({"ttl": "9"}, 600),
        ({"ttl": float("nan")}, 600),
    ],
    ids=str,
)
async def test_a_task_is_remembered_as_long_as_it_says_it_lives(members: Message, seconds: int) -> None:
    place = Place(ttl=timedelta(minutes=10), max_ttl=timedelta(days=2))
    await place.create(**members)
    place.store.clock.advance(seconds - 1)
    assert "result" in (await place.get()).json()
    place.store.clock.advance(1)
    assert (await place.get()).json()["error"] == NOT_FOUND


async def test_a_look_at_a_task_restarts_its_time() -> None:
    place = Place()
    await place.create()
    for _ in range(3):
        place.store.clock.advance(3000)
        await place.ask(USES["get"], result(resultType="complete", **task()))
    assert "result" in (await place.get()).json()


@pytest.mark.parametrize("mention", [status(), result(content=[], **related())], ids=["status", "result"])
async def test_a_message_without_a_time_to_live_neither_shortens_nor_lengthens_it(mention: Message) -> None:
    place = Place(ttl=timedelta(minutes=10))
    await place.create()
    mention = json.loads(json.dumps(mention).replace('"ttl": 3600000', '"none": 0'))
    await place.ask(call(), [mention], kind=STREAM)
    place.store.clock.advance(3599)
    assert "result" in (await place.get()).json()
    place.store.clock.advance(1)
    assert (await place.get()).json()["error"] == NOT_FOUND


@pytest.mark.parametrize("ttl", [timedelta(seconds=59), timedelta(days=31)])
def test_a_time_out_of_bounds_is_no_setting(ttl: timedelta) -> None:
    with pytest.raises(ConfigurationError, match="ttl must be from"):
        Tasks(store=CountingStore(), ring=RING, ttl=ttl)


# --- records ----------------------------------------------------------------------------------------------------------


def spoiled(key: str) -> dict[str, bytes]:
    mine = bind(RING, key, ALICE)
    return {
        "garbage": b"\xff{",
        "empty": b"",
        "bare owner": b'{"owner":' + ALICE.owner + b"}",
        "moved from another key": bind(RING, "mcp:task:other", ALICE),
        "other ring": bind(KeyRing((b"x" * 32,)), key, ALICE),
        "other owner": mine.replace(b"alice", b"malik"),
        "cut": mine[:-1],
    }


@pytest.mark.parametrize("name", spoiled("k"))
async def test_a_record_that_was_not_made_here_counts_as_absent_and_is_audited(name: str) -> None:
    place = Place()
    key = key_of(MCP, "t-1")
    await place.store.run([Put(key, spoiled(key)[name], timedelta(hours=1))])
    unknown = await place.get("never")
    corrupt = await place.get()
    assert (corrupt.status, corrupt.body) == (unknown.status, unknown.body)
    assert "not made here" in place.reason()[1]
    assert (await place.create()).complete, "the app may give the task out, and then it is bound"
    assert "result" in (await place.get()).json()
    assert (await place.get(who=b"bob")).json()["error"] == NOT_FOUND


class Racing(CountingStore):
    """A store in which somebody else binds the task just before a corrupt record is replaced."""

    async def run(self, operations: Sequence[Any]) -> list[Any]:
        for operation in operations:
            if isinstance(operation, Put) and operation.only_if_equal is not None:
                await super().run([Put(operation.key, bind(RING, operation.key, BOB), timedelta(hours=1))])
        return await super().run(operations)


async def test_of_two_who_replace_a_corrupt_record_one_wins() -> None:
    place = Place()
    place.store = store = Racing()
    place.guarded = guard(place.app, Facts(), Tasks(store=store, ring=RING))
    await store.run([Put(key_of(MCP, "t-1"), b"garbage", timedelta(hours=1))])
    assert not (await place.create()).complete
    assert "result" in (await place.get(who=b"bob")).json()


class Forgetful(CountingStore):
    """A store that forgets what it is told."""

    async def run(self, operations: Sequence[Any]) -> list[Any]:
        await super().run(operations)
        return [True if isinstance(operation, Put) else None for operation in operations]


async def test_a_binding_that_cannot_be_read_back_is_none() -> None:
    place = Place()
    place.guarded = guard(place.app, Facts(), Tasks(store=Forgetful(), ring=RING))
    assert not (await place.create()).complete


async def test_while_the_store_is_silent_what_names_a_task_is_refused_and_nothing_else() -> None:
    place = Place()
    await place.create()
    place.store.fault = StoreUnavailable("down")
    refused = await place.get()
    assert (refused.status, refused.value(b"retry-after")) == (503, b"1")
    assert (await place.ask(request("tools/list"))).status == 200
    listing = await place.ask(request("tasks/list"), result(tasks=[task()]))
    assert (listing.body, listing.complete) == (b"", False)


async def test_a_request_without_a_task_costs_no_round_trip() -> None:
    place = Place()
    await place.ask(request("tools/call", name="add", arguments={"taskId": "t-1"}), result(content=[]))
    assert place.store.batches == []


# --- what is presented ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "odd",
    [None, 1, True, 1.5, [], ["t-1"], {}, {"$ne": ""}, "x" * 1025, "x" * 1_000_000],
    ids=lambda odd: repr(odd)[:20],
)
async def test_what_cannot_be_an_id_is_unknown_without_asking_the_store(odd: object) -> None:
    place = Place()
    unknown = await place.get("never")
    answer = await place.get(odd)
    assert (answer.status, answer.headers, answer.body) == (unknown.status, unknown.headers, unknown.body)
    assert place.store.batches == []
    assert (await place.ask(request("a", _meta={RELATED: odd}))).body == unknown.body


@pytest.mark.parametrize(
    "odd", ["", " t-1", "t-1 ", "T-1", "t\x00-1", "日本", "💥", "\ud800", "*", "mcp:task:x", "x" * 1024]
)
async def test_ids_with_odd_characters_are_ids_of_their_own(odd: str) -> None:
    place = Place()
    await place.create()
    assert (await place.get(odd)).json()["error"] == NOT_FOUND
    await place.create(odd)
    assert "result" in (await place.get(odd)).json()
    assert (await place.get(odd, who=b"bob")).json()["error"] == NOT_FOUND
    keys = [operation.key for batch in place.store.batches for operation in batch if isinstance(operation, Get)]
    assert all(key.isascii() and len(key) == len("mcp:task:") + 64 for key in keys)


async def test_a_method_without_the_id_it_needs_is_left_to_the_app() -> None:
    place = Place()
    assert (await place.ask(request("tasks/get"))).complete
    assert place.app.calls == 1


async def test_every_message_of_a_batch_is_judged() -> None:
    place = Place()
    await place.create("t-1")
    await place.create("t-2")
    own = [request("tasks/get", 1, taskId="t-1"), request("tasks/get", 2, taskId="t-2")]
    assert (await place.ask(own, [created()])).status == 200
    assert place.app.calls == 3
    refused = await place.ask([*own, request("tasks/get", 3, taskId="t-3")])
    assert refused.json() == {"jsonrpc": "2.0", "id": None, "error": NOT_FOUND}
    assert place.app.calls == 3
    assert (await place.ask([notification("a", **related()), notification("b", **related("t-3"))])).json()["error"]


async def test_ids_beyond_the_bound_are_unknown() -> None:
    place = Place()
    ids = [f"t-{number}" for number in range(MAX_PRESENTED + 1)]
    for one in ids:
        await place.create(one)
    shown = await place.ask(listen(ids))
    assert shown.complete
    assert len(place.store.batches[0]) == MAX_PRESENTED
    assert shown_ids(place) == ids[:MAX_PRESENTED]


@pytest.mark.parametrize("identifier", ["t-1", "t-2"], ids=["foreign", "unknown"])
async def test_a_notification_about_anothers_task_is_taken_and_not_handed_on(identifier: str) -> None:
    place = Place()
    await place.create()
    answer = await place.ask(notification("notifications/progress", progress=1, **related(identifier)), who=b"bob")
    assert (answer.status, answer.body, place.app.calls) == (202, b"", 1)
    assert place.reason()[0] == "task_not_found"
    mine = await place.ask(notification("notifications/progress", progress=1, **related()))
    assert (mine.status, place.app.calls) == (200, 2)


async def test_a_client_may_tell_of_the_tasks_that_it_runs_itself() -> None:
    place = Place()
    await place.ask(status("its-own"))
    await place.ask({"jsonrpc": "2.0", "id": 4, "result": {"task": task("its-own")}})
    assert place.app.calls == 2


# --- subscriptions ----------------------------------------------------------------------------------------------------


def listen(ids: object, **members: Any) -> Message:
    return request("subscriptions/listen", "s-1", notifications={"taskIds": ids, "toolsListChanged": True}, **members)


def shown_ids(place: Place) -> object:
    return json.loads(place.app.bodies[-1])["params"]["notifications"]["taskIds"]


async def test_of_a_subscription_the_app_is_shown_the_callers_own_tasks_alone() -> None:
    place = Place()
    for one, who in (("t-1", b"alice"), ("t-2", b"bob"), ("t-3", b"alice")):
        await place.create(one, who)
    asked_for = listen(["t-1", "t-2", "never", 7, None, ["t-1"], "x" * 2000, "t-3", "t-1"], _meta={"é": 1})
    await place.ask(asked_for)
    shown = json.loads(place.app.bodies[-1])
    assert shown_ids(place) == ["t-1", "t-3", "t-1"]
    shown["params"]["notifications"]["taskIds"] = asked_for["params"]["notifications"]["taskIds"]
    assert shown == asked_for, "nothing else changes"
    assert len(place.store.batches) == 1


async def test_layers_further_in_decide_on_the_subscription_that_the_app_is_shown() -> None:
    place = Place()
    await place.create()
    await place.ask(listen(["t-1", "t-2"]))
    (message,) = fact(place.app.scopes[-1], Call).messages
    assert message.params["notifications"]["taskIds"] == ["t-1"]


async def test_a_subscription_to_the_callers_own_tasks_reaches_the_app_byte_for_byte() -> None:
    place = Place()
    await place.create()
    await place.ask(listen(["t-1"]))
    assert place.app.bodies[-1] == json.dumps(listen(["t-1"])).encode()
    await place.ask(request("subscriptions/listen", notifications={"toolsListChanged": True}))
    assert (
        place.app.bodies[-1]
        == json.dumps(request("subscriptions/listen", notifications={"toolsListChanged": True})).encode()
    )


async def test_a_foreign_task_of_a_subscription_cannot_be_told_from_an_unknown_one() -> None:
    place = Place()
    await place.create()
    foreign = await place.ask(listen(["t-1"]), who=b"bob")
    unknown = await place.ask(listen(["t-9"]), who=b"bob")
    assert place.app.bodies[-1] == place.app.bodies[-2]
    assert shown_ids(place) == []
    assert (foreign.status, foreign.headers, foreign.body) == (unknown.status, unknown.headers, unknown.body)


@pytest.mark.parametrize("odd", ["t-1", {"0": "t-1"}, 1, True])
async def test_task_ids_that_are_no_list_are_none(odd: object) -> None:
    place = Place()
    await place.create()
    await place.ask(listen(odd))
    assert shown_ids(place) == []


@pytest.mark.parametrize("odd", [None, [], 1, {}])
async def test_a_filter_that_asks_for_no_task_is_left_to_the_app(odd: object) -> None:
    place = Place()
    for message in (request("subscriptions/listen", notifications=odd), listen(None)):
        await place.ask(message)
        assert place.app.bodies[-1] == json.dumps(message).encode()


@pytest.mark.parametrize("name", ["task_ids", "TaskIds", "taskids"])
async def test_no_other_spelling_of_task_ids_reaches_the_app(name: str) -> None:
    place = Place()
    await place.create("hers", who=b"bob")
    place.app.calls = 0
    outcome = await place.ask(request("subscriptions/listen", notifications={name: ["hers"], "taskIds": []}))
    assert outcome.json()["error"] == NOT_FOUND
    assert place.app.calls == 0


async def test_a_subscription_that_is_a_notification_is_shown_as_one() -> None:
    place = Place()
    message = notification("subscriptions/listen", notifications={"taskIds": ["t-1"]})
    await place.ask(message)
    assert json.loads(place.app.bodies[-1]) == notification("subscriptions/listen", notifications={"taskIds": []})


async def test_in_a_batch_a_subscription_to_anothers_task_is_refused() -> None:
    place = Place()
    await place.create()
    assert (await place.ask([listen(["t-1"]), call()])).complete
    refused = await place.ask([listen(["t-1"]), call()], who=b"bob")
    assert refused.json()["error"] == NOT_FOUND


# --- streams ----------------------------------------------------------------------------------------------------------

OTHER = notification("notifications/tools/list_changed")


@pytest.mark.parametrize("kind", STATUSES)
@pytest.mark.parametrize("identifier", ["t-1", "never"], ids=["foreign", "unknown"])
async def test_what_is_not_about_the_callers_tasks_is_taken_out_of_its_streams(kind: str, identifier: str) -> None:
    place = Place()
    await place.create()
    message = json.loads(json.dumps(STATUSES[kind]).replace('"t-1"', json.dumps(identifier)))
    says = [OTHER, event(message, "id: 9\nretry: 5\n"), message, OTHER]
    for answer in (
        await place.ask(says=says, who=b"bob", method="GET", kind=STREAM),
        await place.ask(listen(["t-1"]), says, who=b"bob", kind=STREAM),
    ):
        assert answer.body == event(OTHER) + b"id: 9\nretry: 5\n\n" + b"\n" + event(OTHER)
        assert answer.complete


@pytest.mark.parametrize("kind", STATUSES)
async def test_what_is_about_the_callers_own_tasks_goes_out_as_it_is(kind: str) -> None:
    place = Place()
    await place.create()
    for message, method in ((None, "GET"), (listen(["t-1"]), "POST"), (call(), "POST")):
        answer = await place.ask(message, [OTHER, STATUSES[kind]], method=method, kind=STREAM)
        assert answer.body == event(OTHER) + event(STATUSES[kind])


@pytest.mark.parametrize("kind", STATUSES)
async def test_a_new_task_is_learned_on_the_stream_that_answers_its_request(kind: str) -> None:
    place = Place()
    answer = await place.ask(call(), [STATUSES[kind]], kind=STREAM)
    assert answer.body == event(STATUSES[kind])
    assert "result" in (await place.get()).json()
    theirs = await place.ask(call(), [STATUSES[kind], OTHER], kind=STREAM, who=b"bob")
    assert theirs.body == b"\n" + event(OTHER)


async def test_a_call_beside_a_subscription_makes_nobody_the_owner_of_what_the_subscription_tells() -> None:
    place = Place()
    batch = [call(), request("subscriptions/listen", notifications={})]
    assert (await place.ask(batch, [status("t-new")], who=b"bob", kind=STREAM)).body == b"\n"
    assert (await place.create("t-new")).status == 200
    assert (await place.get("t-new", who=b"bob")).json()["error"] == NOT_FOUND


async def test_a_record_longer_than_any_of_ours_is_not_kept_in_memory() -> None:
    place = Place()
    kept = kept_read.cache_info().currsize
    record = b"x" * 65_000
    await place.store.run([Put(key_of(MCP, "t-1"), record, timedelta(hours=1))])
    assert (await place.get()).json()["error"] == NOT_FOUND
    assert kept_read.cache_info().currsize == kept


async def test_a_result_on_the_stream_of_http_sse_binds_its_task() -> None:
    place = Place()
    await place.ask(says=[created()], method="GET", path="/sse", kind=STREAM)
    assert "result" in (await place.ask(USES["get"], path="/messages/")).json()
    assert (await place.ask(USES["get"], path="/messages/", who=b"bob")).json()["error"] == NOT_FOUND


async def test_a_message_about_anothers_task_that_is_no_event_does_not_go_out() -> None:
    place = Place()
    await place.create()
    answer = await place.ask(call(), status(), who=b"bob")
    assert (answer.body, answer.complete) == (b"", False)


@pytest.mark.parametrize("odd", [None, 7, ["t-1"], "x" * 1025], ids=lambda odd: repr(odd)[:10])
async def test_what_an_app_calls_a_task_without_an_id_does_not_go_out(odd: Any) -> None:
    place = Place()
    for creation in (result(task={"taskId": odd}), result(resultType="task", taskId=odd)):
        assert (await place.ask(call(), creation)).body == b""
    answer = await place.ask(call(), [notification("notifications/tasks", taskId=odd)], kind=STREAM)
    assert answer.body == b"\n"


@pytest.mark.parametrize(
    "message",
    [
        result(content=[], structuredContent={"taskId": "t-2"}),
        result(taskId="t-2"),
        result(task="taskId"),
        result(task={"title": "taskId", "about": {"taskId": "t-2"}}),
        {"jsonrpc": "2.0", "id": 1, "error": {"code": 1, "message": "no", "data": {"taskId": "t-2"}}},
        notification("notifications/message", taskId="t-2"),
        notification("notifications/tasksomething", taskId="t-2"),
        {"jsonrpc": "2.0", "method": "notifications/tasks", "params": ["taskId"]},
        {"jsonrpc": "2.0", "method": 7, "params": {"taskId": "t-2"}},
        ["taskId", result()],
    ],
    ids=str,
)
async def test_what_names_no_task_passes_unchanged_and_binds_nothing(message: object) -> None:
    place = Place()
    answer = await place.ask(call(), message)
    assert answer.body == json.dumps(message).encode()
    assert place.store.batches == []


async def test_what_is_not_json_cannot_be_judged() -> None:
    place = Place()
    answer = await place.ask(call(), b'{"taskId": ')
    assert not answer.complete
    other = await place.ask(call(), b'{"taskId": ', kind=b"text/plain")
    assert other.body == b'{"taskId": '


# --- lists ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [JSON, STREAM])
async def test_of_a_list_the_caller_is_shown_its_own_tasks(kind: bytes) -> None:
    place = Place()
    for one, who in (("t-1", b"alice"), ("t-2", b"bob"), ("t-3", b"alice")):
        await place.create(one, who)
    entries = [task("t-2"), task("t-1"), task("never"), {"taskId": 7}, {"taskId": None}, {"note": 1}, "x", task("t-3")]
    page = result(tasks=entries, nextCursor="c-2")
    answer = await place.ask(request("tasks/list"), [page] if kind == STREAM else page, kind=kind)
    text = answer.body.removeprefix(b"data: ")
    shown = result(tasks=[task("t-1"), {"note": 1}, "x", task("t-3")], nextCursor="c-2")
    assert json.loads(text) == shown
    assert len(place.store.batches) == 1


async def test_a_list_of_own_tasks_goes_out_as_it_is() -> None:
    place = Place()
    await place.create()
    for page in (result(tasks=[task()]), result(tasks=[]), result(tasks={"taskId": 1}), result(tasks=[1], x="taskId")):
        assert (await place.ask(request("tasks/list"), page)).body == json.dumps(page).encode()


async def test_a_list_that_is_too_long_to_be_judged_does_not_go_out() -> None:
    place = Place()
    page = result(tasks=[{"taskId": str(number)} for number in range(MAX_LISTED)])
    assert (await place.ask(request("tasks/list"), page)).json() == result(tasks=[])
    page["result"]["tasks"].append({"taskId": "one more"})
    answer = await place.ask(request("tasks/list"), page)
    assert (answer.body, answer.complete) == (b"", False)


# --- the places of ids ------------------------------------------------------------------------------------------------

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["taskId", "task", "_meta", RELATED, "ttl", "tasks", "status"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)


@given(anything, anything, st.sampled_from(["notifications/tasks", "tasks/get", "subscriptions/listen", 7]))
def test_whatever_stands_in_a_message_is_read_without_a_fault(one: Any, other: Any, method: Any) -> None:
    parts: list[Callable[[], object]] = [
        lambda: told({"method": method, "params": one}),
        lambda: made({"task": one, "_meta": other, "status": "x", "taskId": other}),
        lambda: asked(RpcMessage(MessageKind.REQUEST, str(method), 1, None, {"notifications": one})),
    ]
    assert all(isinstance(part(), list) for part in parts)
