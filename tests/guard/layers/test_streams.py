"""Open streams do not outlive what they were opened with, and a principal has so many of them and no more."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest

from mcp_guard import revocation
from mcp_guard.asgi import ASGIApp, Message, Receive, Scope, Send
from mcp_guard.check import Layer
from mcp_guard.clock import ManualClock, SystemClock
from mcp_guard.facts import SessionHandle
from mcp_guard.failures import ConfigurationError, StoreUnavailable
from mcp_guard.layer import Admission, RequestHead
from mcp_guard.layers.streams import Streams
from mcp_guard.lifespan import Guard
from mcp_guard.revocation import Revoker
from mcp_guard.sessions import session_key
from mcp_guard.stack import guard
from mcp_guard.stores.base import Delete, Enter, Leave, Members, Operation, Put, Result
from mcp_guard.streams import LEASE, TICK_SECONDS
from tests.guard.asgi import Client, CountingApp, Outcome, body, drive, http_scope, start
from tests.guard.stubs import ALICE, PEOPLE, CountingStore, Facts, Says, principal, rpc

EVENTS = (b"Content-Type", b"text/event-stream; charset=utf-8")
LIMIT = 3
LEEWAY = 10
PLACES = f"mcp:streams:{ALICE.key}"
KINDS = ["GET", "HEAD", "listen", "call"]
LONG = ["GET", "HEAD", "listen"]


@dataclass
class EventApp:
    """Opens an event stream for every request, and keeps it open until it is told to end it."""

    headers: Sequence[tuple[bytes, bytes]] = (EVENTS,)
    ending: asyncio.Event = field(default_factory=asyncio.Event)
    cancelled: int = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(200, *self.headers))
        await send(body(b": open\n\n", more=True))
        try:
            await self.ending.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        await send(body(b"data: {}\n\n"))


@dataclass(eq=False)
class Opened:
    """A stream from its client's side. `reading` is set while the client takes what it is sent."""

    client: Client = field(default_factory=Client)
    reading: asyncio.Event = field(default_factory=asyncio.Event)
    task: "asyncio.Task[None] | None" = None

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.body":
            await self.reading.wait()
        await self.client.send(message)

    @property
    def outcome(self) -> Outcome:
        return self.client.outcome

    @property
    def is_open(self) -> bool:
        return self.task is not None and not self.task.done()

    async def until_over(self, within_seconds: float = 5.0) -> Outcome:
        """Wait for the end of the stream."""
        assert self.task is not None
        async with asyncio.timeout(within_seconds):
            await asyncio.wait([self.task])
        return self.outcome


async def rounds(count: int) -> None:
    """Let the others run a few times."""
    for _ in range(count):
        await asyncio.sleep(0)


async def until(ready: Callable[[], bool], within_seconds: float = 5.0) -> None:
    """Wait until `ready`, while the others run."""
    for _ in range(int(within_seconds / 0.002)):
        if ready():
            return
        await asyncio.sleep(0.002)
    raise AssertionError("it did not come to pass in time")


def request(kind: str, who: bytes = b"alice", **members: Any) -> tuple[Scope, bytes]:
    """A request for a stream: the scope and the body."""
    headers = [(b"x-as", who), (b"accept", b"text/event-stream")]
    if kind in {"GET", "HEAD"}:
        return http_scope(kind, headers=headers, **members), b""
    data = rpc("subscriptions/listen" if kind == "listen" else "tools/call", request_id=7)
    return http_scope("POST", headers=headers, **members), data


@dataclass(eq=False)
class Place:
    """A guarded app and its clients."""

    guarded: Guard
    layer: Streams
    store: CountingStore
    opened: list[Opened] = field(default_factory=list)

    async def open(self, kind: str = "GET", who: bytes = b"alice", *, reading: bool = True) -> Opened:
        """Open a stream, and wait until the app has written to it or it was refused."""
        scope, data = request(kind, who)
        one = Opened(Client((data,)))
        if reading:
            one.reading.set()
        before = len(self.layer.keeper.streams)
        one.task = asyncio.create_task(self.guarded(scope, one.client.receive, one.send))
        self.opened.append(one)
        await until(lambda: not one.is_open or len(self.layer.keeper.streams) > before)
        await rounds(5)
        return one

    async def ask(self, kind: str = "GET", who: bytes = b"alice", **members: Any) -> Outcome:
        """A request that is answered at once."""
        scope, data = request(kind, who, **members)
        return await drive(self.guarded, scope, data)

    async def places(self) -> int:
        """The places that are taken by alice."""
        found = (await self.store.run([Members(PLACES)]))[0]
        assert isinstance(found, tuple)
        return len(found)

    async def turn(self) -> None:
        """What the keeper does by itself now and then."""
        await self.layer.keeper.ask()
        await self.layer.keeper.look()


@asynccontextmanager
async def place(
    store: CountingStore, app: ASGIApp | None = None, *inner: Layer, people: Any = PEOPLE, **settings: Any
) -> AsyncIterator[Place]:
    """A stack with the layer, closed afterwards."""
    served = EventApp() if app is None else app
    given = {"per_principal": LIMIT, "clock": store.clock, **settings}
    layer = Streams(store=store, **given)
    here = Place(guard(served, Facts(people), *inner, layer), layer, store)
    try:
        yield here
    finally:
        for one in here.opened:
            if one.task is not None:
                one.task.cancel()
                await asyncio.wait([one.task])
        await here.guarded.close()


def expiring(clock: ManualClock, seconds: float) -> dict[bytes, Any]:
    """Alice, with a token that expires so many seconds from now."""
    return {**PEOPLE, b"alice": principal("alice", token="a" * 16, expires_at=clock.now + seconds)}


# The end of the token.


@pytest.mark.parametrize("kind", KINDS)
async def test_a_stream_ends_cleanly_when_its_token_expires(store: CountingStore, kind: str) -> None:
    """ses-18"""
    app = EventApp()
    async with place(store, app, people=expiring(store.clock, 300)) as here:
        one = await here.open(kind)
        store.clock.advance(300 + LEEWAY - 0.001)
        await here.turn()
        assert one.is_open
        store.clock.advance(0.001)
        await here.turn()
        outcome = await one.until_over()
        assert outcome.status == 200
        assert outcome.complete
        assert app.cancelled == 1
        assert b"data:" not in outcome.body


async def test_a_clock_that_is_stepped_back_keeps_no_stream_alive(store: CountingStore) -> None:
    async with place(store, people=expiring(store.clock, 300)) as here:
        one = await here.open()
        store.clock.step(-3600)
        store.clock.advance(300 + LEEWAY)
        await here.turn()
        assert (await one.until_over()).complete


async def test_a_clock_that_is_set_right_ends_a_stream_that_has_expired(store: CountingStore) -> None:
    async with place(store, people=expiring(store.clock, 300)) as here:
        one = await here.open()
        store.clock.step(300 + LEEWAY)
        await here.turn()
        assert (await one.until_over()).complete


async def test_a_stream_ends_within_a_second_of_the_expiry_without_any_request(store: CountingStore) -> None:
    """ses-18, on the real clock."""
    clock = SystemClock()
    people = {b"alice": principal("alice", expires_at=clock.wall() + 0.5)}
    async with place(store, people=people, clock=clock, leeway=timedelta(0)) as here:
        one = await here.open()
        assert one.is_open
        assert (await one.until_over(within_seconds=1.5)).complete
        assert clock.wall() >= people[b"alice"].expires_at


async def test_only_the_streams_that_have_expired_end(store: CountingStore) -> None:
    async with place(store, people=expiring(store.clock, 300)) as here:
        gone, stays = await here.open(), await here.open(who=b"bob")
        store.clock.advance(300 + LEEWAY)
        await here.turn()
        await gone.until_over()
        assert stays.is_open


# Revocation, and the end of a session.


@pytest.mark.parametrize("kind", KINDS)
async def test_a_stream_ends_when_a_recheck_finds_its_principal_revoked(store: CountingStore, kind: str) -> None:
    """ses-17: the announcement is lost, and the store is asked all the same."""
    async with place(store) as here:
        one, other = await here.open(kind), await here.open(kind, who=b"bob")
        await here.turn()
        await store.run([Put(revocation.user_key(ALICE.issuer, "alice"), revocation.ALWAYS, timedelta(hours=1))])
        await here.turn()
        assert one.is_open
        store.clock.advance(5)
        await here.turn()
        assert (await one.until_over()).complete
        assert other.is_open


async def test_a_stream_ends_at_once_when_a_revocation_is_announced(store: CountingStore) -> None:
    """ses-17"""
    async with place(store, recheck=timedelta(hours=1)) as here:
        one = await here.open()
        await here.turn()
        await Revoker(store, store.clock).user(ALICE.issuer, "alice")
        assert (await one.until_over(within_seconds=TICK_SECONDS)).complete


async def test_an_announcement_that_finds_the_store_silent_is_not_forgotten(
    store: CountingStore, caplog: pytest.LogCaptureFixture
) -> None:
    async with place(store, recheck=timedelta(hours=1)) as here:
        one = await here.open()
        await here.turn()
        revoked = revocation.user_key(ALICE.issuer, "alice")
        await store.run([Put(revoked, revocation.ALWAYS, timedelta(hours=1))])
        store.fault = StoreUnavailable("down")
        here.layer.keeper.hear(revoked.encode())
        await until(lambda: "open streams cannot be asked about" in caplog.text)
        store.fault = None
        assert (await one.until_over(within_seconds=3 * TICK_SECONDS)).complete


async def test_an_announcement_costs_nothing_for_the_streams_that_it_does_not_concern(store: CountingStore) -> None:
    """A client that ends its sessions makes no worker ask about everybody's streams."""
    async with place(store, None, in_session("s-1"), recheck=timedelta(hours=1)) as here:
        await store.run([Put(session_key("s-1"), b"record", timedelta(hours=1))])
        alices, bobs = await here.open(), await here.open(who=b"bob")
        await here.turn()
        store.batches.clear()
        for key in (session_key("s-2"), revocation.user_key(ALICE.issuer, "carol")):
            here.layer.keeper.hear(key.encode())
        await here.turn()
        assert store.batches == []
        await store.run([Delete(session_key("s-1"))])
        here.layer.keeper.hear(session_key("s-1").encode())
        assert (await alices.until_over(within_seconds=TICK_SECONDS)).complete
        assert bobs.is_open


async def test_announcements_do_not_put_off_the_recheck(store: CountingStore) -> None:
    async with place(store) as here:
        one = await here.open()
        await here.turn()
        await store.run([Put(revocation.user_key(ALICE.issuer, "alice"), revocation.ALWAYS, timedelta(hours=1))])
        for _ in range(5):
            assert one.is_open
            store.clock.advance(1)
            here.layer.keeper.hear(session_key("s-2").encode())
            await here.turn()
        assert (await one.until_over()).complete


def in_session(handle: str) -> Says:
    """A layer that finds a session for alice."""

    def found(request: RequestHead) -> Admission:
        return Admission(facts=(SessionHandle(handle, "f"),) if request.value(b"x-as") == b"alice" else ())

    return Says(found)


async def test_a_stream_ends_when_its_session_is_gone(store: CountingStore) -> None:
    async with place(store, None, in_session("s-1")) as here:
        await store.run([Put(session_key("s-1"), b"record", timedelta(hours=1))])
        one, other = await here.open(), await here.open(who=b"bob")
        await here.turn()
        assert one.is_open
        await store.run([Delete(session_key("s-1"))])
        store.clock.advance(5)
        await here.turn()
        assert (await one.until_over()).complete
        assert other.is_open


async def test_what_is_asked_of_many_streams_is_asked_in_few_batches(store: CountingStore) -> None:
    async with place(store, per_principal=1000) as here:
        for _ in range(300):
            await here.open("call")
        store.clock.advance(5)
        store.batches.clear()
        await here.turn()
        assert len(store.batches) == 1
        assert len(store.batches[0]) == len(revocation.questions(ALICE))


# A store that is silent.


async def test_streams_outlast_a_silent_store_for_its_grace_and_no_longer(store: CountingStore) -> None:
    async with place(store) as here:
        one = await here.open()
        await here.turn()
        store.fault = StoreUnavailable("down")
        store.clock.advance(5)
        for wait in (20, 39.9):
            with pytest.raises(StoreUnavailable):
                await here.layer.keeper.ask()
            store.clock.advance(wait)
        await here.layer.keeper.look()
        assert one.is_open
        store.clock.advance(0.1)
        await here.layer.keeper.look()
        assert (await one.until_over()).complete


async def test_a_store_that_answers_again_in_time_ends_nothing(store: CountingStore) -> None:
    async with place(store) as here:
        one = await here.open()
        await here.turn()
        for _ in range(3):
            store.fault = StoreUnavailable("down")
            store.clock.advance(5)
            with pytest.raises(StoreUnavailable):
                await here.layer.keeper.ask()
            store.fault = None
            store.clock.advance(40)
            await here.turn()
        assert one.is_open


class HangingStore(CountingStore):
    """A store that, while `hanging` is set, never answers."""

    hanging = False

    async def run(self, operations: Sequence[Operation]) -> list[Result]:
        if self.hanging:
            await asyncio.Event().wait()
        return await super().run(operations)


async def test_a_store_that_never_answers_holds_up_no_expiry_and_gives_no_more_grace(clock: ManualClock) -> None:
    store = HangingStore(clock=clock)
    async with place(store, people=expiring(clock, 20)) as here:
        expires, stays = await here.open(), await here.open(who=b"bob")
        await here.turn()
        store.hanging = True
        clock.advance(5)
        asking = asyncio.create_task(here.layer.keeper.ask())
        await rounds(1)
        clock.advance(20 + LEEWAY)
        await here.layer.keeper.look()
        assert (await expires.until_over()).complete
        assert stays.is_open
        clock.advance(60)
        await here.layer.keeper.look()
        assert (await stays.until_over()).complete
        asking.cancel()
        await asyncio.wait([asking])
        store.hanging = False


async def test_no_long_stream_is_opened_while_the_store_is_silent(store: CountingStore) -> None:
    app = EventApp()
    async with place(store, app) as here:
        store.fault = StoreUnavailable("down")
        outcome = await here.ask()
        assert outcome.status == 503
        assert outcome.value(b"retry-after") is not None
        assert outcome.chunks == [outcome.body]


async def test_a_defect_of_a_round_is_logged_and_the_next_one_goes_on(
    store: CountingStore, caplog: pytest.LogCaptureFixture
) -> None:
    async with place(store, people=expiring(store.clock, 300)) as here:
        one = await here.open()
        store.fault = RuntimeError("a defect")
        store.clock.advance(5)
        await until(lambda: "watching over open streams failed" in caplog.text)
        store.fault = None
        await Revoker(store, store.clock).user(ALICE.issuer, "alice")
        assert (await one.until_over()).complete


# How many a principal has.


@pytest.mark.parametrize("kind", LONG)
async def test_one_more_stream_than_allowed_is_refused_and_no_other_is_put_out(store: CountingStore, kind: str) -> None:
    """dos-03"""
    async with place(store) as here:
        mine = [await here.open(kind) for _ in range(LIMIT)]
        refused = await here.ask(kind)
        assert refused.status == 429
        assert int(refused.value(b"retry-after") or b"") >= 1
        if kind == "HEAD":
            assert refused.body == b""
        else:
            assert refused.json()["error"]["code"] == -32010
            assert refused.json()["id"] == (7 if kind == "listen" else None)
        assert all(one.is_open for one in mine)
        others = [await here.open(kind, who=b"bob") for _ in range(LIMIT)]
        assert all(one.is_open for one in [*mine, *others])


async def test_a_second_stream_of_a_session_leaves_the_first_open(store: CountingStore) -> None:
    """ses-07"""
    async with place(store, None, in_session("s-1")) as here:
        await store.run([Put(session_key("s-1"), b"record", timedelta(hours=1))])
        first, second = await here.open(), await here.open()
        await here.turn()
        assert first.is_open
        assert second.is_open


async def test_a_stream_asked_for_without_saying_so_counts_as_well(store: CountingStore) -> None:
    async with place(store, None) as here:
        for _ in range(LIMIT):
            await here.open()
        headers = [(b"x-as", b"alice"), (b"accept", b"application/json")]
        assert (await drive(here.guarded, http_scope("GET", headers=headers))).status == 429


async def test_the_place_of_a_stream_that_ended_is_free_again(store: CountingStore) -> None:
    async with place(store) as here:
        mine = [await here.open() for _ in range(LIMIT)]
        assert (await here.ask()).status == 429
        assert mine[0].task is not None
        mine[0].task.cancel()
        await asyncio.wait([mine[0].task])
        await here.layer.keeper.ask()
        assert (await here.open()).is_open


async def test_a_place_is_given_back_soon_without_being_asked(store: CountingStore) -> None:
    app = EventApp()
    async with place(store, app) as here:
        one = await here.open()
        app.ending.set()
        assert (await one.until_over()).body.endswith(b"data: {}\n\n")
        await until(lambda: Leave in [type(operation) for batch in store.batches for operation in batch])
        assert await here.places() == 0


@pytest.mark.parametrize(
    "layers",
    [(), (Says(fault=RuntimeError("further in")),)],
    ids=["the app answers otherwise", "a layer further in refuses"],
)
async def test_a_response_that_is_no_stream_takes_no_place(store: CountingStore, layers: tuple[Layer, ...]) -> None:
    app = CountingApp()
    layer = Streams(store=store, per_principal=LIMIT, clock=store.clock)
    guarded = guard(app, Facts(), layer, *layers)
    for _ in range(2 * LIMIT):
        scope, _ = request("GET")
        assert (await drive(guarded, scope)).status in {200, 503}
        await layer.keeper.ask()
    assert (await store.run([Members(PLACES)]))[0] == ()
    await guarded.close()


async def test_a_response_that_is_no_stream_gives_its_place_back_as_it_begins(store: CountingStore) -> None:
    async with place(store, EventApp(headers=[(b"content-type", b"application/json")])) as here:
        scope, _ = request("GET")
        one = Opened()
        one.reading.set()
        one.task = asyncio.create_task(here.guarded(scope, one.client.receive, one.send))
        here.opened.append(one)
        await until(lambda: one.outcome.chunks != [])
        await here.layer.keeper.ask()
        assert await here.places() == 0
        assert one.is_open


async def test_a_stream_that_answers_a_call_is_not_counted(store: CountingStore) -> None:
    async with place(store) as here:
        calls = [await here.open("call") for _ in range(2 * LIMIT)]
        assert all(one.is_open for one in calls)
        assert await here.places() == 0
        assert (await here.open()).is_open


async def test_a_request_for_no_long_stream_costs_no_round_trip(store: CountingStore) -> None:
    async with place(store, CountingApp()) as here:
        assert (await here.ask("call")).status == 200
        assert store.batches == []
        assert (await here.ask("GET")).status == 200
        assert [type(operation) for operation in store.batches[0]] == [Enter]


async def test_a_place_is_kept_for_as_long_as_its_stream_is_open(store: CountingStore) -> None:
    async with place(store) as here:
        await here.open()
        for _ in range(10):
            store.clock.advance(LEASE.total_seconds() / 3)
            await here.turn()
            assert await here.places() == 1


async def test_the_places_of_a_worker_that_died_are_free_after_the_lease(store: CountingStore) -> None:
    for number in range(LIMIT):
        await store.run([Enter(PLACES, f"dead-{number}", LEASE, LIMIT)])
    async with place(store) as here:
        assert (await here.ask()).status == 429
        store.clock.advance(LEASE.total_seconds())
        assert (await here.open()).is_open


async def test_a_stream_whose_place_was_lost_and_taken_by_others_ends(store: CountingStore) -> None:
    async with place(store) as here:
        one = await here.open()
        store.clock.advance(LEASE.total_seconds())
        for number in range(LIMIT):
            await store.run([Enter(PLACES, f"other-{number}", LEASE, LIMIT)])
        await here.turn()
        assert (await one.until_over()).complete


async def test_a_place_that_the_store_does_not_take_back_is_offered_until_its_lease_ends(store: CountingStore) -> None:
    app = EventApp()
    async with place(store, app) as here:
        one = await here.open()
        store.fault = StoreUnavailable("down")
        app.ending.set()
        await one.until_over()
        with pytest.raises(StoreUnavailable):
            await here.layer.keeper.ask()
        store.fault = None
        await here.layer.keeper.ask()
        assert await here.places() == 0
        assert here.layer.keeper.left == {}
        store.fault = StoreUnavailable("down")
        here.layer.keeper.leave(Enter(PLACES, "late", LEASE, LIMIT))
        store.clock.advance(LEASE.total_seconds())
        store.fault, before = None, len(store.batches)
        await here.layer.keeper.ask()
        assert here.layer.keeper.left == {}
        assert [one for batch in store.batches[before:] for one in batch if isinstance(one, Leave)] == []


# Clients that do not read.


async def test_a_client_that_does_not_read_is_cut_off(store: CountingStore) -> None:
    """dos-08"""
    async with place(store) as here:
        slow, good = await here.open(reading=False), await here.open(who=b"bob")
        await here.turn()
        store.clock.advance(29.9)
        await here.turn()
        assert slow.is_open
        store.clock.advance(0.1)
        await here.turn()
        outcome = await slow.until_over()
        assert outcome.status == 200
        assert not outcome.complete
        assert good.is_open


async def test_a_client_that_reads_now_and_then_is_not_cut_off(store: CountingStore) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(200, EVENTS))
        while True:
            await send(body(b": one more\n\n", more=True))
            await asyncio.sleep(0)

    async with place(store, app, recheck=timedelta(hours=1)) as here:
        one = await here.open(reading=False)
        for _ in range(5):
            await here.turn()
            store.clock.advance(20)
            one.reading.set()
            await asyncio.sleep(0)
            one.reading.clear()
            await rounds(3)
            await here.turn()
        assert one.is_open


# Shutdown.


async def test_a_drained_guard_ends_streams_and_lets_calls_finish(store: CountingStore) -> None:
    """dos-10"""
    app = EventApp()
    async with place(store, app) as here:
        streams = [await here.open(kind) for kind in LONG]
        call = await here.open("call")
        here.guarded.drain()
        for one in streams:
            assert (await one.until_over()).complete
        assert call.is_open
        app.ending.set()
        assert (await call.until_over()).body.endswith(b"data: {}\n\n")


async def test_a_drained_guard_refuses_new_work_and_closes_the_connection(store: CountingStore) -> None:
    """dos-10"""
    app = CountingApp()
    async with place(store, app) as here:
        assert (await here.ask("call")).status == 200
        here.guarded.drain()
        refused = await here.ask("call")
        assert refused.status == 503
        assert refused.value(b"connection") == b"close"
        assert refused.value(b"retry-after") is not None
        assert app.calls == 1
        over_http2 = await here.ask("call", http_version="2")
        assert over_http2.status == 503
        assert over_http2.value(b"connection") is None
        await here.guarded.start()


async def test_a_stream_that_opens_while_the_guard_is_drained_ends_at_once(store: CountingStore) -> None:
    admitted = asyncio.Event()
    app = EventApp()

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        await admitted.wait()
        await app(scope, receive, send)

    async with place(store, slow) as here:
        scope, _ = request("GET")
        one = Opened()
        one.reading.set()
        one.task = asyncio.create_task(here.guarded(scope, one.client.receive, one.send))
        here.opened.append(one)
        await until(lambda: store.batches != [])
        here.guarded.drain()
        admitted.set()
        assert (await one.until_over()).complete


async def test_places_are_given_back_when_the_guard_closes(store: CountingStore) -> None:
    app = EventApp()
    async with place(store, app) as here:
        one = await here.open()
        here.guarded.drain()
        await one.until_over()
        await here.guarded.close()
        assert await here.places() == 0
        await here.layer.keeper.close()


async def test_a_silent_store_does_not_keep_the_guard_from_closing(
    store: CountingStore, caplog: pytest.LogCaptureFixture
) -> None:
    async with place(store) as here:
        await here.open()
        here.layer.keeper.leave(Enter(PLACES, "one", LEASE, LIMIT))
        store.fault = StoreUnavailable("down")
        await here.guarded.close()
        assert "are not given back" in caplog.text
        store.fault = None


async def test_a_guard_that_was_closed_watches_again_when_it_is_started_again(store: CountingStore) -> None:
    async with place(store, recheck=timedelta(hours=1)) as here:
        here.guarded.drain()
        await here.guarded.close()
        await here.guarded.start()
        await here.layer.keeper.start()
        one = await here.open()
        await Revoker(store, store.clock).user(ALICE.issuer, "alice")
        assert (await one.until_over()).complete


async def test_nothing_is_heard_after_the_guard_was_closed(store: CountingStore) -> None:
    async with place(store) as here:
        await here.guarded.start()
        await here.guarded.close()
        assert store._hearers[revocation.TOPIC] == []


# Settings and parts.


async def test_the_body_of_a_stream_is_not_looked_at(store: CountingStore) -> None:
    async with place(store) as here:
        await here.open()
        request = Says()
        await drive(guard(CountingApp(), Facts(), request), http_scope("GET"))
        watch = (await here.layer.admit(request.seen[0])).watch
        assert watch is not None
        assert (watch.wants_body, watch.on_body(b"secret")) == (False, ())
        watch.on_end()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("per_principal", 0),
        ("recheck", timedelta(milliseconds=999)),
        ("stall", timedelta(milliseconds=999)),
        ("leeway", timedelta(seconds=-1)),
        ("outage_grace", timedelta(seconds=-1)),
    ],
)
def test_a_setting_that_cannot_work_is_named(store: CountingStore, name: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=name):
        Streams(store=store, **{name: value})
