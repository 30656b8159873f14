"""What a layer may do with a response (change it, end it, cut it), and with the body that the app is shown."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field

import anyio
import pytest

from mcp_guard import rejections
from mcp_guard.asgi import ASGIApp, Message, RawHeaders, Receive, Scope, Send
from mcp_guard.check import Junction
from mcp_guard.failures import ConfigurationError, StoreUnavailable
from mcp_guard.layer import ADMITTED, Admission, Outgoing, RequestHead
from mcp_guard.stack import guard
from mcp_guard.stores.base import Get
from tests.guard.asgi import Client, CountingApp, Outcome, body, drive, http_scope, read_all, sending, start
from tests.guard.stubs import Asks, CountingStore, Reads, Says, Watching

REFUSED = rejections.NOT_FOUND.because("nothing is here")


@dataclass
class Changing:
    """A rewrite that puts its name before the body and holds a part of it back until the end."""

    name: bytes
    wants_body: bool = True
    at_start: Exception | None = None
    at_body: Exception | None = None
    held: bytes = b""
    begun: bool = False
    seen: list[tuple[bytes, bool]] = field(default_factory=list)

    def on_start(self, status: int, headers: RawHeaders) -> RawHeaders:
        if self.at_start is not None:
            raise self.at_start
        return [*[pair for pair in headers if pair[0] != b"content-length"], (b"x-changed", self.name)]

    async def on_body(self, chunk: bytes, more: bool) -> bytes:
        await anyio.lowlevel.checkpoint()
        self.seen.append((chunk, more))
        if self.at_body is not None:
            raise self.at_body
        first, self.begun = b"" if self.begun else self.name, True
        ready, self.held = self.held, chunk
        return first + ready + (b"" if more else self.held)


def answering(*chunks: bytes, length: bool = True) -> ASGIApp:
    fields = [(b"content-length", str(sum(map(len, chunks))).encode())] if length else []
    *first, last = chunks
    return sending(start(200, *fields), *[body(chunk, more=True) for chunk in first], body(last))


# Changing a response


async def test_a_response_passes_the_rewrites_from_the_innermost_out() -> None:
    app = guard(answering(b"a", b"b"), Says(Admission(rewrite=Changing(b"O"))), Says(Admission(rewrite=Changing(b"I"))))
    outcome = await drive(app)
    assert outcome.body == b"OIab"
    assert outcome.values(b"x-changed") == [b"I", b"O"]
    assert outcome.value(b"content-length") is None
    assert outcome.complete


async def test_a_watch_sees_what_layers_further_in_made_of_the_response() -> None:
    outside, inside = Watching(), Watching()
    app = guard(
        answering(b"ab"),
        Says(Admission(watch=outside)),
        Says(Admission(rewrite=Changing(b"I"), watch=inside)),
    )
    await drive(app)
    assert inside.seen == [200, b"ab"], "of one admission the watch sees the response first"
    assert outside.seen == [200, b"Iab"]


async def test_what_is_held_back_is_not_sent_as_an_empty_part() -> None:
    outcome = await drive(guard(answering(b"a", b"b", b"c"), Says(Admission(rewrite=Changing(b"")))))
    assert outcome.chunks == [b"a", b"bc"]


async def test_a_rewrite_that_wants_no_more_of_the_body_is_shown_no_more() -> None:
    rewrite = Changing(b"!", wants_body=False)
    outcome = await drive(guard(answering(b"a", b"b"), Says(Admission(rewrite=rewrite))))
    assert outcome.body == b"ab"
    assert rewrite.seen == []


@pytest.mark.parametrize(
    ("fault", "status"), [(REFUSED, 404), (StoreUnavailable("away"), 503), (ValueError("defect"), 503)]
)
async def test_a_rewrite_that_fails_at_the_start_refuses_the_response(fault: Exception, status: int) -> None:
    outside, inside = Watching("outside"), Watching("inside")
    app = guard(
        answering(b"secret"),
        Says(Admission(watch=outside)),
        Says(Admission(rewrite=Changing(b"", at_start=fault))),
        Says(Admission(watch=inside)),
    )
    outcome = await drive(app)
    assert outcome.status == status
    assert b"secret" not in outcome.body
    assert outside.seen[0] == status
    assert inside.seen == [200]
    assert (outside.ended, inside.ended) == (1, 1)


@pytest.mark.parametrize("fault", [REFUSED, StoreUnavailable("away"), ValueError("defect")])
async def test_a_rewrite_that_fails_in_the_body_cuts_the_response(fault: Exception) -> None:
    rewrite = Changing(b"", at_body=fault)
    outcome = await drive(guard(answering(b"secret", b"more"), Says(Admission(rewrite=rewrite))))
    assert outcome.status == 200
    assert outcome.body == b""
    assert not outcome.complete
    assert len(rewrite.seen) == 1


async def test_a_body_that_is_sent_by_other_means_is_not_let_past_a_rewrite() -> None:
    pathsend: Message = {"type": "http.response.pathsend", "path": "/etc/passwd"}
    outcome = await drive(guard(sending(start(), pathsend), Says(Admission(rewrite=Changing(b"")))))
    assert not outcome.complete
    assert all(message["type"] != "http.response.pathsend" for message in outcome.sent)


async def test_refusals_pass_the_rewrites_further_out_too() -> None:
    outcome = await drive(guard(CountingApp(), Says(Admission(rewrite=Changing(b"")), None), Says(fault=REFUSED)))
    assert outcome.status == 404
    assert outcome.values(b"x-changed") == [b""]


# Changing a request


async def test_the_app_and_layers_further_in_are_shown_the_body_in_place_of_the_clients(app: CountingApp) -> None:
    inner = Reads()
    outer = Reads(Admission(body=b"another"))
    scope = http_scope(headers=[(b"content-length", b"4"), (b"x-other", b"4")])
    await drive(guard(app, outer, inner), scope, b"body")
    assert app.bodies == [b"another"]
    assert inner.seen[0].headers == [(b"content-length", b"7"), (b"x-other", b"4")]
    assert app.scopes[0]["headers"] == [(b"content-length", b"7"), (b"x-other", b"4")]
    assert scope["headers"] == [(b"content-length", b"4"), (b"x-other", b"4")]


async def test_a_body_without_a_length_gets_none(app: CountingApp) -> None:
    await drive(guard(app, Reads(Admission(body=b""))), http_scope(headers=[(b"transfer-encoding", b"chunked")]), b"x")
    assert app.bodies == [b""]
    assert app.scopes[0]["headers"] == [(b"transfer-encoding", b"chunked")]


# Ending a response from outside


@dataclass
class Holding:
    """An app that begins a stream and waits; `stopped` says how it was stopped."""

    begin: bool = True
    swallow: bool = False
    begun: anyio.Event = field(default_factory=anyio.Event)
    stopped: list[type[BaseException]] = field(default_factory=list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await read_all(receive)
        try:
            if self.begin:
                await send(start(200, (b"content-type", b"text/event-stream")))
                await send(body(b"data: 1\n\n", more=True))
            self.begun.set()
            await anyio.sleep_forever()
        except BaseException as fault:
            self.stopped.append(type(fault))
            if not self.swallow:
                raise
            await send(body(b"data: after\n\n"))


@dataclass
class Place:
    """An app behind a layer, and the way to end its response."""

    app: Holding
    watch: Watching = field(default_factory=Watching)
    seen: list[RequestHead] = field(default_factory=list)

    async def ended(self, how: Callable[[Outgoing], None], client: Client | None = None) -> Outcome:
        layer = Says(Admission(watch=self.watch))
        client = client or Client()
        with anyio.fail_after(5):
            async with anyio.create_task_group() as group:
                group.start_soon(guard(self.app, layer), http_scope(), client.receive, client.send)
                await self.app.begun.wait()
                how(layer.seen[0].outgoing)
        return client.outcome


async def test_a_response_that_is_ended_is_complete_and_its_app_is_stopped() -> None:
    place = Place(Holding())
    outcome = await place.ended(lambda outgoing: outgoing.end("the token has expired"))
    assert outcome.body == b"data: 1\n\n"
    assert outcome.complete
    assert place.app.stopped == [asyncio.CancelledError]
    assert place.watch.ended == 1


async def test_a_response_that_is_cut_is_not_complete() -> None:
    place = Place(Holding())
    outcome = await place.ended(lambda outgoing: outgoing.cut("the client does not read"))
    assert outcome.body == b"data: 1\n\n"
    assert not outcome.complete
    assert place.app.stopped == [asyncio.CancelledError]
    assert place.watch.ended == 1


@pytest.mark.parametrize("begin", [True, False])
async def test_an_app_that_will_not_stop_sends_nothing_more(begin: bool) -> None:
    place = Place(Holding(begin, swallow=True))
    outcome = await place.ended(lambda outgoing: outgoing.end("the token has expired"))
    assert (outcome.body == b"data: 1\n\n") if begin else (outcome.status == 503)
    assert place.app.stopped == [asyncio.CancelledError]
    assert outcome.complete


async def test_a_response_that_had_not_begun_becomes_a_refusal() -> None:
    outcome = await Place(Holding(begin=False)).ended(lambda outgoing: outgoing.end("the token has expired"))
    assert outcome.status == 503
    assert outcome.value(b"retry-after") == b"1"


async def test_ending_twice_ends_once(caplog: pytest.LogCaptureFixture) -> None:
    def twice(outgoing: Outgoing) -> None:
        outgoing.end("first")
        outgoing.cut("second")

    with caplog.at_level(logging.INFO, "mcp_guard"):
        outcome = await Place(Holding()).ended(twice)
    assert outcome.complete
    assert "a response was ended: first" in caplog.text


async def test_a_response_that_is_over_is_not_ended(app: CountingApp) -> None:
    layer = Says()
    await drive(guard(app, layer))
    layer.seen[0].outgoing.end("too late")
    await anyio.lowlevel.checkpoint()


async def test_a_cancellation_by_the_server_is_still_one() -> None:
    app, layer, client = Holding(), Says(), Client()
    task = asyncio.create_task(serve(guard(app, layer), client))
    await app.begun.wait()
    layer.seen[0].outgoing.end("the token has expired")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not client.outcome.complete


async def serve(app: ASGIApp, client: Client) -> None:
    await app(http_scope(), client.receive, client.send)


async def test_a_cancellation_that_is_not_ours_passes_through() -> None:
    app, client = Holding(), Client()
    task = asyncio.create_task(serve(guard(app, Says()), client))
    await app.begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not client.outcome.complete


class Stuck(Client):
    """A client that takes the start of a response and nothing of its body."""

    async def send(self, message: Message) -> None:
        await super().send(message)
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            await anyio.sleep_forever()


async def test_a_response_whose_end_is_not_taken_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mcp_guard.exchange.CLOSING_SECONDS", 0.02)
    place = Place(Holding())
    await place.ended(lambda outgoing: outgoing.end("the token has expired"), Stuck())
    assert place.watch.ended == 1


async def test_it_is_known_which_part_of_a_response_the_server_has_not_taken() -> None:
    layer = Says()
    pending: list[int] = []

    async def look(message: Message) -> None:
        pending.append(layer.seen[0].outgoing.pending)

    await guard(answering(b"a", b"b"), layer)(http_scope(), Client().receive, look)
    assert pending == [0, 1, 2]
    assert layer.seen[0].outgoing.pending == 0


# Deciding without the store


@dataclass(frozen=True, kw_only=True)
class Knows(Asks):
    """Decides without the store what it is told to."""

    decides: Admission | Exception = ADMITTED

    def without_store(self, request: RequestHead, fault: StoreUnavailable) -> Admission:
        if isinstance(self.decides, Exception):
            raise self.decides
        return self.decides


async def test_a_check_that_knows_no_other_way_refuses_without_the_store(store: CountingStore) -> None:
    store.fault = StoreUnavailable("away", retry_after_seconds=7)
    outcome = await drive(guard(CountingApp(), Asks(store=store, operations=(Get("k"),))))
    assert (outcome.status, outcome.value(b"retry-after")) == (503, b"7")


async def test_a_check_may_decide_without_the_store(store: CountingStore, app: CountingApp) -> None:
    store.fault = StoreUnavailable("away")
    knows = Knows(store=store, operations=(Get("k"),), decides=Admission(scope={"user": "known"}))
    asks_nothing = Asks(store=store)
    assert (await drive(guard(app, knows, asks_nothing))).status == 200
    assert app.scopes[0]["user"] == "known"
    assert asks_nothing.results == [[]]


async def test_without_the_store_every_check_that_asked_must_know_a_way(store: CountingStore, app: CountingApp) -> None:
    store.fault = StoreUnavailable("away")
    knows, asks = Knows(store=store, operations=(Get("k"),)), Asks(store=store, operations=(Get("k"),))
    assert (await drive(guard(app, knows, asks))).status == 503
    assert (await drive(guard(app, asks, knows))).status == 503
    refuses = Knows(store=store, operations=(Get("k"),), decides=REFUSED)
    assert (await drive(guard(app, refuses))).status == 404
    assert app.calls == 0


# Another way in


@dataclass(frozen=True)
class SideDoor(Junction):
    """Keeps the layers further in."""

    inward: list[ASGIApp] = field(default_factory=list, compare=False)

    async def admit(self, request: RequestHead) -> Admission:
        return ADMITTED

    def join(self, inward: ASGIApp) -> None:
        if self.inward:
            raise ConfigurationError("this side door stands in another stack")
        self.inward.append(inward)


async def test_a_junction_is_given_the_layers_further_in(app: CountingApp) -> None:
    outer, inner, door = Says(), Says(), SideDoor()
    guarded = guard(app, outer, door, inner)
    assert (await drive(guarded)).status == 200
    assert (len(outer.seen), len(inner.seen), app.calls) == (1, 1, 1)
    assert (await drive(door.inward[0])).status == 200
    assert (len(outer.seen), len(inner.seen), app.calls) == (1, 2, 2)


async def test_what_is_refused_behind_a_junction_passes_the_layers_before_it() -> None:
    watch = Watching()
    guarded = guard(CountingApp(), Says(Admission(watch=watch)), SideDoor(), Says(fault=REFUSED))
    assert (await drive(guarded)).status == 404
    assert watch.seen[0] == 404


def test_a_junction_stands_in_one_stack() -> None:
    door = SideDoor()
    guard(CountingApp(), door)
    with pytest.raises(ConfigurationError, match="stands in another stack"):
        guard(CountingApp(), door)
