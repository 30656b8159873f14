"""How WebSockets are opened: with a token in the handshake, or in the first message."""

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from mcp_guard.asgi import Receive, Scope, Send
from mcp_guard.facts import FACTS_KEY, Confirmation, Resource, Socket
from mcp_guard.failures import ConfigurationError
from mcp_guard.handshake import HELLO_BYTES
from mcp_guard.layers.rate_limit import Limit
from mcp_guard.layers.websocket import WebSocket
from mcp_guard.profiles import Limits
from mcp_guard.rejections import Rejection
from mcp_guard.sockets import SocketTerms
from mcp_guard.stack import guard
from tests.guard.asgi import CountingApp, drive, http_scope
from tests.guard.socketing import HELLO, MCP, Place, SpeakingApp, asked, bearer, call, token
from tests.guard.stubs import ALICE, Facts
from tests.guard.stubs import MCP as MCP_RESOURCE


async def test_a_good_token_opens_a_socket_and_the_app_sees_who_it_is() -> None:
    place = Place(app=SpeakingApp(subprotocol="mcp"))
    async with place.opened(bearer(), subprotocols=["mcp"]) as client:
        accepted = await client.accepted()
        assert accepted["subprotocol"] == "mcp"
        assert (b"x-app", b"1") in accepted["headers"]
        answer = await client.ask(call("whoami"))
    assert answer["result"]["content"][0]["text"] == "alice"
    scope = place.app.scopes[0]
    assert b"authorization" not in dict(scope["headers"])
    assert (scope["scheme"], scope["subprotocols"]) == ("ws", ["mcp"])
    assert scope["user"].principal.subject == "alice"


async def test_without_the_layer_a_good_token_opens_none() -> None:
    place = Place(terms=None)
    async with place.opened(bearer()) as client:
        assert await client.closed() == (1008, "")
    assert place.app.scopes == []


@pytest.mark.parametrize(
    ("headers", "status", "slug"),
    [
        ([], 401, "credentials_missing"),
        ([bearer(exp=1_799_999_000, iat=1_799_998_000)], 401, "token_expired"),
        ([bearer(), (b"origin", b"https://evil.example")], 403, "origin_not_allowed"),
        ([bearer(), (b"origin", b"null")], 403, "origin_not_allowed"),
        ([bearer(), (b"host", b"evil.example")], 421, "host_not_allowed"),
        ([bearer(scope="other")], 403, "insufficient_scope"),
        ([(b"cookie", b"access_token=" + token().encode())], 401, "credentials_missing"),
    ],
    ids=["missing", "expired", "origin", "null", "host", "scope", "cookie"],
)
async def test_what_http_refuses_is_refused_before_the_socket_is_accepted(
    headers: list[tuple[bytes, bytes]], status: int, slug: str
) -> None:
    place = Place()
    async with place.opened(*headers) as client:
        assert (await client.denied())[0] == status
    assert [record["verdict"] for record in place.records()] == [slug]
    assert place.app.scopes == []


async def test_a_refusal_carries_the_challenge() -> None:
    async with Place().opened() as client:
        _, headers, body = await client.denied()
    assert b'resource_metadata="' in headers[b"www-authenticate"]
    assert json.loads(body)["error"] == "credentials_missing"


async def test_where_the_server_cannot_deny_with_a_response_the_socket_is_closed_before_it_is_accepted() -> None:
    async with Place().opened(extensions={}) as client:
        assert await client.closed() == (1008, "")
    assert [message["type"] for message in client.everything] == ["websocket.close"]


@pytest.mark.parametrize("path", ["/mcp/", "/MCP", "/", "/.well-known/oauth-protected-resource/mcp"])
async def test_no_other_path_opens_a_socket(path: str) -> None:
    place = Place()
    async with place.opened(bearer(), path=path) as client:
        assert (await client.denied())[0] == 404
    assert place.records()[0]["verdict"] == "not_found"


async def test_a_path_with_more_than_one_reading_opens_none() -> None:
    place = Place()
    async with place.opened(bearer(), path="//mcp") as client:
        assert (await client.denied())[0] == 400
    assert place.records()[0]["verdict"] == "path_not_canonical"


async def test_below_a_mount_the_path_is_that_of_the_app() -> None:
    place = Place()
    async with place.opened(bearer(), path="/api/mcp", root_path="/api") as client:
        await client.accepted()


async def test_a_handshake_is_counted_as_a_connection_and_initialize_on_it_is_not() -> None:
    place = Place(settings={"limits": Limits(connections=Limit(1, timedelta(minutes=1)))})
    async with place.talking() as client:
        answer = await client.ask(asked("initialize", protocolVersion="2025-11-25"))
        assert answer["result"]["protocolVersion"] == "2025-11-25"
        async with place.opened(bearer()) as second:
            assert (await second.denied())[0] == 429


async def test_sockets_count_among_the_streams_of_a_principal() -> None:
    place = Place(settings={"limits": Limits(streams=1)})
    async with place.talking(), place.opened(bearer()) as second:
        assert (await second.denied())[0] == 429


async def test_a_token_that_is_bound_to_a_key_opens_none() -> None:
    place = Place()
    async with place.opened(bearer(cnf={"jkt": "A" * 43})) as client:
        assert (await client.denied())[0] == 401


async def test_a_proof_of_the_handshake_is_none_for_the_messages() -> None:
    bound = replace(ALICE, confirmation=Confirmation("A" * 43))
    stack = guard(CountingApp(), Facts(people={b"alice": bound}), WebSocket((MCP_RESOURCE,)))
    facts: dict[type, Any] = {Socket: Socket()}
    assert (await drive(stack, {**http_scope("GET"), FACTS_KEY: facts})).status == 401
    assert facts[Rejection].kind.slug == "token_bound"
    assert (await drive(stack)).status == 200


async def test_a_resource_that_takes_bound_tokens_alone_has_no_sockets() -> None:
    with pytest.raises(ConfigurationError, match="dpop is required"):
        WebSocket((Resource(MCP, "/mcp", dpop="required"),))
    with pytest.raises(ConfigurationError, match="name at least one"):
        WebSocket(())


async def test_an_app_may_refuse_a_socket() -> None:
    async def refusing(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.close", "code": 1000})

    async with Place(app=refusing).opened(bearer()) as client:
        assert (await client.denied())[0] == 403


@pytest.mark.parametrize("other", [token(), "opaque-1f7d", "graphql-ws"])
@pytest.mark.parametrize("spoken", [["mcp"], []])
async def test_of_subprotocols_the_app_sees_the_one_of_mcp_alone_since_others_may_be_credentials(
    spoken: list[str], other: str
) -> None:
    place = Place(app=SpeakingApp(subprotocol=spoken[0] if spoken else None))
    async with place.opened(bearer(), subprotocols=[other, *spoken]) as client:
        assert (await client.accepted())["subprotocol"] == (spoken[0] if spoken else None)
    scope = place.app.scopes[0]
    assert scope["subprotocols"] == spoken
    offer = [value.decode() for name, value in scope["headers"] if name == b"sec-websocket-protocol"]
    assert offer == spoken
    assert other not in place.recorded()


# The first message.


def hello(text: str | None = None) -> dict[str, str]:
    return {"op": "hello", "token": text or token()}


async def test_a_hello_opens_the_socket_and_nothing_reaches_the_app_before_it() -> None:
    place = Place(terms=HELLO, app=SpeakingApp(subprotocol="other"))
    async with place.opened(subprotocols=["mcp"]) as client:
        assert (await client.accepted())["subprotocol"] == "mcp"
        assert place.app.scopes == []
        assert await client.ask(hello()) == {"op": "welcome"}
        answer = await client.ask(call("whoami"))
    assert answer["result"]["content"][0]["text"] == "alice"
    assert [message["type"] for message in client.everything].count("websocket.accept") == 1
    assert "eyJ" not in place.recorded()
    assert place.guarded.sockets is not None
    assert place.guarded.sockets.waiting.total() == 0


async def test_without_a_subprotocol_on_offer_none_is_chosen() -> None:
    async with Place(terms=HELLO).opened() as client:
        assert (await client.accepted())["subprotocol"] is None


@pytest.mark.parametrize(
    "first",
    [
        "",
        "hello",
        "[]",
        '{"op":"hello"}',
        '{"op":"hello","token":1}',
        '{"op":"hello","token":"é"}',
        '{"op":"hello","token":"a\\nb"}',
        '{"op":"hullo","token":"a"}',
        '{"op":"hello","token":"a","token":"b"}',
        '{"op":"hello","token":"a","more":1}',
        json.dumps({"op": "hello", "token": "a" * HELLO_BYTES}),
    ],
)
async def test_what_is_no_hello_closes_the_socket(first: str) -> None:
    place = Place(terms=HELLO)
    async with place.opened() as client:
        await client.accepted()
        client.say(first)
        assert await client.closed() == (4400, "hello_malformed")
    assert place.app.scopes == []
    assert [record["status"] for record in place.records()] == [101, 4400]


async def test_a_first_message_in_bytes_closes_the_socket() -> None:
    async with Place(terms=HELLO).opened() as client:
        await client.accepted()
        client.said.put_nowait({"type": "websocket.receive", "bytes": b"{}"})
        assert await client.closed() == (4400, "hello_malformed")


async def test_a_hello_that_does_not_come_in_time_closes_the_socket() -> None:
    place = Place(terms=SocketTerms(hello=True, hello_deadline=timedelta(seconds=0.05)))
    async with place.opened() as client:
        await client.accepted()
        assert await client.closed() == (4408, "hello_late")


@pytest.mark.parametrize(
    ("text", "code", "verdict"),
    [
        ("nonsense", 4401, "token_malformed"),
        (token(exp=1_799_999_000, iat=1_799_998_000), 4401, "token_expired"),
        (token(aud="https://other.example/mcp"), 4401, "token_audience"),
        (token(scope="other"), 4403, "insufficient_scope"),
        ("two words", 4403, "credentials_malformed"),
    ],
)
async def test_a_hello_with_a_token_that_http_refuses_closes_the_socket(text: str, code: int, verdict: str) -> None:
    place = Place(terms=HELLO)
    async with place.opened() as client:
        await client.accepted()
        client.say(hello(text))
        assert (await client.closed())[0] == code
    assert verdict in [record["verdict"] for record in place.records()]
    assert text not in place.recorded()
    assert place.app.scopes == []


async def test_a_hello_that_cannot_be_judged_says_to_try_later() -> None:
    place = Place(terms=HELLO, settings={"limits": Limits(in_flight=1, in_flight_in_all=1)})
    async with place.talking() as first:
        first.say(call("hang"))
        await place.app.heard_one()
        async with place.opened() as client:
            await client.accepted()
            client.say(hello(token(sub="bob")))
            assert await client.closed() == (1013, "try_later")


@pytest.mark.parametrize(
    "terms",
    [SocketTerms(hello=True, waiting_per_address=1), SocketTerms(hello=True, waiting=1)],
    ids=["address", "all"],
)
async def test_sockets_that_wait_for_a_hello_are_bounded(terms: SocketTerms) -> None:
    place = Place(terms=terms)
    async with place.opened() as first:
        await first.accepted()
        async with place.opened() as second:
            assert (await second.denied())[0] == 429
    async with place.opened() as third:
        await third.accepted()


@pytest.mark.parametrize(
    "members",
    [{"query_string": b"access_token=" + token().encode()}, {"subprotocols": ["mcp", token()]}],
    ids=["query", "subprotocol"],
)
async def test_a_token_elsewhere_is_refused_before_the_socket_is_accepted_and_not_recorded(
    members: dict[str, Any],
) -> None:
    place = Place(terms=HELLO)
    async with place.opened(**members) as client:
        assert (await client.denied())[0] == 401
    assert "eyJ" not in place.recorded()


async def test_each_socket_that_waits_for_a_hello_is_counted_until_it_ends() -> None:
    place = Place(terms=SocketTerms(hello=True, waiting_per_address=2))
    async with place.opened() as first:
        await first.accepted()
        async with place.opened() as second:
            await second.accepted()
        async with place.opened() as third:
            await third.accepted()
            async with place.opened() as fourth:
                assert (await fourth.denied())[0] == 429


async def test_a_client_that_leaves_before_its_hello_is_let_go_of() -> None:
    place = Place(terms=HELLO)
    async with place.opened() as client:
        await client.accepted()
    assert place.records()[-1]["verdict"] == "closed"


@pytest.mark.parametrize(
    "setting", ["waiting_per_address", "waiting", "max_message_bytes", "max_in_flight", "max_refused"]
)
def test_terms_of_nothing_are_refused(setting: str) -> None:
    none: dict[str, Any] = {setting: 0}
    with pytest.raises(ConfigurationError, match=f"{setting} must be at least 1"):
        replace(HELLO, **none)


@pytest.mark.parametrize("seconds", [0, 61])
def test_a_deadline_that_is_none_is_refused(seconds: int) -> None:
    with pytest.raises(ConfigurationError, match="hello_deadline"):
        SocketTerms(hello_deadline=timedelta(seconds=seconds))
