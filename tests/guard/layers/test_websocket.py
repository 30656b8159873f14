"""What is said on an open WebSocket: each message is judged as the body of a POST would be."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta

import pytest

from mcp_guard import conversation
from mcp_guard.asgi import Message, Receive, Scope, Send
from mcp_guard.failures import StoreUnavailable
from mcp_guard.layers.rate_limit import Limit
from mcp_guard.profiles import Limits
from mcp_guard.revocation import Revoker
from mcp_guard.sockets import DENIAL, Line, SocketTerms
from mcp_guard.spoken import Spoken
from tests.guard.certificates import certificate, over_tls, pem, x5t
from tests.guard.certificates import field as client_cert
from tests.guard.signing import ISSUER, NOW
from tests.guard.socketing import META, RESOURCE, Place, SocketClient, asked, bearer, call, say

NOTIFICATION = {"jsonrpc": "2.0", "method": "notifications/initialized"}


async def test_a_message_reaches_the_app_as_it_was_sent_and_is_recorded() -> None:
    place = Place()
    async with place.talking() as client:
        answer = await client.ask(call("whoami", "a"))
    assert answer == {"jsonrpc": "2.0", "id": "a", "result": {"content": [{"type": "text", "text": "alice"}]}}
    assert place.app.heard == [call("whoami", "a")]
    opened, asked_for, closed = place.records()
    assert (opened["verdict"], opened["status"], opened["http_method"]) == ("allowed", 101, "GET")
    assert (asked_for["method"], asked_for["tool"], asked_for["status"]) == ("tools/call", "whoami", 200)
    assert (closed["verdict"], closed["status"], closed["principal"]["subject"]) == ("closed", 1000, "alice")


async def test_an_authorized_message_costs_one_round_trip_to_the_store() -> None:
    place = Place()
    async with place.talking() as client:
        await client.ask(call("whoami"))
        before = len(place.store.batches)
        await client.ask(call("whoami", 2))
        assert len(place.store.batches) == before + 1


async def test_a_call_that_needs_another_scope_is_refused_with_its_id() -> None:
    place = Place()
    async with place.talking() as client:
        refused = await client.ask(call("admin", "x"))
        assert (refused["id"], refused["error"]["code"]) == ("x", -32011)
        assert (await client.ask(call("whoami")))["result"]
    assert [value["params"]["name"] for value in place.app.heard] == ["whoami"]
    assert "insufficient_scope" in [record["verdict"] for record in place.records()]


async def test_lists_show_what_the_caller_may_use() -> None:
    async with Place().talking() as client:
        answer = await client.ask(asked("tools/list"))
    assert [tool["name"] for tool in answer["result"]["tools"]] == ["whoami"]


async def test_messages_of_a_principal_are_limited_as_requests_are() -> None:
    # The handshake is one of them.
    place = Place(settings={"limits": Limits(principal=Limit(2, timedelta(minutes=1)))})
    async with place.talking() as client:
        assert (await client.ask(call("whoami", 1)))["result"]
        refused = await client.ask(call("whoami", 2))
    assert (refused["id"], refused["error"]["code"]) == (2, -32010)
    assert len(place.app.heard) == 1


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("{", -32700),
        ('{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}', -32700),
        ("\ud800", -32700),
        ('{"id":1}', -32600),
        ("[]", -32600),
        (json.dumps([asked("ping")]), -32600),
        (json.dumps(asked("tools/call", 1, name="whoami", Arguments={})), -32600),
        (json.dumps(asked("ping", 1, _meta={"io.modelcontextprotocol/protocolVersion": "2099-01-01"})), -32020),
        (json.dumps(asked("ping\u00e9", 1, _meta=META)), -32020),
        (json.dumps({**asked("ping", 1, _meta=META), "method": 7}), -32600),
    ],
)
async def test_a_message_with_more_than_one_reading_is_refused(text: str, code: int) -> None:
    place = Place()
    async with place.talking() as client:
        assert (await client.ask(text))["error"]["code"] == code
    assert place.app.heard == []


async def test_a_refused_notification_is_dropped_and_recorded() -> None:
    place = Place()
    async with place.talking() as client:
        client.say({"jsonrpc": "2.0", "method": "tools/call", "params": {"name": "admin"}})
        client.say(NOTIFICATION)
        assert (await client.ask(call("whoami", 5)))["id"] == 5
    assert place.app.heard == [NOTIFICATION, call("whoami", 5)]
    assert [record["verdict"] for record in place.records()][1] == "insufficient_scope"


async def test_names_are_mirrored_whatever_is_in_them() -> None:
    place = Place()
    async with place.talking() as client:
        for number, name in enumerate(["caf\u00e9", " x ", "=?base64?eA==?=", "plain"]):
            assert (await client.ask(call(name, number)))["result"]
        assert (await client.ask(asked("tools/call", 9, name=7, _meta=META)))["id"] == 9
    assert [value["params"]["name"] for value in place.app.heard] == ["caf\u00e9", " x ", "=?base64?eA==?=", "plain"]


async def test_what_the_handshake_says_of_one_request_says_nothing_of_messages() -> None:
    place = Place()
    fields = [(b"mcp-method", b"ping"), (b"mcp-name", b"other"), (b"mcp-session-id", b"s"), (b"content-type", b"x/y")]
    async with place.talking(*fields) as client:
        assert (await client.ask(call("whoami")))["result"]
    assert not {b"mcp-session-id", b"content-type"} & set(dict(place.app.scopes[0]["headers"]))


async def test_after_initialize_messages_are_read_by_the_revision_that_was_chosen() -> None:
    async with Place().talking() as client:
        await client.ask(asked("initialize", protocolVersion="2025-11-25"))
        declared = {"io.modelcontextprotocol/protocolVersion": "2025-06-18"}
        refused = await client.ask(asked("ping", 2, _meta=declared))
        assert refused["error"]["code"] == -32020
        assert (await client.ask(asked("ping", 3)))["result"]


@pytest.mark.parametrize("result", [{"protocolVersion": "x"}, []])
async def test_a_revision_that_is_none_is_not_learned(result: object) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await say(send, {"jsonrpc": "2.0", "id": json.loads(message["text"])["id"], "result": result})

    async with Place(app=app).talking() as client:
        assert (await client.ask(asked("initialize")))["result"] == result
        assert (await client.ask(asked("ping", 2)))["result"] == result


async def test_bytes_close_the_socket() -> None:
    place = Place()
    async with place.talking() as client:
        client.said.put_nowait({"type": "websocket.receive", "bytes": b"{}"})
        assert await client.closed() == (1003, "not_text")
    assert place.app.codes == [1003]


@pytest.mark.parametrize(("size", "is_closed"), [(200, False), (201, True)])
async def test_a_message_that_is_too_large_closes_the_socket(size: int, is_closed: bool) -> None:
    place = Place(terms=SocketTerms(max_message_bytes=200))
    async with place.talking() as client:
        text = json.dumps(asked("ping"))
        client.say(text + " " * (size - len(text)))
        if is_closed:
            assert await client.closed() == (1009, "message_too_large")
        else:
            assert (await client.hear())["result"]


async def test_a_message_that_is_too_large_for_a_body_closes_the_socket() -> None:
    place = Place(terms=SocketTerms(max_message_bytes=8 * 1024 * 1024))
    async with place.talking() as client:
        client.say(json.dumps(asked("ping")) + " " * (4 * 1024 * 1024))
        assert await client.closed() == (1009, "message_too_large")
    assert place.app.heard == []


async def test_messages_that_are_refused_again_and_again_close_the_socket() -> None:
    place = Place(terms=SocketTerms(max_refused=2))
    async with place.talking() as client:
        for number in range(3):
            assert "error" in await client.ask(call("admin", number))
            assert "result" in await client.ask(call("whoami", number))
        client.say(call("admin"))
        client.say(call("admin"))
        assert await client.closed() == (4429, "too_many")
    assert place.records()[-1]["status"] == 4429


async def test_an_id_that_is_in_use_is_refused() -> None:
    place = Place()
    async with place.talking() as client:
        client.say(call("hang", 1))
        await place.app.heard_one()
        assert (await client.ask(call("whoami", 1)))["error"]["code"] == -32600
        assert (await client.ask(call("whoami", "1")))["result"]


async def test_unanswered_requests_are_bounded() -> None:
    place = Place(terms=SocketTerms(max_in_flight=1))
    async with place.talking() as client:
        client.say(call("hang", 1))
        await place.app.heard_one()
        assert (await client.ask(call("whoami", 2)))["error"]["code"] == -32010


async def test_while_the_store_is_away_messages_are_refused_and_the_socket_stays() -> None:
    place = Place()
    async with place.talking() as client:
        place.clock.advance(120)
        place.store.fault = StoreUnavailable("away")
        refused = await client.ask(call("whoami", 4))
        assert (refused["id"], refused["error"]["code"]) == (4, -32603)
        place.store.fault = None
        assert (await client.ask(call("whoami", 5)))["result"]
    assert len(place.app.heard) == 1


# The end of the token.


async def test_the_socket_is_closed_when_its_token_expires() -> None:
    place = Place()
    async with place.opened(bearer(exp=NOW + 0.2)) as client:
        await client.accepted()
        assert await client.closed() == (1008, "authorization_over")
    assert place.app.codes == [1008]
    assert place.records()[-1]["reason"] == "the token expired"


async def test_a_message_under_a_token_that_has_expired_closes_the_socket() -> None:
    place = Place()
    async with place.talking() as client:
        place.clock.advance(400)
        client.say(call("whoami"))
        assert await client.closed() == (1008, "authorization_over")
    assert place.app.heard == []


async def test_a_revoked_token_closes_the_socket_without_a_message() -> None:
    place = Place()
    await place.guarded.start()
    try:
        async with place.talking() as client:
            await Revoker(place.store, place.clock).user(ISSUER, "alice")
            assert await client.closed() == (1008, "authorization_over")
    finally:
        await place.guarded.close()


async def test_a_server_that_shuts_down_says_that_it_goes_away() -> None:
    place = Place()
    await place.guarded.start()
    try:
        async with place.talking() as client:
            place.guarded.drain()
            assert await client.closed() == (1001, "going_away")
    finally:
        await place.guarded.close()


async def test_a_certificate_that_expires_closes_the_socket_at_the_next_message() -> None:
    shown = certificate(not_after=NOW + 60)
    place = Place(resource=replace(RESOURCE, certificates="allowed"))
    bound = bearer(cnf={"x5t#S256": x5t(shown)})
    async with place.opened(bound, extensions={DENIAL: {}, **over_tls(pem(shown))}) as client:
        await client.accepted()
        assert (await client.ask(call("whoami")))["result"]
        place.clock.advance(61)
        client.say(call("whoami", 2))
        assert await client.closed() == (1008, "authorization_over")
    assert len(place.app.heard) == 1


async def test_a_trusted_proxy_may_say_whose_certificate_it_saw() -> None:
    shown = certificate()
    settings = {"trusted_proxies": ("127.0.0.1/32",), "proxy_certificates": True}
    place = Place(resource=replace(RESOURCE, certificates="allowed"), settings=settings)
    bound = bearer(cnf={"x5t#S256": x5t(shown)})
    async with place.opened(bound, (b"client-cert", client_cert(shown))) as client:
        await client.accepted()
        assert (await client.ask(call("whoami")))["result"]
    async with place.opened(bound, (b"client-cert", client_cert(certificate("other")))) as client:
        assert (await client.denied())[0] == 401
    assert len(place.app.scopes) == 1


# What the app says.


async def test_what_the_app_says_by_itself_goes_out_before_the_answer_that_it_belongs_to() -> None:
    async with Place().talking() as client:
        assert (await client.ask(call("notify")))["method"] == "notifications/message"
        assert (await client.hear())["id"] == 1


async def test_an_app_that_fails_closes_the_socket() -> None:
    place = Place()
    async with place.talking() as client:
        client.say(call("fail"))
        assert await client.closed() == (1011, "failed")
    assert place.records()[-1]["status"] == 1011


@dataclass
class Saying:
    """An app that accepts, says these messages and waits for the client to leave."""

    messages: Sequence[Message]
    faults: list[str] = field(default_factory=list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        for message in self.messages:
            try:
                await send(message)
            except RuntimeError as fault:
                self.faults.append(str(fault))
        while (await receive())["type"] != "websocket.disconnect":
            pass


ACCEPT = {"type": "websocket.accept"}


@pytest.mark.parametrize(
    "messages",
    [
        [ACCEPT, ACCEPT],
        [ACCEPT, {"type": "websocket.send", "bytes": b"{}"}],
        [ACCEPT, {"type": "websocket.send", "text": "[]"}],
        [{"type": "websocket.send", "text": "{}"}, ACCEPT],
        [{"type": "http.response.start", "status": 200}, ACCEPT],
    ],
)
async def test_what_the_app_cannot_say_is_its_own_fault_and_does_not_go_out(messages: list[Message]) -> None:
    app = Saying(messages)
    async with Place(app=app).talking():
        pass
    assert len(app.faults) == 1


async def test_an_answer_to_no_request_is_dropped_and_an_error_without_an_id_is_not() -> None:
    nobody = {"jsonrpc": "2.0", "id": 7, "result": {}}
    unread = {"jsonrpc": "2.0", "id": None, "error": {"code": -32700, "message": "no"}}
    texts = [{"type": "websocket.send", "text": json.dumps(value, indent=1)} for value in (nobody, unread)]
    async with Place(app=Saying([ACCEPT, *texts])).talking() as client:
        assert await client.hear() == unread


async def test_what_the_app_says_of_a_task_of_another_principal_is_not_said_on_the_socket() -> None:
    foreign = {"jsonrpc": "2.0", "method": "notifications/tasks/status", "params": {"taskId": "t1", "status": "done"}}
    plain = {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info"}}
    texts = [{"type": "websocket.send", "text": json.dumps(value)} for value in (foreign, plain)]
    async with Place(app=Saying([ACCEPT, *texts])).talking() as client:
        assert await client.hear() == plain


async def test_a_comment_in_the_stream_is_no_message() -> None:
    client = SocketClient()
    line = Line(client.receive, client.send, denies=True)
    await line.send({"type": "http.response.start", "status": 101, "headers": []})
    await line.send({"type": "http.response.body", "body": b": still here\n\ndata: {}\n\n", "more_body": True})
    await client.accepted()
    assert await client.hear() == {}


async def test_an_answer_that_cannot_be_judged_is_not_said() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        while (await receive())["type"] == "websocket.receive":
            await say(send, {"jsonrpc": "2.0", "id": 1, "result": {"task": {"taskId": 7}}})

    place = Place(app=app)
    async with place.talking() as client:
        refused = await client.ask(call("whoami"))
    assert (refused["id"], refused["error"]["code"]) == (1, -32603)


async def test_nothing_that_the_app_says_after_the_end_goes_out() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        await receive()
        answer = {"jsonrpc": "2.0", "id": 1, "result": {}}
        await asyncio.gather(say(send, answer), send({"type": "websocket.close"}))
        await say(send, {"jsonrpc": "2.0", "method": "notifications/message"})

    async with Place(app=app).talking() as client:
        client.say(call("whoami"))
        assert (await client.closed())[0] == 1000
    assert [message["type"] for message in client.everything] == ["websocket.accept", "websocket.close"]


async def test_the_close_of_the_app_is_passed_on() -> None:
    place = Place(app=Saying([ACCEPT, {"type": "websocket.close", "code": 3000, "reason": "enough"}]))
    async with place.talking() as client:
        assert await client.closed() == (3000, "enough")


async def test_an_app_that_ends_ends_the_socket() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(ACCEPT)

    async with Place(app=app).talking() as client:
        assert await client.closed() == (1000, "ended")


async def test_an_app_that_does_not_end_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversation, "STOP_SECONDS", 0.01)
    stopped: list[bool] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(ACCEPT)
        try:
            await asyncio.Event().wait()
        finally:
            stopped.append(True)

    async with Place(app=app).talking() as client:
        client.leave()
    assert stopped == [True]


async def test_a_client_that_is_gone_when_it_is_answered_is_let_go_of() -> None:
    place = Place()
    async with place.talking() as client:
        client.fault = OSError("gone")
        client.say(call("whoami"))
        await place.app.ended_one()
    assert place.app.codes == [1005]


async def test_a_fault_in_saying_what_came_of_a_message_closes_the_socket(caplog: pytest.LogCaptureFixture) -> None:
    place = Place()
    async with place.talking() as client:
        client.fault = ValueError("a defect")
        client.say(call("whoami"))
        await place.app.ended_one()
    assert "could not be judged" in caplog.text


async def test_a_layer_that_waits_for_the_client_waits_until_the_message_is_answered() -> None:
    said = Spoken(b"{}")
    assert (await said.receive())["body"] == b"{}"
    waiting = asyncio.ensure_future(said.receive())
    await asyncio.sleep(0)
    assert not waiting.done()
    said.done.set()
    assert await waiting == {"type": "http.disconnect"}


async def test_the_next_message_is_read_when_the_app_has_taken_the_one_before() -> None:
    going = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        await going.wait()
        while (await receive())["type"] == "websocket.receive":
            pass

    async with Place(app=app).talking() as client:
        for _ in range(3):
            client.say(NOTIFICATION)
        for _ in range(100):
            await asyncio.sleep(0)
        assert client.said.qsize() == 2
        going.set()
