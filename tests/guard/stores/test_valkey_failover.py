"""The Valkey store when servers change their roles, forget, or have replicas that must have a write."""

import asyncio
import contextlib
import time
from datetime import timedelta

import anyio
import pytest

from mcp_guard.failures import StoreUnavailable
from mcp_guard.stores.base import Announce, Claim, Get, Operation, Put, Take
from mcp_guard.stores.valkey import ValkeyStore
from tests.guard.stores.valkey_stores import PATIENT, running, until
from tests.support.tcp_proxy import TcpProxy
from tests.support.valkey_server import ValkeyServer, replica_of, sentinel_of, valkey_server

TTL = timedelta(seconds=60)


async def once_it_answers(store: ValkeyStore, *operations: Operation) -> list[object]:
    """The results as soon as the store answers, within ten seconds."""
    with anyio.fail_after(10):
        while True:
            with contextlib.suppress(StoreUnavailable):
                return list(await store.run(operations))
            await asyncio.sleep(0.01)


def move(proxy: TcpProxy, server: ValkeyServer) -> None:
    """Let the proxy lead to another server, as a name or a virtual address would."""
    proxy.target = server.port


async def test_after_a_failover_a_write_is_made_on_the_new_primary_and_not_counted_before() -> None:
    with valkey_server() as old, replica_of(old) as new, TcpProxy(old.port) as proxy:
        async with running(f"valkey://127.0.0.1:{proxy.port}") as store:
            assert await store.run([Put("k", b"1", TTL)]) == [True]
            await until(lambda: new.command("GET", "k") == b"1")
            new.command("REPLICAOF", "NO", "ONE")
            old.command("REPLICAOF", "127.0.0.1", new.port)
            move(proxy, new)
            assert await store.run([Put("k", b"2", TTL), Get("k")]) == [True, b"2"], "READONLY leads to the new one"
            assert new.command("GET", "k") == b"2"


async def test_nothing_is_written_to_or_read_from_a_replica() -> None:
    with valkey_server() as old, replica_of(old) as new:
        async with running(old.url) as store:
            await store.run([Put("k", b"1", TTL)])
            new.command("REPLICAOF", "NO", "ONE")
            old.command("REPLICAOF", "127.0.0.1", new.port)
            for operation in (Get("k"), Take("k"), Put("k", b"2", TTL)):
                with pytest.raises(StoreUnavailable, match="READONLY"):
                    await store.run([operation])


async def test_a_failover_begins_the_memory_of_claims_anew() -> None:
    with valkey_server() as old, replica_of(old) as new, TcpProxy(old.port) as proxy:
        async with running(f"valkey://127.0.0.1:{proxy.port}") as store:
            issued = time.time() + 0.001
            assert await store.run([Claim("seen", TTL, issued)]) == [True]
            new.command("REPLICAOF", "NO", "ONE")
            new.command("DEL", b"seen\xc2\xb7c")
            move(proxy, new)
            old.kill()
            answers = await once_it_answers(store, Claim("seen", TTL, issued), Claim("new", TTL, time.time() + 5))
            assert answers == [False, True], "a write that was lost cannot be used again"


async def test_a_reconnection_to_the_same_server_keeps_the_memory_of_claims() -> None:
    with valkey_server() as server:
        issued = time.time() + 0.5
        async with running(server.url) as store:
            assert await store.run([Claim("one", TTL, issued)]) == [True]
            server.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            await asyncio.sleep(0.6)
            assert await store.run([Claim("two", TTL, issued), Claim("one", TTL, issued)]) == [True, False]


@pytest.mark.parametrize("how", ["flushed", "restarted"])
async def test_a_store_that_forgot_refuses_claims_of_before(how: str) -> None:
    with valkey_server() as server:
        async with running(server.url) as store:
            issued = time.time() + 0.001
            assert await store.run([Claim("c", TTL, issued)]) == [True]
            await asyncio.sleep(0.01)
            if how == "flushed":
                server.command("FLUSHALL")
            else:
                server.kill()
                server.start()
            answers = await once_it_answers(store, Claim("c", TTL, issued), Claim("d", TTL, time.time() + 5))
            assert answers == [False, True]


# Replicas that must have a write


async def test_what_is_of_single_use_waits_for_a_replica() -> None:
    with valkey_server() as primary, replica_of(primary) as replica:
        async with running(primary.url, replicas=1) as store:
            single_use: list[Operation] = [
                Put("k", b"1", TTL, only_if_absent=True),
                Put("k", b"2", TTL, only_if_equal=b"1"),
                Claim("k", TTL, 4e9),
                Take("k"),
            ]
            assert await store.run(single_use) == [True, True, True, b"2"]
            assert replica.command("EXISTS", b"k\xc2\xb7c") == 1


async def test_without_replicas_what_is_of_single_use_is_unavailable_and_the_rest_goes_on() -> None:
    with valkey_server() as server:
        async with running(server.url, timedelta(seconds=1), replicas=1) as store:
            await store.run([Put("k", b"v", TTL)])
            outcomes = await asyncio.gather(
                store.run([Get("k")]),
                store.run([Take("k")]),
                store.run([Claim("c", TTL, 4e9)]),
                store.run([Put("k3", b"v", TTL, only_if_absent=True)]),
                store.run([Put("k", b"v", TTL, only_if_equal=b"v")]),
                store.run([Put("k2", b"v", TTL), Get("k2")]),
                return_exceptions=True,
            )
        assert outcomes[0] == [b"v"]
        assert outcomes[5] == [True, b"v"]
        for outcome in outcomes[1:5]:
            assert isinstance(outcome, StoreUnavailable)
            assert "fewer replicas" in outcome.reason


async def test_a_primary_that_its_replicas_have_left_is_looked_for_anew() -> None:
    """A failover leaves the old primary a primary for a while, alone."""
    with valkey_server() as old, replica_of(old) as new, TcpProxy(old.port) as proxy:
        async with running(f"valkey://127.0.0.1:{proxy.port}", timedelta(seconds=1), replicas=1) as store:
            assert await store.run([Claim("c", TTL, 4e9)]) == [True]
            new.command("REPLICAOF", "NO", "ONE")
            with replica_of(new):
                move(proxy, new)
                with pytest.raises(StoreUnavailable, match="fewer replicas"):
                    await store.run([Claim("d", TTL, 4e9)])
                assert await store.run([Claim("d", TTL, 4e9)]) == [True], "the new one has never heard of it"


async def test_waiting_for_replicas_is_part_of_the_round_trip() -> None:
    with valkey_server() as primary, replica_of(primary), TcpProxy(primary.port) as proxy:
        async with running(f"valkey://127.0.0.1:{proxy.port}", replicas=1) as store:
            await store.run([Get("k")])
            proxy.forget()
            await store.run([Claim("c", TTL, 4e9)])
            assert (len(proxy.sent), proxy.commands) == (1, 2)


# Sentinels


async def test_sentinels_lead_to_the_primary_and_after_a_failover_to_the_new_one() -> None:
    with valkey_server() as old, replica_of(old) as new, sentinel_of(old) as sentinel:
        await until(lambda: sentinel.command("SENTINEL", "REPLICAS", "main"))
        url = f"sentinel://127.0.0.1:1,127.0.0.1:{sentinel.port}/main"
        heard: list[bytes] = []
        async with running(url) as store:
            store.listen("t", heard.append)
            assert await store.run([Put("k", b"v", TTL)]) == [True]
            await until(lambda: new.command("GET", "k") == b"v")
            old.kill()
            assert await once_it_answers(store, Put("k", b"w", TTL), Get("k")) == [True, b"w"]
            assert new.command("GET", "k") == b"w"
            with anyio.fail_after(5):
                while not heard:
                    await store.run([Announce("t", b"m")])
                    await asyncio.sleep(0.01)


async def test_sentinels_that_know_no_such_primary_are_unavailable() -> None:
    with valkey_server() as server, sentinel_of(server) as sentinel:
        with pytest.raises(StoreUnavailable, match="name no primary: unknown primary"):
            await ValkeyStore(f"sentinel://127.0.0.1:{sentinel.port}/other", PATIENT).start()
        with pytest.raises(StoreUnavailable, match="name no primary: ERR"):
            await ValkeyStore(f"sentinel://127.0.0.1:{server.port}/other", PATIENT).start()
        with pytest.raises(StoreUnavailable, match="name no primary: connection lost"):
            await ValkeyStore("sentinel://127.0.0.1:1/main", PATIENT).start()


# Hearing


async def test_a_topic_that_is_new_is_heard_beside_the_others() -> None:
    with valkey_server() as server:
        heard: list[bytes] = []
        async with running(server.url) as store:
            for topic in ("one", "two"):
                store.listen(topic, heard.append)
                with anyio.fail_after(5):
                    while topic.encode() not in heard:
                        await store.run([Announce(topic, topic.encode())])
                        await asyncio.sleep(0.01)
            await store.run([Announce("one", b"last")])
            await until(lambda: b"last" in heard)


async def test_hearing_goes_on_after_the_connection_was_lost() -> None:
    with valkey_server() as server:
        heard: list[bytes] = []
        async with running(server.url) as store:
            store.listen("t", heard.append)
            for message in (b"1", b"2"):
                with anyio.fail_after(5):
                    while message not in heard:
                        await store.run([Announce("t", message)])
                        await asyncio.sleep(0.01)
                server.command("CLIENT", "KILL", "TYPE", "pubsub")


async def test_a_silent_connection_is_pinged_and_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mcp_guard.stores.valkey.announcements.PING_SECONDS", 0.1)
    with valkey_server() as server, TcpProxy(server.port) as proxy:
        heard: list[bytes] = []
        async with running(f"valkey://127.0.0.1:{proxy.port}") as store:
            store.listen("t", heard.append)
            await until(lambda: any(b"PING" in data for data in proxy.sent))
            await until(lambda: server.command("PUBSUB", "NUMSUB", "t")[1] == 1)
            proxy.hole = True
            await asyncio.sleep(0.4)
            proxy.hole = False
            with anyio.fail_after(5):
                while not heard:
                    with contextlib.suppress(StoreUnavailable):
                        await store.run([Announce("t", b"m")])
                    await asyncio.sleep(0.01)
            assert proxy.connections > 3
