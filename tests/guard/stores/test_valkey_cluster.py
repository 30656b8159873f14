"""The Valkey store on a cluster: waves by hash slot, redirections, and limits over several slots."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta

import anyio
import pytest
from valkey.crc import key_slot

from mcp_guard.failures import StoreUnavailable
from mcp_guard.stores.base import Announce, Bucket, Claim, Get, Level, Operation, Put, Spend, Take, levels_of
from mcp_guard.stores.valkey import ValkeyStore
from tests.guard.stores.valkey_stores import PATIENT, running, until
from tests.support.valkey_server import ValkeyServer, cluster, shared_cluster, valkey_server

TTL = timedelta(seconds=60)


def url_of(nodes: list[ValkeyServer]) -> str:
    return f"cluster://127.0.0.1:{nodes[0].port}"


@pytest.fixture
async def store() -> AsyncIterator[ValkeyStore]:
    """A store on an empty cluster of three."""
    nodes = shared_cluster()
    for node in nodes:
        node.command("FLUSHALL")
    async with running(url_of(nodes)) as store:
        yield store


async def spend(store: ValkeyStore, *buckets: Bucket) -> tuple[Level, ...]:
    (result,) = await store.run([Spend(buckets)])
    return levels_of(result)


async def once_it_answers(store: ValkeyStore, *operations: Operation) -> list[object]:
    """The results as soon as the store answers, within ten seconds."""
    with anyio.fail_after(10):
        while True:
            with contextlib.suppress(StoreUnavailable):
                return list(await store.run(operations))
            await asyncio.sleep(0.01)


async def test_a_batch_over_many_slots_answers_in_its_order_and_crosses_none(store: ValkeyStore) -> None:
    keys = [f"mcp:session:{n}" for n in range(200)]
    assert len({key_slot(key.encode()) for key in keys}) > 150
    assert await store.run([Put(key, key.encode(), TTL) for key in keys]) == [True] * 200
    batch = [one for key in keys for one in (Get(key), Take(key), Get(key))]
    assert await store.run(batch) == [answer for key in keys for answer in (key.encode(), key.encode(), None)]
    assert all(node.command("INFO", "errorstats").get("errorstat_CROSSSLOT") is None for node in shared_cluster())


async def test_a_session_is_the_value_under_its_own_name(store: ValkeyStore) -> None:
    await store.run([Put("mcp:session:abc", b"v", TTL)])
    held = [node.command("KEYS", "mcp:session:*") for node in shared_cluster()]
    assert sorted(held) == [[], [], [b"mcp:session:abc"]]


async def test_a_limit_over_several_slots_takes_from_all_or_from_none(store: ValkeyStore) -> None:
    large = tuple(Bucket(f"large{n}", 10, TTL) for n in range(8))
    small = Bucket("small", 1, TTL)
    assert [level.remaining for level in await spend(store, *large, small)] == [9] * 8 + [0]
    for _ in range(3):
        levels = await spend(store, *large, small)
        assert [level.allowed for level in levels] == [True] * 8 + [False]
    assert [level.remaining for level in await spend(store, *large)] == [8] * 8


async def test_a_limit_over_buckets_of_one_slot_is_one_operation(store: ValkeyStore) -> None:
    pair = (Bucket("{same}a", 2, TTL), Bucket("{same}b", 1, TTL))
    assert [level.allowed for level in await spend(store, *pair)] == [True, True]
    assert [level.allowed for level in await spend(store, *pair)] == [True, False]
    assert [level.remaining for level in await spend(store, pair[0])] == [0]


async def test_what_is_given_back_to_an_untouched_bucket_leaves_nothing_behind(store: ValkeyStore) -> None:
    await spend(store, Bucket("small", 1, TTL))
    await spend(store, Bucket("small", 1, TTL), *[Bucket(f"fresh{n}", 10, TTL) for n in range(8)])
    left = [key for node in shared_cluster() for key in node.command("KEYS", "*fresh*")]
    assert [key for key in left if key_slot(key) != key_slot(b"small\xc2\xb7b")] == []


async def test_of_many_at_once_over_several_slots_never_more_than_the_burst_passes(store: ValkeyStore) -> None:
    shared = Bucket("shared", 20, timedelta(hours=1))
    results = await asyncio.gather(*[spend(store, Bucket(f"own{n}", 5, TTL), shared) for n in range(60)])
    assert sum(all(level.allowed for level in levels) for levels in results) == 20


async def test_announcements_and_limits_without_buckets_go_anywhere(store: ValkeyStore) -> None:
    assert await store.run([Announce("t", b"m"), Spend(()), Get("k"), Announce("t", b"m")]) == [True, (), None, True]


async def test_claims_are_spread_over_nodes_and_used_once(store: ValkeyStore) -> None:
    claims = [Claim(f"c{n}", TTL, 4e9) for n in range(100)]
    assert await store.run(claims) == [True] * 100
    assert await store.run(claims) == [False] * 100
    assert all(node.command("KEYS", b"*\xc2\xb7c") for node in shared_cluster())
    assert await store.run([Claim("old", TTL, 1e9)]) == [False]


async def test_a_map_that_is_wrong_is_followed_and_learned_anew(store: ValkeyStore) -> None:
    assert store._running is not None
    slots = store._running.servers.slots  # type: ignore[union-attr]
    slots.owners = [slots.primaries[0]] * len(slots.owners)
    keys = [f"k{n}" for n in range(50)]
    assert await store.run([Put(key, b"v", TTL) for key in keys]) == [True] * 50
    await until(lambda: len(slots.primaries) == 3)


async def test_a_slot_that_is_moving_is_followed_key_by_key() -> None:
    with cluster(2) as nodes:
        async with running(url_of(nodes)) as store:
            slot = key_slot(b"{t}")
            source, target = nodes if slot < 8192 else nodes[::-1]
            await store.run([Put("{t}there", b"1", TTL), Put("{t}moves", b"2", TTL)])
            ids = [node.command("CLUSTER", "MYID").decode() for node in (source, target)]
            target.command("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[0])
            source.command("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[1])
            source.command("MIGRATE", "127.0.0.1", target.port, "{t}moves", 0, 5000)
            assert await store.run([Get("{t}there")]) == [b"1"]
            assert await store.run([Get("{t}moves")]) == [b"2"]
            assert await store.run([Put("{t}new", b"3", TTL), Get("{t}new")]) == [True, b"3"]
            source.command("MIGRATE", "127.0.0.1", target.port, "{t}there", 0, 5000)
            for node in (target, source):
                node.command("CLUSTER", "SETSLOT", slot, "NODE", ids[1])
            answers = await store.run([Get("{t}there"), Get("{t}moves"), Get("{t}new")])
            assert answers == [b"1", b"2", b"3"]


async def test_a_slot_that_nobody_has_is_unavailable_and_the_others_go_on() -> None:
    with cluster(1) as nodes:
        nodes[0].command("CONFIG", "SET", "cluster-require-full-coverage", "no")
        async with running(url_of(nodes)) as store:
            await store.run([Put("a", b"v", TTL)])
            nodes[0].command("CLUSTER", "DELSLOTS", key_slot(b"b"))
            with pytest.raises(StoreUnavailable, match="CLUSTERDOWN"):
                await store.run([Get("b")])
            assert await once_it_answers(store, Get("a")) == [b"v"]
            await asyncio.sleep(0.2)
            with pytest.raises(StoreUnavailable, match="CLUSTERDOWN"):
                await store.run([Get("b")])
            nodes[0].command("CLUSTER", "ADDSLOTS", key_slot(b"b"))
            assert await once_it_answers(store, Get("b")) == [None]


async def test_what_cannot_be_given_back_is_stricter_and_said(caplog: pytest.LogCaptureFixture) -> None:
    with cluster(2) as nodes:
        async with running(url_of(nodes), timedelta(seconds=1)) as store:
            ones = [f"b{n}" for n in range(40)]
            first = next(name for name in ones if key_slot(name.encode() + b"\xc2\xb7b") < 8192)
            second = next(name for name in ones if key_slot(name.encode() + b"\xc2\xb7b") >= 8192)
            await spend(store, Bucket(second, 1, TTL))
            nodes[0].command("CONFIG", "SET", "maxmemory", "1")
            with pytest.raises(StoreUnavailable, match="OOM"):
                await spend(store, Bucket(first, 5, TTL), Bucket(second, 1, TTL))
            nodes[0].command("CONFIG", "SET", "maxmemory", "0")
            nodes[0].command("ACL", "SETUSER", "default", "-del")
            levels = await spend(store, Bucket(first, 5, TTL), Bucket(second, 1, TTL))
            assert [level.allowed for level in levels] == [True, False]
            assert "emptier than it should: valkey: NOPERM" in caplog.text
            assert [level.remaining for level in await spend(store, Bucket(first, 5, TTL))] == [3]


async def test_a_primary_that_dies_is_replaced_by_its_replica() -> None:
    with cluster(3) as nodes, valkey_server(config=["cluster-enabled yes", "cluster-node-timeout 1000"]) as replica:
        replica.command("CLUSTER", "MEET", "127.0.0.1", nodes[0].port)
        dying = nodes[1].command("CLUSTER", "MYID").decode()
        await until(lambda: dying in replica.command("CLUSTER", "NODES").decode())
        await until(lambda: _replicates(replica, dying))
        await until(lambda: replica.command("INFO", "replication").get("master_link_status") == "up")
        async with running(url_of(nodes)) as store:
            keys = [f"k{n}" for n in range(30)]
            await store.run([Put(key, b"v", TTL) for key in keys])
            claim = Claim("c", TTL, 4e9)
            await store.run([claim])
            nodes[1].kill()
            assert await once_it_answers(store, *[Get(key) for key in keys]) == [b"v"] * 30
            assert await once_it_answers(store, claim) == [False]


def _replicates(replica: ValkeyServer, primary: str) -> bool:
    with contextlib.suppress(Exception):
        replica.command("CLUSTER", "REPLICATE", primary)
        return True
    return False


async def test_a_cluster_that_is_down_is_unavailable_and_one_that_is_none_too() -> None:
    with pytest.raises(StoreUnavailable, match="no node of the cluster tells its slots"):
        await ValkeyStore("cluster://127.0.0.1:1,127.0.0.1:2", PATIENT).start()
    with valkey_server() as single, pytest.raises(StoreUnavailable, match="no node of the cluster"):
        await ValkeyStore(f"cluster://127.0.0.1:{single.port}", PATIENT).start()
    empty = valkey_server(config=["cluster-enabled yes"])
    with empty as node, pytest.raises(StoreUnavailable, match="no node of the cluster"):
        await ValkeyStore(f"cluster://127.0.0.1:{node.port}", PATIENT).start()


async def test_a_primary_that_cannot_be_reached_makes_the_start_unavailable() -> None:
    with cluster(2) as nodes:
        nodes[1].kill()
        store = ValkeyStore(url_of(nodes), PATIENT)
        with pytest.raises(StoreUnavailable, match=r"^valkey: "):
            await store.start()
        await store.close()


async def test_a_cluster_that_says_nothing_is_given_up_after_the_deadline() -> None:
    with cluster(1) as nodes:
        async with running(url_of(nodes), timedelta(milliseconds=200)) as store:
            await once_it_answers(store, Get("k"))
            nodes[0].freeze()
            begin = asyncio.get_running_loop().time()
            with pytest.raises(StoreUnavailable, match="no answer within the deadline"):
                await store.run([Get("k"), Get("l")])
            assert 0.19 < asyncio.get_running_loop().time() - begin < 0.6
            nodes[0].thaw()
            assert await once_it_answers(store, Get("k")) == [None]
