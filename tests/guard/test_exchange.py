"""One exchange: what the app is shown, what becomes of its response, and what happens when something fails."""

import contextlib
import gc
import hashlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Mount

from mcp_guard import rejections
from mcp_guard.asgi import ASGIApp, Message, Receive, Scope, Send
from mcp_guard.auditlog import AuditLog, MemorySink
from mcp_guard.check import Check, Layer
from mcp_guard.facts import Principal, RequestId, SessionHandle, fact
from mcp_guard.failures import StoreUnavailable, Unavailable
from mcp_guard.layer import Admission, Answer, BodyTooLarge, RequestHead, ResponseCut
from mcp_guard.layers.audit import Audit
from mcp_guard.layers.wire import Wire
from mcp_guard.stack import guard
from mcp_guard.stores.base import Get, Put
from tests.guard.asgi import (
    Client,
    CountingApp,
    Lifespan,
    body,
    drive,
    http_scope,
    polled,
    read_all,
    responding,
    sending,
    served,
    split,
    start,
    websocket_scope,
)
from tests.guard.stubs import ALICE, Asks, CountingStore, Facts, Reads, Says, Watching, rpc
from tests.support.serving import serving

MINUTE = timedelta(minutes=1)
REFUSED = rejections.NOT_FOUND.because("nothing is here", [(b"x-why", b"absent")])


# What the app is shown


async def test_the_scope_of_the_server_is_copied_and_never_changed(app: CountingApp) -> None:
    scope = http_scope(headers=[(b"x-secret", b"1"), (b"accept", b"*/*")], state={"kept": True})
    before = {**scope, "headers": list(scope["headers"])}
    layer = Says(Admission(scope={"user": "alice"}, hide=frozenset({b"x-secret"}), facts=(RequestId("r"),)))

    outcome = await drive(layer.wrap(app), scope)

    assert outcome.status == 200
    assert scope == before
    assert app.scopes[0] is not scope
    assert app.scopes[0]["user"] == "alice"
    assert app.scopes[0]["headers"] == [(b"accept", b"*/*")]


async def test_trailers_that_a_server_appends_while_the_body_is_read_are_not_seen(app: CountingApp) -> None:
    headers = [(b"x-as", b"bob")]
    scope = http_scope(headers=headers)
    scope["headers"] = headers
    inner = Says()
    client = Client([b"body"])

    async def receive_with_trailers() -> Message:
        headers.append((b"authorization", b"Bearer smuggled"))
        return await client.receive()

    await guard(app, Reads(), inner)(scope, receive_with_trailers, client.send)

    assert client.outcome.status == 200
    assert app.seen(b"authorization") == []
    assert inner.seen[0].values(b"authorization") == []


def test_trailers_of_a_chunked_request_do_not_reach_the_app_of_a_real_server(app: CountingApp) -> None:
    outer, inner = Says(), Says()
    with serving(lambda _: served(guard(app, outer, Reads(), inner)), http="httptools") as server:
        port = int(server.url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(
                b"POST /mcp HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n"
            )
            polled(lambda: bool(outer.seen))
            connection.sendall(b"0\r\nX-MCP-Subject: admin\r\nMcp-Session-Id: victim\r\n\r\n")
            answer = b"".join(iter(lambda: connection.recv(65536), b""))

    assert answer.startswith(b"HTTP/1.1 200")
    assert app.bodies == [b"{}"]
    assert not {b"x-mcp-subject", b"mcp-session-id"} & {name for name, _ in app.scopes[0]["headers"]}
    assert inner.seen[0].value(b"mcp-session-id") is None


async def test_what_a_layer_hides_or_replaces_is_hidden_from_the_layers_further_in_too(app: CountingApp) -> None:
    outer = Says(Admission(hide=frozenset({b"x-forwarded-for"}), scope={"path": "/other"}))
    inner = Says()

    await drive(guard(app, outer, inner), http_scope(headers=[(b"x-forwarded-for", b"1.2.3.4"), (b"accept", b"a")]))

    assert outer.seen[0].value(b"x-forwarded-for") == b"1.2.3.4"
    assert inner.seen[0].headers == [(b"accept", b"a")]
    assert inner.seen[0].path == "/other"
    assert app.scopes[0]["path"] == "/other"


async def test_facts_reach_layers_further_in_and_the_app(app: CountingApp) -> None:
    inner = Says()
    await drive(guard(app, Facts(), inner), http_scope(headers=[(b"x-as", b"alice")]))

    assert inner.seen[0].fact(Principal) == ALICE
    assert fact(app.scopes[0], Principal) == ALICE
    assert inner.seen[0].get(SessionHandle) is None
    with pytest.raises(LookupError, match="SessionHandle"):
        inner.seen[0].fact(SessionHandle)


@pytest.mark.parametrize("size", [0, 1, 65_536, 4 * 1024 * 1024])
@pytest.mark.parametrize("pieces", [1, 2, 1000])
async def test_a_body_that_was_read_is_replayed_byte_for_byte(size: int, pieces: int) -> None:
    data = hashlib.shake_256(str(size).encode()).digest(size)
    chunks = split(data, [size // pieces] * (pieces - 1))
    chunks.insert(len(chunks) // 2, b"")
    got: list[bytes] = []
    after: list[str] = []
    client = Client(chunks)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        got.append(await read_all(receive))
        with anyio.move_on_after(0.05) as waited:
            await receive()
        assert waited.cancelled_caught, "a disconnect was invented"
        client.gone.set()
        after.append((await receive())["type"])
        await send(start())
        await send(body(b"done"))

    await guard(app, Reads(), Reads())(http_scope(), client.receive, client.send)

    assert got == [data]
    assert after == ["http.disconnect"]
    assert client.outcome.body == b"done"


async def test_a_body_that_no_layer_reads_is_not_touched(app: CountingApp) -> None:
    client = Client([b"a", b"", b"b"])
    await Says().wrap(app)(http_scope(), client.receive, client.send)
    assert app.bodies == [b"ab"]


async def test_a_body_over_the_limit_is_not_read_to_its_end() -> None:
    taken: list[Exception] = []

    class Reading(Says):
        async def admit(self, request: RequestHead) -> Admission:
            try:
                await request.body(10)
            except BodyTooLarge as fault:
                taken.append(fault)
                raise rejections.BODY_TOO_LARGE.because("too large") from None
            return Admission()

    client = Client([b"12345", b"123456", b"more", b"and more"])
    await Reading().wrap(CountingApp())(http_scope(), client.receive, client.send)

    assert client.outcome.status == 413
    assert client.received == 2
    assert len(taken) == 1


async def test_a_second_reader_has_its_own_limit(app: CountingApp) -> None:
    for bound, status in [(5, 200), (4, 503)]:
        outcome = await drive(guard(app, Reads(limit_bytes=100), Reads(limit_bytes=bound)), http_scope(), b"123", b"45")
        assert outcome.status == status
    assert app.calls == 1


async def test_a_body_of_exactly_the_limit_is_read(app: CountingApp) -> None:
    assert (await drive(Reads(limit_bytes=4).wrap(app), http_scope(), b"12", b"34")).status == 200
    assert (await drive(Reads(limit_bytes=3).wrap(app), http_scope(), b"12", b"34")).status == 503
    assert app.bodies == [b"1234"]


async def test_a_client_that_goes_away_within_its_body_is_not_answered(app: CountingApp, sink: MemorySink) -> None:
    client = Client(())
    client.gone.set()

    await guard(app, Audit(AuditLog(sink)), Reads())(http_scope(), client.receive, client.send)

    assert client.outcome.sent == []
    assert app.calls == 0
    assert [record["verdict"] for record in sink.records()] == ["aborted"]


# What becomes of the response


async def test_a_response_is_streamed_and_not_collected() -> None:
    client = Client()
    seen_by_client: list[int] = []

    async def respond(scope: Scope, send: Send) -> None:
        await send(start())
        for number in range(3):
            await send(body(str(number).encode(), more=True))
            seen_by_client.append(len(client.outcome.chunks))
        await send(body())

    await guard(responding(respond), Says(Admission(watch=Watching())))(http_scope(), client.receive, client.send)

    assert seen_by_client == [1, 2, 3]
    assert client.outcome.body == b"012"


async def test_members_of_a_message_that_the_guard_does_not_know_are_kept() -> None:
    app = sending({**start(), "trailers": True}, body(b"x"), {"type": "http.response.trailers", "headers": []})
    outcome = await drive(Says(Admission(watch=Watching())).wrap(app))
    assert outcome.sent[0]["trailers"] is True
    assert [message["type"] for message in outcome.sent][-1] == "http.response.trailers"


async def test_response_headers_replace_those_of_the_app_and_defaults_do_not() -> None:
    app = sending(start(200, (b"X-Frame-Options", b"ALLOW"), (b"Referrer-Policy", b"origin")), body())
    layer = Says(
        Admission(
            response_headers=[(b"x-frame-options", b"DENY"), (b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")],
            default_headers=[(b"referrer-policy", b"no-referrer"), (b"cache-control", b"no-store")],
        )
    )
    outcome = await drive(layer.wrap(app))

    assert outcome.value(b"x-frame-options") == b"DENY"
    assert outcome.values(b"set-cookie") == [b"a=1", b"b=2"]
    assert outcome.value(b"referrer-policy") == b"origin"
    assert outcome.value(b"cache-control") == b"no-store"


async def test_the_outer_layer_has_the_last_word_on_a_header(app: CountingApp) -> None:
    outer = Says(Admission(response_headers=[(b"x-layer", b"outer")]))
    inner = Says(Admission(response_headers=[(b"x-layer", b"inner")], default_headers=[(b"x-inner", b"1")]))
    assert (await drive(guard(app, outer, inner))).value(b"x-layer") == b"outer"
    assert (await drive(outer.wrap(inner.wrap(app)))).value(b"x-layer") == b"outer"


async def test_a_default_of_an_inner_layer_wins_and_one_of_any_layer_yields_to_what_is_set(app: CountingApp) -> None:
    outer = Says(Admission(default_headers=[(b"x-a", b"outer"), (b"x-b", b"outer"), (b"x-c", b"outer")]))
    middle = Says(Admission(response_headers=[(b"x-b", b"middle"), (b"x-d", b"middle")]))
    inner = Says(Admission(default_headers=[(b"x-a", b"inner"), (b"x-d", b"inner")]))
    for guarded in (guard(app, outer, middle, inner), outer.wrap(middle.wrap(inner.wrap(app)))):
        outcome = await drive(guarded)
        assert {name: outcome.value(name) for name in (b"x-a", b"x-b", b"x-c", b"x-d")} == {
            b"x-a": b"inner",
            b"x-b": b"middle",
            b"x-c": b"outer",
            b"x-d": b"middle",
        }


async def test_the_first_value_of_a_repeated_field_is_its_value_and_all_are_its_values(app: CountingApp) -> None:
    seen = Says()
    await drive(seen.wrap(app), http_scope(headers=[(b"x-a", b"1"), (b"x-b", b"2"), (b"x-a", b"3")]))
    head = seen.seen[0]
    assert (head.value(b"x-a"), head.values(b"x-a")) == (b"1", [b"1", b"3"])
    assert (head.value(b"x-c"), head.values(b"x-c")) == (None, [])
    assert head.names == b"x-a\nx-b\nx-a"


async def test_around_is_entered_in_order_around_the_app_alone(app: CountingApp) -> None:
    order: list[str] = []

    def context(name: str) -> Any:
        @contextlib.contextmanager
        def around() -> Iterator[None]:
            order.append(f"enter {name}")
            yield
            order.append(f"leave {name}")

        return around

    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        order.append("app")
        await app(scope, receive, send)

    await drive(guard(inner, Says(Admission(around=context("a"))), Says(Admission(around=context("b")))))
    assert order == ["enter a", "enter b", "app", "leave b", "leave a"]


async def test_an_answer_of_a_layer_passes_the_layers_further_out_and_reaches_no_app(app: CountingApp) -> None:
    watch = Watching()
    outer = Says(Admission(watch=watch, response_headers=[(b"x-outer", b"1")]))
    answering = Says(Admission(answer=Answer(200, b"known", [(b"content-type", b"text/plain")])))
    never = Says()

    outcome = await drive(guard(app, outer, answering, never))

    assert (outcome.status, outcome.body, outcome.complete) == (200, b"known", True)
    assert outcome.value(b"content-length") == b"5"
    assert outcome.value(b"x-outer") == b"1"
    assert watch.seen == [200, b"known"]
    assert (app.calls, never.seen) == (0, [])


async def test_an_answer_keeps_the_length_it_states(app: CountingApp) -> None:
    outcome = await drive(Says(Admission(answer=Answer(204, b"", [(b"content-length", b"0")]))).wrap(app))
    assert outcome.values(b"content-length") == [b"0"]


async def test_a_diverted_request_reaches_the_other_app_and_no_layer_further_in(app: CountingApp) -> None:
    other, never = CountingApp(chunks=(b"other",)), Says()
    outer = Says(Admission(response_headers=[(b"x-outer", b"1")]))
    outcome = await drive(guard(app, outer, Says(Admission(divert=other)), never), http_scope(), b"form")

    assert (outcome.body, outcome.value(b"x-outer")) == (b"other", b"1")
    assert (app.calls, never.seen, other.bodies) == (0, [], [b"form"])


async def test_a_refusal_passes_the_watches_and_headers_of_the_layers_further_out(app: CountingApp) -> None:
    watch = Watching()
    outer = Says(Admission(watch=watch, response_headers=[(b"x-outer", b"1")]))
    outcome = await drive(guard(app, outer, Says(fault=REFUSED)))

    assert (outcome.status, outcome.value(b"x-outer"), outcome.value(b"x-why")) == (404, b"1", b"absent")
    assert outcome.value(b"cache-control") == b"no-store"
    assert outcome.json() == {"error": "not_found", "error_description": "Not found"}
    assert b"nothing is here" not in outcome.body
    assert watch.seen[0] == 404
    assert (app.calls, watch.ended) == (0, 1)


async def test_a_refusal_of_head_has_the_length_but_no_body(app: CountingApp) -> None:
    layer = Says(fault=REFUSED)
    full = await drive(layer.wrap(app), http_scope("GET"))
    head = await drive(layer.wrap(app), http_scope("HEAD"))

    assert head.body == b""
    assert head.complete
    assert head.headers == full.headers
    assert head.value(b"content-length") == str(len(full.body)).encode()


async def test_a_refusal_with_a_code_is_a_json_rpc_error_with_the_id_of_the_call(app: CountingApp) -> None:
    limited = rejections.LIMIT_EXCEEDED.because("too many", data={"limit": "principal"})
    outcome = await drive(guard(app, Facts(), Says(fault=limited)), http_scope(), rpc(request_id="seven"))
    assert outcome.json() == {
        "jsonrpc": "2.0",
        "id": "seven",
        "error": {"code": -32010, "message": "Too many requests", "data": {"limit": "principal"}},
    }


# Watches


async def test_watches_see_the_response_from_the_inside_out() -> None:
    order: list[str] = []

    class Noting(Watching):
        def on_start(self, status: int, headers: Any) -> Any:
            order.append(self.name)
            return ()

    app = sending(start(), body())
    await drive(guard(app, Says(Admission(watch=Noting("out"))), Says(Admission(watch=Noting("in")))))
    assert order == ["in", "out"]


async def test_a_watch_is_shown_the_body_only_while_it_wants_it() -> None:
    class Once(Watching):
        def on_body(self, chunk: bytes) -> Any:
            self.wants_body = False
            return super().on_body(chunk)

    watch = Once()
    await drive(Says(Admission(watch=watch)).wrap(sending(start(), body(b"1", more=True), body(b"2"))))
    assert watch.seen == [200, b"1"]


@pytest.mark.parametrize(
    ("fault", "status", "slug"),
    [
        (StoreUnavailable("the store is away", retry_after_seconds=7), 503, "unavailable"),
        (REFUSED, 404, "not_found"),
        (ZeroDivisionError("a defect"), 503, "guard_fault"),
    ],
)
async def test_a_watch_that_fails_before_the_start_turns_the_response_into_a_refusal(
    fault: Exception, status: int, slug: str, sink: MemorySink
) -> None:
    inner, failing = Watching("inner"), Watching("failing", at_start=fault)
    app = sending(start(200, (b"mcp-session-id", b"secret-id")), body(b"secret", more=True), body(b"more secret"))
    stack = guard(app, Audit(AuditLog(sink)), Says(Admission(watch=failing)), Says(Admission(watch=inner)))

    outcome = await drive(stack)

    assert outcome.status == status
    assert outcome.complete
    assert b"secret" not in outcome.body
    assert outcome.value(b"mcp-session-id") is None
    assert [record["verdict"] for record in sink.records()] == [slug]
    assert [record["status"] for record in sink.records()] == [status]
    assert (inner.ended, failing.ended) == (1, 1)
    assert inner.seen == [200]


async def test_a_watch_whose_operations_fail_turns_the_response_into_503(store: CountingStore) -> None:
    watch = Watching(operations=(Get("k"),))
    app = sending(start(200, (b"mcp-session-id", b"secret-id")), body(b"secret"))
    stack = guard(app, Asks(store=store, admission=Admission(watch=watch)))
    store.fault = StoreUnavailable("the store is away", retry_after_seconds=3)

    outcome = await drive(stack)

    assert (outcome.status, outcome.value(b"retry-after")) == (503, b"3")
    assert b"secret" not in outcome.body
    assert outcome.value(b"mcp-session-id") is None


async def test_a_watch_judges_the_results_of_its_operations(store: CountingStore) -> None:
    watch = Watching(operations=(Get("k"),))
    await drive(guard(sending(start(), body()), Asks(store=store, admission=Admission(watch=watch))))
    assert watch.seen == [200, [None], b""]


async def test_a_watch_without_a_store_cannot_ask_for_operations() -> None:
    app = sending(start(), body(b"secret"))
    outcome = await drive(Says(Admission(watch=Watching(operations=(Get("k"),)))).wrap(app))
    assert outcome.status == 503
    assert b"secret" not in outcome.body


@pytest.mark.parametrize("fault", [StoreUnavailable("away"), REFUSED, ZeroDivisionError("a defect")])
async def test_a_watch_that_fails_after_the_start_cuts_the_stream(fault: Exception) -> None:
    caught: list[ResponseCut] = []

    async def respond(scope: Scope, send: Send) -> None:
        await send(start())
        for chunk in (b"first", b"second", b"third"):
            try:
                await send(body(chunk, more=True))
            except ResponseCut as error:
                caught.append(error)
        await send(body(b"last"))

    class Late(Watching):
        def on_body(self, chunk: bytes) -> Any:
            self.at_body = fault if chunk == b"second" else None
            return super().on_body(chunk)

    watch = Late()
    outcome = await drive(Says(Admission(watch=watch)).wrap(responding(respond)))

    assert outcome.chunks == [b"first"]
    assert not outcome.complete
    assert len(caught) == 1
    assert watch.ended == 1


async def test_a_body_that_watches_cannot_look_into_is_cut() -> None:
    pathsend = {"type": "http.response.pathsend", "path": "/etc/hostname"}
    curious, indifferent = Watching(), Watching(wants_body=False)

    cut = await drive(Says(Admission(watch=curious)).wrap(sending(start(), pathsend)))
    passed = await drive(Says(Admission(watch=indifferent)).wrap(sending(start(), pathsend)))

    assert [message["type"] for message in cut.sent] == ["http.response.start"]
    assert passed.sent[-1] == pathsend


async def test_nothing_goes_out_before_the_start_of_the_response() -> None:
    hint = {"type": "http.response.early_hint", "links": [b"</secret>"]}
    hinted = await drive(Says().wrap(sending(hint, start(), body())))
    early = await drive(Says().wrap(sending(body(b"secret"), start(), body())))

    assert [message["type"] for message in hinted.sent] == ["http.response.start", "http.response.body"]
    assert early.status == 500
    assert b"secret" not in early.body


async def test_a_watch_that_fails_to_let_go_keeps_no_other_from_it(sink: MemorySink) -> None:
    failing = Watching(at_end=ZeroDivisionError("a defect"))
    stack = guard(sending(), Audit(AuditLog(sink)), Says(Admission(watch=failing)))
    outcome = await drive(stack)

    assert outcome.sent == []
    assert [record["verdict"] for record in sink.records()] == ["aborted"]


async def test_when_two_watches_fail_one_refusal_goes_out() -> None:
    outer = Watching("outer", at_start=StoreUnavailable("away", retry_after_seconds=9))
    inner = Watching("inner", at_start=REFUSED)
    stack = guard(sending(start(), body(b"secret")), Says(Admission(watch=outer)), Says(Admission(watch=inner)))

    outcome = await drive(stack)

    assert (outcome.status, outcome.value(b"retry-after")) == (503, b"9")
    assert len(outcome.chunks) == 1
    assert b"secret" not in outcome.body
    assert (outer.ended, inner.ended) == (1, 1)


# When the app fails


async def test_an_app_that_raises_before_its_response_is_answered_with_a_plain_500(sink: MemorySink) -> None:
    async def respond(scope: Scope, send: Send) -> None:
        raise RuntimeError("secret detail in version 1.2.3")

    outcome = await drive(guard(responding(respond), Audit(AuditLog(sink))))

    assert outcome.status == 500
    assert outcome.json() == {"error": "app_fault", "error_description": "Internal error"}
    assert [record["verdict"] for record in sink.records()] == ["app_fault"]


@pytest.mark.parametrize("chunks", [[], [b"one"]])
async def test_an_app_that_raises_within_its_response_is_cut(chunks: list[bytes], sink: MemorySink) -> None:
    async def respond(scope: Scope, send: Send) -> None:
        await send(start())
        for chunk in chunks:
            await send(body(chunk, more=True))
        raise RuntimeError("a defect")

    stack = guard(responding(respond), Audit(AuditLog(sink)))
    outcome = await drive(stack)
    assert outcome.chunks == chunks
    assert not outcome.complete
    assert len(sink.lines) == 1

    assert (await drive(stack)).status == 200
    assert len(sink.lines) == 2


async def test_an_app_that_starts_twice_is_cut_before_its_second_start() -> None:
    outcome = await drive(Says().wrap(sending(start(200), start(201), body(b"secret"))))
    assert outcome.status == 200
    assert outcome.chunks == []


async def test_a_second_start_that_no_client_is_there_to_hear_is_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    client = Client()
    client.gone.set()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await read_all(receive)
        await send(start(200))
        assert (await receive())["type"] == "http.disconnect"
        await send(start(204))

    await Says().wrap(app)(http_scope(), client.receive, client.send)
    assert client.outcome.status == 200
    assert caplog.records == []


async def test_an_app_that_goes_on_after_a_refusal_is_not_heard() -> None:
    async def respond(scope: Scope, send: Send) -> None:
        await send(start())
        await send(body(b"secret"))
        raise RuntimeError("and then it fails")

    watch = Watching(at_start=REFUSED)
    outcome = await drive(Says(Admission(watch=watch)).wrap(responding(respond)))
    assert outcome.status == 404
    assert len(outcome.chunks) == 1
    assert b"secret" not in outcome.body


@pytest.mark.parametrize(
    ("fault", "status"), [(REFUSED, 404), (StoreUnavailable("away"), 503), (ExceptionGroup("g", [ValueError()]), 500)]
)
async def test_an_app_may_refuse_in_the_terms_of_the_guard(fault: Exception, status: int) -> None:
    async def respond(scope: Scope, send: Send) -> None:
        raise fault

    assert (await drive(Says().wrap(responding(respond)))).status == status


async def test_a_cancelled_app_is_audited_and_stays_cancelled(sink: MemorySink) -> None:
    async def respond(scope: Scope, send: Send) -> None:
        await anyio.sleep_forever()

    stack = guard(responding(respond), Audit(AuditLog(sink)))
    client = Client()
    with anyio.move_on_after(0.05) as waited:
        await stack(http_scope(), client.receive, client.send)

    assert waited.cancelled_caught
    assert client.outcome.sent == []
    assert [record["verdict"] for record in sink.records()] == ["aborted"]


# When a layer fails


@pytest.mark.parametrize(
    ("fault", "slug", "wait"),
    [
        (StoreUnavailable("away", retry_after_seconds=5), "unavailable", b"5"),
        (Unavailable("away"), "unavailable", b"1"),
        (ZeroDivisionError("a defect"), "guard_fault", b"1"),
        (KeyError("a defect"), "guard_fault", b"1"),
        (BodyTooLarge(), "guard_fault", b"1"),
    ],
)
async def test_a_layer_that_cannot_decide_refuses_with_503_and_is_audited(
    fault: Exception, slug: str, wait: bytes, app: CountingApp, sink: MemorySink, store: CountingStore
) -> None:
    for layer in (Says(fault=fault), Asks(store=store, ask_fault=fault), Asks(store=store, answer_fault=fault)):
        sink.lines.clear()
        outcome = await drive(guard(app, Audit(AuditLog(sink)), layer))

        assert (outcome.status, outcome.value(b"retry-after")) == (503, wait)
        assert outcome.json()["error_description"] == "The service cannot decide now"
        assert [record["verdict"] for record in sink.records()] == [slug]
    assert app.calls == 0


async def test_a_store_that_is_away_refuses_with_503(app: CountingApp, store: CountingStore, sink: MemorySink) -> None:
    store.fault = StoreUnavailable("no connection", retry_after_seconds=2)
    outcome = await drive(guard(app, Audit(AuditLog(sink)), Asks(store=store, operations=(Get("k"),))))

    assert (outcome.status, outcome.value(b"retry-after"), app.calls) == (503, b"2", 0)
    assert b"no connection" not in outcome.body
    assert sink.records()[0]["reason"] == "no connection"


async def test_a_context_around_the_app_that_fails_refuses(app: CountingApp) -> None:
    def around() -> Any:
        raise ZeroDivisionError("a defect")

    assert (await drive(Says(Admission(around=around)).wrap(app))).status == 503
    assert app.calls == 0


# Other kinds of connection


@pytest.mark.parametrize("kind", ["webtransport", "http.custom", ""])
async def test_an_unknown_kind_of_scope_is_never_passed_on(kind: str, app: CountingApp, sink: MemorySink) -> None:
    client = Client()
    for guarded in (guard(app, Audit(AuditLog(sink))), Says().wrap(app)):
        with pytest.raises(RuntimeError, match="scope type"):
            await guarded({"type": kind, "headers": [], "path": "/"}, client.receive, client.send)
        with pytest.raises(KeyError):
            await guarded({"headers": [], "path": "/"}, client.receive, client.send)
    assert (app.calls, client.outcome.sent) == (0, [])


async def test_a_websocket_is_closed_before_it_is_accepted_and_audited(app: CountingApp, sink: MemorySink) -> None:
    stack = guard(app, Audit(AuditLog(sink)), Facts(), Says())
    outcome = await drive(stack, websocket_scope(headers=[(b"authorization", b"Bearer good")]))

    assert outcome.sent == [{"type": "websocket.close", "code": 1008, "reason": ""}]
    assert app.calls == 0
    (record,) = sink.records()
    assert (record["verdict"], record["status"]) == ("scope_not_guarded", 403)


async def test_a_websocket_is_closed_even_when_it_cannot_be_audited(app: CountingApp) -> None:
    class Broken(MemorySink):
        def write(self, line: bytes) -> None:
            raise OSError("no space")

    outcome = await drive(guard(app, Audit(AuditLog(Broken()))), websocket_scope())
    assert [message["type"] for message in outcome.sent] == ["websocket.close"]


async def test_a_single_layer_closes_websockets_too(app: CountingApp, store: CountingStore) -> None:
    for layer in (Says(), Asks(store=store)):
        outcome = await drive(layer.wrap(app), websocket_scope())
        assert [message["type"] for message in outcome.sent] == ["websocket.close"]
    assert app.calls == 0


# Layers in a stack and one by one


def nested(app: ASGIApp, *layers: Layer) -> ASGIApp:
    """The layers wrapped one by one, as in a Starlette middleware list."""

    return Starlette(routes=[Mount("/", app)], middleware=[Middleware(one.wrap) for one in layers])


def stacked(app: ASGIApp, *layers: Layer) -> ASGIApp:
    return guard(app, *layers)


@pytest.mark.parametrize("build", [stacked, nested])
async def test_layers_wrapped_one_by_one_behave_as_in_a_stack(
    build: Any, app: CountingApp, sink: MemorySink, store: CountingStore
) -> None:
    inner = Says(Admission(response_headers=[(b"x-inner", b"1")]))
    layers = (
        Audit(AuditLog(sink)),
        Says(Admission(hide=frozenset({b"x-hidden"}), response_headers=[(b"x-outer", b"1")])),
        Facts(),
        Asks(store=store, operations=(Put("k", b"v", MINUTE),)),
        inner,
    )
    guarded = build(app, *layers)
    headers = [(b"x-as", b"bob"), (b"x-hidden", b"1")]

    outcome = await drive(guarded, http_scope(headers=headers), rpc(name="add"))

    assert outcome.status == 200
    assert (outcome.value(b"x-outer"), outcome.value(b"x-inner")) == (b"1", b"1")
    assert app.seen(b"x-hidden") == inner.seen[0].values(b"x-hidden") == []
    assert app.bodies == [rpc(name="add")]
    (record,) = sink.records()
    assert (record["principal"]["subject"], record["tool"], record["verdict"]) == ("bob", "add", "allowed")


@pytest.mark.parametrize("build", [stacked, nested])
async def test_refusals_of_layers_wrapped_one_by_one_are_those_of_a_stack(
    build: Any, app: CountingApp, sink: MemorySink
) -> None:
    layers = (Audit(AuditLog(sink)), Facts(), Says(Admission(response_headers=[(b"x-a", b"1")])), Says(fault=REFUSED))
    outcome = await drive(build(app, *layers), http_scope(), rpc(request_id=9))

    assert (outcome.status, outcome.value(b"x-a"), outcome.value(b"x-why")) == (404, b"1", b"absent")
    assert outcome.json()["error"] == "not_found"
    assert app.calls == 0
    (record,) = sink.records()
    assert (record["verdict"], record["reason"]) == ("not_found", "nothing is here")


@pytest.mark.parametrize("build", [stacked, nested])
async def test_a_cut_of_an_outer_layer_stops_the_app_however_layers_are_wrapped(build: Any) -> None:
    class Late(Watching):
        def on_body(self, chunk: bytes) -> Any:
            self.at_body = REFUSED if chunk == b"bad" else None
            return super().on_body(chunk)

    after: list[str] = []

    async def respond(scope: Scope, send: Send) -> None:
        await send(start())
        await send(body(b"good", more=True))
        await send(body(b"bad", more=True))
        after.append("went on")

    outcome = await drive(build(responding(respond), Says(Admission(watch=Late())), Says()), http_scope())
    assert outcome.chunks == [b"good"]
    assert not outcome.complete
    assert after == []


# Store round trips


async def test_neighbouring_stateful_checks_cost_one_round_trip(app: CountingApp, store: CountingStore) -> None:
    one, two = Asks(store=store, operations=(Get("a"), Get("b"))), Asks(store=store, operations=(Get("c"),))
    three = Asks(store=store)
    await store.run([Put("a", b"1", MINUTE), Put("b", b"2", MINUTE), Put("c", b"3", MINUTE)])
    store.batches.clear()

    await drive(guard(app, one, two, three))

    assert store.batches == [[Get("a"), Get("b"), Get("c")]]
    assert (one.results, two.results, three.results) == ([[b"1", b"2"]], [[b"3"]], [[]])


async def test_checks_that_ask_nothing_cost_no_round_trip(app: CountingApp, store: CountingStore) -> None:
    await drive(guard(app, Asks(store=store), Asks(store=store)))
    assert store.batches == []
    assert app.calls == 1


async def test_a_check_that_needs_what_its_neighbour_adds_has_a_round_trip_of_its_own(
    app: CountingApp, store: CountingStore
) -> None:
    class Adds(Asks):
        adds = (SessionHandle,)

    class Needs(Asks):
        needs = (SessionHandle,)

        def ask(self, request: RequestHead) -> Any:
            return (Get(request.fact(SessionHandle).value),)

    handle = SessionHandle("key", "fp")
    adding = Adds(store=store, operations=(Get("a"),), admission=Admission(facts=(handle,)))
    await drive(guard(app, adding, Needs(store=store)))
    assert store.batches == [[Get("a")], [Get("key")]]


async def test_checks_on_other_stores_and_checks_apart_are_not_fused(app: CountingApp, store: CountingStore) -> None:
    other = CountingStore()
    asks = Asks(store=store, operations=(Get("a"),))
    await drive(guard(app, asks, Asks(store=other, operations=(Get("b"),)), asks, Says(), asks))
    assert store.batches == [[Get("a")], [Get("a")], [Get("a")]]
    assert other.batches == [[Get("b")]]


async def test_a_check_that_refuses_without_asking_leaves_the_say_to_those_before_it(
    app: CountingApp, store: CountingStore
) -> None:
    first = Asks(store=store, operations=(Get("count"),))
    second = Asks(store=store, ask_fault=REFUSED)
    third = Asks(store=store, operations=(Get("never"),))

    refused = await drive(guard(app, first, second, third))
    assert refused.status == 404
    assert store.batches == [[Get("count")]]

    limited = Asks(store=store, operations=(Get("count"),), answer_fault=rejections.LIMIT_EXCEEDED.because("over"))
    assert (await drive(guard(app, limited, second))).status == 429
    assert app.calls == 0


async def test_a_stateful_check_may_answer_itself(app: CountingApp, store: CountingStore) -> None:
    never = Asks(store=store)
    outcome = await drive(guard(app, Asks(store=store, admission=Admission(answer=Answer(200, b"ok"))), never))
    assert (outcome.body, never.results, app.calls) == (b"ok", [], 0)


async def test_the_lifespan_of_a_single_layer_starts_what_it_depends_on(app: CountingApp, sink: MemorySink) -> None:
    log = AuditLog(sink)
    lifespan = Lifespan(ending=anyio.Event())
    async with anyio.create_task_group() as group:
        group.start_soon(lifespan.run, Audit(log).wrap(app))
        await lifespan.up.wait()
        assert log.head is not None
        lifespan.ending.set()
    assert lifespan.kinds == ["startup.complete", "shutdown.complete"]
    assert log.head is None


@given(st.lists(st.binary(max_size=20), max_size=8), st.integers(0, 100))
async def test_a_body_within_the_limit_reaches_the_app_and_one_over_it_never(chunks: list[bytes], limit: int) -> None:
    app = CountingApp()
    data = b"".join(chunks)
    outcome = await drive(guard(app, Reads(limit_bytes=limit)), http_scope(), *chunks)
    assert (outcome.status == 200) == (len(data) <= limit)
    assert app.bodies == ([data] if len(data) <= limit else [])


async def test_a_refusal_is_the_same_for_every_request_of_its_kind(app: CountingApp) -> None:
    layer = Says(fault=REFUSED)
    outcomes = [await drive(layer.wrap(app), http_scope("GET")) for _ in range(2)]
    assert outcomes[0].sent == outcomes[1].sent


async def test_a_refusal_by_the_outermost_layer_has_the_fields_that_defend_it(app: CountingApp) -> None:
    outcome = await drive(guard(app, Wire()), http_scope(path="//mcp", raw_path=b"//mcp"))
    assert outcome.status == 400
    assert outcome.value(b"x-content-type-options") == b"nosniff"
    assert outcome.value(b"x-frame-options") == b"DENY"
    assert outcome.value(b"referrer-policy") == b"no-referrer"
    assert b"frame-ancestors 'none'" in (outcome.value(b"content-security-policy") or b"")
    assert outcome.value(b"cache-control") == b"no-store"


# What is left behind


@pytest.mark.parametrize("what", ["admitted", "refused", "unavailable", "defect"])
async def test_a_request_that_was_served_is_freed_without_the_cycle_collector(
    what: str, sink: MemorySink, store: CountingStore
) -> None:
    @dataclass(frozen=True)
    class Forgets(Check):
        async def admit(self, request: RequestHead) -> Admission:
            await request.body(1024)
            try:
                if what != "admitted":
                    raise KeyError(what)
            except KeyError:
                if what == "refused":
                    raise rejections.NOT_FOUND.because("nothing is here") from None
                if what == "unavailable":
                    raise Unavailable("away") from None
                raise
            return Admission(hide=frozenset({b"accept"}), scope={"user": "alice"})

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        await read_all(receive)
        await send(start())
        await send(body())

    stack = guard(answer, Audit(AuditLog(sink)), Forgets(), Asks(store=store, operations=(Get("k"),)))

    async def exchange() -> None:
        sent: list[Message] = []

        async def receive() -> Message:
            return {"type": "http.request", "body": b"body", "more_body": False}

        async def send(message: Message) -> None:
            sent.append(message)

        await stack(http_scope(headers=[(b"accept", b"*/*")]), receive, send)
        assert len(sent) == 2

    await exchange()
    gc.collect()
    gc.disable()
    try:
        await exchange()
        assert gc.collect() == 0
    finally:
        gc.enable()
