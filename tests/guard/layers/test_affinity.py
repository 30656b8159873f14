"""Affinity stands where a session is known, and nothing of what it is told by others goes past it."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from mcp_guard.affinity import Worker
from mcp_guard.failures import ConfigurationError
from mcp_guard.keyring import KeyRing
from mcp_guard.layers.affinity import Affinity
from mcp_guard.layers.session import Session
from mcp_guard.stack import guard
from tests.guard.asgi import CountingApp, drive, http_scope
from tests.guard.stubs import CountingStore, Facts, rpc

RING = KeyRing.generate()


def worker(listen: Path | str, store: CountingStore) -> Worker:
    return Worker(listen=str(listen), ring=RING, store=store)


def test_a_stack_in_which_nobody_is_known_is_not_built(store: CountingStore) -> None:
    with pytest.raises(ConfigurationError, match="Affinity needs Principal"):
        guard(CountingApp(), Affinity(worker("unix:/tmp", store)))


@pytest.mark.parametrize("number", [0, -1])
def test_at_least_one_request_may_be_carried(store: CountingStore, number: int) -> None:
    with pytest.raises(ConfigurationError, match=r"^max_forwards"):
        Affinity(worker("unix:/tmp", store), max_forwards=number)


@pytest.mark.parametrize("at", [0, 1])
async def test_a_session_is_found_at_every_worker_and_only_by_its_owner(store: CountingStore, at: int) -> None:
    """The session layer writes where the session is held, and affinity carries there."""
    apps = [CountingApp(headers=[(b"mcp-session-id", f"id-{number}".encode())]) for number in range(2)]
    workers = [worker("tcp:127.0.0.1:0", store) for _ in apps]
    stacks = [
        guard(app, Facts(), Session(store=store, ring=RING, home=one.home), Affinity(one))
        for app, one in zip(apps, workers, strict=True)
    ]
    for stack in stacks:
        await stack.start()

    async def ask(stack: int, who: bytes, fields: Sequence[tuple[bytes, bytes]] = ()) -> int | None:
        scope = http_scope(headers=[(b"x-as", who), *fields])
        return (await drive(stacks[stack], scope, rpc("initialize" if not fields else "tools/list"))).status

    held = [(b"mcp-session-id", b"id-0")]
    assert await ask(0, b"alice") == 200
    assert await ask(at, b"alice", held) == 200
    assert (apps[0].calls, apps[1].calls) == (2, 0)
    assert await ask(at, b"bob", held) == 404
    assert (apps[0].calls, apps[1].calls) == (2, 0)
    await stacks[0].close()
    assert await ask(1, b"alice", held) == 404
    assert store.held == 1, "the heartbeat of the worker that lives"
    await stacks[1].close()
