"""Intake: what is asked, read once, within bounds, under the rules of its revision."""

import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import given
from hypothesis import strategies as st

from mcp_guard.asgi import Message, Receive, Scope, Send
from mcp_guard.facts import Call, fact
from mcp_guard.failures import ConfigurationError
from mcp_guard.layer import ADMITTED, Admission, RequestHead
from mcp_guard.layers.intake import Intake, in_time
from mcp_guard.protocol.mcp import REVISIONS, VERSION_MEMBER
from mcp_guard.rejections import CREDENTIALS_MISSING
from mcp_guard.stack import guard
from tests.guard.asgi import Client, CountingApp, Outcome, drive, http_scope, split
from tests.guard.stubs import Says

JSON = (b"content-type", b"application/json")
MODERN = "2026-07-28"
SOON = timedelta(seconds=0.05)

Headers = list[tuple[bytes, bytes]]


def rpc(method: str = "tools/call", request_id: Any = 1, **params: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": request_id, "method": method, "params": params}).encode()


CALL = rpc(name="add")


async def sent(
    *chunks: bytes, headers: Headers | None = None, layer: Intake | None = None, **request: Any
) -> tuple[CountingApp, Outcome]:
    app = CountingApp()
    scope = http_scope(headers=[JSON] if headers is None else headers, **request)
    return app, await drive((layer or Intake()).wrap(app), scope, *chunks)


async def refused(slug: str, status: int, *chunks: bytes, **request: Any) -> Outcome:
    app, outcome = await sent(*chunks, **request)
    assert (outcome.status, app.calls) == (status, 0)
    if status != 400 or b"jsonrpc" not in outcome.body:
        assert outcome.json()["error"] == slug
    return outcome


async def rejected(code: int, *chunks: bytes, request_id: Any = None, **request: Any) -> Outcome:
    """Check for a JSON-RPC refusal with this code and id."""
    app, outcome = await sent(*chunks, **request)
    assert (outcome.status, app.calls) == (400, 0)
    content = outcome.json()
    assert (content["jsonrpc"], content["error"]["code"], content["id"]) == ("2.0", code, request_id)
    return outcome


async def test_a_call_is_read_once_for_all() -> None:
    app, outcome = await sent(CALL)
    assert outcome.status == 200
    call = fact(app.scopes[-1], Call)
    assert (call.messages[0].method, call.messages[0].name, call.request_id) == ("tools/call", "add", 1)
    assert app.bodies == [CALL]


async def test_answers_to_calls_are_never_stored() -> None:
    app = CountingApp(headers=[(b"Cache-Control", b"public, max-age=60")])
    outcome = await drive(Intake().wrap(app), http_scope(headers=[JSON]), CALL)
    assert outcome.value(b"cache-control") == b"no-store, no-transform"


# http-13
@pytest.mark.parametrize("size", [0, 1, 65_536, 4 * 1024 * 1024 - 200])
@pytest.mark.parametrize("pieces", [1, 2, 1000])
async def test_http_13_the_body_reaches_the_app_byte_for_byte(size: int, pieces: int) -> None:
    body = rpc(name="add", text="x" * size)
    sizes = [len(body) // pieces] * (pieces - 1)
    chunks = [part for piece in split(body, sizes) for part in (piece, b"")]
    app, outcome = await sent(*chunks)
    assert outcome.status == 200
    assert hashlib.sha256(app.bodies[0]).digest() == hashlib.sha256(body).digest()


async def test_http_13_after_the_body_the_app_waits_for_the_real_disconnect() -> None:
    told: list[str] = []
    client = Client([CALL])

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        told.append((await receive())["type"])
        with anyio.move_on_after(0.02) as waiting:
            await receive()
        told.append("waited" if waiting.cancelled_caught else "answered")
        client.gone.set()
        told.append((await receive())["type"])

    await Intake().wrap(app)(http_scope(headers=[JSON]), client.receive, client.send)
    assert told == ["http.request", "waited", "http.disconnect"]


async def test_http_14_nothing_is_read_for_a_stranger() -> None:
    client = Client([CALL])
    stranger = Says(fault=CREDENTIALS_MISSING.because("no token"))
    await guard(CountingApp(), stranger, Intake())(http_scope(headers=[JSON]), client.receive, client.send)
    assert (client.outcome.status, client.received) == (401, 0)


# http-15, csrf-01
@pytest.mark.parametrize(
    "content_type",
    [
        None,
        b"",
        b"text/plain",
        b"application/x-www-form-urlencoded",
        b"multipart/form-data; boundary=x",
        b"application/jsonp",
        b"application/json5",
        b"application/json, text/plain",
        b"text/plain, application/json",
        b"application/json;charset=utf-16",
        b"application/json; charset=latin-1",
        b'application/json; charset="utf-8',
        b"application/json; charset=utf-8; x=y",
        b"application/json; x=y",
        b"application/json;",
        b"application/json\x00",
        b"xapplication/json",
        b"application/vnd.api+json",
    ],
)
async def test_http_15_anything_but_plain_json_is_refused(content_type: bytes | None) -> None:
    headers = [] if content_type is None else [(b"content-type", content_type)]
    await refused("media_type", 415, CALL, headers=headers)


@pytest.mark.parametrize(
    "content_type",
    [
        b"application/json",
        b"Application/JSON",
        b"application/json; charset=utf-8",
        b'application/json;charset="UTF-8" ',
    ],
)
async def test_http_15_json_in_utf_8_is_taken_in_any_spelling(content_type: bytes) -> None:
    assert (await sent(CALL, headers=[(b"content-type", content_type)]))[1].status == 200


# http-32
@pytest.mark.parametrize("encoding", [b"gzip", b"br", b"deflate", b"zstd", b"", b"identity, gzip", b"gzip, identity"])
async def test_http_32_an_encoded_body_is_not_decoded(encoding: bytes) -> None:
    outcome = await refused(
        "content_encoding", 415, b"\x1f\x8b" + CALL, headers=[JSON, (b"content-encoding", encoding)]
    )
    assert outcome.value(b"accept-encoding") == b"identity"


async def test_an_identity_encoding_is_none() -> None:
    assert (await sent(CALL, headers=[JSON, (b"content-encoding", b"Identity")]))[1].status == 200


@pytest.mark.parametrize(
    "name", [b"content-type", b"mcp-method", b"mcp-name", b"mcp-protocol-version", b"content-encoding"]
)
async def test_http_09_a_repeated_field_is_refused_without_wire_too(name: bytes) -> None:
    headers = [pair for pair in [JSON] if pair[0] != name] + [(name, b"application/json")] * 2
    await refused("header_repeated", 400, CALL, headers=headers)


# http-11
async def test_fields_that_nothing_is_decided_by_may_be_repeated() -> None:
    repeated = [(b"content-type", b"application/json"), (b"accept", b"text/html"), (b"accept", b"application/json")]
    app, outcome = await sent(rpc(name="add"), headers=repeated)
    assert outcome.status == 200
    assert app.seen(b"accept") == [b"text/html", b"application/json"]


async def test_http_11_a_body_beyond_the_limit_is_refused_as_soon_as_it_is() -> None:
    layer = Intake(max_body_bytes=100)
    full = rpc(name="a" * (100 - len(rpc(name=""))))
    assert len(full) == 100
    assert (await sent(full, layer=layer))[1].status == 200
    assert (await sent(full[:50], full[50:], layer=layer))[1].status == 200
    client = Client([b"x" * 60, b"x" * 41, b"x", b"x"])
    app = CountingApp()
    await layer.wrap(app)(http_scope(headers=[JSON]), client.receive, client.send)
    assert (client.outcome.status, client.received, app.calls) == (413, 2, 0)
    assert client.outcome.value(b"connection") == b"close"


async def test_http_11_an_announced_body_beyond_the_limit_is_not_read_at_all() -> None:
    for announced in (b"4194305", b"9" * 19, b"9" * 400):
        client = Client([CALL])
        headers = [JSON, (b"content-length", announced)]
        await Intake().wrap(CountingApp())(http_scope(headers=headers), client.receive, client.send)
        assert (client.outcome.status, client.received) == (413, 0)


async def test_a_length_within_the_limit_is_read() -> None:
    headers = [JSON, (b"content-length", str(len(CALL)).encode())]
    assert (await sent(CALL, headers=headers, layer=Intake(max_body_bytes=len(CALL))))[1].status == 200


@pytest.mark.parametrize("announced", [b"1_0", b"+10", b"", b" 1", b"0x1", b"-1"])
async def test_http_11_a_length_that_is_no_plain_number_is_refused(announced: bytes) -> None:
    await refused("framing_ambiguous", 400, CALL, headers=[JSON, (b"content-length", announced)])


@pytest.mark.parametrize("method", ["GET", "DELETE", "POST"])
async def test_a_body_of_another_length_than_was_announced_is_refused(method: str) -> None:
    """No server of ours hands on such a request; whoever reads the field afterwards would wait, or stop too early."""
    body = CALL if method == "POST" else b""
    for difference in (-1, 1, 5):
        length = str(max(0, len(body) + difference)).encode()
        if int(length) != len(body):
            await refused("framing_ambiguous", 400, body, method=method, headers=[JSON, (b"content-length", length)])
    for odd in (b"x", b"0" * 20):
        await refused("framing_ambiguous", 400, b"", method="GET", headers=[(b"content-length", odd)])
    app, _ = await sent(body, method=method, headers=[JSON, (b"content-length", str(len(body)).encode())])
    assert app.bodies == [body]


async def test_http_2_has_no_connection_field() -> None:
    _, outcome = await sent(b"x" * 10, layer=Intake(max_body_bytes=9), http_version="2")
    assert outcome.status == 413
    assert outcome.value(b"connection") is None


@dataclass
class Dripping:
    """A client that sends chunks with a pause before each, and then nothing."""

    chunks: list[bytes]
    pause_seconds: float = 0.0
    outcome: Outcome = field(default_factory=Outcome)

    async def receive(self) -> Message:
        await anyio.sleep(self.pause_seconds)
        if self.chunks:
            return {"type": "http.request", "body": self.chunks.pop(0), "more_body": True}
        await anyio.sleep_forever()
        raise AssertionError("woken")

    async def send(self, message: Message) -> None:
        self.outcome.sent.append(message)


@pytest.mark.parametrize("client", [Dripping([]), Dripping([CALL]), Dripping([b" "] * 1000, pause_seconds=0.01)])
@pytest.mark.parametrize("method", ["POST", "GET"])
async def test_a_body_that_does_not_arrive_in_time_is_given_up(client: Dripping, method: str) -> None:
    app = CountingApp()
    waiting = Dripping([] if method == "GET" else list(client.chunks), client.pause_seconds)
    with anyio.fail_after(5):
        await Intake(body_timeout=SOON).wrap(app)(http_scope(method, headers=[JSON]), waiting.receive, waiting.send)
    assert (waiting.outcome.status, app.calls) == (408, 0)
    assert waiting.outcome.json()["error"] == "body_timeout"
    assert waiting.outcome.value(b"connection") == b"close"


async def test_a_slow_body_within_the_time_is_read() -> None:
    parts = [CALL[:5], CALL[5:9], CALL[9:]]

    async def receive() -> Message:
        await anyio.sleep(0.005)
        return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}

    app, outcome = CountingApp(), Outcome()

    async def send(message: Message) -> None:
        outcome.sent.append(message)

    await Intake(body_timeout=timedelta(seconds=5)).wrap(app)(http_scope(headers=[JSON]), receive, send)
    assert app.bodies == [CALL]


@asynccontextmanager
async def scope_of_its_own() -> AsyncIterator[None]:
    async with anyio.create_task_group():
        yield


async def test_a_receive_with_scopes_of_its_own_is_borne() -> None:
    async def work() -> bytes:
        async with scope_of_its_own():
            await anyio.sleep(0.002)
        return b"done"

    async def stalled() -> bytes:
        async with scope_of_its_own():
            await anyio.sleep_forever()
        return b"never"

    async def broken() -> bytes:
        await checkpoint()
        raise LookupError("broken")

    assert await in_time(work(), 5) == b"done"
    with pytest.raises(TimeoutError):
        await in_time(stalled(), 0.01)
    with pytest.raises(LookupError):
        await in_time(broken(), 5)
    with anyio.move_on_after(0.01) as outer:
        await in_time(stalled(), 5)
    assert outer.cancelled_caught


async def test_a_client_that_goes_away_while_sending_gets_no_answer() -> None:
    client, app = Client([]), CountingApp()
    client.gone.set()
    await Intake().wrap(app)(http_scope(headers=[JSON]), client.receive, client.send)
    assert (client.outcome.sent, app.calls) == ([], 0)


# http-19, INP-001, INP-005
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not json",
        b"[" * 100_000 + b"]" * 100_000,
        b'{"a":' * 65 + b"1" + b"}" * 65,
        b'{"jsonrpc":"2.0","id":' + b"1" * 100_000 + b',"method":"ping"}',
        b'{"jsonrpc":"2.0","id":NaN,"method":"ping"}',
        b'{"jsonrpc":"2.0","id":Infinity,"method":"ping"}',
        b'{"jsonrpc":"2.0","id":1,"method":"\\ud800"}',
        b'{"jsonrpc":"2.0","id":1,"method":"\xff"}',
        b"\xef\xbb\xbf" + CALL,
        CALL + b"x",
        CALL + CALL,
        CALL.decode().encode("utf-16"),
    ],
)
async def test_http_19_a_body_without_one_reading_is_a_parse_error(body: bytes) -> None:
    await rejected(-32700, body)


# http-16, INP-004
@pytest.mark.parametrize(
    "body",
    [
        b'{"jsonrpc":"2.0","id":1,"method":"tools/list","method":"tools/call"}',
        b'{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}',
        b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{},"params":{"a":1}}',
        b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","name":"b"}}',
        b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","na\\u006de":"b"}}',
    ],
)
async def test_http_16_a_repeated_member_is_a_parse_error(body: bytes) -> None:
    await rejected(-32700, body)


async def test_nesting_is_bounded_by_the_setting() -> None:
    nested = rpc(name="a", x=json.loads("[" * 10 + "]" * 10))
    assert (await sent(nested, layer=Intake(max_depth=12)))[1].status == 200
    await rejected(-32700, nested, layer=Intake(max_depth=11))


@pytest.mark.parametrize("body", [b"1", b"null", b'"x"', b"{}", rpc(request_id=1.5), rpc(request_id=True)])
async def test_json_that_is_no_message_is_an_invalid_request(body: bytes) -> None:
    await rejected(-32600, body)


def modern(name: str = "add", revision: str = MODERN, request_id: Any = "r1") -> bytes:
    return rpc("tools/call", request_id, name=name, _meta={VERSION_MEMBER: revision})


def mirrors(revision: bytes = b"2026-07-28", method: bytes = b"tools/call", name: bytes = b"add") -> Headers:
    return [JSON, (b"mcp-protocol-version", revision), (b"mcp-method", method), (b"mcp-name", name)]


@pytest.mark.parametrize(
    "headers", [mirrors(), mirrors(b" 2026-07-28\t", b"tools/call ", b"  add"), mirrors(name=b"=?base64?YWRk?=")]
)
async def test_a_modern_request_whose_fields_agree_is_admitted(headers: Headers) -> None:
    app, outcome = await sent(modern(), headers=headers)
    assert outcome.status == 200
    assert fact(app.scopes[-1], Call).modern


# wire-01, wire-02, wire-03, wire-06
@pytest.mark.parametrize(
    "headers",
    [
        mirrors(method=b"tools/list"),
        mirrors(name=b"safe_tool"),
        mirrors(name=b"\xe9"),
        mirrors(method=b""),
        mirrors()[:2],
        mirrors()[:3],
        [JSON, *mirrors()[2:]],
        mirrors(b"2025-11-25"),
    ],
)
async def test_wire_01_fields_that_contradict_the_body_are_refused_with_its_id(headers: Headers) -> None:
    await rejected(-32020, modern(), headers=headers, request_id="r1")


# wire-06
@pytest.mark.parametrize("revision", [b"9999-01-01", b"2026-07-28, 2025-11-25", b"", b"\xff"])
@pytest.mark.parametrize("method", ["POST", "GET", "DELETE"])
async def test_wire_06_an_unserved_revision_is_refused_with_those_that_are(revision: bytes, method: str) -> None:
    body, known = ((modern(),), "r1") if method == "POST" else ((), None)
    outcome = await rejected(-32022, *body, headers=mirrors(revision), method=method, request_id=known)
    assert outcome.json()["error"]["data"]["supported"] == list(REVISIONS)


async def test_wire_10_a_revision_that_is_not_enabled_is_refused() -> None:
    layer = Intake(revisions=("2025-11-25", MODERN))
    for revision in (b"2024-11-05", b"2025-03-26", b"2025-06-18"):
        await rejected(-32022, CALL, headers=[JSON, (b"mcp-protocol-version", revision)], layer=layer, request_id=1)
    assert (await sent(CALL, headers=[JSON, (b"mcp-protocol-version", b"2025-11-25")], layer=layer))[1].status == 200
    await rejected(-32020, CALL, layer=Intake(revisions=(MODERN,)), request_id=1)


# wire-05
async def test_wire_05_in_a_legacy_request_the_fields_earn_nothing() -> None:
    app, _ = await sent(rpc(name="delete_all"), headers=mirrors(b"2025-11-25", b"tools/list", b"safe"))
    message = fact(app.scopes[-1], Call).messages[0]
    assert (message.method, message.name) == ("tools/call", "delete_all")


# http-18
async def test_http_18_a_batch_is_one_call_of_many_messages_where_it_is_allowed() -> None:
    batch = b"[" + CALL + b"," + rpc("tools/list", 2) + b"]"
    app, _ = await sent(batch)
    call = fact(app.scopes[-1], Call)
    assert [message.method for message in call.messages] == ["tools/call", "tools/list"]
    await rejected(-32600, batch, headers=[JSON, (b"mcp-protocol-version", b"2025-06-18")])
    await rejected(-32600, b"[]")


# HTTP-022
async def test_a_modern_app_sees_neither_sessions_nor_events() -> None:
    legacy: Headers = [(b"mcp-session-id", b"s"), (b"last-event-id", b"e")]
    app, _ = await sent(modern(), headers=[*mirrors(), *legacy])
    assert app.scopes[-1]["headers"] == mirrors()
    app, _ = await sent(CALL, headers=[JSON, *legacy])
    assert app.scopes[-1]["headers"] == [JSON, *legacy]


async def test_layers_further_in_see_no_session_of_a_modern_request_either() -> None:
    seen: list[bytes | None] = []

    def look(request: RequestHead) -> Admission:
        seen.append(request.value(b"mcp-session-id"))
        return ADMITTED

    scope = http_scope(headers=[*mirrors(), (b"mcp-session-id", b"s")])
    await drive(guard(CountingApp(), Intake(), Says(look)), scope, modern())
    assert seen == [None]


@pytest.mark.parametrize("method", ["GET", "DELETE", "HEAD", "OPTIONS"])
@pytest.mark.parametrize("revision", [None, b"2025-11-25", b"2024-11-05", b"2026-07-28"])
async def test_a_request_without_a_body_is_a_call_without_messages(method: str, revision: bytes | None) -> None:
    headers = [] if revision is None else [(b"mcp-protocol-version", revision)]
    app, outcome = await sent(headers=headers, method=method)
    assert outcome.status == 200
    text = None if revision is None else revision.decode()
    assert fact(app.scopes[-1], Call) == Call((), text, text == MODERN)


@pytest.mark.parametrize("method", ["GET", "DELETE", "HEAD"])
async def test_a_body_where_none_belongs_is_refused(method: str) -> None:
    app, outcome = await sent(b"", CALL, headers=[(b"transfer-encoding", b"chunked")], method=method)
    assert (outcome.status, app.calls) == (400, 0)
    assert outcome.value(b"connection") == b"close"


async def test_a_method_besides_is_read_like_post() -> None:
    await refused("media_type", 415, CALL, headers=[], method="PUT")
    assert (await sent(CALL, method="PUT"))[1].status == 200


@given(st.binary(max_size=60) | st.text('{}[]":,jsonrpc2.0idmethod1 ', max_size=60).map(str.encode))
async def test_whatever_the_bytes_the_answer_is_a_clean_one(body: bytes) -> None:
    app, outcome = await sent(body)
    assert outcome.status == (200 if app.calls else 400)
    if not app.calls:
        assert outcome.json()["error"]["code"] in (-32700, -32600)


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"max_body_bytes": 0}, "max_body_bytes"),
        ({"max_depth": 0}, "max_depth"),
        ({"max_depth": 257}, "max_depth"),
        ({"body_timeout": timedelta(0)}, "body_timeout"),
        ({"revisions": ()}, "revisions"),
        ({"revisions": ("2027-01-01",)}, "revisions"),
        ({"revisions": "2025-11-25"}, "revisions"),
    ],
)
def test_a_setting_that_cannot_work_is_named(settings: dict[str, Any], name: str) -> None:
    with pytest.raises(ConfigurationError, match=name):
        Intake(**settings)
