"""The Valkey store on the wire: round trips, deadlines, the breaker, and replies that are late, lost or another's."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta

import anyio
import pytest

from mcp_guard.failures import StoreUnavailable
from mcp_guard.stores.base import Bucket, Claim, Enter, Get, Operation, Put, Renew, Spend, Take
from mcp_guard.stores.valkey import ValkeyStore
from mcp_guard.stores.valkey.breaker import FAILURES_TO_OPEN, Breaker
from tests.guard.stores.valkey_stores import PATIENT, running, until
from tests.support.tcp_proxy import COMMAND, TcpProxy
from tests.support.valkey_server import shared_server, valkey_server

TTL = timedelta(seconds=60)
SHORT = timedelta(milliseconds=100)
REQUEST: list[Operation] = [
    Get("mcp:revoked"),
    Spend((Bucket("mcp:limit:principal", 1_000_000, TTL), Bucket("mcp:limit:tool", 1_000_000, TTL))),
    Claim("mcp:proof", TTL, 4e9),
    Enter("mcp:streams", "one", TTL, 10),
    Renew("mcp:session:abc", b"owner", TTL),
]
"""What an authorized request asks."""


@pytest.fixture
def proxy() -> Iterator[TcpProxy]:
    """A proxy in front of the shared server, which is empty."""
    shared_server().command("FLUSHALL")
    with TcpProxy(shared_server().port) as proxy:
        yield proxy


@contextlib.asynccontextmanager
async def connected(proxy: TcpProxy, deadline: timedelta = PATIENT) -> AsyncIterator[ValkeyStore]:
    """A store behind the proxy that has made its connection and has the script loaded."""
    async with running(f"valkey://127.0.0.1:{proxy.port}", deadline) as store:
        with anyio.fail_after(10):
            while True:
                with contextlib.suppress(StoreUnavailable):
                    await store.run([Get("connects")])
                    break
        proxy.forget()
        yield store


async def until_it_answers(store: ValkeyStore) -> float:
    """The seconds until the store answers again."""
    loop = asyncio.get_running_loop()
    begin = loop.time()
    with anyio.fail_after(10):
        while True:
            with contextlib.suppress(StoreUnavailable):
                await store.run([Get("k")])
                return loop.time() - begin
            await asyncio.sleep(0.01)


# Round trips


async def test_everything_that_a_request_asks_is_one_command_in_one_piece(proxy: TcpProxy) -> None:
    async with connected(proxy) as store:
        await store.run(REQUEST)
    assert (len(proxy.sent), proxy.commands) == (1, 1)


async def test_what_fifty_ask_at_once_shares_round_trips(proxy: TcpProxy) -> None:
    async with connected(proxy) as store:
        results = await asyncio.gather(*[store.run([Put(f"k{n}", b"%d" % n, TTL), Get(f"k{n}")]) for n in range(50)])
    assert results == [[True, b"%d" % n] for n in range(50)]
    assert proxy.commands <= 2


async def test_what_is_asked_meanwhile_goes_together_into_the_next_round_trip(proxy: TcpProxy) -> None:
    async with connected(proxy) as store:
        proxy.delay_seconds = 0.05
        first = asyncio.ensure_future(store.run([Get("k")]))
        await until(lambda: proxy.sent)
        await asyncio.gather(*[store.run([Get("k")]) for _ in range(100)])
        assert await first == [None]
    assert proxy.commands == 2


async def test_one_call_is_shared_by_a_bounded_number_of_callers(proxy: TcpProxy) -> None:
    async with connected(proxy) as store:
        await asyncio.gather(*[store.run([Get("k")]) for _ in range(600)])
    assert 3 <= proxy.commands <= 4


async def test_a_failure_of_one_caller_stays_with_it(proxy: TcpProxy) -> None:
    with valkey_server(config=["user guard on >word ~mcp:* &* +@all"], login="guard:word") as server:
        async with running(server.url) as store:
            outcomes = await asyncio.gather(
                store.run([Put("mcp:a", b"1", TTL)]),
                store.run([Put("mcp:b", b"1", TTL), Get("forbidden"), Get("mcp:b")]),
                store.run([Get("mcp:a"), Get("mcp:b")]),
                return_exceptions=True,
            )
    assert outcomes[0] == [True]
    assert isinstance(outcomes[1], StoreUnavailable)
    assert outcomes[1].reason == "valkey: NOPERM"
    assert outcomes[2] == [b"1", None], "nothing was done of what holds a forbidden key"


async def test_what_fails_half_way_leaves_the_results_of_others_as_they_are() -> None:
    with valkey_server() as server:
        server.command("SET", "k", b"x" * 40)
        async with running(server.url) as store:
            server.command("ACL", "SETUSER", "default", "-set")
            outcomes = await asyncio.gather(
                store.run([Spend((Bucket("b", 1, TTL),))]), store.run([Get("k")]), return_exceptions=True
            )
        assert isinstance(outcomes[0], StoreUnavailable)
        assert outcomes[0].reason == "valkey: NOPERM"
        assert outcomes[1] == [b"x" * 40]


async def test_a_forgotten_script_is_sent_again_and_nobody_notices(proxy: TcpProxy) -> None:
    async with connected(proxy) as store:
        for _ in range(3):
            shared_server().command("SCRIPT", "FLUSH")
            assert await asyncio.gather(*[store.run(REQUEST[:2]) for _ in range(20)])
            assert await store.run([Put("k", b"v", TTL), Get("k")]) == [True, b"v"]


# Late, lost and foreign replies


async def test_a_server_that_says_nothing_is_given_up_after_the_deadline(proxy: TcpProxy) -> None:
    loop = asyncio.get_running_loop()
    async with connected(proxy, SHORT) as store:
        proxy.hole = True
        waits = []
        for _ in range(2):
            begin = loop.time()
            with pytest.raises(StoreUnavailable, match="no answer within the deadline"):
                await store.run([Get("k")])
            waits.append(loop.time() - begin)
        assert min(waits) >= 0.095
        assert max(waits) < 0.25, waits
        with pytest.raises(StoreUnavailable, match="failures in a row"):
            await store.run([Get("k")])
        proxy.hole = False
        assert await until_it_answers(store) < 2


async def test_a_paused_server_is_given_up_and_used_again() -> None:
    with valkey_server() as server:
        async with running(server.url, SHORT) as store:
            await until_it_answers(store)
            server.command("CLIENT", "PAUSE", 600, "ALL")
            begin = asyncio.get_running_loop().time()
            with pytest.raises(StoreUnavailable, match="no answer within the deadline"):
                await store.run([Get("k")])
            assert asyncio.get_running_loop().time() - begin < 0.4
            assert await until_it_answers(store) < 2.5


async def test_each_caller_has_the_whole_deadline(proxy: TcpProxy) -> None:
    loop = asyncio.get_running_loop()
    async with connected(proxy, SHORT) as store:
        proxy.hole = True

        async def waits(after: float) -> float:
            await asyncio.sleep(after)
            begin = loop.time()
            with pytest.raises(StoreUnavailable):
                await store.run([Get("k")])
            return loop.time() - begin

        waited = await asyncio.gather(*[waits(after) for after in (0, 0.03, 0.06, 0.08)])
    assert all(one >= 0.095 for one in waited), waited


async def test_a_reply_that_is_lost_is_not_asked_for_again(proxy: TcpProxy) -> None:
    async with connected(proxy, SHORT) as store:
        shared_server().command("SET", "once", "v")
        proxy.drop_replies = True
        with pytest.raises(StoreUnavailable):
            await store.run([Take("once")])
        assert proxy.commands == 1
        proxy.drop_replies = False
        await until_it_answers(store)
        assert await store.run([Take("once")]) == [None]


@pytest.mark.parametrize("cut_after", [0, 1, 5])
async def test_a_reply_that_is_cut_short_is_a_failure(proxy: TcpProxy, cut_after: int) -> None:
    async with connected(proxy) as store:
        proxy.reset()
        await until_it_answers(store)
        proxy.rewrite = lambda data: data[:cut_after]
        asked = asyncio.ensure_future(store.run([Put("k", b"v", TTL)]))
        await until(lambda: proxy.sent and shared_server().command("EXISTS", "k"))
        proxy.reset()
        with pytest.raises(StoreUnavailable, match="connection lost"):
            await asked


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (b"-LOADING data\r\n", "LOADING"),
        (b"-BUSY script\r\n", "BUSY"),
        (b"-MISCONF disk\r\n", "MISCONF"),
        (b"-NOAUTH who\r\n", "NOAUTH or WRONGPASS"),
        (b"-ERR max number of clients reached\r\n", "connection lost"),
        (b"-surprise\r\n", "ERR"),
        (b":1\r\n", "ERR"),
        (b"$3\r\nq \n\r\n", "the store failed"),
        (b"?\r\n", "connection lost"),
    ],
)
async def test_what_the_server_refuses_is_unavailable_and_names_its_class(
    proxy: TcpProxy, reply: bytes, reason: str
) -> None:
    async with connected(proxy) as store:
        proxy.rewrite = lambda _: reply
        with pytest.raises(StoreUnavailable) as fault:
            await store.run([Get("k")])
        assert fault.value.reason == f"valkey: {reason}"
        proxy.rewrite = None
        await until_it_answers(store)


@pytest.mark.parametrize("command", [b"INFO", b"CONFIG"])
async def test_a_server_that_refuses_the_self_check_is_unavailable(proxy: TcpProxy, command: bytes) -> None:
    def refuse(data: bytes) -> bytes:
        asked = proxy.sent[-1]
        return b"-BUSY script\r\n" * proxy_commands(asked) if command in asked else data

    proxy.rewrite = refuse
    with pytest.raises(StoreUnavailable, match="valkey: BUSY"):
        await ValkeyStore(f"valkey://127.0.0.1:{proxy.port}", PATIENT).start()


def proxy_commands(data: bytes) -> int:
    return len(COMMAND.findall(data))


async def test_in_a_thousand_cancellations_nobody_gets_anothers_reply(proxy: TcpProxy) -> None:
    async with connected(proxy) as store:
        await store.run([Put(f"k{n}", b"%d" % n, TTL) for n in range(100)])
        wrong: list[object] = []

        async def read(number: int, after: int) -> None:
            task = asyncio.ensure_future(store.run([Get(f"k{number % 100}")]))
            for _ in range(after):
                await asyncio.sleep(0)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                answer = await task
                if answer != [b"%d" % (number % 100)]:
                    wrong.append((number, answer))
            bystander = await store.run([Get(f"k{(number + 1) % 100}")])
            if bystander != [b"%d" % ((number + 1) % 100)]:
                wrong.append((number, bystander))

        for first in range(0, 1000, 20):
            await asyncio.gather(*[read(number, number % 13) for number in range(first, first + 20)])
        assert wrong == []


async def test_what_a_cancelled_caller_asked_is_not_sent_any_more(proxy: TcpProxy) -> None:
    async with connected(proxy) as store:
        proxy.delay_seconds = 0.05
        first = asyncio.ensure_future(store.run([Get("k")]))
        await until(lambda: proxy.sent)
        second = asyncio.ensure_future(store.run([Put("cancelled", b"v", TTL)]))
        await asyncio.sleep(0)
        second.cancel()
        await first
        assert await store.run([Get("cancelled")]) == [None]
        assert second.cancelled()


# Connections


async def test_a_connection_that_the_server_closed_is_made_anew_before_anything_is_sent(proxy: TcpProxy) -> None:
    async with connected(proxy) as store:
        for _ in range(5):
            shared_server().command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            await asyncio.sleep(0.05)
            assert await store.run([Get("k")]) == [None]


async def test_a_server_that_restarts_is_used_again_within_a_second() -> None:
    with valkey_server() as server:
        async with running(server.url) as store:
            await until_it_answers(store)
            server.kill()
            for _ in range(2 * FAILURES_TO_OPEN):
                with pytest.raises(StoreUnavailable):
                    await store.run([Get("k")])
            server.start()
            assert await until_it_answers(store) < 1


async def test_a_store_outlives_event_loops_and_can_be_used_when_it_was_closed() -> None:
    store = ValkeyStore(shared_server().url, PATIENT)

    def in_a_loop_of_its_own() -> None:
        async def use() -> None:
            assert await store.run([Put("k", b"v", TTL)]) == [True]
            await store.close()
            assert await store.run([Get("k")]) == [b"v"]
            await store.close()

        asyncio.run(use())

    for _ in range(2):
        await asyncio.to_thread(in_a_loop_of_its_own)
    await store.close()


async def test_closing_lets_those_who_wait_have_their_answers(proxy: TcpProxy) -> None:
    async with connected(proxy) as store:
        proxy.delay_seconds = 0.05
        asked = [asyncio.ensure_future(store.run([Get("k")])) for _ in range(3)]
        await asyncio.sleep(0)
        await store.close()
        assert [await one for one in asked] == [[None]] * 3


# The breaker


def test_the_breaker_opens_after_failures_in_a_row_and_lets_one_probe_through() -> None:
    breaker = Breaker()
    for _ in range(FAILURES_TO_OPEN - 1):
        breaker.failed(0.0)
    assert breaker.admits(0.0)
    breaker.succeeded()
    for _ in range(FAILURES_TO_OPEN):
        assert breaker.admits(0.0)
        breaker.failed(0.0)
    assert [breaker.admits(at) for at in (0.0, 0.19, 0.2, 0.2, 0.39, 0.4)] == [False, False, True, False, False, True]
    breaker.succeeded()
    assert breaker.admits(0.4)


async def test_while_the_breaker_is_open_the_server_hears_nothing(proxy: TcpProxy) -> None:
    async with connected(proxy) as store:
        proxy.rewrite = lambda _: b"-LOADING data\r\n"
        for _ in range(FAILURES_TO_OPEN):
            with pytest.raises(StoreUnavailable, match="LOADING"):
                await store.run([Get("k")])
        proxy.forget()
        for _ in range(50):
            with pytest.raises(StoreUnavailable, match="failures in a row"):
                await store.run([Get("k")])
        assert proxy.sent == []
        proxy.rewrite = None
        assert await until_it_answers(store) < 1


async def test_a_connection_that_cannot_be_made_opens_the_breaker_when_somebody_waited_in_vain(proxy: TcpProxy) -> None:
    proxy.hole = True
    store = ValkeyStore(f"valkey://127.0.0.1:{proxy.port}", SHORT)
    with pytest.raises(StoreUnavailable, match="no answer within the deadline"):
        await store.run([Get("k")])
    with pytest.raises(StoreUnavailable, match="failures in a row"):
        await store.run([Get("k")])
    proxy.hole = False
    assert await until_it_answers(store) < 2
    await store.close()


# A full server


async def test_a_full_server_refuses_writes_answers_reads_and_recovers() -> None:
    with valkey_server() as server:
        async with running(server.url) as store:
            await store.run([Put("k", b"v", TTL)])
            server.command("CONFIG", "SET", "maxmemory", "1")
            for operation in (
                Put("new", b"v", TTL),
                Put("new", b"v", TTL, only_if_absent=True),
                Claim("new", TTL, 4e9),
                Spend((Bucket("new", 1, TTL), Bucket("other", 1, TTL))),
                Enter("new", "m", TTL, 1),
            ):
                with pytest.raises(StoreUnavailable, match="OOM"):
                    await store.run([operation])
            assert await store.run([Get("k"), Get("new"), Renew("k", b"v", TTL)]) == [b"v", None, b"v"]
            server.command("CONFIG", "SET", "maxmemory", "0")
            assert await store.run([Claim("new", TTL, 4e9), Claim("new", TTL, 4e9)]) == [True, False]
