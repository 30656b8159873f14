"""A state comes back from the one who got it, for the request it was given for, in its time, and as often as it may."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from mcp_guard.asgi import Message, Receive, Scope, Send
from mcp_guard.auditlog import AuditLog, MemorySink
from mcp_guard.check import Layer
from mcp_guard.clock import ManualClock
from mcp_guard.facts import Call, Resource, ScopePolicy, fact
from mcp_guard.failures import ConfigurationError, StoreUnavailable
from mcp_guard.keyring import KeyRing
from mcp_guard.layers.audit import Audit
from mcp_guard.layers.intake import Intake
from mcp_guard.layers.request_state import RequestState
from mcp_guard.layers.scopes import Scopes
from mcp_guard.protocol.sealed_state import MAX_STATE_BYTES
from mcp_guard.stack import guard
from mcp_guard.stores.base import Claim
from tests.guard.asgi import Outcome, body, drive, http_scope, read_all, start
from tests.guard.stubs import MCP, PEOPLE, CountingStore, Facts, principal

MODERN = "2026-07-28"
META = {"io.modelcontextprotocol/protocolVersion": MODERN}
RING = KeyRing.generate()
OTHERS = {
    b"issuer": principal("alice", issuer="https://other.example"),
    b"subject": principal("bob"),
    b"client": principal("alice", client="client-2"),
    b"tenant": principal("alice", tenant="acme"),
}
REFRESHED = principal("alice", token="c" * 16, expires_at=2_000_000_000.0)
LESS = principal("alice", scopes=frozenset())
EVERYONE = {**PEOPLE, **OTHERS, b"refreshed": REFRESHED, b"less": LESS}
STATE = '{"step": 1, "secret": "\u00e9 \\" \U0001f600"}'


@dataclass
class Asker:
    """An app that asks once and is done when its state comes back, or answers with `results` in turn."""

    stream: bool = False
    state: Any = STATE
    results: list[Any] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    raw: list[bytes] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    done: list[Any] = field(default_factory=list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        data = await read_all(receive)
        asked = json.loads(data)
        self.raw.append(data)
        self.bodies.append(asked)
        self.calls.append(fact(scope, Call))
        assert dict(scope["headers"]).get(b"content-length", str(len(data)).encode()) == str(len(data)).encode()
        await anyio.lowlevel.checkpoint()
        text = json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": self._result(asked["params"])})
        for message in self._sent(text):
            await send(message)

    def _result(self, params: dict[str, Any]) -> Any:
        if self.results:
            return self.results.pop(0)
        if "requestState" in params:
            self.done.append(params["requestState"])
            return {"resultType": "complete", "content": []}
        return {"resultType": "input_required", "inputRequests": {}, "requestState": self.state}

    def _sent(self, text: str) -> list[Message]:
        if not self.stream:
            length = (b"content-length", str(len(text)).encode())
            return [start(200, (b"content-type", b"application/json"), length), body(text.encode())]
        progress = b'event: message\ndata: {"jsonrpc":"2.0","method":"notifications/progress"}\n\n'
        half = len(text) // 2
        return [
            start(200, (b"content-type", b"text/event-stream")),
            body(progress, more=True),
            body(b"event: message\ndata: " + text[:half].encode(), more=True),
            body(text[half:].encode() + b"\n\n", more=True),
            body(),
        ]


@dataclass
class Place:
    """A guarded app and people to use it."""

    layers: Sequence[Layer]
    app: Any

    def __post_init__(self) -> None:
        self.guarded = guard(self.app, *self.layers)

    async def ask(
        self,
        who: bytes = b"alice",
        *,
        method: str = "tools/call",
        name: str = "pay",
        modern: bool = True,
        path: str = "/mcp",
        data: bytes | None = None,
        **params: Any,
    ) -> Outcome:
        """One request; `params` are added to the usual ones."""
        if data is None:
            data = request(method, name, **params)
        fields = [(b"x-as", who), (b"content-type", b"application/json"), (b"content-length", str(len(data)).encode())]
        if modern:
            fields += [(b"mcp-protocol-version", MODERN.encode()), (b"mcp-method", method.encode())]
            fields += [(b"mcp-name", name.encode())]
        return await drive(self.guarded, http_scope("POST", path, fields), data)

    async def begin(self, who: bytes = b"alice", **given: Any) -> str:
        """A request that is answered with a question; its state as the client is given it."""
        outcome = await self.ask(who, **given)
        assert outcome.status == 200
        result = message_of(outcome)["result"]
        assert result["resultType"] == "input_required"
        state: str = result["requestState"]
        return state


def request(method: str = "tools/call", name: str = "pay", **params: Any) -> bytes:
    """The body of a request that asks `name` of `method`."""
    named = {"uri": name} if method == "resources/read" else {"name": name}
    given = {**named, "arguments": {"amount": 3, "to": "Eve"}, "_meta": META, **params}
    return json.dumps({"jsonrpc": "2.0", "id": "r1", "method": method, "params": given}).encode()


def message_of(outcome: Outcome) -> Any:
    """The message of a JSON response or of the last event."""
    return json.loads(outcome.body.rpartition(b"data: ")[2] or outcome.body)


def is_refused(outcome: Outcome) -> None:
    assert outcome.status == 400
    error = {"code": -32602, "message": "Invalid or expired requestState"}
    assert outcome.json() == {"jsonrpc": "2.0", "id": "r1", "error": error}


def place_of(app: Any, clock: ManualClock, *outer: Layer, **settings: Any) -> Place:
    state = RequestState(**{"ring": RING, "clock": clock, **settings})
    return Place((*outer, Facts(EVERYONE), Intake(), state), app)


@pytest.fixture
def app() -> Asker:
    return Asker()


@pytest.fixture
def place(app: Asker, clock: ManualClock, sink: MemorySink) -> Place:
    return place_of(app, clock, Audit(AuditLog(sink), clock=clock))


def reason(sink: MemorySink) -> Any:
    record = sink.records()[-1]
    assert record["verdict"] == "state_invalid"
    return record["reason"]


# The round trip


@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
@pytest.mark.parametrize("method", ["tools/call", "prompts/get", "resources/read"])
async def test_the_app_gets_its_own_state_back(app: Asker, place: Place, stream: bool, method: str) -> None:
    app.stream = stream
    sealed = await place.begin(method=method)
    assert sealed != STATE
    outcome = await place.ask(method=method, requestState=sealed, inputResponses={"a": {"action": "accept"}})
    assert message_of(outcome)["result"]["resultType"] == "complete"
    assert app.done == [STATE]
    assert app.bodies[-1]["params"]["inputResponses"] == {"a": {"action": "accept"}}


async def test_the_client_sees_nothing_of_the_state(place: Place) -> None:
    outcome = await place.ask()
    assert b"secret" not in outcome.body
    assert b"step" not in outcome.body


async def test_only_the_state_differs_in_what_goes_out(app: Asker, place: Place) -> None:
    result = {"resultType": "input_required", "requestState": "s", "inputRequests": {"a": [1, 2.5, "\u00e9\ud800"]}}
    app.results = [result]
    seen = message_of(await place.ask())["result"]
    assert {**seen, "requestState": "s"} == result
    assert seen["requestState"] != "s"


async def test_the_body_is_otherwise_handed_on_byte_for_byte(app: Asker, place: Place) -> None:
    sealed = await place.begin()
    odd = request(requestState=sealed).replace(b'"amount": 3', b'  "amount" :\t3')
    await place.ask(data=odd)
    assert app.raw[-1] == odd.replace(f'"{sealed}"'.encode(), json.dumps(STATE).encode())


async def test_layers_further_in_see_the_call_that_the_app_sees(app: Asker, place: Place) -> None:
    sealed = await place.begin()
    await place.ask(requestState=sealed)
    assert app.calls[-1].messages[0].params == app.bodies[-1]["params"]
    assert app.calls[-1].messages[0]._replace(params={}) == app.calls[0].messages[0]._replace(params={})
    assert app.calls[-1].modern


async def test_each_round_has_a_seal_of_its_own(app: Asker, place: Place) -> None:
    rounds = [{"resultType": "input_required", "requestState": str(number)} for number in range(3)]
    app.results = [*rounds]
    state = await place.begin()
    for number in range(1, 3):
        state = await place.begin(requestState=state)
        assert app.bodies[-1]["params"]["requestState"] == str(number - 1)
    await place.ask(requestState=state)
    assert app.done == ["2"]


async def test_a_seal_of_a_seal_opens_one_at_a_time(app: Asker, clock: ManualClock) -> None:
    twice = Place((Facts(), Intake(), *(RequestState(ring=RING, clock=clock) for _ in "ab")), app)
    sealed = await twice.begin()
    await twice.ask(requestState=sealed)
    assert app.done == [STATE]


async def test_two_workers_with_one_ring_share_states(clock: ManualClock) -> None:
    one, other = Asker(), Asker()
    sealed = await place_of(one, clock).begin()
    await place_of(other, clock).ask(requestState=sealed)
    assert (one.done, other.done) == ([], [STATE])


async def test_a_refreshed_token_does_not_end_a_state(app: Asker, place: Place) -> None:
    await place.ask(b"refreshed", requestState=await place.begin())
    assert app.done == [STATE]


async def test_a_stream_is_not_held_up(app: Asker, place: Place) -> None:
    app.stream = True
    outcome = await place.ask()
    assert outcome.chunks[0].startswith(b"event: message")
    assert b"requestState" not in outcome.chunks[0]
    assert outcome.complete


# Refusals


async def refusals(place: Place, app: Asker, sealed: str, **given: Any) -> None:
    served = len(app.bodies)
    is_refused(await place.ask(**{"requestState": sealed, **given}))
    assert len(app.bodies) == served, "the app was called"
    assert (await place.ask(requestState=sealed)).status == 200, "the owner's retry goes on working"


@pytest.mark.parametrize("thief", OTHERS)
async def test_another_principal_is_refused(app: Asker, place: Place, sink: MemorySink, thief: bytes) -> None:
    sealed = await place.begin()
    is_refused(await place.ask(thief, requestState=sealed))
    assert "another key, principal or request" in reason(sink)
    assert sealed not in b"".join(sink.lines).decode()
    assert app.done == []


@pytest.mark.parametrize(
    "given",
    [
        {"name": "pay2"},
        {"method": "prompts/get"},
        {"arguments": {"amount": 4, "to": "Eve"}},
        {"arguments": {"amount": 3.0, "to": "Eve"}},
        {"arguments": {"amount": 3}},
        {"cursor": "x"},
    ],
)
async def test_a_state_does_not_serve_another_request(app: Asker, place: Place, given: dict[str, Any]) -> None:
    await refusals(place, app, await place.begin(), **given)


async def test_a_state_does_not_serve_another_resource(app: Asker, place: Place) -> None:
    await refusals(place, app, await place.begin(), path="/sse")


async def test_equal_arguments_in_another_order_are_served(app: Asker, place: Place) -> None:
    sealed = await place.begin()
    await place.ask(requestState=sealed, arguments={"to": "Eve", "amount": 3})
    assert app.done == [STATE]


@pytest.mark.parametrize("value", [None, 7, True, [], {}, ["x"], "", "x", "A" * 1_000_000, STATE])
async def test_what_is_no_seal_is_refused(app: Asker, place: Place, value: object) -> None:
    is_refused(await place.ask(requestState=value))
    assert app.bodies == []


@pytest.mark.parametrize("name", ["request_state", "requeststate", "RequestState"])
async def test_a_state_under_another_spelling_is_refused(app: Asker, place: Place, name: str) -> None:
    smuggled: dict[str, Any] = {name: STATE}
    is_refused(await place.ask(**smuggled))
    assert app.bodies == []


async def test_a_state_with_escapes_is_refused(app: Asker, place: Place) -> None:
    sealed = await place.begin()
    escaped = f"\\u{ord(sealed[0]):04x}{sealed[1:]}"
    data = request(requestState=sealed, inputResponses={"a": "HERE"}).replace(sealed.encode(), escaped.encode())
    is_refused(await place.ask(data=data.replace(b"HERE", sealed.encode())))
    assert app.done == []


@pytest.mark.parametrize(("seconds", "good"), [(599, True), (600, False), (10_000, False)])
async def test_a_state_expires(
    app: Asker, place: Place, clock: ManualClock, sink: MemorySink, seconds: int, good: bool
) -> None:
    sealed = await place.begin()
    clock.advance(seconds)
    outcome = await place.ask(requestState=sealed)
    if good:
        assert app.done == [STATE]
    else:
        is_refused(outcome)
        assert "expired" in reason(sink)


async def test_the_time_to_live_is_a_setting(app: Asker, clock: ManualClock) -> None:
    place = place_of(app, clock, ttl=timedelta(seconds=5))
    sealed = await place.begin()
    clock.advance(5)
    is_refused(await place.ask(requestState=sealed))


async def test_a_rotated_key_opens_until_it_leaves_the_ring(app: Asker, clock: ManualClock) -> None:
    new = KeyRing.generate()
    sealed = await place_of(app, clock).begin()
    await place_of(app, clock, ring=KeyRing(new.keys + RING.keys)).ask(requestState=sealed)
    assert app.done == [STATE]
    is_refused(await place_of(app, clock, ring=new).ask(requestState=sealed))


async def test_scopes_are_judged_anew_with_each_retry(app: Asker, clock: ManualClock) -> None:
    needs = Resource(MCP.url, MCP.path, policy=ScopePolicy(tools={"pay": frozenset({"mcp:tools"})}))

    @dataclass(frozen=True)
    class Scoped(Facts):
        async def admit(self, request: Any) -> Any:
            admission = await super().admit(request)
            return admission._replace(facts=(*admission.facts, needs))

    state = RequestState(ring=RING, clock=clock)
    place = Place((Scoped(EVERYONE), Intake(), Scopes(), state), app)
    sealed = await place.begin()
    assert (await place.ask(b"less", requestState=sealed)).status == 403
    assert app.done == []


# What is none of its business


@pytest.mark.parametrize("method", ["tools/list", "subscriptions/listen", "completion/complete"])
async def test_other_methods_pass_as_they_are(app: Asker, place: Place, method: str) -> None:
    result = {"resultType": "input_required", "requestState": "plain"}
    app.results = [result]
    outcome = await place.ask(method=method, name="", requestState={"any": "thing"})
    assert message_of(outcome)["result"] == result
    assert app.bodies[-1]["params"]["requestState"] == {"any": "thing"}


async def test_older_revisions_pass_as_they_are(app: Asker, place: Place) -> None:
    result = {"resultType": "input_required", "requestState": "plain"}
    app.results = [result]
    outcome = await place.ask(modern=False, _meta={}, arguments={"requestState": "plain"})
    assert message_of(outcome)["result"] == result
    assert app.bodies[-1]["params"]["arguments"] == {"requestState": "plain"}
    assert outcome.value(b"content-length") is not None, "the response is not looked at"


@pytest.mark.parametrize("name", ["requestState", "request_state", "RequestState"])
@pytest.mark.parametrize("method", ["tools/call", "prompts/get", "resources/read"])
async def test_an_older_revision_is_no_way_to_present_a_forged_state(
    app: Asker, place: Place, method: str, name: str
) -> None:
    forged: dict[str, Any] = {name: STATE}
    is_refused(await place.ask(method=method, modern=False, _meta={}, **forged))
    alone = json.loads(request(method, _meta={}, **forged))
    outcome = await place.ask(modern=False, data=json.dumps([json.loads(request(_meta={})), alone]).encode())
    assert outcome.status == 400
    assert app.bodies == []


async def test_a_request_without_a_body_passes(clock: ManualClock) -> None:
    async def empty(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(405))
        await send(body())

    place = place_of(empty, clock)
    scope = http_scope("GET", "/mcp", [(b"mcp-protocol-version", MODERN.encode())])
    assert (await drive(place.guarded, scope)).status == 405


@pytest.mark.parametrize(
    "result",
    [
        {"resultType": "complete", "requestState": "plain"},
        {"requestState": "plain"},
        {"resultType": "input_required", "requestState": None},
        {"resultType": "input_required", "x": "requestState"},
        ["requestState"],
    ],
)
async def test_other_results_pass_as_they_are(app: Asker, place: Place, result: Any) -> None:
    app.results = [result]
    assert message_of(await place.ask())["result"] == result


# An app that cannot be served


@pytest.mark.parametrize("state", ["x" * (MAX_STATE_BYTES + 1), 7, {"a": 1}])
async def test_a_state_that_cannot_be_sealed_does_not_go_out(
    app: Asker, place: Place, caplog: pytest.LogCaptureFixture, state: Any
) -> None:
    app.state = state
    outcome = await place.ask()
    assert not outcome.complete
    assert outcome.body == b""
    assert "the app's requestState is" in caplog.text


async def test_the_longest_state_makes_the_round(app: Asker, place: Place) -> None:
    app.state = "x" * MAX_STATE_BYTES
    await place.ask(requestState=await place.begin())
    assert app.done == [app.state]


# Single use


def once(app: Any, store: CountingStore) -> Place:
    return place_of(app, store.clock, single_use=frozenset({"pay"}), store=store)


async def test_a_state_for_single_use_serves_once(app: Asker, store: CountingStore) -> None:
    place = once(app, store)
    sealed = await place.begin()
    assert store.batches == [], "the store is asked about retries alone"
    assert (await place.ask(requestState=sealed)).status == 200
    is_refused(await place.ask(requestState=sealed))
    assert app.done == [STATE]
    store.clock.advance(599)
    is_refused(await place.ask(requestState=sealed))


async def test_the_store_remembers_a_use_for_longer_than_the_state_lives(app: Asker, store: CountingStore) -> None:
    place = once(app, store)
    await place.ask(requestState=await place.begin())
    [[claim]] = store.batches
    assert isinstance(claim, Claim)
    assert claim.ttl == timedelta(minutes=11)
    assert claim.issued == store.clock.wall()


async def test_other_tools_and_methods_may_use_a_state_again(app: Asker, store: CountingStore) -> None:
    place = once(app, store)
    others: list[dict[str, Any]] = [{"name": "look"}, {"method": "prompts/get"}]
    for given in others:
        sealed = await place.begin(**given)
        for _ in range(2):
            assert (await place.ask(requestState=sealed, **given)).status == 200
    assert store.batches == []


async def test_a_refused_retry_uses_nothing_up(app: Asker, store: CountingStore) -> None:
    place = once(app, store)
    sealed = await place.begin()
    is_refused(await place.ask(b"subject", requestState=sealed))
    is_refused(await place.ask(requestState=sealed, arguments={}))
    assert store.batches == []
    assert (await place.ask(requestState=sealed)).status == 200


async def test_ses_24_of_twenty_retries_at_once_over_two_workers_one_is_served(store: CountingStore) -> None:
    apps = [Asker(), Asker()]
    workers = [once(app, store) for app in apps]
    for _ in range(50):
        sealed = await workers[0].begin()
        outcomes: list[Outcome] = []

        async def retry(place: Place, sealed: str = sealed, outcomes: list[Outcome] = outcomes) -> None:
            outcomes.append(await place.ask(requestState=sealed))

        async with anyio.create_task_group() as group:
            for number in range(20):
                group.start_soon(retry, workers[number % 2])
        assert sorted(str(outcome.status) for outcome in outcomes) == ["200"] + ["400"] * 19
    assert len(apps[0].done) + len(apps[1].done) == 50


async def test_a_silent_store_refuses_what_may_be_used_once(app: Asker, store: CountingStore) -> None:
    place = once(app, store)
    sealed = await place.begin()
    store.fault = StoreUnavailable("down")
    outcome = await place.ask(requestState=sealed)
    assert outcome.status == 503
    assert app.done == []
    store.fault = None
    assert (await place.ask(requestState=sealed)).status == 200


async def test_a_state_from_before_the_stores_memory_is_refused(app: Asker, store: CountingStore) -> None:
    sealed = await once(app, store).begin()
    store.clock.advance(1)
    emptied = CountingStore(clock=store.clock)
    is_refused(await once(app, emptied).ask(requestState=sealed))
    assert app.done == []


# Settings


def test_single_use_needs_a_store() -> None:
    with pytest.raises(ConfigurationError, match="single_use needs a store"):
        RequestState(ring=RING, single_use=frozenset({"pay"}))


@pytest.mark.parametrize("ttl", [timedelta(0), timedelta(milliseconds=999), timedelta(seconds=-5)])
def test_a_time_to_live_below_a_second_is_refused(ttl: timedelta) -> None:
    with pytest.raises(ConfigurationError, match="ttl must be at least one second"):
        RequestState(ring=RING, ttl=ttl)


def test_the_store_is_started_with_the_layer(store: CountingStore) -> None:
    assert RequestState(ring=RING).managed() == ()
    assert RequestState(ring=RING, store=store).managed() == (store,)


def test_the_keys_are_not_shown() -> None:
    assert repr(RING.keys[0]) not in repr(RequestState(ring=RING))
