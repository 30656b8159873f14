"""One principal opens what it can, and thousands send a request each, while the load goes on."""

import asyncio
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.guard.faults.app import memory_kib
from tests.guard.faults.connection import Connection, request
from tests.guard.faults.load import LEGACY, Seat, legacy, modern
from tests.guard.faults.places import Place, placed
from tests.guard.faults.rows import found
from tests.guard.faults.run import GOOD, loaded, pass_seconds
from tests.guard.faults.serve import AUTHORITY

pytestmark = pytest.mark.faults
AT_ONCE = 8
SESSIONS, STREAMS, PRINCIPALS = 1_000, 100, 5_000
SESSIONS_EACH, STREAMS_EACH = 256, 32
GROWTH_MIB = 64


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with placed() as place:
        yield place


async def flood(port: int, requests: Iterator[bytes]) -> Counter[int]:
    """Send all of these over a few connections. Answers how often each status came."""
    statuses: Counter[int] = Counter()

    async def send() -> None:
        connection = await Connection.to(port)
        for data in requests:
            answer = await connection.ask(data)
            statuses[answer.status] += 1
        connection.close()

    await asyncio.gather(*[send() for _ in range(AT_ONCE)])
    return statuses


async def open_streams(port: int, seat: Seat) -> Counter[int]:
    """Open more streams than one may have, and leave."""
    opening = request("GET", AUTHORITY, seat.token, mcp_protocol_version=LEGACY)
    opened = []
    statuses: Counter[int] = Counter()
    for _ in range(STREAMS):
        connection = await Connection.to(port)
        connection.writer.write(opening)
        status, _ = await asyncio.wait_for(connection.head(), 20)
        statuses[status] += 1
        opened.append(connection)
    for connection in opened:
        connection.close()
    return statuses


def memory(place: Place) -> float:
    """What the workers and the store have in memory, in MiB."""
    return sum(memory_kib(pid) for pid in [*place.deployment.workers(), place.server.pid]) / 1024


def test_floods_are_refused_and_noticed_by_nobody_else(place: Place) -> None:
    deployment, port = place.deployment, place.deployment.port
    flooder = Seat("flooder", deployment.token("flooder"))
    tokens = [deployment.token(f"one-of-many-{number}") for number in range(PRINCIPALS)]
    with loaded(deployment) as run:
        began = pass_seconds(5.0)
        before = memory(place)
        sessions = asyncio.run(flood(port, (legacy(flooder, AUTHORITY, "initialize", "") for _ in range(SESSIONS))))
        streams = asyncio.run(open_streams(port, Seat("streamer", deployment.token("streamer"))))
        calls = (modern(Seat("", token), AUTHORITY, f"tool-{number}") for number, token in enumerate(tokens))
        keys = asyncio.run(flood(port, calls))
        grown = memory(place) - before
        ended = pass_seconds(1.0)
    safe = run.assert_safe()
    with place.server.client() as client:
        endless = [key for key in client.scan_iter(count=1000) if client.ttl(key) == -1]
    others = run.of(GOOD, began, ended)
    failed = [one for one in others if one.status not in (200, 503)]
    refused = sum(one.status == 503 for one in others)
    assert sessions.keys() <= {200, 429, 503}
    assert 0 < sessions[200] <= SESSIONS_EACH
    assert sessions[429] > 0
    assert 0 < streams[200] <= STREAMS_EACH
    assert streams[429] >= STREAMS - STREAMS_EACH - streams[503]
    assert keys.keys() <= {200, 503}
    assert failed == []
    assert refused <= len(others) / 100, "of others' requests, no more than a busy machine is late for"
    assert all(key.startswith(b"mcp:epoch") or b"epoch" in key for key in endless), endless[:5]
    assert grown < GROWTH_MIB
    found(
        "floods",
        sessions_opened=sessions[200],
        sessions_refused=sessions[429],
        streams_opened=streams[200],
        streams_refused=streams[429],
        keys_of_principals=keys.total(),
        memory_grown_MiB=round(grown, 1),
        errors_of_others=len(failed) + refused,
        of_requests=len(others),
        replays_accepted=safe["replays accepted"],
    )
