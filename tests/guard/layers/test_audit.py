"""One record for each exchange, whatever happens, and never a secret in it."""

import json
import logging
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_guard import rejections
from mcp_guard.asgi import Receive, Scope, Send
from mcp_guard.auditlog import AuditLog, DescriptorSink, FileSink, Head, MemorySink, verify
from mcp_guard.clock import ManualClock
from mcp_guard.events import Event
from mcp_guard.exchange import Exchange
from mcp_guard.facts import Call, ClientAddress, MessageKind, RequestId, RpcMessage, SessionHandle, Socket, facts_of
from mcp_guard.layer import Admission
from mcp_guard.layers.audit import Audit
from mcp_guard.stack import guard
from tests.guard.asgi import Client, CountingApp, body, drive, http_scope, start
from tests.guard.stubs import Facts, Reads, Says, principal, rpc

CANARIES = ("canary-token", "canary-query", "canary-body", "canary-cookie", "canary-session")


async def test_a_record_says_who_asked_what_and_what_was_decided(app: CountingApp, sink: MemorySink) -> None:
    clock = ManualClock(now=datetime(2027, 1, 15, 8, 0, 0, 250_000, UTC).timestamp())

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        clock.advance(0.0125)
        await app(scope, receive, send)

    handle = Says(Admission(facts=(SessionHandle("session-secret", "5e55105e55105e55"),)))
    stack = guard(slow, Audit(AuditLog(sink), clock), Facts(), handle)
    await drive(stack, http_scope(headers=[(b"x-as", b"bob")]), rpc(name="add"))

    (record,) = sink.records()
    identifier = record.pop("request_id")
    assert len(identifier) == 32
    assert record == {
        "seq": 1,
        "prev": "0" * 64,
        "time": "2027-01-15T08:00:00.262+00:00",
        "client": "192.0.2.7",
        "principal": {"issuer": "https://issuer.example", "subject": "bob", "client": "client-1", "tenant": None},
        "token": "b" * 16,
        "verified": "signature",
        "session": "5e55105e55105e55",
        "http_method": "POST",
        "path": "/mcp",
        "event": None,
        "method": "tools/call",
        "tool": "add",
        "verdict": "allowed",
        "status": 200,
        "reason": None,
        "duration_ms": 12.5,
    }
    assert app.scopes[0]["mcp_guard"][RequestId] == RequestId(identifier)


async def test_a_refusal_is_recorded_with_its_slug_and_reason(app: CountingApp, sink: MemorySink) -> None:
    refusal = rejections.TOKEN_EXPIRED.because("exp was 30 s ago")
    await drive(guard(app, Audit(AuditLog(sink)), Says(fault=refusal)))
    (record,) = sink.records()
    assert (record["verdict"], record["status"], record["reason"]) == ("token_expired", 401, "exp was 30 s ago")
    assert (record["principal"], record["token"], record["session"], record["method"]) == (None, None, None, None)


async def test_the_client_is_the_one_that_was_found_out_and_else_the_peer(app: CountingApp, sink: MemorySink) -> None:
    found = Says(Admission(facts=(ClientAddress(ip_address("2001:db8::1")),)))
    await drive(guard(app, Audit(AuditLog(sink)), found))
    await drive(guard(app, Audit(AuditLog(sink))))
    await drive(guard(app, Audit(AuditLog(sink))), http_scope(client=None))
    assert [record["client"] for record in sink.records()] == ["2001:db8::1", "192.0.2.7", "unknown"]


async def test_every_message_of_a_batch_is_named_up_to_a_bound(app: CountingApp, sink: MemorySink) -> None:
    stack = guard(app, Audit(AuditLog(sink)), Facts())
    two = [{"id": 1, "method": "tools/call", "params": {"name": "a"}}, {"id": 2, "method": "tools/list"}]
    await drive(stack, http_scope(), json.dumps(two).encode())
    await drive(stack, http_scope(), json.dumps(two[:1] * 200).encode())
    await drive(stack, http_scope("GET"))
    await drive(stack, http_scope(), json.dumps({"id": 1, "result": {}}).encode())

    first, second, third, fourth = sink.records()
    assert (first["method"], first["tool"]) == (["tools/call", "tools/list"], "a")
    assert second["tool"] == ["a"] * 50
    assert (third["method"], third["tool"], fourth["method"]) == (None, None, None)


async def test_a_record_is_there_before_the_first_byte_of_the_response(sink: MemorySink) -> None:
    lines_at: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        lines_at.append(len(sink.lines))
        await send(start())
        lines_at.append(len(sink.lines))
        await send(body(b"", more=True))
        await send(body())

    await drive(guard(app, Audit(AuditLog(sink))))
    assert lines_at == [0, 1]
    assert len(sink.lines) == 1


async def test_the_body_of_a_response_is_not_looked_at(sink: MemorySink) -> None:
    scope = http_scope()
    exchange = Exchange(scope, Client().receive, Client().send)
    watch = (await Audit(AuditLog(sink)).admit(exchange.request)).watch
    assert watch is not None
    assert (watch.wants_body, watch.on_body(b"secret"), sink.lines) == (False, (), [])


async def test_what_an_authorization_server_did_is_recorded_with_the_person_it_did_it_for(
    app: CountingApp, sink: MemorySink
) -> None:
    redeemed = Event("code_redeemed", "https://issuer.example", "alice", "client-1", "acme", "c" * 16)
    await drive(guard(app, Audit(AuditLog(sink)), Facts(), Says(Admission(facts=(redeemed,)))))
    (record,) = sink.records()
    someone = {"issuer": "https://issuer.example", "subject": "alice", "client": "client-1", "tenant": "acme"}
    assert (record["event"], record["principal"], record["token"]) == ("code_redeemed", someone, "c" * 16)
    assert (record["verified"], record["session"]) == (None, None)


async def test_the_end_of_a_websocket_is_recorded_with_its_code_and_once(sink: MemorySink) -> None:
    log, exchange = AuditLog(sink), Exchange(http_scope(), Client().receive, Client().send)
    await log.start()
    closed = facts_of(exchange.request.scope)[Socket] = Socket()
    watches = [(await Audit(log).admit(exchange.request)).watch for _ in range(2)]
    closed.close(1008, "the token expired")
    for watch in watches:
        assert watch is not None
        watch.on_end()
    (record,) = sink.records()
    assert (record["verdict"], record["status"], record["reason"]) == ("closed", 1008, "the token expired")
    await log.close()


async def test_there_is_one_record_whatever_happens(sink: MemorySink) -> None:
    async def raises(scope: Scope, receive: Receive, send: Send) -> None:
        raise ZeroDivisionError

    async def raises_late(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        raise ZeroDivisionError

    async def says_nothing(scope: Scope, receive: Receive, send: Send) -> None:
        return

    async def hangs(scope: Scope, receive: Receive, send: Send) -> None:
        await anyio.sleep_forever()

    expected = []
    for app, verdict, status in (
        (CountingApp(), "allowed", 200),
        (CountingApp(status=404), "allowed", 404),
        (raises, "app_fault", 500),
        (raises_late, "allowed", 200),
        (says_nothing, "aborted", None),
        (hangs, "aborted", None),
    ):
        with anyio.move_on_after(0.05):
            await drive(guard(app, Audit(AuditLog(sink))))
        expected.append((verdict, status))
    assert [(record["verdict"], record["status"]) for record in sink.records()] == expected
    reasons = [record["reason"] for record in sink.records()]
    assert (reasons[0], reasons[-1]) == (None, "the exchange ended without a response")


async def test_a_refusal_that_no_client_waits_for_keeps_its_slug(sink: MemorySink) -> None:
    refusal = rejections.NOT_FOUND.because("nothing is here")
    client = Client()

    async def broken(message: Any) -> None:
        raise OSError("the client is gone")

    with pytest.raises(OSError, match="gone"):
        await guard(CountingApp(), Audit(AuditLog(sink)), Says(fault=refusal))(http_scope(), client.receive, broken)
    assert [record["verdict"] for record in sink.records()] == ["not_found"]


async def test_no_secret_reaches_a_record_or_the_log(
    app: CountingApp, sink: MemorySink, caplog: pytest.LogCaptureFixture
) -> None:
    headers = [
        (b"x-as", b"alice"),
        (b"authorization", b"Bearer canary-token"),
        (b"cookie", b"id=canary-cookie"),
        (b"mcp-session-id", b"canary-session"),
    ]
    message = {"id": 1, "method": "tools/call", "params": {"name": "add", "arguments": {"key": "canary-body"}}}
    scope = http_scope(headers=headers, query=b"access_token=canary-query")
    handle = Says(Admission(facts=(SessionHandle("canary-session", "fingerprint"),)))
    layers = (Audit(AuditLog(sink)), Facts(), handle)
    with caplog.at_level(logging.DEBUG):
        for last in (Says(), Says(fault=rejections.NOT_FOUND.because("absent")), Says(fault=ZeroDivisionError("x"))):
            await drive(guard(app, *layers, last), scope, json.dumps(message).encode())

    written = b"".join(sink.lines).decode() + caplog.text
    assert len(sink.lines) == 3
    assert not [canary for canary in CANARIES if canary in written]


HOSTILE = ["a\r\nb", "\x1b[31m", "\u2028", "\x00", "}{", "\ud800", "\ud800" * 400, "x" * 1_000_000]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
async def test_hostile_text_makes_one_bounded_line_that_reads_back(
    text: str, app: CountingApp, sink: MemorySink
) -> None:
    who = principal(text, client=text, issuer=text, tenant=text)
    call = Call((RpcMessage(MessageKind.REQUEST, text, 1, text),), None, False)
    facts = Says(Admission(facts=(who, call)))
    stack = guard(app, Audit(AuditLog(sink)), facts, Says(fault=rejections.NOT_FOUND.because(text)))
    outcome = await drive(stack, http_scope(method=text, path=f"/{text}", raw_path=None))

    assert outcome.status == 404
    (line,) = sink.lines
    assert line.isascii()
    assert line.count(b"\n") == 1
    assert len(line) < 32_768
    (record,) = sink.records()
    for value in (*record["principal"].values(), record["method"], record["tool"], record["reason"]):
        assert value.startswith(text[:256])


@given(st.lists(st.sampled_from(["allowed", "refused", "raises"]), max_size=12))
async def test_the_records_of_a_run_are_a_sound_chain(run: list[str]) -> None:
    sink = MemorySink()
    log = AuditLog(sink)
    stacks = {
        "allowed": guard(CountingApp(), Audit(log)),
        "refused": guard(CountingApp(), Audit(log), Says(fault=rejections.NOT_FOUND.because("absent"))),
        "raises": guard(CountingApp(), Audit(log), Says(fault=ZeroDivisionError())),
    }
    for kind in run:
        await drive(stacks[kind])
    head = verify(sink.lines)
    assert isinstance(head, Head)
    assert head.seq == len(run)


@pytest.mark.parametrize("sink", [FileSink(Path("/dev/full")), DescriptorSink(-1)], ids=["full disk", "closed"])
async def test_a_response_that_cannot_be_recorded_does_not_go_out(
    sink: FileSink | DescriptorSink, caplog: pytest.LogCaptureFixture
) -> None:
    app = CountingApp(headers=[(b"mcp-session-id", b"secret-id")], chunks=(b"secret",))
    outcome = await drive(guard(app, Audit(AuditLog(sink))))

    assert (outcome.status, outcome.value(b"retry-after")) == (503, b"1")
    assert outcome.json() == {"error": "unavailable", "error_description": "The service cannot decide now"}
    assert outcome.value(b"mcp-session-id") is None
    assert "a response is withheld because it is missing from the audit" in caplog.text


async def test_a_refusal_that_cannot_be_recorded_becomes_503() -> None:
    stack = guard(CountingApp(), Audit(AuditLog(DescriptorSink(-1))), Says(fault=rejections.NOT_FOUND.because("x")))
    assert (await drive(stack)).status == 503


async def test_an_aborted_exchange_that_cannot_be_recorded_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    client = Client(())
    client.gone.set()
    await guard(CountingApp(), Audit(AuditLog(DescriptorSink(-1))), Reads())(http_scope(), client.receive, client.send)
    assert client.outcome.sent == []
    assert "an aborted exchange is missing from the audit: " in caplog.text


async def test_the_log_works_again_when_there_is_room_again(tmp_path: Path) -> None:
    class Sometimes(FileSink):
        full = False

        def write(self, line: bytes) -> None:
            if self.full:
                raise OSError(28, "No space left on device")
            super().write(line)

    sink = Sometimes(tmp_path / "audit.jsonl")
    app = CountingApp()
    stack = guard(app, Audit(AuditLog(sink)))
    statuses = []
    for full in (False, True, True, False):
        sink.full = full
        statuses.append((await drive(stack)).status)
    await stack.close()

    assert statuses == [200, 503, 503, 200]
    head = verify(sink.path.read_bytes().splitlines(keepends=True))
    assert isinstance(head, Head)
    assert head.seq == 2


async def test_the_layer_alone_writes_to_standard_error_by_default(capfd: pytest.CaptureFixture[str]) -> None:
    assert (await drive(Audit().wrap(CountingApp()))).status == 200
    (line,) = capfd.readouterr().err.splitlines()
    assert json.loads(line)["verdict"] == "allowed"


async def test_a_principal_found_after_a_refusal_was_decided_is_no_part_of_it(sink: MemorySink) -> None:
    stack = guard(CountingApp(), Audit(AuditLog(sink)), Says(fault=rejections.NOT_FOUND.because("x")), Facts())
    outcome = await drive(stack)
    assert outcome.status == 404
    assert sink.records()[0]["principal"] is None
