"""An event id works for whom the event was sent to, in the session it was sent in, and for nobody else."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_guard.asgi import Receive, Scope, Send
from mcp_guard.auditlog import AuditLog, MemorySink
from mcp_guard.check import Check
from mcp_guard.facts import SessionHandle
from mcp_guard.keyring import KeyRing
from mcp_guard.layer import ADMITTED, Admission, RequestHead
from mcp_guard.layers.audit import Audit
from mcp_guard.layers.event_ids import EventIds
from mcp_guard.messages import MAX_MESSAGE_BYTES
from mcp_guard.stack import guard
from tests.guard.asgi import Headers, Outcome, body, drive, http_scope, start
from tests.guard.stubs import PEOPLE, Facts, principal

RING = KeyRing.generate()
STREAM = (b"content-type", b"text/event-stream; charset=utf-8")
MAC = re.compile(rb"(?m)^(id:[ ]?\S+)\.[A-Za-z0-9_-]{22}(?=[\r\n])")
PEOPLE_AND_OTHERS = {
    **PEOPLE,
    b"refreshed": principal("alice", token="c" * 16, scopes=frozenset({"more"})),
    b"same-subject": principal("alice", client="client-2"),
    b"same-but-tenant": principal("alice", tenant="acme"),
    b"same-but-issuer": principal("alice", issuer="https://other.example"),
}
OTHERS = [b"bob", b"same-subject", b"same-but-tenant", b"same-but-issuer"]


@dataclass(frozen=True)
class Known(Check):
    """Stands for the session layer: whatever session is named is the caller's own."""

    adds = (SessionHandle,)

    async def admit(self, request: RequestHead) -> Admission:
        named = request.value(b"mcp-session-id")
        return ADMITTED if named is None else Admission((SessionHandle(named.decode(), "f" * 16),))


@dataclass
class Server:
    """An app that answers with `chunks`; keeps what it was asked to resume from, and how."""

    chunks: Sequence[bytes] = (b"id: 1\ndata: {}\n\n",)
    headers: Headers = (STREAM,)
    resumed: list[list[bytes]] = field(default_factory=list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.resumed.append([value for name, value in scope["headers"] if name == b"last-event-id"])
        await send(start(200, *self.headers))
        for chunk in self.chunks:
            await send(body(chunk, more=True))
        await send(body())


@dataclass
class Place:
    """A guarded server."""

    server: Server
    ring: KeyRing = RING
    sink: MemorySink = field(default_factory=MemorySink)

    def __post_init__(self) -> None:
        layers = (Audit(AuditLog(self.sink)), Facts(PEOPLE_AND_OTHERS), Known(), EventIds(ring=self.ring))
        self.guarded = guard(self.server, *layers)

    async def get(
        self,
        who: bytes = b"alice",
        session: bytes | None = b"s1",
        *last: bytes,
        path: str = "/mcp",
        method: str = "GET",
        modern: bool = False,
    ) -> Outcome:
        given = [(b"x-as", who), *((b"last-event-id", value) for value in last)]
        if session is not None:
            given.append((b"mcp-session-id", session))
        if modern:
            given.append((b"mcp-protocol-version", b"2026-07-28"))
        return await drive(self.guarded, http_scope(method, path, given))

    async def issued(self, who: bytes = b"alice", session: bytes | None = b"s1", path: str = "/mcp") -> bytes:
        """The id of the first event, as the client is given it."""
        return ids_of((await self.get(who, session, path=path)).body)[0]


def ids_of(stream: bytes) -> list[bytes]:
    return re.findall(rb"(?m)^id: ?(\S+)[\r\n]", stream)


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def place(server: Server) -> Place:
    return Place(server)


def is_refused(outcome: Outcome) -> None:
    assert outcome.status == 404
    error = {"code": -32600, "message": "Event not found"}
    assert outcome.json() == {"jsonrpc": "2.0", "id": None, "error": error}


# Resuming


async def test_the_owner_resumes_from_the_apps_own_id(place: Place, server: Server) -> None:
    given = await place.issued()
    assert given != b"1"
    outcome = await place.get(b"alice", b"s1", given)
    assert outcome.status == 200
    assert server.resumed[-1] == [b"1"]


async def test_the_same_principal_resumes_with_another_token(place: Place) -> None:
    assert (await place.get(b"refreshed", b"s1", await place.issued())).status == 200


async def test_what_is_replayed_can_be_resumed_from_again(place: Place, server: Server) -> None:
    again = ids_of((await place.get(b"alice", b"s1", await place.issued())).body)[0]
    assert (await place.get(b"alice", b"s1", again)).status == 200
    assert server.resumed[-1] == [b"1"]


@pytest.mark.parametrize("who", OTHERS)
@pytest.mark.parametrize("session", [b"s1", b"s2", None])
async def test_the_event_of_another_principal_is_refused(
    place: Place, server: Server, who: bytes, session: bytes | None
) -> None:
    given = await place.issued()
    is_refused(await place.get(who, session, given))
    assert len(server.resumed) == 1, "the app was called"


async def test_it_is_refused_like_an_event_that_never_was(place: Place) -> None:
    given = await place.issued()
    stolen = await place.get(b"bob", b"s2", given)
    unknown = await place.get(b"bob", b"s2", b"1." + b"A" * 22)
    assert stolen.sent == unknown.sent
    assert [record["verdict"] for record in place.sink.records()[1:]] == ["event_not_found"] * 2
    assert given.decode() not in b"".join(place.sink.lines).decode()


@pytest.mark.parametrize("session", [b"s2", None])
async def test_the_event_of_another_session_is_refused(place: Place, session: bytes | None) -> None:
    is_refused(await place.get(b"alice", session, await place.issued()))


async def test_the_event_of_another_resource_is_refused(place: Place) -> None:
    given = await place.issued()
    is_refused(await place.get(b"alice", b"s1", given, path="/sse"))


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
async def test_no_method_passes_an_event_on_unseen(place: Place, server: Server, method: str) -> None:
    is_refused(await place.get(b"alice", b"s1", b"1", method=method))
    assert server.resumed == []


@pytest.mark.parametrize(
    "forged", [b"", b"1", b"0", b"2", b"1.", b".", b"1." + b"A" * 21, b"1." + b"A" * 23, b"\xff", b" ", b"a" * 10_000]
)
async def test_an_id_that_was_not_issued_is_refused(place: Place, forged: bytes) -> None:
    is_refused(await place.get(b"alice", b"s1", forged))


async def test_every_change_of_an_id_is_refused(place: Place) -> None:
    given = await place.issued()
    for position in range(len(given)):
        for other in b"0aA.-":
            changed = given[:position] + bytes([other]) + given[position + 1 :]
            if changed != given:
                is_refused(await place.get(b"alice", b"s1", changed))
    for changed in (b"1" + given, given + b"A", given + given, given[:-1], given[1:], given.upper()):
        is_refused(await place.get(b"alice", b"s1", changed))


async def test_two_ids_are_refused(place: Place) -> None:
    given = await place.issued()
    is_refused(await place.get(b"alice", b"s1", given, given))


async def test_neighbouring_ids_cannot_be_made_from_one_another(place: Place, server: Server) -> None:
    mac = (await place.issued()).partition(b".")[2]
    is_refused(await place.get(b"alice", b"s1", b"2." + mac))


# Sessions


async def test_events_of_the_response_that_opens_a_session_are_of_that_session(place: Place, server: Server) -> None:
    server.headers = (STREAM, (b"Mcp-Session-Id", b"fresh"))
    given = await place.issued(session=None)
    assert (await place.get(b"alice", b"fresh", given)).status == 200
    is_refused(await place.get(b"alice", None, given))


async def test_an_app_that_repeats_the_session_changes_nothing(place: Place, server: Server) -> None:
    server.headers = (STREAM, (b"mcp-session-id", b"s1"))
    given = await place.issued()
    server.headers = (STREAM, (b"mcp-session-id", b"another"))
    assert await place.issued() == given


async def test_without_a_session_ids_are_of_the_principal(place: Place) -> None:
    given = await place.issued(session=None, path="/sse")
    assert (await place.get(b"alice", None, given, path="/sse")).status == 200
    is_refused(await place.get(b"bob", None, given, path="/sse"))


async def test_requests_of_the_stateless_era_are_not_concerned(place: Place, server: Server) -> None:
    outcome = await place.get(b"alice", None, b"any", modern=True)
    assert outcome.body == server.chunks[0]
    assert server.resumed == [[b"any"]], "intake hides it; this layer leaves it alone"


# Keys


async def test_workers_with_one_ring_share_events(place: Place) -> None:
    given = await place.issued()
    other = Place(Server(), KeyRing(RING.keys))
    assert (await other.get(b"alice", b"s1", given)).status == 200


async def test_a_rotated_key_counts_until_it_leaves_the_ring(place: Place) -> None:
    given, new = await place.issued(), KeyRing.generate()
    assert (await Place(Server(), KeyRing(new.keys + RING.keys)).get(b"alice", b"s1", given)).status == 200
    is_refused(await Place(Server(), new).get(b"alice", b"s1", given))


# What becomes of a stream


async def passed(*chunks: bytes) -> bytes:
    """What goes out of a stream."""
    return (await Place(Server(chunks)).get()).body


def cut(data: bytes, points: Sequence[int]) -> list[bytes]:
    edges = [0, *sorted(point % (len(data) + 1) for point in points), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])
LINES = st.sampled_from(
    [
        b"id: 7",
        b"id:8",
        b"id: a/b=c~",
        b"id",
        b"id:",
        b"id: ",
        b"data: id: 9",
        b'data: {"id": 1}',
        b"data:id:9",
        b"",
        b": id: 5",
        b" id: 6",
        b"idle: 1",
        b"ID: 4",
        b"retry: 10",
        b"event: id: 3",
        b"data: \xff\x00",
    ]
)


@given(
    lines=st.lists(st.tuples(LINES, ENDS), max_size=12),
    points=st.lists(st.integers(0, 500), max_size=8),
    bom=st.booleans(),
)
def test_only_ids_change_however_the_stream_is_cut(
    lines: list[tuple[bytes, bytes]], points: list[int], bom: bool
) -> None:
    stream = b"".join(line + end for line, end in lines) + b"data: end\n\n"
    out = anyio.run(lambda: passed(*cut((b"\xef\xbb\xbf" if bom else b"") + stream, points)))
    assert len(split(out)) == len(split(stream))
    unmarked = [re.sub(rb"^(id:[ ]?\S+)\.[A-Za-z0-9_-]{22}$", rb"\1", line) for line in split(out)]
    assert unmarked == split(stream)
    for before, after in zip(split(stream), split(out), strict=True):
        assert (before == after) == (re.fullmatch(rb"id:[ ]?\S+", before) is None)


def split(stream: bytes) -> list[bytes]:
    """Lines and the ends between them; a carriage return and a line feed apart, as chunks may part them."""
    return re.split(rb"([\r\n])", stream)


@pytest.mark.parametrize("odd", [b"\xc3\xa9", b"a b", b" a", b"a ", b"a\x00b", b"a" * 1025, b"\t", b"\x7f"])
async def test_an_id_that_no_header_field_carries_is_taken_out(odd: bytes) -> None:
    assert await passed(b"id: " + odd + b"\ndata: x\n\n") == b":\ndata: x\n\n"
    assert await passed(b"data: x\rid: " + odd + b"\n\r") == b"data: x\r:\n\r"


async def test_the_longest_id_goes_out_and_comes_back(place: Place, server: Server) -> None:
    server.chunks = (b"id: " + b"a" * 1024 + b"\n\n",)
    assert (await place.get(b"alice", b"s1", await place.issued())).status == 200


@pytest.mark.parametrize("app_id", [b"1", b"a.b", b"a." + b"A" * 22, b"/+=~", b"."])
async def test_any_id_of_visible_ascii_makes_the_round(place: Place, server: Server, app_id: bytes) -> None:
    server.chunks = (b"id: " + app_id + b"\n\n",)
    await place.get(b"alice", b"s1", await place.issued())
    assert server.resumed[-1] == [app_id]


async def test_the_beginning_of_an_id_is_never_marked() -> None:
    assert await passed(b"id: 1\n\nid: 12") == await passed(b"id: 1\n\n")
    assert await passed(b"id: 1\n\nid: 12\ndata: x\n") == await passed(b"id: 1\n\n")


async def test_events_are_not_held_up(place: Place, server: Server) -> None:
    server.chunks = (b"id: 1\n\n", b"data: ", b"x\n", b"\n", b": ping\n\n")
    assert [chunk for chunk in (await place.get()).chunks if chunk][1:] == [b"data: x\n\n", b": ping\n\n"]


@pytest.mark.parametrize("headers", [[], [(b"content-type", b"application/json")], [(b"content-type", b"text/plain")]])
async def test_other_responses_pass_as_they_are(
    place: Place, server: Server, headers: list[tuple[bytes, bytes]]
) -> None:
    server.headers = (*headers, (b"content-length", b"9"), (b"content-encoding", b"gzip"))
    server.chunks = (b"id: 1\n\nid",)
    outcome = await place.get()
    assert outcome.body == b"id: 1\n\nid"
    assert outcome.value(b"content-length") == b"9"


async def test_a_stream_that_cannot_be_read_does_not_go_out(place: Place, server: Server) -> None:
    server.headers = (STREAM, (b"content-encoding", b"gzip"))
    outcome = await place.get()
    assert outcome.status == 503
    assert b"id: 1" not in outcome.body


async def test_a_length_that_is_no_longer_right_is_not_said(place: Place, server: Server) -> None:
    server.headers = (STREAM, (b"Content-Length", b"15"), (b"content-encoding", b"identity"))
    assert (await place.get()).value(b"content-length") is None


async def test_an_event_without_end_is_cut(place: Place, server: Server) -> None:
    server.chunks = (b"data: ", *[b"x" * (MAX_MESSAGE_BYTES // 4)] * 4, b"id: 1\n\n")
    outcome = await place.get()
    assert not outcome.complete
    assert outcome.body == b""
