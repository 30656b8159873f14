"""Records that somebody else wrote, replies that get lost, and clients that leave: nobody gets what is not theirs."""

import asyncio
import itertools
import json
import random
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta

import httpx
import pytest

from mcp_guard.stores.valkey import ValkeyStore
from tests.guard.attacks.deployment import deployed as attacked
from tests.guard.attacks.flow import signed_in
from tests.guard.faults.connection import Answer, Connection, request
from tests.guard.faults.deployment import Deployment
from tests.guard.faults.load import LEGACY, Seat, legacy, modern
from tests.guard.faults.places import Place, placed
from tests.guard.faults.rows import found
from tests.guard.faults.serve import AUTHORITY
from tests.support.tcp_proxy import TcpProxy
from tests.support.valkey_server import shared_server

CANCELLED = 1000
AT_ONCE = 20
REPLIES = 6
"""More than the store has to give while a code is redeemed."""


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with placed() as place:
        yield place


@asynccontextmanager
async def connected(deployment: Deployment) -> AsyncIterator[Connection]:
    connection = await Connection.to(deployment.port)
    try:
        yield connection
    finally:
        connection.close()


async def ask(deployment: Deployment, data: bytes) -> Answer:
    """One request on a connection of its own, answered within 20 seconds."""
    async with asyncio.timeout(20), connected(deployment) as connection:
        return await connection.ask(data)


async def opened(deployment: Deployment, name: str) -> Seat:
    """A principal with a session."""
    seat = Seat(name, deployment.token(name))
    answer = await ask(deployment, legacy(seat, AUTHORITY, "initialize", ""))
    assert answer.status == 200, answer
    seat.session = answer.fields["mcp-session-id"]
    return seat


FOREIGN: dict[str, Callable[[bytes, bytes], bytes]] = {
    "garbage": lambda own, other: b"\xff\x00garbage",
    "truncated": lambda own, other: own[: len(own) // 2],
    "empty": lambda own, other: b"",
    "without a MAC": lambda own, other: own[: own.index(b',"mac"')] + b"}",
    "a MAC of nobody": lambda own, other: own[:-12] + b'AAAAAAAAAA"}',
    "of a later schema": lambda own, other: own.replace(b'{"owner"', b'{"schema":9,"owner"'),
    "of another session": lambda own, other: other,
    "of 10 MB": lambda own, other: own + b" " * 10_000_000,
}


async def test_st_11_st_15_a_record_that_the_guard_did_not_write_is_no_record(place: Place) -> None:
    """For each, the owner and whoever would have it are refused; the session of somebody else is as good as before."""
    deployment, server = place.deployment, place.server
    statuses: dict[str, list[int]] = {}
    bob = await opened(deployment, "bob")
    theirs = server.command("GET", f"mcp:session:{bob.session}")
    for name, make in FOREIGN.items():
        alice = await opened(deployment, "alice")
        key = f"mcp:session:{alice.session}"
        server.command("SET", key, make(server.command("GET", key), theirs), "EX", 600)
        asked = [legacy(seat, AUTHORITY, "tools/call", alice.session) for seat in (alice, bob)]
        statuses[name] = [(await ask(deployment, data)).status for data in asked]
    alice = await opened(deployment, "alice")
    server.command("DEL", f"mcp:session:{alice.session}")
    server.command("LPUSH", f"mcp:session:{alice.session}", "x")
    statuses["of another type"] = [
        (await ask(deployment, legacy(alice, AUTHORITY, "tools/call", alice.session))).status
    ]
    for bucket in server.command("KEYS", "mcp:limit:principal:*"):
        server.command("SET", bucket, "garbage", "EX", 600)
    statuses["of a limit"] = [(await ask(deployment, modern(alice, AUTHORITY, "whoami"))).status]
    for bucket in server.command("KEYS", "mcp:limit:*"):
        server.command("DEL", bucket)
    assert (await ask(deployment, legacy(bob, AUTHORITY, "tools/call", bob.session))).status == 200
    tried = {name: some for name, some in statuses.items() if name != "of a limit"}
    accepted = [name for name, some in tried.items() if 200 in some]
    assert accepted == []
    assert {status for some in statuses.values() for status in some} <= {200, 404, 429, 503}, statuses
    assert all(some == [404, 404] for name, some in tried.items() if len(some) == 2 and name != "of 10 MB"), statuses
    assert "Traceback" not in deployment.log()
    reasons = [str(record.get("reason")) for record in deployment.audit() if record["verdict"] == "session_not_found"]
    assert any("not made with the key ring" in reason for reason in reasons)
    found("foreign", kinds=len(statuses), accepted=len(accepted), other_than_404=str(unusual(statuses)) or "none")


def unusual(statuses: dict[str, list[int]]) -> str:
    """What was not a 404."""
    return ", ".join(f"{name}: {some[0]}" for name, some in statuses.items() if set(some) != {404})


@pytest.mark.faults
async def test_st_10_a_client_that_leaves_in_a_command_leaves_no_reply_for_another(place: Place) -> None:
    """A thousand requests that are broken off at any time, each beside one that must have its own answer."""
    deployment = place.deployment
    seats = [await opened(deployment, f"user-{number}") for number in range(AT_ONCE)]
    rng, wrong, answered = random.Random(11), [], 0
    place.proxy.delay_seconds = 0.002

    async def leave(seat: Seat) -> None:
        async with connected(deployment) as connection:
            connection.writer.write(legacy(seat, AUTHORITY, "tools/call", seat.session))
            await connection.writer.drain()
            await asyncio.sleep(rng.random() * 0.02)

    async def stay(seat: Seat) -> None:
        nonlocal answered
        answer = await ask(deployment, legacy(seat, AUTHORITY, "tools/call", seat.session))
        said = json.loads(answer.body) if answer.status == 200 else {}
        answered += answer.status == 200
        if answer.status not in (200, 503) or (said and said["result"]["structuredContent"]["subject"] != seat.name):
            wrong.append((seat.name, answer))

    try:
        for _ in range(CANCELLED // AT_ONCE):
            await asyncio.gather(*[leave(seat) for seat in seats], *[stay(seat) for seat in seats])
    finally:
        place.proxy.delay_seconds = 0.0
    ends = [request("DELETE", AUTHORITY, s.token, mcp_session_id=s.session, mcp_protocol_version=LEGACY) for s in seats]
    assert {(await ask(deployment, end)).status for end in ends} == {200}
    assert wrong == []
    assert answered > CANCELLED / 2
    found("cancel", broken_off=CANCELLED, answers_beside_them=answered, answers_of_another=len(wrong))


def test_st_16_a_code_whose_reply_was_lost_is_used_up() -> None:
    """Whichever reply gets lost, a code gives one token at most; the client is told to come back, or has it."""
    outcomes = []
    with TcpProxy(shared_server().port) as proxy:
        store = ValkeyStore(f"valkey://127.0.0.1:{proxy.port}", timedelta(seconds=1), prefix="reply-lost:")
        with attacked(lambda: store) as live:
            flow = signed_in(live)
            for lost in range(REPLIES):
                fields = flow.fields(flow.code())
                proxy.rewrite = without(lost)
                first = flow.redeem(fields)
                proxy.rewrite = None
                proxy.reset()
                second = until_answered(lambda fields=fields: flow.redeem(fields))  # type: ignore[misc]
                outcomes.append((first.status_code, second.status_code))
                assert "retry-after" in first.headers or first.status_code == 200
                assert second.status_code == 200 or second.json()["error"] == "invalid_grant"
    assert {first for first, _ in outcomes} == {200, 503}, "of the last ones, none is waited for"
    assert (503, 400) in outcomes, "a code that the store has taken is used up, though nobody was told"
    twice = [outcome for outcome in outcomes if outcome == (200, 200)]
    assert twice == []
    found("reply-lost", replies_lost_in_turn=REPLIES, tokens_issued_twice=len(twice), outcomes=str(outcomes))


def without(lost: int) -> Callable[[bytes], bytes]:
    """Lets all replies through but the one of this number, from 0."""
    numbers = itertools.count()
    return lambda data: b"" if next(numbers) == lost else data


def until_answered(redeem: Callable[[], httpx.Response]) -> httpx.Response:
    """The first answer that is not about the store."""
    answer = redeem()
    for _ in range(20):
        if answer.status_code != 503:
            break
        answer = redeem()
    return answer
