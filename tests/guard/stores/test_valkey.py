"""The Valkey store: its settings, its self-check, what it writes under which name, and records that are not its own."""

import re
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest

from mcp_guard.failures import ConfigurationError, StoreUnavailable
from mcp_guard.secret import Secret
from mcp_guard.stores.base import (
    Announce,
    Bucket,
    Claim,
    Delete,
    Enter,
    Get,
    Leave,
    Members,
    Operation,
    Put,
    Renew,
    Result,
    Spend,
    Stay,
    Take,
    levels_of,
    members_of,
)
from mcp_guard.stores.valkey import ValkeyStore
from mcp_guard.stores.valkey.address import Credentials, Node, parse
from mcp_guard.stores.valkey.answers import read
from mcp_guard.stores.valkey.selfcheck import check
from tests.guard.stores.valkey_stores import PATIENT, running
from tests.support.tls_front import tls_front
from tests.support.valkey_server import shared_server, valkey_server

TTL = timedelta(seconds=10)
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
async def store() -> AsyncIterator[ValkeyStore]:
    """A store on an empty server."""
    shared_server().command("FLUSHALL")
    async with running(shared_server().url) as store:
        yield store


async def one(store: ValkeyStore, operation: Operation) -> Result:
    (result,) = await store.run([operation])
    return result


# URLs


def test_a_url_names_one_server() -> None:
    address = parse("valkey://me:p%40ss%23@store.example:7000/3")
    assert (address.kind, address.nodes, address.db) == ("single", (Node("store.example", 7000),), 3)
    assert address.credentials == Credentials("me", Secret("p@ss#"))
    assert address.tls is None


def test_a_url_without_port_login_or_database_has_the_usual_ones() -> None:
    address = parse("valkey://[::1]")
    assert (address.nodes, address.db, address.credentials) == ((Node("::1", 6379),), 0, Credentials())


def test_a_password_alone_is_that_of_the_default_user() -> None:
    assert parse("valkey://:word@h").credentials == Credentials(None, Secret("word"))


def test_a_url_names_a_unix_socket() -> None:
    address = parse("unix://me:word@/run/valkey%20server.sock?db=2")
    assert (address.nodes, address.db) == ((Node("/run/valkey server.sock", 0),), 2)
    assert str(address.nodes[0]) == "/run/valkey server.sock"
    assert address.credentials.username == "me"


def test_a_url_names_sentinels_and_their_primary() -> None:
    url = "sentinel://me:word@one,two:27000/my%20primary?db=1&sentinel_username=s&sentinel_password=t"
    address = parse(url)
    assert address.kind == "sentinel"
    assert [str(node) for node in address.nodes] == ["one:26379", "two:27000"]
    assert (address.primary, address.db) == ("my primary", 1)
    assert address.sentinel_credentials == Credentials("s", Secret("t"))


def test_a_url_names_nodes_of_a_cluster() -> None:
    address = parse("clusters://one,two:7000")
    assert (address.kind, address.nodes) == ("cluster", (Node("one", 6379), Node("two", 7000)))
    assert address.tls is not None


@pytest.mark.parametrize(
    ("url", "wrong"),
    [
        ("", "begin with one of valkey://"),
        ("http://h", "begin with one of"),
        ("valkey://[::1", "is not a URL"),
        ("valkey://", "form name:port"),
        ("valkey://h:0", "1 to 65535, not 0"),
        ("valkey://h:65536", "1 to 65535"),
        ("valkey://h:port", "form name:port"),
        ("valkey://a,b", "names several hosts"),
        ("valkey://h/x", "must be a number"),
        ("valkey://h?timeout=1", "takes ca, cert, db"),
        ("valkey://h#x", "fragment"),
        ("valkey://hunter2@h", "a user without a password"),
        ("valkey://h?ca=/x", "without TLS"),
        ("valkeys://h?cert=/x", "both cert and key"),
        ("valkeys://h?ca=/nowhere", "file that ca of the Valkey URL names"),
        ("valkeys://h?cert=/nowhere&key=/nowhere", "file that cert of"),
        ("unix://h/path", "three slashes"),
        ("unix:///", "three slashes"),
        ("sentinel://h", "name that the sentinels have"),
        ("cluster://h/1", "cannot choose a database"),
        ("cluster://h?db=1", "cannot choose a database"),
    ],
)
def test_a_url_that_names_nothing_is_refused(url: str, wrong: str) -> None:
    with pytest.raises(ConfigurationError, match=wrong):
        ValkeyStore(url)


@pytest.mark.parametrize("url", ["valkey://me:hunter2@h:x", "valkey://me:hunter2@a,b", "x://me:hunter2@h", "//hunter2"])
def test_a_password_is_in_no_error_and_no_repr(url: str) -> None:
    with pytest.raises(ConfigurationError, match="Valkey URL") as refused:
        ValkeyStore(Secret(url))
    assert "hunter2" not in str(refused.value)
    assert "hunter2" not in repr(ValkeyStore("valkey://me:hunter2@h"))
    assert "hunter2" not in repr(parse("valkey://me:hunter2@h"))


@pytest.mark.parametrize(
    ("setting", "wrong"),
    [
        ({"deadline": timedelta(0)}, "deadline must be 1 ms to 60 s"),
        ({"deadline": timedelta(seconds=61)}, "deadline must be 1 ms to 60 s"),
        ({"replicas": -1}, "replicas must be at least 0"),
        ({"prefix": "{x}"}, "prefix must be at most 64"),
        ({"prefix": "x" * 65}, "prefix must be at most 64"),
    ],
)
def test_a_setting_that_cannot_work_is_refused(setting: dict[str, Any], wrong: str) -> None:
    with pytest.raises(ConfigurationError, match=wrong):
        ValkeyStore("valkey://h", **setting)


# Ways in


async def test_a_unix_socket_an_acl_user_and_a_database_are_used() -> None:
    acl = "user guard on >word ~mcp:* &mcp:* +@all"
    with valkey_server(unix=True, config=[acl], login="guard:word") as server:
        async with running(f"{server.url}?db=3") as store:
            assert await store.run([Put("mcp:k", b"v", TTL)]) == [True]
        assert server.command("INFO", "keyspace")["db3"]["keys"] == 2, "the value and the epoch"


async def test_tls_is_checked(tmp_path: Path) -> None:
    async with tls_front(shared_server().port, tmp_path) as front:
        good = f"valkeys://127.0.0.1:{front.port}?ca={front.ca}"
        async with running(good) as store:
            assert await store.run([Put("k", b"v", TTL)]) == [True]
        for bad in (f"valkeys://127.0.0.1:{front.port}", good.replace("127.0.0.1", "localhost")):
            with pytest.raises(StoreUnavailable, match="connection lost"):
                await ValkeyStore(bad, PATIENT).start()


async def test_a_client_certificate_is_presented(tmp_path: Path) -> None:
    async with tls_front(shared_server().port, tmp_path, client_certificates=True) as front:
        certificate = front.authority.issue_cert("client.example")
        certificate.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
        certificate.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
        url = f"valkeys://127.0.0.1:{front.port}?ca={front.ca}"
        with pytest.raises(StoreUnavailable, match="connection lost"):
            await ValkeyStore(url, PATIENT).start()
        async with running(f"{url}&cert={tmp_path}/cert.pem&key={tmp_path}/key.pem") as store:
            assert await store.run([Get("absent")]) == [None]


async def test_a_wrong_password_is_unavailable_and_never_shown() -> None:
    with valkey_server(config=["requirepass right"]) as server:
        for url in (server.url, f"valkey://:hunter2@127.0.0.1:{server.port}"):
            with pytest.raises(StoreUnavailable, match="NOAUTH or WRONGPASS") as refused:
                await ValkeyStore(url, PATIENT).start()
            assert "hunter2" not in str(refused.value)


# The self-check


async def test_a_server_that_evicts_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    with valkey_server(config=["maxmemory-policy allkeys-lru"]) as server:
        with pytest.raises(ConfigurationError, match="maxmemory-policy allkeys-lru"):
            await ValkeyStore(server.url, PATIENT).start()
        store = ValkeyStore(server.url, PATIENT, insecure_allow_eviction=True)
        await store.start()
        await store.close()
    assert "security state may be evicted" in caplog.text


async def test_a_server_that_persists_nothing_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    store = ValkeyStore(shared_server().url, PATIENT)
    await store.start()
    assert "persists nothing" in caplog.text
    await store.close()


async def test_a_server_that_persists_is_not_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    with valkey_server(persistent=True) as server:
        await ValkeyStore(server.url, PATIENT).start()
    assert "persists" not in caplog.text


@pytest.mark.parametrize("writable", [False, True])
async def test_a_replica_is_no_store_even_when_it_can_be_written_to(writable: bool) -> None:
    config = ["replicaof 127.0.0.1 1", f"replica-read-only {'no' if writable else 'yes'}"]
    with valkey_server(config=config) as server, pytest.raises(StoreUnavailable, match="READONLY"):
        await ValkeyStore(server.url, PATIENT).start()


async def test_what_an_acl_keeps_from_being_checked_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    acl = "user guard on >word ~* &* +@all -info -config"
    with valkey_server(config=[acl], login="guard:word") as server:
        async with running(server.url) as store:
            await store.start()
            assert await store.run([Put("k", b"v", TTL)]) == [True]
    for command in ("INFO", "CONFIG GET"):
        assert f"{command} is not permitted" in caplog.text


@pytest.mark.parametrize("forbidden", ["eval", "time"])
async def test_a_user_who_may_not_run_the_scripts_is_unavailable(forbidden: str) -> None:
    acl = f"user guard on >word ~* &* +@all -{forbidden}"
    with valkey_server(config=[acl], login="guard:word") as server, pytest.raises(StoreUnavailable, match="NOPERM"):
        await ValkeyStore(server.url, PATIENT).start()


async def test_the_user_that_the_guide_makes_may_do_everything(caplog: pytest.LogCaptureFixture) -> None:
    guide = (ROOT / "docs" / "how-to" / "valkey.md").read_text("utf-8")
    (acl,) = re.findall(r"^user guard on >… (.*)$", guide, re.MULTILINE)
    everything: list[Operation] = [
        Put("mcp:k", b"1", TTL),
        Put("mcp:k", b"1", TTL, only_if_absent=True),
        Get("mcp:k"),
        Renew("mcp:k", b"1", TTL),
        Take("mcp:k"),
        Delete("mcp:k"),
        Spend((Bucket("mcp:b", 2, TTL),)),
        Enter("mcp:s", "m", TTL, 2),
        Stay("mcp:s", "m", TTL),
        Members("mcp:s"),
        Leave("mcp:s", "m"),
        Claim("mcp:c", TTL, 4e9),
    ]
    with valkey_server(config=[f"user guard on >word {acl}"], login="guard:word") as server:
        async with running(server.url) as store:
            heard: list[bytes] = []
            store.listen("mcp:t", heard.append)
            assert len(await store.run(everything)) == len(everything)
            with anyio.fail_after(5):
                while not heard:
                    await store.run([Announce("mcp:t", b"m")])
                    await anyio.sleep(0.01)
    assert "not permitted" not in caplog.text


async def test_a_server_that_is_down_can_be_started_on_later() -> None:
    with valkey_server() as server:
        server.kill()
        store = ValkeyStore(server.url, PATIENT)
        with pytest.raises(StoreUnavailable):
            await store.start()
        with pytest.raises(StoreUnavailable):
            await store.run([Get("k")])
        server.start()
        await store.start()
        assert await store.run([Get("k")]) == [None]
        await store.close()


class Answering:
    """A connection whose replies are given: what a server of another version would say."""

    lost = False

    def __init__(self, *replies: object) -> None:
        self.replies = list(replies)

    async def connect(self) -> None: ...
    async def disconnect(self, nowait: bool = False) -> None: ...
    async def send_packed_command(self, command: object, check_health: bool = True) -> None: ...
    async def read_response(self, disable_decoding: bool = False, timeout: float | None = None) -> Any:  # noqa: ASYNC109
        return self.replies.pop(0)


async def test_a_server_that_is_too_old_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"compatible with Redis 6\.2\.14; 7\.0 or newer"):
        await check(Answering(b"# Server\r\nredis_version:6.2.14\r\n", []), allow_eviction=False)
    await check(Answering(b"redis_version:7.0.0\r\n", []), allow_eviction=False)
    await check(Answering(b"redis_version:?\r\n", []), allow_eviction=False)


# Names


async def test_a_session_is_the_value_under_its_own_name_with_its_time(store: ValkeyStore) -> None:
    await one(store, Put("mcp:session:abc", b'{"a":1}', TTL))
    assert shared_server().command("GET", "mcp:session:abc") == b'{"a":1}'
    assert 9_000 < shared_server().command("PTTL", "mcp:session:abc") <= 10_000


async def test_every_key_expires(store: ValkeyStore) -> None:
    await store.run(
        [
            Put("v", b"1", TTL),
            Put("w", b"1", TTL, only_if_absent=True),
            Put("v", b"2", TTL, only_if_equal=b"1"),
            Spend((Bucket("b", 5, TTL), Bucket("c", 5, TTL))),
            Enter("s", "m", TTL, 1),
            Stay("s", "m", TTL),
            Claim("c", TTL, 4e9),
            Claim("d", TTL, 4e9),
        ]
    )
    keys = shared_server().command("KEYS", "*")
    assert len(keys) == 8, keys
    assert all(shared_server().command("PTTL", key) > 0 for key in keys)


async def test_a_prefix_stands_before_every_key_and_topic(store: ValkeyStore) -> None:
    shared_server().command("FLUSHALL")
    mine = ValkeyStore(shared_server().url, PATIENT, prefix="mine:")
    await mine.run([Put("v", b"1", TTL), Spend((Bucket("b", 5, TTL),)), Enter("s", "m", TTL, 1), Claim("c", TTL, 4e9)])
    assert all(key.startswith(b"mine:") for key in shared_server().command("KEYS", "*"))
    assert await store.run([Get("v"), Get("mine:v")]) == [None, b"1"]
    await mine.close()


async def test_a_key_that_is_not_ascii_is_a_defect_and_reaches_no_server(store: ValkeyStore) -> None:
    with pytest.raises(UnicodeEncodeError):
        await one(store, Get("k·b"))


async def test_what_is_no_operation_is_an_error_and_never_an_answer(store: ValkeyStore) -> None:
    with pytest.raises(TypeError, match="'k' is no operation"):
        await store.run(["k"])  # type: ignore[list-item]


@pytest.mark.parametrize("answer", [b"q\n", b"?1\n"])
def test_what_is_no_answer_of_the_script_is_an_error_and_never_a_result(answer: bytes) -> None:
    with pytest.raises(ValueError, match="no result"):
        read(answer)


# Records that are not ours


@pytest.mark.parametrize("foreign", ["list", "too long"])
async def test_a_foreign_record_counts_as_absent(
    store: ValkeyStore, foreign: str, caplog: pytest.LogCaptureFixture
) -> None:
    def place() -> None:
        shared_server().command("DEL", "k")
        if foreign == "list":
            shared_server().command("RPUSH", "k", "x")
        else:
            shared_server().command("SET", "k", b"x" * 10_000_000)

    expected: list[tuple[Operation, Result, Result]] = [
        (Get("k"), None, None),
        (Renew("k", b"x", TTL), None, None),
        (Take("k"), None, None),
        (Put("k", b"v", TTL), True, b"v"),
        (Put("k", b"v", TTL, only_if_absent=True), True, b"v"),
        (Put("k", b"v", TTL, only_if_equal=b"x"), False, None),
    ]
    for operation, result, afterwards in expected:
        place()
        assert await store.run([operation, Get("other"), Get("k")]) == [result, None, afterwards]
    assert "none of ours" in caplog.text
    place()
    await one(store, Take("k"))
    assert shared_server().command("EXISTS", "k") == 0
    place()
    assert await one(store, Delete("k")) is True


async def test_a_foreign_set_makes_room(store: ValkeyStore) -> None:
    name = b"s\xc2\xb7s"
    shared_server().command("SET", name, "x")
    assert await one(store, Members("s")) == ()
    assert await one(store, Enter("s", "m", TTL, 1)) is True
    assert await one(store, Members("s")) == ("m",)


async def test_a_foreign_member_takes_a_place_and_disturbs_nobody_who_shares_the_round_trip(store: ValkeyStore) -> None:
    shared_server().command("ZADD", b"s\xc2\xb7s", "9e15", b"\xff\xfe")
    results: dict[str, list[Result]] = {}

    async def run(name: str, operation: Operation) -> None:
        results[name] = await store.run([operation])

    async with anyio.create_task_group() as group:
        group.start_soon(run, "members", Members("s"))
        for number in range(5):
            group.start_soon(run, f"k{number}", Put(f"k{number}", b"v", TTL))
    assert len(members_of(results.pop("members")[0])) == 1
    assert list(results.values()) == [[True]] * 5


@pytest.mark.parametrize("command", [("SET", b"x"), ("RPUSH", b"x")])
async def test_a_foreign_bucket_is_a_full_one(store: ValkeyStore, command: tuple[str, bytes]) -> None:
    shared_server().command(command[0], b"b\xc2\xb7b", command[1])
    (level,) = levels_of(await one(store, Spend((Bucket("b", 2, TTL),))))
    assert (level.allowed, level.remaining) == (True, 1)


async def test_a_foreign_claim_is_a_used_one(store: ValkeyStore) -> None:
    shared_server().command("RPUSH", b"c\xc2\xb7c", "x")
    assert await one(store, Claim("c", TTL, 4e9)) is False


@pytest.mark.parametrize("command", [("SET", b"x"), ("RPUSH", b"x")])
async def test_a_foreign_epoch_begins_the_memory_of_claims_anew(store: ValkeyStore, command: tuple[str, bytes]) -> None:
    shared_server().command("DEL", b"mcp:epoch:{0}\xc2\xb7e")
    shared_server().command(command[0], b"mcp:epoch:{0}\xc2\xb7e", command[1])
    assert await store.run([Claim("c", TTL, 1e9), Claim("d", TTL, 4e9)]) == [False, True]


# The server's clock


async def test_a_bucket_written_before_the_clock_was_set_back_is_empty_and_refills(store: ValkeyStore) -> None:
    """What is left of an hour that the clock lost: no more than one period, and not the hour."""
    bucket = Bucket("b", 2, timedelta(seconds=1))
    await one(store, Spend((bucket,)))
    name = b"b\xc2\xb7b"
    ahead = "struct.pack('<dd', redis.call('TIME')[1] * 1000000 + 3600000000, 0)"
    shared_server().command("EVAL", f"return redis.call('SET', KEYS[1], {ahead}, 'PX', 9000)", 1, name)
    (level,) = levels_of(await one(store, Spend((bucket,))))
    assert not level.allowed
    assert level.retry_after_seconds <= 0.5


# Listeners


async def test_an_announcement_is_heard_by_another_store_and_not_under_another_prefix(store: ValkeyStore) -> None:
    other = ValkeyStore(shared_server().url, PATIENT)
    apart = ValkeyStore(shared_server().url, PATIENT, prefix="apart:")
    heard: list[bytes] = []
    other.listen("t", heard.append)
    apart.listen("t", lambda _: heard.append(b"wrong"))
    await other.start()
    await apart.start()
    for _ in range(200):
        await one(store, Announce("t", b"\x00\xff"))
        if heard:
            break
    assert set(heard) == {b"\x00\xff"}
    await other.close()
    await apart.close()
