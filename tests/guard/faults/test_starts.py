"""A store that is not there, or not fit, when a deployment starts: nothing is served unguarded, or from elsewhere."""

import asyncio
import time

from tests.guard.faults.connection import LOST, Answer, Connection
from tests.guard.faults.deployment import Deployment, launched
from tests.guard.faults.load import Seat, legacy, modern
from tests.guard.faults.places import PATIENT_MS
from tests.guard.faults.rows import found, in_time
from tests.guard.faults.serve import AUTHORITY
from tests.support.valkey_server import ValkeyServer, valkey_server

COULD_NOT_START = 1
WITHIN_SECONDS = 120.0


async def ask(deployment: Deployment, data: bytes) -> Answer:
    """One request on a connection of its own."""
    try:
        async with asyncio.timeout(30):
            connection = await Connection.to(deployment.port)
            try:
                return await connection.ask(data)
            finally:
                connection.close()
    except (OSError, TimeoutError):
        return LOST


def refused_to_start(server: ValkeyServer, said: str) -> int:
    """How many requests were answered by a deployment that does not start."""
    with launched(server.url, workers=1) as deployment:
        call = modern(Seat("alice", deployment.token("alice")), AUTHORITY, "whoami")
        answers = []
        end = time.monotonic() + WITHIN_SECONDS
        while deployment.process.poll() is None and time.monotonic() < end:
            answers.append(asyncio.run(ask(deployment, call)))
        assert deployment.process.wait(1) == COULD_NOT_START
        assert said in deployment.log()
        assert not list(deployment.folder.glob("gauge-*")), "the app never ran"
        return sum(answer.status != 0 for answer in answers)


def test_st_06_a_store_that_evicts_is_not_started_on() -> None:
    with valkey_server(config=["maxmemory-policy allkeys-lru"]) as server:
        served = refused_to_start(server, "maxmemory-policy allkeys-lru")
    assert served == 0
    found("evicting", requests_served=served)


async def test_st_01_without_a_store_nothing_is_served_until_it_is_there() -> None:
    with valkey_server() as server:
        server.kill()
        served = await asyncio.to_thread(refused_to_start, server, "valkey: connection lost")
        assert served == 0
        with launched(server.url, workers=1, lifespan="off", deadline_ms=PATIENT_MS) as deployment:
            seat = Seat("alice", deployment.token("alice"))
            requests = [modern(seat, AUTHORITY, "whoami"), legacy(seat, AUTHORITY, "initialize", "")]
            answers = [await ask(deployment, data) for data in requests]
            began = time.monotonic()
            for _ in range(10):
                answers += [await ask(deployment, data) for data in requests]
            usual = (time.monotonic() - began) / 20
            assert {answer.status for answer in answers} == {503}
            assert all("retry-after" in answer.fields for answer in answers)
            await asyncio.to_thread(server.start)
            back = time.monotonic()
            while (await ask(deployment, requests[1])).status != 200:
                assert time.monotonic() < back + 30
            ready = time.monotonic() - back
    assert in_time(ready, 2, usual)
    found("start", requests_served_unguarded=0, refused_meanwhile=len(answers), ready_after_s=round(ready, 2))
