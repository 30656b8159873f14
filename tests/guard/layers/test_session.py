"""Sessions belong to the principal that opened them; a stolen handle is answered like one that never existed."""

import json
import uuid
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_guard.asgi import ASGIApp, Receive, Scope, Send
from mcp_guard.auditlog import AuditLog, MemorySink
from mcp_guard.bindings import bind, owner_prefix
from mcp_guard.facts import Confirmation, SessionHandle, fact
from mcp_guard.failures import ConfigurationError, StoreUnavailable
from mcp_guard.keyring import KeyRing
from mcp_guard.layers.audit import Audit
from mcp_guard.layers.session import Session
from mcp_guard.secret import fingerprint
from mcp_guard.sessions import SessionTerms
from mcp_guard.stack import guard
from mcp_guard.stores.base import Delete, Get, Members, Operation, Put, Renew, Result, Stay
from tests.guard.asgi import Client, Outcome, body, drive, http_scope, read_all, start
from tests.guard.stubs import MCP, PEOPLE, Asks, CountingStore, Facts, principal, rpc

TTL = timedelta(seconds=300)
RING = KeyRing.generate()
PEOPLE_AND_OTHERS = {
    **PEOPLE,
    b"bound": principal("alice", token="d" * 16, confirmation=Confirmation("key-1")),
    b"bound-refreshed": principal("alice", token="e" * 16, confirmation=Confirmation("key-1")),
    b"bound-otherwise": principal("alice", token="f" * 16, confirmation=Confirmation("key-2")),
    b"refreshed": principal("alice", token="c" * 16, expires_at=2_000_000_000.0, scopes=frozenset({"more"})),
    b"same-client": principal("bob", client="client-1"),
    b"same-subject": principal("alice", client="client-2"),
    b"same-but-tenant": principal("alice", tenant="acme"),
    b"same-but-issuer": principal("alice", issuer="https://other.example"),
}
OTHERS = [b"bob", b"same-client", b"same-subject", b"same-but-tenant", b"same-but-issuer"]


class Server:
    """An app with sessions of its own that trusts whoever knows a session id, as many do."""

    def __init__(self) -> None:
        self.sessions: set[str] = set()
        self.calls: list[tuple[str, str | None, bytes]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        data = await read_all(receive)
        given = dict(scope["headers"]).get(b"mcp-session-id")
        session = None if given is None else given.decode("latin-1")
        self.calls.append((scope["method"], session, data))
        headers = [(b"content-type", b"application/json")]
        status = 200
        if session is None and b"initialize" in data:
            session = uuid.uuid4().hex
            self.sessions.add(session)
            headers.append((b"Mcp-Session-Id", session.encode()))
        elif session not in self.sessions and session is not None:
            status = 404
        elif scope["method"] == "DELETE" and session is not None:
            self.sessions.remove(session)
        await send(start(status, *headers))
        await send(body(b'{"ok":true}'))


class Place:
    """A guarded server and people to use it."""

    def __init__(
        self, app: ASGIApp, store: CountingStore, *outer: Any, ttl: timedelta = TTL, terms: SessionTerms | None = None
    ) -> None:
        self.store = store
        layers = (
            *outer,
            Facts(PEOPLE_AND_OTHERS),
            Session(store=store, terms=terms or SessionTerms(ttl=ttl), ring=RING, clock=store.clock),
        )
        self.guarded = guard(app, *layers)

    async def status(self, session: bytes, who: bytes = b"alice") -> int | None:
        return (await self.ask(who, session)).status

    async def ask(
        self,
        who: bytes = b"alice",
        session: bytes | None = None,
        data: bytes = rpc("tools/list"),
        *,
        method: str = "POST",
        path: str = "/mcp",
        query: bytes = b"",
        headers: Sequence[tuple[bytes, bytes]] = (),
        root_path: str = "",
    ) -> Outcome:
        given = [(b"x-as", who), *headers]
        if session is not None:
            given.append((b"mcp-session-id", session))
        scope = http_scope(method, path, given, query, root_path=root_path)
        return await drive(self.guarded, scope, b"" if method in ("GET", "DELETE") else data)

    async def open(self, who: bytes = b"alice") -> bytes:
        """A new session of `who`."""
        outcome = await self.ask(who, data=rpc("initialize"))
        assert outcome.status == 200
        session = outcome.value(b"mcp-session-id")
        assert session is not None
        return session


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def place(server: Server, store: CountingStore, sink: MemorySink) -> Place:
    return Place(server, store, Audit(AuditLog(sink)))


# Streamable HTTP


async def test_the_owner_of_a_session_uses_it(place: Place, server: Server, sink: MemorySink) -> None:
    session = await place.open()
    for method in ("POST", "GET"):
        assert (await place.ask(session=session, method=method)).status == 200
    assert [call[1] for call in server.calls] == [None, session.decode(), session.decode()]
    assert [record["session"] for record in sink.records()][1:] == [fingerprint(session)] * 2


@pytest.mark.parametrize("thief", OTHERS)
@pytest.mark.parametrize("method", ["POST", "GET", "DELETE"])
async def test_a_stolen_session_is_refused_like_an_unknown_one(
    place: Place, server: Server, sink: MemorySink, thief: bytes, method: str
) -> None:
    session = await place.open()
    served = len(server.calls)

    stolen = await place.ask(thief, session, method=method)
    unknown = await place.ask(thief, uuid.uuid4().hex.encode(), method=method)

    assert stolen.status == 404
    assert stolen.sent == unknown.sent
    assert len(server.calls) == served
    assert (await place.ask(session=session)).status == 200, "the owner's session lives on"
    records = sink.records()[1:3]
    assert [record["verdict"] for record in records] == ["session_not_found"] * 2
    assert records[0]["reason"] == f"session {fingerprint(session)} belongs to another principal"
    assert records[1]["reason"].endswith("is unknown")
    assert session.decode() not in b"".join(sink.lines).decode()


async def test_a_refusal_echoes_the_id_of_the_request_alone(place: Place) -> None:
    session = await place.open()
    stolen = await place.ask(b"bob", session, rpc("tools/list", request_id="x1"))
    assert stolen.json() == {"jsonrpc": "2.0", "id": "x1", "error": {"code": -32600, "message": "Session not found"}}


@pytest.mark.parametrize(
    "message",
    [
        {"jsonrpc": "2.0", "id": 7, "result": {"action": "accept"}},
        {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 7}},
    ],
)
async def test_responses_and_notifications_are_judged_like_requests(
    place: Place, server: Server, message: dict[str, Any]
) -> None:
    session = await place.open()
    served = len(server.calls)
    data = json.dumps(message).encode()
    stolen = await place.ask(b"bob", session, data)
    unknown = await place.ask(b"bob", b"0" * 32, data)
    assert stolen.status == 404
    assert stolen.sent == unknown.sent
    assert len(server.calls) == served


async def test_a_refreshed_token_continues_the_session(place: Place) -> None:
    session = await place.open()
    assert (await place.ask(b"refreshed", session)).status == 200


# ses-15
@pytest.mark.parametrize(
    ("opener", "goes_on", "refused"),
    [
        (b"bound", [b"bound", b"bound-refreshed"], [b"bound-otherwise", b"alice", b"bob"]),
        (b"alice", [b"alice", b"refreshed"], [b"bound", b"bob"]),
    ],
)
async def test_a_session_goes_on_with_the_key_that_it_was_opened_with(
    opener: bytes, goes_on: list[bytes], refused: list[bytes], place: Place
) -> None:
    session = await place.open(opener)
    unknown = await place.ask(opener, b"0" * 32)
    for who in refused:
        outcome = await place.ask(who, session)
        assert (outcome.status, outcome.body, outcome.headers) == (404, unknown.body, unknown.headers)
    assert [await place.status(session, who) for who in goes_on] == [200] * len(goes_on)


async def test_a_session_id_of_the_clients_choice_never_becomes_valid(place: Place, server: Server) -> None:
    chosen = b"attacker-chosen-0001"
    assert (await place.ask(b"bob", chosen, rpc("initialize"))).status == 404
    assert (await place.ask(b"alice", chosen)).status == 404
    assert server.calls == []
    assert await place.open() != chosen


HOSTILE_IDS = [
    b"x" * 1025,
    b"x" * 10_240,
    b"*",
    b"mcp:sess:*",
    b"mcp:session:" + b"0" * 32,
    b"a\r\nSET x y",
    b"\xff\xfe",
    "é".encode(),
    b"",
    b" ",
    b"a b",
    b"../x",
    b"{x}",
    b"\x7f",
    b"\x00",
]


@pytest.mark.parametrize("session", HOSTILE_IDS, ids=range(len(HOSTILE_IDS)))
async def test_hostile_session_ids_are_unknown_and_go_into_no_key_as_they_came(
    place: Place, server: Server, session: bytes
) -> None:
    refused = await place.ask(session=session)
    assert refused.status == 404
    assert refused.json()["error"]["message"] == "Session not found"
    assert server.calls == []
    for batch in place.store.batches:
        for operation in batch:
            assert isinstance(operation, Renew | Stay)
            key = operation.key if isinstance(operation, Renew) else operation.member
            assert len(key) <= 256
            assert key.isascii()
            assert not set(key) & set("*{}\r\n ")


async def test_a_repeated_session_id_is_refused(place: Place, server: Server) -> None:
    session = await place.open()
    outcome = await place.ask(session=session, headers=[(b"mcp-session-id", session)])
    assert outcome.status == 404
    assert len(server.calls) == 1


HANDLE = "0a1b2c3d4e5f60718293a4b5c6d7e8f9"


def record(handle: str, who: bytes = b"alice", ring: KeyRing = RING, **members: Any) -> Put:
    """The record of a session that lives for ever."""
    key = f"mcp:session:{handle}"
    return Put(key, bind(ring, key, PEOPLE[who], **{"resource": MCP.url, "until": 2**40, **members}), TTL)


async def test_a_record_that_was_made_here_opens_the_session_to_its_owner(place: Place, server: Server) -> None:
    server.sessions.add(HANDLE)
    await place.store.run([record(HANDLE)])
    assert (await place.ask(session=HANDLE.encode())).status == 200
    assert (await place.ask(b"bob", HANDLE.encode())).status == 404


def forged(valid: bytes) -> list[bytes]:
    """What somebody else could write into the store."""
    end = valid.index(b',"mac"')
    return [
        b"",
        b"garbage",
        b"{}",
        valid[:-1],
        valid[:end] + b"}",
        valid[:end] + b',"mac":"' + b"A" * 43 + b'"}',
        valid[:end] + b',"mac":"' + b"!" * 43 + b'"}',
        valid.replace(b"alice", b"bobby"),
        valid.replace(b'"until":', b'"until":1'),
        valid[:end] + b',"more":1' + valid[end:],
        PEOPLE[b"alice"].owner,
        b"x" * 1_000_000,
    ]


@pytest.mark.parametrize("kind", range(len(forged(b'alice"until":,"mac"'))))
async def test_a_record_that_was_not_made_with_the_key_ring_is_no_session(
    place: Place, server: Server, kind: int
) -> None:
    valid = record(HANDLE)
    await place.store.run([Put(valid.key, forged(valid.value)[kind], TTL)])
    for who in (b"alice", b"bob"):
        assert (await place.ask(who, HANDLE.encode())).status == 404
    assert server.calls == []


async def test_a_record_cannot_be_moved_to_another_session(place: Place, server: Server) -> None:
    await place.store.run([Put("mcp:session:other", record(HANDLE).value, TTL)])
    assert (await place.ask(session=b"other")).status == 404


async def test_a_record_of_a_key_that_left_the_ring_is_no_session_any_more(store: CountingStore) -> None:
    server, old = Server(), KeyRing.generate()
    server.sessions.add(HANDLE)
    await store.run([record(HANDLE, ring=old)])
    rotated = KeyRing((*RING.keys, *old.keys))
    for ring, status in ((rotated, 200), (RING, 404)):
        layer = Session(store=store, ring=ring, clock=store.clock)
        outcome = await drive(
            guard(server, Facts(), layer), http_scope(headers=[(b"mcp-session-id", HANDLE.encode())]), rpc()
        )
        assert outcome.status == status


async def test_a_session_is_of_the_resource_it_was_opened_at(place: Place, server: Server) -> None:
    server.sessions.add(HANDLE)
    await place.store.run([record(HANDLE, resource="https://mcp.example/other")])
    assert (await place.ask(session=HANDLE.encode())).status == 404


@pytest.mark.parametrize(("past", "status"), [(-1.0, 200), (0.0, 404), (1.0, 404)])
async def test_a_session_ends_with_its_lifetime_however_much_it_is_used(
    store: CountingStore, past: float, status: int
) -> None:
    place = Place(Server(), store, terms=SessionTerms(ttl=TTL, lifetime=timedelta(hours=1)))
    session = await place.open()
    for _ in range(14):
        store.clock.advance(240)
        assert await place.status(session) == 200
    store.clock.advance(240 + past)
    assert await place.status(session) == status


async def test_one_who_has_all_the_sessions_one_may_have_is_refused_more_and_nobody_else_is(
    store: CountingStore,
) -> None:
    server = Server()
    place = Place(server, store, terms=SessionTerms(ttl=TTL, per_principal=3))
    sessions = [await place.open() for _ in range(3)]
    others = await place.open(b"bob")
    made = len(server.sessions)

    refused = await place.ask(data=rpc("initialize"))
    assert (refused.status, refused.value(b"retry-after")) == (429, b"60")
    assert refused.json()["id"] == 1
    assert len(server.sessions) == made, "the app was asked for a session that is refused"
    assert (await place.ask(b"bob", others)).status == 200
    for session in sessions:
        assert (await place.ask(session=session)).status == 200

    assert (await place.ask(session=sessions[0], method="DELETE")).status == 200
    await place.open()
    assert (await place.ask(data=rpc("initialize"))).status == 429
    store.clock.advance(TTL.total_seconds())
    await place.open()


async def test_of_many_opened_at_once_no_more_than_the_limit_are_handed_out(store: CountingStore) -> None:
    place = Place(Server(), store, terms=SessionTerms(ttl=TTL, per_principal=5))
    statuses: list[int | None] = []

    async def opened() -> None:
        statuses.append((await place.ask(data=rpc("initialize"))).status)

    async with anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(opened)
    assert sorted(statuses, key=str) == [200] * 5 + [429] * 15


class Racing(CountingStore):
    """A store as it looks to those who ask at the same time: nobody else is inside yet."""

    async def run(self, operations: Any) -> Any:
        results = await super().run(operations)
        return [() if isinstance(one, Members) else result for one, result in zip(operations, results, strict=True)]


async def test_of_those_who_open_sessions_at_the_same_time_too_no_more_than_the_limit_get_one() -> None:
    place = Place(Server(), Racing(), terms=SessionTerms(ttl=TTL, per_principal=2))
    outcomes = [await place.ask(data=rpc("initialize")) for _ in range(4)]
    assert [outcome.status for outcome in outcomes] == [200, 200, 429, 429]
    assert outcomes[2].value(b"mcp-session-id") is None


async def test_the_worker_that_holds_a_session_is_named_in_its_record(store: CountingStore) -> None:
    shown: list[str | None] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await read_all(receive)
        if b"mcp-session-id" in dict(scope["headers"]):
            shown.append(fact(scope, SessionHandle).home)
        await send(start(200, (b"mcp-session-id", HANDLE.encode())))
        await send(body())

    layer = Session(store=store, ring=RING, home=lambda: "worker-1", clock=store.clock)
    guarded = guard(app, Facts(), layer)
    await drive(guarded, http_scope(), rpc("initialize"))
    await drive(guarded, http_scope(headers=[(b"mcp-session-id", HANDLE.encode())]), rpc())
    assert shown == ["worker-1"]


class Workers:
    """Two workers on one store, which believe what it says of a session for ten seconds."""

    def __init__(self, store: CountingStore) -> None:
        terms = SessionTerms(ttl=TTL, cache=timedelta(seconds=10))
        self.server, self.store = Server(), store
        self.here, self.there = (Place(self.server, store, terms=terms) for _ in range(2))
        self.session = b""

    async def prepare(self) -> None:
        for place in (self.here, self.there):
            await place.guarded.start()
        self.session = await self.here.open()
        assert await self.here.status(self.session) == 200
        self.store.batches.clear()


@pytest.fixture
async def workers(store: CountingStore) -> Workers:
    workers = Workers(store)
    await workers.prepare()
    return workers


async def test_what_the_store_said_of_a_session_is_believed_for_as_long_as_is_stated(workers: Workers) -> None:
    workers.store.clock.advance(9.9)
    assert await workers.here.status(workers.session) == 200
    assert await workers.here.status(workers.session, b"bob") == 404
    assert workers.store.batches == []
    workers.store.clock.advance(0.1)
    assert await workers.here.status(workers.session) == 200
    assert len(workers.store.batches) == 1


async def test_a_session_that_is_ended_elsewhere_is_forgotten_when_that_is_heard(workers: Workers) -> None:
    assert (await workers.there.ask(session=workers.session, method="DELETE")).status == 200
    workers.server.sessions.add(workers.session.decode())
    assert await workers.here.status(workers.session) == 404


async def test_a_session_that_ended_unheard_is_let_through_no_longer_than_is_stated(workers: Workers) -> None:
    await workers.store.run([Delete(f"mcp:session:{workers.session.decode()}")])
    workers.store.clock.advance(9.9)
    assert await workers.here.status(workers.session) == 200
    workers.store.clock.advance(0.1)
    assert await workers.here.status(workers.session) == 404


async def test_requests_on_their_way_do_not_prolong_what_is_believed(store: CountingStore) -> None:
    """A client whose session was ended elsewhere has one request under way whenever the time is over."""
    asking, answered = anyio.Event(), anyio.Event()

    class Asking(CountingStore):
        async def run(self, operations: Sequence[Operation]) -> list[Result]:
            if Get("wait") in operations:
                asking.set()
                await answered.wait()
            return await super().run(operations)

    slow = Asking(clock=store.clock)
    terms = SessionTerms(ttl=TTL, cache=timedelta(seconds=10))
    place = Place(Server(), slow, terms=terms)
    beside = Asks(store=slow, operations=(Get("wait"),))
    session = Session(store=slow, terms=terms, ring=RING, clock=slow.clock)
    place.guarded = guard(place.guarded.app, Facts(PEOPLE_AND_OTHERS), beside, session)
    answered.set()
    handle = await place.open()
    assert await place.status(handle) == 200
    await slow.run([Delete(f"mcp:session:{handle.decode()}")])
    slow.clock.advance(9.9)
    answered = anyio.Event()
    asking = anyio.Event()
    async with anyio.create_task_group() as group:
        group.start_soon(place.status, handle)
        await asking.wait()
        slow.clock.advance(0.1)
        answered.set()
    assert await place.status(handle) == 404


async def test_what_is_believed_is_bounded(workers: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mcp_guard.sessions.MAX_REMEMBERED", 2)
    sessions = [workers.session, await workers.here.open(), await workers.here.open()]
    for session in sessions:
        assert await workers.here.status(session) == 200
    workers.store.batches.clear()
    for session in reversed(sessions):
        assert await workers.here.status(session) == 200
    assert len(workers.store.batches) == 1, "only the oldest was forgotten"


@pytest.mark.parametrize("spelling", [HANDLE.upper(), HANDLE + "0", HANDLE[:-1], str(uuid.UUID(HANDLE))])
async def test_a_session_id_has_one_spelling(place: Place, server: Server, spelling: str) -> None:
    await place.store.run([record(HANDLE)])
    assert (await place.ask(session=spelling.encode())).status == 404
    assert server.calls == []


async def test_the_owner_ends_a_session_and_nobody_uses_it_again(place: Place) -> None:
    session = await place.open()
    assert (await place.ask(b"bob", session, method="DELETE")).status == 404
    assert (await place.ask(session=session, method="DELETE")).status == 200
    assert place.store.held == 0
    assert (await place.ask(session=session)).status == 404


async def test_a_delete_that_the_app_refuses_ends_nothing(store: CountingStore) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(405 if scope["method"] == "DELETE" else 200, (b"mcp-session-id", b"s1")))
        await send(body())

    place = Place(app, store)
    session = await place.open()
    assert (await place.ask(session=session, method="DELETE")).status == 405
    assert (await place.ask(session=session)).status == 200


async def test_a_session_that_the_app_no_longer_knows_is_forgotten(place: Place, server: Server) -> None:
    session = await place.open()
    server.sessions.clear()
    assert (await place.ask(session=session)).status == 404
    assert place.store.held == 0


async def test_a_session_expires_when_it_is_not_used(place: Place, store: CountingStore) -> None:
    session = await place.open()
    for _ in range(5):
        store.clock.advance(TTL.total_seconds() - 1)
        assert (await place.ask(session=session)).status == 200
    store.clock.advance(TTL.total_seconds())
    for method in ("POST", "GET"):
        assert (await place.ask(session=session, method=method)).status == 404
    assert (await store.run([Get(f"mcp:session:{session.decode()}")])) == [None]


async def test_a_thief_does_not_keep_a_session_alive(place: Place, store: CountingStore) -> None:
    session = await place.open()
    store.clock.advance(TTL.total_seconds() - 1)
    assert (await place.ask(b"bob", session)).status == 404
    store.clock.advance(1)
    assert (await place.ask(session=session)).status == 404


class Failing(CountingStore):
    """A store that answers and cannot write."""

    async def run(self, operations: Any) -> Any:
        if any(isinstance(operation, Put) for operation in operations):
            raise StoreUnavailable("no connection", retry_after_seconds=4)
        return await super().run(operations)


async def test_a_session_that_cannot_be_bound_is_never_seen(place: Place, server: Server, store: CountingStore) -> None:
    server_sessions = len(server.sessions)

    outcome = await Place(server, Failing(clock=store.clock)).ask(data=rpc("initialize"))

    assert len(server.sessions) == server_sessions + 1
    (minted,) = server.sessions
    assert (outcome.status, outcome.value(b"retry-after")) == (503, b"4")
    assert outcome.value(b"mcp-session-id") is None
    assert minted.encode() not in outcome.body
    assert b"ok" not in outcome.body


async def test_a_session_is_bound_before_the_client_sees_its_id(store: CountingStore) -> None:
    bound: list[Any] = []
    client = Client([rpc("initialize")])

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            bound.extend(await store.run([Get("mcp:session:s1")]))
        await client.send(message)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(200, (b"mcp-session-id", b"s1")))
        await send(body())

    scope = http_scope(headers=[(b"x-as", b"alice")])
    await Place(app, store).guarded(scope, client.receive, send)
    assert [value.startswith(owner_prefix(PEOPLE[b"alice"])) for value in bound] == [True]


async def test_a_session_id_that_is_minted_twice_is_not_handed_to_the_second(store: CountingStore) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(200, (b"mcp-session-id", b"always-the-same")))
        await send(body(b"secret"))

    place = Place(app, store)
    await place.open(b"alice")
    for who in (b"bob", b"alice"):
        outcome = await place.ask(who, data=rpc("initialize"))
        assert outcome.status == 503
        assert outcome.value(b"mcp-session-id") is None
        assert b"secret" not in outcome.body
    assert (await place.ask(b"bob", b"always-the-same")).status == 404


@pytest.mark.parametrize("session", ["x" * 129, "a:b", "s{1}", "x" * 1024])
async def test_long_and_unusual_session_ids_are_bound_by_their_digest(store: CountingStore, session: str) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(200, (b"mcp-session-id", session.encode())))
        await send(body())

    place = Place(app, store)
    assert await place.open() == session.encode()
    assert (await place.ask(session=session.encode())).status == 200
    assert (await place.ask(b"bob", session.encode())).status == 404
    _, put = store.batches[1]
    assert isinstance(put, Put)
    assert len(put.key) < 128
    assert session not in put.key


async def test_a_store_that_is_away_lets_no_session_be_used(place: Place, server: Server) -> None:
    session = await place.open()
    place.store.fault = StoreUnavailable("no connection")
    for who in (b"alice", b"bob"):
        assert (await place.ask(who, session)).status == 503
    assert len(server.calls) == 1


async def test_a_request_without_a_session_costs_no_round_trip(place: Place) -> None:
    assert (await place.ask()).status == 200
    assert place.store.batches == []


async def test_the_app_is_shown_the_handle_as_a_fact(store: CountingStore) -> None:
    shown: list[SessionHandle] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["headers"][-1][0] == b"mcp-session-id":
            shown.append(fact(scope, SessionHandle))
        await send(start(200, (b"mcp-session-id", b"s1")))
        await send(body())

    place = Place(app, store)
    await place.ask(session=await place.open())
    assert shown == [SessionHandle("s1", fingerprint("s1"))]


# The stateless era


MODERN = ((b"mcp-protocol-version", b"2026-07-28"),)


async def test_a_modern_request_has_no_session_and_its_session_id_is_not_handed_on(
    place: Place, server: Server
) -> None:
    session = await place.open()
    for who in (b"alice", b"bob"):
        assert (await place.ask(who, session, headers=MODERN)).status == 200
        assert server.calls[-1][1] is None
    assert (await place.ask(session=session)).status == 200


async def test_calling_oneself_modern_opens_no_message_url(store: CountingStore) -> None:
    app = Stream(endpoint("/messages/?session_id=0123"))
    place = Place(app, store)
    await place.ask(method="GET", path="/sse")
    for headers in ((), MODERN):
        refused = await place.ask(b"bob", path="/messages/", query=b"session_id=0123", headers=headers)
        assert refused.status == 404
    assert app.messages == []


# HTTP+SSE


def endpoint(url: str, end: bytes = b"\r\n") -> bytes:
    """The event that opens an HTTP+SSE stream."""
    return b"event: endpoint" + end + b"data: " + url.encode() + end + end


class Stream:
    """An HTTP+SSE server that opens with these chunks and takes whatever is posted to any path."""

    def __init__(self, *chunks: bytes, content_type: bytes = b"text/event-stream; charset=utf-8") -> None:
        self.chunks = chunks
        self.content_type = content_type
        self.messages: list[tuple[str, bytes, bytes]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "GET" and scope["path"] == "/sse":
            await send(start(200, (b"Content-Type", self.content_type)))
            for chunk in self.chunks:
                await send(body(chunk, more=True))
            await send(body())
            return
        self.messages.append((scope["path"], scope["query_string"], await read_all(receive)))
        await send(start(202))
        await send(body())


async def opened(place: Place, who: bytes = b"alice") -> Outcome:
    outcome = await place.ask(who, method="GET", path="/sse")
    assert outcome.status == 200
    return outcome


@pytest.mark.parametrize(
    ("url", "path", "query"),
    [
        ("/messages/?session_id=0123abcd", "/messages/", b"session_id=0123abcd"),
        ("/messages?sessionId=0123-abcd", "/messages", b"sessionId=0123-abcd"),
        ("/messages/0123abcd", "/messages/0123abcd", b""),
        ("messages?k=1", "/messages", b"k=1"),
        ("https://mcp.example/messages?k=1", "/messages", b"k=1"),
        ("//mcp.example/messages?k=1", "/messages", b"k=1"),
        ("/messages?a=1&k=2&b", "/messages", b"a=1&k=2&b"),
        ("/a%20b/messages?k=%2F", "/a b/messages", b"k=%2F"),
        (" /messages?k=1", "/messages", b"k=1"),
        ("/messages?k=1#fragment", "/messages", b"k=1"),
        ("/x/../messages?k=1", "/messages", b"k=1"),
    ],
)
async def test_the_message_url_is_bound_whatever_it_looks_like(
    store: CountingStore, url: str, path: str, query: bytes
) -> None:
    app = Stream(endpoint(url))
    place = Place(app, store)
    await opened(place)

    assert (await place.ask(path=path, query=query)).status == 202
    assert (await place.ask(b"refreshed", path=path, query=query)).status == 202
    for thief in OTHERS:
        stolen = await place.ask(thief, path=path, query=query)
        unknown = await place.ask(thief, path=path, query=query + b"0")
        assert stolen.status == 404
        assert stolen.sent == unknown.sent
    assert len(app.messages) == 2


async def test_a_message_url_goes_on_with_the_key_that_its_stream_was_opened_with(store: CountingStore) -> None:
    place = Place(Stream(endpoint("/messages/?session_id=s1")), store)
    await opened(place, b"bound")
    tried = [b"bound-otherwise", b"alice", b"bound-refreshed"]
    answers = [await place.ask(who, path="/messages/", query=b"session_id=s1") for who in tried]
    assert [one.status for one in answers] == [404, 404, 202]


@given(
    points=st.lists(st.integers(0, 500), max_size=20),
    end=st.sampled_from([b"\n", b"\r\n", b"\r"]),
    before=st.sampled_from([b"", b": hello\n\n", b"\xef\xbb\xbf", b"retry: 5\n\n"]),
    after=st.sampled_from([b"", b"event: message\ndata: {}\n\n"]),
)
async def test_the_message_url_is_bound_over_any_chunks(
    points: list[int], end: bytes, before: bytes, after: bytes
) -> None:
    store = CountingStore()
    data = before + endpoint("/messages/?session_id=0123", end) + after
    edges = sorted({point % (len(data) + 1) for point in points})
    chunks = [data[a:b] for a, b in zip([0, *edges], [*edges, len(data)], strict=True)]
    place = Place(Stream(*chunks), store)

    outcome = await opened(place)

    assert outcome.body == data
    assert (await place.ask(path="/messages/", query=b"session_id=0123")).status == 202
    assert (await place.ask(b"bob", path="/messages/", query=b"session_id=0123")).status == 404


async def test_the_message_url_is_bound_before_the_client_sees_it(store: CountingStore) -> None:
    held_when_sent: list[int] = []
    client = Client()

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            held_when_sent.append(store.held)
        await client.send(message)

    data = endpoint("/messages/?session_id=0123", b"\r")
    app = Stream(data[:10], data[10:-1], data[-1:])
    scope = http_scope("GET", "/sse", [(b"x-as", b"alice")])
    await Place(app, store).guarded(scope, client.receive, send)
    assert held_when_sent == [0, 0, 2, 2], "the record, and its place among the principal's"


VARIANTS = [
    ("/messages/", b"session_id=0123ABCD"),
    ("/messages/", b"Session_id=0123abcd"),
    ("/messages/", b"session_id=0123abcd&x=1"),
    ("/messages/", b"x=1&session_id=0123abcd"),
    ("/messages/", b"session_id=0123abcd&session_id=0123abcd"),
    ("/messages/", b"session_id=%30123abcd"),
    ("/messages/", b"session_id=0123abcd&"),
    ("/messages/", b"session_id={0123abcd}"),
    ("/messages/", b"session_id=0123-abcd"),
    ("/messages/", b"session_id=urn:uuid:0123abcd"),
    ("/messages/", b""),
    ("/messages", b"session_id=0123abcd"),
    ("/messages//", b"session_id=0123abcd"),
    ("/Messages/", b"session_id=0123abcd"),
    ("/other", b"session_id=0123abcd"),
]


@pytest.mark.parametrize("who", [b"alice", b"bob"])
@pytest.mark.parametrize(("path", "query"), VARIANTS)
async def test_the_message_url_has_one_spelling(store: CountingStore, who: bytes, path: str, query: bytes) -> None:
    app = Stream(endpoint("/messages/?session_id=0123abcd"))
    place = Place(app, store)
    await opened(place)
    assert (await place.ask(who, path=path, query=query)).status == 404
    assert app.messages == []


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "HEAD", "PATCH", "OPTIONS"])
async def test_a_message_url_is_judged_whatever_the_method(store: CountingStore, method: str) -> None:
    app = Stream(endpoint("/messages/?session_id=0123"))
    place = Place(app, store)
    await opened(place)
    assert (await place.ask(b"bob", path="/messages/", query=b"session_id=0123", method=method)).status == 404
    assert app.messages == []


async def test_a_session_id_of_ones_own_opens_no_message_url(store: CountingStore) -> None:
    app = Stream(endpoint("/messages/?session_id=0123"))
    place = Place(app, store)
    await opened(place)
    await store.run([record("bobs", b"bob")])
    refused = await place.ask(b"bob", b"bobs", path="/messages/", query=b"session_id=0123")
    assert refused.status == 404


async def test_a_message_url_is_no_session_id(store: CountingStore) -> None:
    place = Place(Stream(endpoint("/messages/?session_id=0123")), store)
    await opened(place)
    for session in (b"0123", b"POST /messages/?session_id=0123", b"/messages/?session_id=0123"):
        assert (await place.ask(session=session)).status == 404


async def test_a_stream_whose_message_url_cannot_be_bound_is_cut_before_it_is_seen(store: CountingStore) -> None:
    app = Stream(b": hello\n\n", endpoint("/messages/?session_id=0123"), b"data: more\n\n")
    outcome = await opened(Place(app, Failing(clock=store.clock)))
    assert outcome.body == b": hello\n\n"
    assert not outcome.complete


@pytest.mark.parametrize("url", ["/sse?session_id=0123", "?session_id=0123", "/%73se?session_id=0123", "http://["])
async def test_a_message_url_that_cannot_be_told_from_others_is_never_seen(store: CountingStore, url: str) -> None:
    outcome = await opened(Place(Stream(endpoint(url)), store))
    assert outcome.body == b""
    assert not outcome.complete
    assert store.held == 0


@pytest.mark.parametrize("content_type", [b"text/event-stream", b" \tText/Event-Stream ;x=1"])
async def test_a_stream_is_one_however_its_type_is_spelled(store: CountingStore, content_type: bytes) -> None:
    place = Place(Stream(endpoint("/messages/?session_id=0123"), content_type=content_type), store)
    await opened(place)
    assert (await place.ask(path="/messages/", query=b"session_id=0123")).status == 202
    assert (await place.ask(b"bob", path="/messages/", query=b"session_id=0123")).status == 404


@pytest.mark.parametrize("path", ["/mcp", "/%6dcp", "/api/mcp"])
async def test_a_message_url_with_the_path_of_another_resource_is_never_seen(store: CountingStore, path: str) -> None:
    layer = Session(store=store, ring=RING, paths=frozenset({"/mcp", "/sse"}), clock=store.clock)
    guarded = guard(Stream(endpoint(f"{path}?session_id=0123")), Facts(), layer)
    outcome = await drive(guarded, http_scope("GET", "/sse", root_path="/api"))
    assert outcome.body == b""
    assert not outcome.complete
    assert store.held == 0


async def test_a_stream_opened_with_head_counts_as_one_too(store: CountingStore) -> None:
    place = Place(Server(), store, terms=SessionTerms(ttl=TTL, per_principal=1))
    await place.open()
    assert (await place.ask(method="HEAD", path="/sse", data=b"")).status == 429


async def test_a_message_url_that_is_given_twice_is_not_seen_the_second_time(store: CountingStore) -> None:
    place = Place(Stream(endpoint("/messages/?session_id=same")), store)
    assert (await opened(place, b"alice")).complete
    assert (await opened(place, b"bob")).body == b""
    assert (await place.ask(b"bob", path="/messages/", query=b"session_id=same")).status == 404


@pytest.mark.parametrize(
    "chunks",
    [
        (b'event: message\ndata: {"jsonrpc":"2.0"}\n\n', endpoint("/messages/?session_id=0123")),
        (b"x" * 9000, endpoint("/messages/?session_id=0123")),
    ],
    ids=["another event", "no event"],
)
async def test_only_the_first_event_of_a_stream_binds(store: CountingStore, chunks: tuple[bytes, ...]) -> None:
    place = Place(Stream(*chunks), store)
    outcome = await opened(place)
    assert outcome.body == b"".join(chunks)
    assert store.held == 0
    assert (await place.ask(path="/messages/", query=b"session_id=0123")).status == 404


async def test_a_response_that_is_no_event_stream_binds_nothing(store: CountingStore) -> None:
    place = Place(Stream(endpoint("/messages/?session_id=0123"), content_type=b"text/plain"), store)
    await opened(place)
    assert store.held == 0


async def test_the_media_type_of_a_stream_is_read_in_any_case(store: CountingStore) -> None:
    place = Place(Stream(endpoint("/messages/?session_id=0123"), content_type=b"Text/Event-Stream"), store)
    await opened(place)
    assert (await place.ask(path="/messages/", query=b"session_id=0123")).status == 202


# Open streams


class Pinging:
    """Sends a ping when it is told to; mints a session on its first response."""

    def __init__(self, opening: bytes = b"") -> None:
        self.opening = opening
        self.turn = anyio.Semaphore(0)
        self.pinged = anyio.Semaphore(0)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] != "GET":
            await send(start(200, (b"mcp-session-id", b"s1")))
            await send(body())
            return
        await send(start(200, (b"content-type", b"text/event-stream")))
        if self.opening:
            await send(body(self.opening, more=True))
        self.pinged.release()
        while True:
            await self.turn.acquire()
            await send(body(b": ping\n\n", more=True))
            self.pinged.release()

    async def ping(self) -> None:
        self.turn.release()
        await self.pinged.acquire()


@pytest.mark.parametrize("transport", ["streamable", "sse"])
async def test_an_open_stream_keeps_its_session_alive_with_few_round_trips(
    store: CountingStore, transport: str
) -> None:
    app = Pinging(endpoint("/messages/?k=1") if transport == "sse" else b"")
    place = Place(app, store)
    session = None if transport == "sse" else await place.open()
    use = {"path": "/messages/", "query": b"k=1"} if transport == "sse" else {"session": session}
    opening = {"path": "/sse"} if transport == "sse" else {"session": session}

    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            group.start_soon(lambda: place.ask(method="GET", **opening))
            await app.pinged.acquire()
            store.batches.clear()
            for _ in range(40):
                store.clock.advance(TTL.total_seconds() / 10)
                await app.ping()
            renewed = len(store.batches)
            assert (await place.ask(**use)).status == 200
            group.cancel_scope.cancel()

    assert 8 <= renewed <= 14
    store.clock.advance(TTL.total_seconds())
    assert (await place.ask(**use)).status == 404


async def test_a_stream_does_not_bring_an_ended_session_back(store: CountingStore) -> None:
    app = Pinging()
    place = Place(app, store)
    session = await place.open()
    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            group.start_soon(lambda: place.ask(session=session, method="GET"))
            await app.pinged.acquire()
            assert (await place.ask(session=session, method="DELETE")).status == 200
            store.clock.advance(TTL.total_seconds() / 2)
            await app.ping()
            group.cancel_scope.cancel()
    assert store.held == 0
    assert (await place.ask(session=session)).status == 404


async def test_a_thief_gets_no_stream_and_the_owners_goes_on(store: CountingStore) -> None:
    app = Pinging()
    place = Place(app, store)
    session = await place.open()
    client = Client()
    scope = http_scope("GET", headers=[(b"x-as", b"alice"), (b"mcp-session-id", session)])
    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            group.start_soon(place.guarded, scope, client.receive, client.send)
            await app.pinged.acquire()
            assert (await place.ask(b"bob", session, method="GET")).status == 404
            await app.ping()
            group.cancel_scope.cancel()
    assert client.outcome.body == b": ping\n\n"


@pytest.mark.parametrize("ttl", [timedelta(0), timedelta(seconds=-1), timedelta(milliseconds=999)])
def test_a_time_to_live_under_a_second_is_refused(ttl: timedelta) -> None:
    with pytest.raises(ConfigurationError, match="ttl must be at least one second"):
        SessionTerms(ttl=ttl)


@pytest.mark.parametrize(
    ("terms", "says"),
    [
        ({"lifetime": timedelta(minutes=4)}, "lifetime must be at least the ttl"),
        ({"per_principal": 0}, "per_principal must be at least 1"),
        ({"cache": timedelta(seconds=-1)}, "cache must be from 0 to a third"),
        ({"cache": timedelta(seconds=101)}, "cache must be from 0 to a third"),
    ],
)
def test_terms_that_cannot_work_are_refused(terms: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        SessionTerms(**{"ttl": TTL, **terms})


def test_the_identity_and_not_the_token_owns_a_session() -> None:
    assert PEOPLE_AND_OTHERS[b"refreshed"].owner == PEOPLE[b"alice"].owner
    assert len({PEOPLE_AND_OTHERS[who].owner for who in OTHERS}) == len(OTHERS) - 1, "two of them are the same bob"


async def test_below_a_mount_point_sessions_are_bound_like_anywhere(place: Place) -> None:
    mounted: Any = {"path": "/api/mcp", "root_path": "/api"}
    opened = await place.ask(data=rpc("initialize"), **mounted)
    session = opened.value(b"mcp-session-id")
    assert opened.status == 200
    assert session is not None
    assert (await place.ask(b"alice", session, **mounted)).status == 200
    assert (await place.ask(b"bob", session, **mounted)).status == 404
