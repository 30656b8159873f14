"""The name of a worker goes out with each session id and message URL, comes back with it, and changes nothing else."""

from collections.abc import Sequence

import anyio
import pytest

from mcp_guard.asgi import Receive, Scope, Send
from mcp_guard.failures import ConfigurationError
from mcp_guard.layers.route import Route
from mcp_guard.layers.session import Session
from mcp_guard.stack import guard
from tests.guard.asgi import Client, CountingApp, Headers, Outcome, body, drive, http_scope, sending, split, start
from tests.guard.stubs import CountingStore, Facts, rpc

EVENTS = (b"content-type", b"text/event-stream; charset=utf-8")
JSON = (b"content-type", b"application/json")
OTHERS = frozenset({"w2"})


async def seen(route: Route, headers: Headers = (), query: bytes = b"") -> Scope:
    """The scope that the app is shown."""
    app = CountingApp()
    await drive(guard(app, route), http_scope(headers=headers, query=query))
    return app.scopes[0]


async def answered(
    *chunks: bytes, status: int = 200, kind: tuple[bytes, bytes] = EVENTS, asked: Headers = ()
) -> Outcome:
    """What goes out of a response with this body."""
    parts = [body(chunk, more=True) for chunk in chunks]
    app = sending(start(status, kind, (b"Mcp-Session-Id", b"abc.d")), *parts, body())
    return await drive(guard(app, Route("w1", OTHERS)), http_scope("GET", headers=asked))


@pytest.mark.parametrize("name", ["", "W1", "w.1", "w_1", "w 1", "w\n", "w" * 33, "é"])
@pytest.mark.parametrize("setting", ["name", "others"])
def test_a_name_that_a_proxy_could_not_tell_from_the_rest_is_refused(setting: str, name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{setting}: "):
        Route(name) if setting == "name" else Route("w1", frozenset({name}))


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        (b"w1.abc", b"abc"),
        (b"w1.abc.d", b"abc.d"),
        (b"w1.w1.abc", b"w1.abc"),
        (b"w2.abc", b"abc"),
        (b"w3.abc", b"w3.abc"),
        (b"w1abc", b"w1abc"),
        (b"w1", b"w1"),
        (b".abc", b".abc"),
        (b"abc", b"abc"),
        (b"W1.abc", b"W1.abc"),
        (b"w1.", b""),
    ],
)
async def test_the_app_sees_its_own_session_id(sent: bytes, shown: bytes) -> None:
    before, after = (b"x-a", b"w1.x"), (b"last-event-id", b"w1.7")
    scope = await seen(Route("w1", OTHERS), [before, (b"mcp-session-id", sent), after])
    assert scope["headers"] == [before, (b"mcp-session-id", shown), after]


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        (b"session_id=1&mcp_route=w1", b"session_id=1"),
        (b"mcp_route=w1", b""),
        (b"a=%20&&b&mcp_route=w2", b"a=%20&&b"),
        (b"a=1&mcp_route=w3", b"a=1&mcp_route=w3"),
        (b"mcp_route=w1&a=1", b"mcp_route=w1&a=1"),
        (b"mcp_route=w1&mcp_route=w1", b"mcp_route=w1"),
        (b"a=1&xmcp_route=w1", b"a=1&xmcp_route=w1"),
        (b"a=1", b"a=1"),
        (b"", b""),
    ],
)
async def test_the_app_sees_its_own_query(sent: bytes, shown: bytes) -> None:
    assert (await seen(Route("w1", OTHERS), query=sent))["query_string"] == shown


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ((), b"w1"),
        ([(b"mcp-session-id", b"w1.abc")], b"w1"),
        ([(b"mcp-session-id", b"w2.abc")], b"w2"),
        ([(b"mcp-session-id", b"w3.abc")], b"w1"),
        ([(b"mcp-session-id", b"abc")], b"w1"),
    ],
)
async def test_a_session_id_goes_out_with_the_name_that_it_came_with_or_that_of_this_worker(
    asked: Headers, name: bytes
) -> None:
    outcome = await answered(b"{}", kind=JSON, asked=asked)
    assert outcome.headers == [JSON, (b"Mcp-Session-Id", name + b".abc.d")]


@pytest.mark.parametrize(
    ("told", "named"),
    [
        (
            b"event: endpoint\r\ndata: /m/?session_id=1\r\n\r\n",
            b"event: endpoint\r\ndata: /m/?session_id=1&mcp_route=w1\r\n\r\n",
        ),
        (b"event: endpoint\ndata: /m\n\n", b"event: endpoint\ndata: /m?mcp_route=w1\n\n"),
        (b"data:/m?a#f\rid: 1\revent:endpoint\r\r", b"data:/m?a&mcp_route=w1#f\rid: 1\revent:endpoint\r\r"),
        (b": hi\n\nevent: endpoint\ndata: /m\n\n", b": hi\n\nevent: endpoint\ndata: /m?mcp_route=w1\n\n"),
    ],
)
@pytest.mark.parametrize("sizes", [(), (1,), (17, 3), (30,), tuple([1] * 60)])
async def test_the_message_url_goes_out_with_the_name_however_it_is_cut(
    told: bytes, named: bytes, sizes: Sequence[int]
) -> None:
    rest = b"event: endpoint\ndata: /other\n\ndata: not whole"
    outcome = await answered(*split(told + rest, sizes))
    assert outcome.body == named + rest


UNCHANGED = [
    b'data: {"jsonrpc":"2.0"}\n\nevent: endpoint\ndata: /m\n\n',
    b"event: endpoint\n\n",
    b"event: endpoint\ndata: /not-whole",
    b"event: endpoint\ndata: /" + b"m" * 10_000 + b"\n\n",
    b"",
]


@pytest.mark.parametrize("told", UNCHANGED, ids=range(len(UNCHANGED)))
async def test_any_other_stream_goes_out_as_it_is(told: bytes) -> None:
    assert (await answered(*split(told, [4_000, 4_000, 1_000]))).body == told


@pytest.mark.parametrize(("status", "kind"), [(200, JSON), (404, EVENTS)])
async def test_what_is_no_stream_of_a_session_goes_out_as_it_is(status: int, kind: tuple[bytes, bytes]) -> None:
    told = b"event: endpoint\ndata: /m\n\n"
    assert (await answered(told, status=status, kind=kind)).body == told


async def test_events_are_not_held_back() -> None:
    client = Client()
    arrived: list[bytes] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(200, EVENTS))
        for chunk in [b": hi\n\n", b"event: endpoint\ndata: /m\n\n", b"data: 1", b"\n\n"]:
            await send(body(chunk, more=True))
            arrived.append(client.outcome.body)

    with anyio.fail_after(5):
        await guard(app, Route("w1"))(http_scope("GET"), client.receive, client.send)
    assert [len(text) for text in arrived] == [6, 45, 52, 54]


async def test_sessions_are_bound_to_the_ids_and_urls_of_the_app(store: CountingStore) -> None:
    app = CountingApp(headers=[JSON, (b"mcp-session-id", b"abc")])
    stack = guard(app, Route("w1"), Facts(), Session(store=store))
    opened = await drive(stack, http_scope(), rpc("initialize"))
    assert opened.value(b"mcp-session-id") == b"w1.abc"
    for session, status in [(b"w1.abc", 200), (b"abc", 200), (b"w2.abc", 404)]:
        outcome = await drive(stack, http_scope(headers=[(b"mcp-session-id", session)]), rpc())
        assert (session, outcome.status) == (session, status)


async def test_message_urls_are_bound_as_the_app_names_them(store: CountingStore) -> None:
    stream = sending(start(200, EVENTS), body(b"event: endpoint\r\ndata: /messages/?session_id=1\r\n\r\n"))
    app = CountingApp()

    async def both(scope: Scope, receive: Receive, send: Send) -> None:
        await (stream if scope["path"] == "/sse" else app)(scope, receive, send)

    stack = guard(both, Route("w1"), Facts(), Session(store=store))
    opened = await drive(stack, http_scope("GET", "/sse"))
    assert b"data: /messages/?session_id=1&mcp_route=w1\r\n" in opened.body
    for query, status in [(b"session_id=1&mcp_route=w1", 200), (b"session_id=1&mcp_route=w2", 404)]:
        assert (await drive(stack, http_scope(path="/messages/", query=query), rpc())).status == status
    assert app.scopes[0]["query_string"] == b"session_id=1"
