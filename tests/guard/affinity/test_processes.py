"""Real workers: processes with the real SDK on uvicorn, over one Valkey, ended and frozen by their process ids."""

import asyncio
import json
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import anyio
import httpx
import pytest

from tests.guard.affinity.process import (
    BOTH,
    INITIALIZE,
    INITIALIZED,
    SSE_URL,
    Deployment,
    Process,
    Speaker,
    call,
    deployment,
    result_of,
    speaking,
)
from tests.support.valkey_server import valkey_server

pytestmark = pytest.mark.slow

FORGED = {"x-forwarded-user": "alice", "x-mcp-guard": "alice", "x-principal": "alice"}


@pytest.fixture(scope="module")
def store() -> Iterator[str]:
    with valkey_server() as server:
        yield server.url


@pytest.fixture
def pair(store: str, folder: Path) -> Iterator[Deployment]:
    """Two workers."""
    with deployment(2, store, folder) as running:
        yield running


@pytest.fixture(scope="module")
def four(store: str) -> Iterator[Deployment]:
    """Four workers that live as long as the module."""
    with tempfile.TemporaryDirectory(prefix="mcp-") as folder, deployment(4, store, Path(folder)) as running:
        yield running


async def test_a_session_is_served_at_each_of_four_workers_as_its_owner(four: Deployment) -> None:
    async with speaking(four.token("alice")) as alice, speaking(four.token("bob")) as bob:
        await alice.open(four.processes[0])
        await bob.open(four.processes[1])
        seen = [await alice.call(at, "whoami") for at in four.processes]
        assert {one["subject"] for one in seen} == {"alice"}
        assert {one["pid"] for one in seen} == {four.processes[0].popen.pid}
        assert [one["count"] for one in seen] == [1, 2, 3, 4]
        for at in four.processes:
            forged = await bob.post(at, call("whoami"), **FORGED)
            assert result_of(forged.text)["subject"] == "bob"
            bob.session, kept = alice.session, bob.session
            assert (await bob.post(at, call("whoami"))).status_code == 404
            bob.session = kept
        assert (await alice.call(four.processes[3], "whoami"))["count"] == 5


async def test_a_session_is_served_across_hosts(store: str, folder: Path) -> None:
    with deployment(2, store, folder, "tcp:127.0.0.1:0") as running:
        async with speaking(running.token("alice")) as alice:
            await alice.open(running.processes[0])
            assert (await alice.call(running.processes[1], "whoami"))["pid"] == running.processes[0].popen.pid


async def test_progress_arrives_through_another_worker_as_it_is_made(four: Deployment) -> None:
    holder, other = four.processes[:2]
    async with speaking(four.token("alice")) as alice:
        await alice.open(holder)
        began = time.monotonic()
        asked = call("tick", times=4, seconds=0.3)
        async with alice.http.stream("POST", f"{other.url}/mcp", json=asked, headers=alice.headers) as stream:
            lines = (line async for line in stream.aiter_lines() if line.startswith("data: {"))
            arrived = [(time.monotonic() - began, json.loads(line[6:])) async for line in lines]
    assert [message.get("method", "result") for _, message in arrived] == ["notifications/progress"] * 4 + ["result"]
    assert arrived[0][0] < 0.9
    assert arrived[4][0] - arrived[0][0] > 0.9


async def test_a_session_is_deleted_at_another_worker(four: Deployment) -> None:
    holder, other = four.processes[:2]
    async with speaking(four.token("alice")) as alice:
        await alice.open(holder)
        assert (await alice.http.delete(f"{other.url}/mcp", headers=alice.headers)).status_code == 200
        for at in four.processes:
            assert (await alice.post(at, call("whoami"))).status_code == 404


async def test_messages_of_http_sse_reach_the_stream_at_another_worker(four: Deployment) -> None:
    holder, other = four.processes[:2]
    async with speaking(four.token("alice", SSE_URL)) as alice:
        headers, answers = {**alice.headers, **BOTH}, []
        async with alice.http.stream("GET", f"{holder.url}/sse", headers=headers) as stream:
            lines = stream.aiter_lines()

            async def heard() -> str:
                async for line in lines:
                    if line.startswith("data: "):
                        return line.removeprefix("data: ")
                raise AssertionError("the stream ended")

            with anyio.fail_after(10):
                endpoint = await heard()
                for message in (INITIALIZE, INITIALIZED, call("whoami")):
                    sent = await alice.http.post(f"{other.url}{endpoint}", json=message, headers=headers)
                    assert sent.status_code == 202, sent.text
                    if "id" in message:
                        answers.append(json.loads(await heard()))
    assert answers[1]["result"]["structuredContent"]["pid"] == holder.popen.pid


async def asked_until(alice: Speaker, at: Process, status: int, within_seconds: float) -> float:
    """Ask until the answer has this status; answers how long it took. No other answer but 503 is right before."""
    began = time.monotonic()
    while True:
        answer = await alice.post(at, call("whoami"))
        took = time.monotonic() - began
        if answer.status_code == status:
            return took
        assert answer.status_code == 503
        assert took < within_seconds
        await asyncio.sleep(0.1)


async def test_the_sessions_of_a_killed_worker_are_not_found_and_the_client_begins_anew(pair: Deployment) -> None:
    holder, other = pair.processes
    async with speaking(pair.token("alice")) as alice, speaking(pair.token("bob")) as bob:
        await alice.open(holder)
        await bob.open(other)
        await alice.call(other, "whoami")
        holder.signal(signal.SIGKILL)
        holder.popen.wait(10)
        assert await asked_until(alice, other, 404, 1.0) < 1.0
        assert (await bob.call(other, "whoami"))["count"] == 1
        alice.session = ""
        await alice.open(other)
        assert (await alice.call(other, "whoami"))["subject"] == "alice"


async def all_of(lines: AsyncIterator[str]) -> list[str]:
    return [line async for line in lines]


async def test_a_frozen_worker_is_given_up_in_time_and_its_streams_are_cut(pair: Deployment) -> None:
    holder, other = pair.processes
    async with speaking(pair.token("alice")) as alice:
        await alice.open(holder)
        asked = call("tick", times=600, seconds=0.1)
        async with alice.http.stream("POST", f"{other.url}/mcp", json=asked, headers=alice.headers) as stream:
            lines = stream.aiter_lines()
            await anext(lines)
            holder.signal(signal.SIGSTOP)
            began = time.monotonic()
            with pytest.raises(httpx.RemoteProtocolError):
                await all_of(lines)
        assert time.monotonic() - began < 20
        assert await asked_until(alice, other, 404, 3.0) < 3.0


async def test_the_sessions_of_a_worker_that_was_told_to_stop_are_not_found(pair: Deployment) -> None:
    holder, other = pair.processes
    async with speaking(pair.token("alice")) as alice:
        await alice.open(holder)
        await alice.call(other, "whoami")
        holder.signal(signal.SIGTERM)
        assert holder.popen.wait(10) in (0, -signal.SIGTERM)
        assert (await alice.post(other, call("whoami"))).status_code == 404
