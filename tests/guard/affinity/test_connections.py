"""Nobody between two workers, and nobody in the place of one, learns or changes what they say to each other."""

import asyncio
import secrets
from collections.abc import Sequence

import anyio
import pytest

from mcp_guard.affinity import handshake, owner
from mcp_guard.affinity.frames import HEAD, Frame, Kind
from mcp_guard.affinity.homes import Home
from mcp_guard.affinity.link import Link
from mcp_guard.keyring import KeyRing
from tests.guard.affinity.between import between, read_frame, say, written
from tests.guard.affinity.workers import Member, Workers, ask, open_files, until, workers
from tests.guard.asgi import CountingApp
from tests.guard.stubs import rpc

ANYWHERE = "tcp:127.0.0.1:0"
SECRET = rpc(name="a-secret-name")
ANSWER = b"a-secret-answer"


def home_at(member: Member, port: int) -> str:
    """The home of a worker, by way of another port."""
    return str(Home(Home.parse(member.home).name, host="127.0.0.1", port=port))


def port_of(member: Member) -> int:
    return Home.parse(member.home).port


async def test_workers_on_several_hosts_carry_requests_over_tcp() -> None:
    app = CountingApp(chunks=[ANSWER])
    async with workers(ANYWHERE, CountingApp(), app) as running:
        outcomes = [await ask(running.members[0], running.members[1], SECRET) for _ in range(3)]
    assert [outcome.body for outcome in outcomes] == [ANSWER] * 3
    assert app.bodies == [SECRET] * 3


async def test_ipv6_addresses_are_homes_too() -> None:
    async with workers("tcp:[::1]:0", CountingApp(), CountingApp(chunks=[ANSWER])) as running:
        assert "@tcp:[::1]:" in running.members[1].home
        assert (await ask(running.members[0], running.members[1], SECRET)).body == ANSWER


async def test_whoever_listens_in_between_reads_nothing() -> None:
    app = CountingApp(chunks=[ANSWER])
    async with workers(ANYWHERE, CountingApp(), app) as running, between(port_of(running.members[1])) as eve:
        outcome = await ask(running.members[0], home_at(running.members[1], eve.port), SECRET)
    assert outcome.body == ANSWER
    wire = b"".join(frame.content for _, frame in eve.said)
    for told in (b"a-secret", b"alice", b"issuer.example", b"/mcp", b"session-1", *(running.ring.keys)):
        assert told not in wire


def flipped(frame: Frame, at: int) -> Frame:
    content = bytearray(frame.content)
    content[at] ^= 1
    return Frame(frame.kind, bytes(content))


HELLO, WELCOME, CONFIRM, OPEN, BODY = (True, 0), (False, 0), (True, 1), (True, 2), (True, 3)
START, CHUNK, LAST, END = (False, 1), (False, 2), (False, 3), (False, 4)
SEALED = [OPEN, BODY, START, CHUNK, LAST, END]
BEFORE_THE_APP = {HELLO, WELCOME, CONFIRM, OPEN}


async def tampered(running: Workers, change: object) -> tuple[int | None, bool, bytes]:
    """The status of a request through somebody who changes it, whether its response was whole, and the body."""
    async with between(port_of(running.members[1]), change) as mallory:  # type: ignore[arg-type]
        outcome = await ask(running.members[0], home_at(running.members[1], mallory.port), SECRET)
    return outcome.status, outcome.complete, outcome.body


def harmless(app: CountingApp, result: tuple[int | None, bool, bytes], place: tuple[bool, int]) -> None:
    """Nothing that was changed reached the app or the client as if it had been said."""
    status, complete, body = result
    assert app.bodies in ([], [SECRET])
    if place in BEFORE_THE_APP:
        assert app.calls == 0
    if place == END:
        assert (status, body) == (200, ANSWER)
    else:
        assert status == 503 or not complete, result


@pytest.mark.parametrize("at", [0, 7, -1])
@pytest.mark.parametrize("place", [HELLO, WELCOME, CONFIRM, *SEALED])
async def test_a_frame_that_was_changed_is_not_believed(place: tuple[bool, int], at: int) -> None:
    app = CountingApp(chunks=[ANSWER])
    async with workers(ANYWHERE, CountingApp(), app) as running:
        result = await tampered(
            running, lambda to, number, frame: [flipped(frame, at) if (to, number) == place else frame]
        )
    harmless(app, result, place)


@pytest.mark.parametrize("place", SEALED)
async def test_a_frame_of_another_kind_is_not_believed(place: tuple[bool, int]) -> None:
    app = CountingApp(chunks=[ANSWER])
    for kind in (Kind.OPEN, Kind.BODY, Kind.BODY_END, Kind.CHUNK, Kind.CHUNK_END, Kind.END):
        async with workers(ANYWHERE, CountingApp(), app) as running:
            result = await tampered(
                running,
                lambda to, number, frame: [
                    Frame(kind, frame.content) if (to, number) == place and frame.kind != kind else frame  # noqa: B023
                ],
            )
        if result != (200, True, ANSWER):
            harmless(app, result, place)
        app.calls = 0
        app.bodies.clear()


@pytest.mark.parametrize("place", SEALED)
async def test_a_frame_that_is_repeated_is_not_believed(place: tuple[bool, int]) -> None:
    app = CountingApp(chunks=[ANSWER])
    async with workers(ANYWHERE, CountingApp(), app) as running:
        result = await tampered(running, lambda to, number, frame: [frame, frame] if (to, number) == place else [frame])
        again = await ask(running.members[0], running.members[1], SECRET)
    assert app.calls <= 2
    assert app.bodies in ([SECRET], [SECRET, SECRET])
    assert result == (200, True, ANSWER) or result[0] == 503 or not result[1]
    assert again.body == ANSWER


@pytest.mark.parametrize("place", [*SEALED[:2], *SEALED[2:5]])
async def test_frames_that_are_swapped_are_not_believed(place: tuple[bool, int]) -> None:
    held: list[Frame] = []

    def swap(to: bool, number: int, frame: Frame) -> list[Frame]:
        if (to, number) == place:
            held.append(frame)
            return []
        return [frame, held.pop()] if held and to == place[0] else [frame]

    app = CountingApp(chunks=[b"1", b"2", ANSWER])
    large = rpc(name="x" * 100_000)
    async with workers(ANYWHERE, CountingApp(), app) as running, between(port_of(running.members[1]), swap) as mallory:
        with anyio.move_on_after(2):
            outcome = await ask(running.members[0], home_at(running.members[1], mallory.port), large)
            assert outcome.status == 503 or not outcome.complete
    assert app.bodies in ([], [large])


@pytest.mark.parametrize("place", [OPEN, BODY, START])
async def test_a_frame_that_is_sent_back_is_not_believed(place: tuple[bool, int]) -> None:
    app = CountingApp(chunks=[ANSWER])
    async with workers(ANYWHERE, CountingApp(), app) as running:
        result = await tampered(
            running, lambda to, number, frame: [Frame(0, b"")] if (to, number) == place else [frame]
        )
    harmless(app, result, place)


async def test_a_conversation_that_is_repeated_runs_nothing() -> None:
    app = CountingApp(chunks=[ANSWER])
    async with workers(ANYWHERE, CountingApp(), app) as running, between(port_of(running.members[1])) as mallory:
        await ask(running.members[0], home_at(running.members[1], mallory.port), SECRET)
        heard = await say(port_of(running.members[1]), *(frame for to, frame in mallory.said if to))
    assert {frame.kind for frame in heard} <= {Kind.WELCOME}
    assert app.calls == 1


HELLO_FRAME = Frame(Kind.HELLO, handshake.PROTOCOL + b"0" * 32 + b"n" * 32)
STRANGERS: dict[str, Sequence[Frame | bytes]] = {
    "another protocol": [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"],
    "another version": [Frame(Kind.HELLO, b"mcp-guard affinity 2" + b"0" * 32 + b"n" * 32)],
    "a short hello": [Frame(Kind.HELLO, handshake.PROTOCOL + b"0" * 32 + b"n" * 31)],
    "an empty hello": [Frame(Kind.HELLO, b"")],
    "no hello": [Frame(Kind.OPEN, b"{}")],
    "a long hello": [Frame(Kind.HELLO, b"x" * 513)],
    "a request without a proof": [HELLO_FRAME, Frame(Kind.OPEN, b"{}")],
    "no proof": [HELLO_FRAME, Frame(Kind.CONFIRM, b"\0")],
    "a wrong proof": [HELLO_FRAME, Frame(Kind.CONFIRM, b"\0" + b"p" * 32)],
    "a key that there is not": [HELLO_FRAME, Frame(Kind.CONFIRM, b"\x09" + b"p" * 32)],
}


@pytest.mark.parametrize("said", STRANGERS.values(), ids=list(STRANGERS))
async def test_a_stranger_is_sent_away(said: Sequence[Frame | bytes]) -> None:
    app = CountingApp()
    async with workers(ANYWHERE, app) as running:
        heard = await say(port_of(running.members[0]), *said)
    assert {frame.kind for frame in heard} <= {Kind.WELCOME}
    assert app.calls == 0


async def test_an_asker_that_sends_the_proof_of_the_owner_back_is_sent_away() -> None:
    async with workers(ANYWHERE, CountingApp()) as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(running.members[0]))
        writer.write(written(HELLO_FRAME))
        welcome = await read_frame(reader)
        assert welcome is not None
        writer.write(written(Frame(Kind.CONFIRM, b"\0" + welcome.content[-32:])))
        assert await read_frame(reader) is None
        writer.close()


async def test_a_stranger_that_says_nothing_is_sent_away_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owner, "HANDSHAKE_SECONDS", 0.1)
    async with workers(ANYWHERE, CountingApp()) as running:
        assert await say(port_of(running.members[0])) == []


async def test_a_stranger_that_announces_much_is_not_listened_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owner, "HANDSHAKE_SECONDS", 60)
    async with workers(ANYWHERE, CountingApp()) as running:
        assert await say(port_of(running.members[0]), HEAD.pack(513, Kind.HELLO)) == []


async def test_strangers_who_come_at_once_are_bounded_and_keep_no_worker_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owner, "MAX_STRANGERS", 4)
    monkeypatch.setattr(owner, "HANDSHAKE_SECONDS", 60)
    async with workers(ANYWHERE, CountingApp(), CountingApp(chunks=[ANSWER])) as running:
        port, before = port_of(running.members[1]), open_files()
        waiting = await asyncio.gather(*[asyncio.open_connection("127.0.0.1", port) for _ in range(40)])
        ours = len(waiting)
        await until(lambda: open_files() <= before + ours + 4)
        assert (await ask(running.members[0], running.members[1], SECRET)).body == ANSWER
        for _, writer in waiting:
            writer.close()


KEYS = [secrets.token_bytes(32) for _ in range(3)]


@pytest.mark.parametrize(
    ("asker", "holder"),
    [((0,), (0,)), ((0,), (1, 0)), ((1, 0), (0,)), ((0, 1), (1, 0)), ((0, 1), (1, 2)), ((2, 1, 0), (0,))],
)
async def test_rings_in_rotation_have_a_key_in_common(asker: Sequence[int], holder: Sequence[int]) -> None:
    async with workers(
        ANYWHERE,
    ) as running:
        here = await running.add(CountingApp(), ring=KeyRing(tuple(KEYS[one] for one in asker)))
        there = await running.add(CountingApp(chunks=[ANSWER]), ring=KeyRing(tuple(KEYS[one] for one in holder)))
        assert (await ask(here, there, SECRET)).body == ANSWER


async def test_a_worker_with_another_ring_is_not_spoken_to(caplog: pytest.LogCaptureFixture) -> None:
    app = CountingApp()
    async with workers(ANYWHERE, CountingApp()) as running:
        other = await running.add(app, ring=KeyRing.generate())
        outcome = await ask(running.members[0], other, SECRET)
    assert (outcome.status, app.calls) == (503, 0)
    assert any("another key ring" in record.message and record.levelname == "ERROR" for record in caplog.records)


async def test_whoever_is_in_a_workers_place_without_its_key_is_told_nothing() -> None:
    heard: list[Frame | None] = []

    async def imposter(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await read_frame(reader))
        name = Home.parse(running.members[1].home).name
        writer.write(written(Frame(Kind.WELCOME, name.encode() + b"n" * 32 + b"p" * 64)))
        heard.append(await read_frame(reader))
        writer.close()

    async with workers(ANYWHERE, CountingApp(), CountingApp()) as running:
        server = await asyncio.start_server(imposter, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        outcome = await ask(running.members[0], home_at(running.members[1], port), SECRET)
        server.close()
    assert outcome.status == 503
    assert [None if frame is None else frame.kind for frame in heard] == [Kind.HELLO, None]


async def test_another_worker_in_a_dead_ones_place_is_told_nothing() -> None:
    app = CountingApp()
    async with workers(ANYWHERE, CountingApp(), app) as running:
        home = str(Home("f" * 32, host="127.0.0.1", port=port_of(running.members[1])))
        outcome = await ask(running.members[0], home, SECRET)
    assert (outcome.status, app.calls) == (404, 0)


async def test_frames_of_no_known_length_or_kind_end_a_connection_of_workers(caplog: pytest.LogCaptureFixture) -> None:
    async with workers(ANYWHERE, CountingApp()) as running:
        for wrong in (
            Frame(Kind.START, b""),
            Frame(99, b""),
            Frame(Kind.OPEN, b"[]"),
            Frame(Kind.OPEN, b'{"facts":{}}'),
        ):
            loop = asyncio.get_running_loop()
            _, link = await loop.create_connection(Link, "127.0.0.1", port_of(running.members[0]))
            await handshake.ask(link, running.ring, "0" * 32)
            link.write(wrong)
            with anyio.fail_after(5):
                assert await link.next() is None
            link.write(wrong)
            await link.drain()
            assert link.take() is None
    assert "its connection is closed" in caplog.text


async def test_connections_that_end_before_anything_was_said_are_closed() -> None:
    before = open_files()
    async with workers(ANYWHERE, CountingApp()) as running:
        for _ in range(5):
            _, writer = await asyncio.open_connection("127.0.0.1", port_of(running.members[0]))
            writer.close()
            await writer.wait_closed()
    await until(lambda: open_files() == before)
