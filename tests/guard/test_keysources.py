"""Where keys come from: at hand, or fetched from an issuer that may be slow, down, broken or hostile."""

import asyncio
import json
import logging
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from math import inf
from pathlib import Path
from typing import Any

import pytest
import trustme

from mcp_guard.clock import ManualClock
from mcp_guard.failures import ConfigurationError, KeySourceUnavailable
from mcp_guard.keysources import Freshness, RemoteKeys, StaticKeys
from mcp_guard.keysources.remote import JITTER_SECONDS, RETRY_SECONDS
from mcp_guard.outbound import TOTAL_SECONDS, check_url
from tests.guard.signing import SigningKey, jwk_set

K1, K2 = SigningKey.new(), SigningKey.new(kid="k2")
JWKS = json.dumps(jwk_set(K1)).encode()
BOTH = json.dumps(jwk_set(K1, K2)).encode()
JSON_TYPE = "content-type: application/json"
DUE_SECONDS = RETRY_SECONDS + JITTER_SECONDS
"""How long after a failure an issuer is asked again at the latest."""


def answer(body: bytes, status: str = "200 OK", *fields: str) -> bytes:
    """A complete HTTP response."""
    lines = [f"HTTP/1.1 {status}", f"content-length: {len(body)}", "connection: close", *(fields or (JSON_TYPE,))]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@dataclass
class Issuer:
    """A loopback server that answers each path as it is told to; it counts connections and keeps request lines.

    `pause` is waited for before each answer; `drip` sends the answer one byte at a time for ever.
    """

    answers: dict[str, bytes] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    heads: list[str] = field(default_factory=list)
    connections: int = 0
    drip: bool = False
    hold: asyncio.Event | None = None
    port: int = 0
    scheme: str = "http"

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    @property
    def jwks_url(self) -> str:
        return f"{self.url}/jwks"

    def publish(self, body: bytes, status: str = "200 OK", *fields: str) -> None:
        self.answers["/jwks"] = answer(body, status, *fields)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.heads.append(head)
            path = head.split(" ")[1]
            self.lines.append(path)
            if self.hold is not None:
                await self.hold.wait()
            data = self.answers.get(path, answer(b"{}", "404 Not Found"))
            for piece in [data[i : i + 1] for i in range(len(data))] if self.drip else [data]:
                writer.write(piece)
                await writer.drain()
                if self.drip:
                    await asyncio.sleep(0.05)
        except (ConnectionError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()


@asynccontextmanager
async def issuer(body: bytes = JWKS, tls: ssl.SSLContext | None = None) -> AsyncIterator[Issuer]:
    """An issuer that publishes `body`."""
    one = Issuer(scheme="http" if tls is None else "https")
    one.publish(body)
    server = await asyncio.start_server(one.serve, "127.0.0.1", 0, ssl=tls)
    one.port = server.sockets[0].getsockname()[1]
    try:
        yield one
    finally:
        server.close()
        if one.hold is not None:
            one.hold.set()
        await server.wait_closed()


async def free_port() -> int:
    """A loopback port on which nothing listens."""
    server = await asyncio.start_server(lambda _r, w: w.close(), "127.0.0.1", 0)
    port: int = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    return port


def remote(one: Issuer, clock: ManualClock, **settings: Any) -> RemoteKeys:
    return RemoteKeys(one.url, one.jwks_url, clock=clock, **settings)


async def has(keys: RemoteKeys | StaticKeys, kid: str | None = "k1", alg: str = "ES256") -> bool:
    return await keys.find(kid, alg) is not None


async def unavailable(keys: RemoteKeys, kid: str = "k1") -> str:
    with pytest.raises(KeySourceUnavailable) as caught:
        await keys.find(kid, "ES256")
    assert caught.value.retry_after_seconds >= 1
    return caught.value.reason


async def settled(keys: RemoteKeys) -> None:
    """Wait until no fetch is in flight."""
    flight = keys._flight
    if flight is not None:
        await asyncio.wait([flight], timeout=5)


def retries(one: Issuer) -> int:
    """How many tasks go on asking this issuer."""
    return sum(task.get_name() == f"retries of {one.url}" for task in asyncio.all_tasks())


async def warm_without_issuer(one: Issuer, clock: ManualClock, *workers: RemoteKeys) -> None:
    """Give keys to workers, and let the issuer be away the next time they ask it, which they have when this ends."""
    for keys in workers:
        await keys.start()
    one.publish(b"", "503 Service Unavailable")
    clock.advance(240)
    await asked_again(*workers)


async def asked_again(*workers: RemoteKeys) -> None:
    """Let each verify a token, and wait until those that ask the issuer for that have heard."""
    for keys in workers:
        assert await has(keys)
    for keys in workers:
        await settled(keys)


class TestKeysAtHand:
    """A set, a file, a function."""

    async def test_a_set_answers_for_ever(self) -> None:
        keys = StaticKeys(jwk_set(K1))
        await keys.start()
        found = await keys.find("k1", "ES256")
        assert found is not None
        assert (found.key.kid, found.good_until) == ("k1", inf)
        assert not await has(keys, "k2")
        assert not await has(keys, "k1", "RS256")
        await keys.close()

    async def test_a_file_is_read(self, tmp_path: Path) -> None:
        path = tmp_path / "keys.json"
        path.write_bytes(BOTH)
        assert await has(StaticKeys(path), "k2")

    @pytest.mark.parametrize(
        ("content", "named"),
        [
            (None, "No such file"),
            (b"", "not JSON"),
            (b"[]", "not a JWK Set"),
            (b"{}", "no list called keys"),
            (b'{"keys":[]}', "no usable key"),
            (b'{"keys":[{"kty":"oct","k":"AAAA"}]}', "symmetric"),
            (b'{"keys":[],"keys":[]}', "repeats"),
            (b"-----BEGIN PUBLIC KEY-----", "not JSON"),
            (b"x" * 300_000, "more than"),
        ],
    )
    def test_a_bad_file_is_named_with_what_is_wrong(self, tmp_path: Path, content: bytes | None, named: str) -> None:
        path = tmp_path / "keys.json"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(ConfigurationError, match=rf"key file {re.escape(str(path))}.*{named}"):
            StaticKeys(path)

    def test_a_folder_is_no_file(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigurationError, match="cannot be read"):
            StaticKeys(tmp_path)

    def test_a_set_without_a_usable_key_is_refused(self) -> None:
        with pytest.raises(ConfigurationError, match="no usable key"):
            StaticKeys({"keys": []})

    async def test_a_function_is_asked_again_and_its_withdrawn_keys_stop_counting(self) -> None:
        clock, published = ManualClock(), [K1, K2]
        keys = StaticKeys(lambda: jwk_set(*published), clock=clock)
        found = await keys.find("k1", "ES256")
        assert found is not None
        assert found.good_until == clock.monotonic() + 1
        published.remove(K1)
        assert await has(keys, "k1")
        clock.advance(1)
        assert not await has(keys, "k1")
        assert await has(keys, "k2")

    async def test_a_function_that_loses_all_keys_cannot_decide(self) -> None:
        clock, published = ManualClock(), [K1]
        keys = StaticKeys(lambda: jwk_set(*published), clock=clock)
        published.clear()
        clock.advance(1)
        with pytest.raises(KeySourceUnavailable):
            await keys.find("k1", "ES256")

    async def test_an_unchanged_set_keeps_its_imported_keys(self) -> None:
        clock = ManualClock()
        keys = StaticKeys(lambda: jwk_set(K1), clock=clock)
        first = await keys.find("k1", "ES256")
        clock.advance(5)
        second = await keys.find("k1", "ES256")
        assert first is not None
        assert second is not None
        assert first.key is second.key


class TestFetching:
    """A healthy issuer."""

    async def test_keys_are_fetched_once_and_used_until_they_are_old(self, clock: ManualClock) -> None:
        async with issuer() as one:
            keys = remote(one, clock)
            for _ in range(5):
                found = await keys.find("k1", "ES256")
                assert found is not None
                assert found.good_until == clock.monotonic() + 300
            assert one.lines == ["/jwks"]
            assert keys.stale_seconds == 0

    async def test_nothing_of_the_environment_and_no_compression_goes_into_the_request(
        self, clock: ManualClock
    ) -> None:
        async with issuer() as one:
            await remote(one, clock).start()
            head = one.heads[0].lower()
            assert "accept-encoding: identity" in head
            assert "cookie" not in head
            assert "authorization" not in head

    async def test_a_set_is_refreshed_ahead_of_time_without_a_request_waiting(self, clock: ManualClock) -> None:
        async with issuer() as one:
            keys = remote(one, clock)
            await keys.start()
            clock.advance(239)
            assert await has(keys)
            assert len(one.lines) == 1
            one.publish(BOTH)
            clock.advance(1)
            assert await has(keys)
            await settled(keys)
            assert len(one.lines) == 2
            assert await has(keys, "k2")
            assert len(one.lines) == 2

    async def test_a_withdrawn_key_counts_for_five_minutes_at_most(self, clock: ManualClock) -> None:
        async with issuer(BOTH) as one:
            keys = remote(one, clock)
            assert await has(keys, "k1")
            one.publish(json.dumps(jwk_set(K2)).encode())
            clock.advance(300)
            assert not await has(keys, "k1")
            assert await has(keys, "k2")

    async def test_purging_makes_a_withdrawn_key_stop_counting_at_once(self, clock: ManualClock) -> None:
        async with issuer(BOTH) as one:
            keys = remote(one, clock)
            assert await has(keys, "k1")
            one.publish(json.dumps(jwk_set(K2)).encode())
            keys.purge()
            assert keys.stale_seconds == inf
            assert not await has(keys, "k1")

    async def test_a_new_key_is_found_at_its_first_token(self, clock: ManualClock) -> None:
        async with issuer() as one:
            keys = remote(one, clock)
            assert await has(keys, "k1")
            one.publish(BOTH)
            assert await has(keys, "k2")
            assert await has(keys, "k1")
            assert len(one.lines) == 2

    async def test_a_thousand_unknown_keys_cost_two_fetches_in_ten_seconds(self, clock: ManualClock) -> None:
        async with issuer() as one:
            keys = remote(one, clock)
            for number in range(1000):
                assert not await has(keys, f"random-{number}")
                clock.advance(0.009)
            assert len(one.lines) <= 2
            clock.advance(1.1)
            one.publish(BOTH)
            assert await has(keys, "k2"), "after the cooldown a new key is found again"
            assert len(one.lines) == 3

    async def test_the_wrong_algorithm_of_a_known_key_costs_no_fetch(self, clock: ManualClock) -> None:
        async with issuer() as one:
            keys = remote(one, clock)
            for alg in ("RS256", "EdDSA", "ES384"):
                assert not await has(keys, "k1", alg)
            assert not await has(keys, None, "RS256")
            assert len(one.lines) == 1

    async def test_https_is_verified_against_the_given_authorities(self, clock: ManualClock) -> None:
        authority = trustme.CA()
        served = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert("127.0.0.1").configure_cert(served)
        trusting = ssl.create_default_context()
        authority.configure_trust(trusting)
        async with issuer(tls=served) as one:
            assert await has(remote(one, clock, tls=trusting))
            assert "certificate" in (await unavailable(remote(one, clock))).lower()


class TestHerds:
    """Many requests at once."""

    async def test_a_thousand_waiting_requests_make_one_fetch(self, clock: ManualClock) -> None:
        async with issuer() as one:
            one.hold = asyncio.Event()
            keys = remote(one, clock)
            waiting = [asyncio.create_task(has(keys)) for _ in range(1000)]
            await asyncio.sleep(0.05)
            one.hold.set()
            assert all(await asyncio.gather(*waiting))
            assert one.connections == 1

    async def test_a_fetch_outlives_the_request_that_began_it(self, clock: ManualClock) -> None:
        async with issuer() as one:
            one.hold = asyncio.Event()
            keys = remote(one, clock)
            leader = asyncio.create_task(has(keys))
            await asyncio.sleep(0.05)
            follower = asyncio.create_task(has(keys))
            await asyncio.sleep(0)
            leader.cancel()
            await asyncio.wait([leader])
            assert leader.cancelled()
            one.hold.set()
            assert await follower
            assert one.connections == 1

    async def test_an_issuer_that_drips_is_given_up_for_everyone_after_two_seconds(self, clock: ManualClock) -> None:
        async with issuer() as one:
            one.drip = True
            keys = remote(one, clock)
            loop = asyncio.get_running_loop()
            begun = loop.time()
            outcomes = await asyncio.gather(*(has(keys) for _ in range(200)), return_exceptions=True)
            assert loop.time() - begun < TOTAL_SECONDS + 0.5
            assert {type(outcome) for outcome in outcomes} == {KeySourceUnavailable}
            assert one.connections == 1

    async def test_closing_ends_a_fetch_in_flight(self, clock: ManualClock) -> None:
        async with issuer() as one:
            one.hold = asyncio.Event()
            keys = remote(one, clock)
            waiting = asyncio.create_task(has(keys))
            await asyncio.sleep(0.05)
            await keys.close()
            await asyncio.wait([waiting], timeout=1)
            assert waiting.done()
            await keys.close()


GARBAGE = [
    answer(b"<html>maintenance</html>", "200 OK", "content-type: text/html"),
    answer(b"{}"),
    answer(b'{"keys":[]}'),
    answer(b'{"keys":"x"}'),
    answer(b'{"keys":[{"kty":"oct","k":"AAAA"}]}'),
    answer(JWKS[:-20]),
    answer(JWKS.decode().encode("utf-16")),
    answer(JWKS, "500 Internal Server Error"),
    answer(JWKS, "404 Not Found"),
    answer(JWKS, "204 No Content"),
    answer(b'{"keys":[],' + JWKS[1:]),
    answer(b" " * (257 * 1024) + JWKS),
    answer(JWKS, "200 OK", JSON_TYPE, "content-encoding: gzip"),
    answer(b"", "302 Found", "location: http://127.0.0.1:1/"),
    b"garbage\r\n\r\n",
    b"",
]


class TestOutages:
    """An issuer that does not answer, or not with keys."""

    async def test_a_start_without_the_issuer_fails_with_one_clear_sentence(self, clock: ManualClock) -> None:
        port = await free_port()
        keys = RemoteKeys(f"http://127.0.0.1:{port}", f"http://127.0.0.1:{port}/jwks", clock=clock)
        with pytest.raises(KeySourceUnavailable) as caught:
            await keys.start()
        assert f"no keys of the issuer http://127.0.0.1:{port}" in caught.value.reason
        assert "cannot be reached" in caught.value.reason

    async def test_a_start_may_go_on_without_the_issuer_and_recovers(
        self, clock: ManualClock, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with issuer() as one:
            good = one.answers.pop("/jwks")
            keys = remote(one, clock, required_at_start=False)
            await keys.start()
            assert "answered 404" in caplog.text
            await unavailable(keys)
            one.answers["/jwks"] = good
            clock.advance(DUE_SECONDS)
            assert await has(keys)

    async def test_while_the_issuer_is_down_it_is_tried_once_a_second(self, clock: ManualClock) -> None:
        async with issuer(b"down") as one:
            keys = remote(one, clock)
            for _ in range(100):
                await unavailable(keys)
                clock.advance(0.1)
            assert len(one.lines) <= 11

    async def test_good_keys_stay_in_force_through_an_outage_until_the_grace_ends(self, clock: ManualClock) -> None:
        async with issuer() as one:
            keys = remote(one, clock)
            await keys.start()
            one.publish(b"", "503 Service Unavailable")
            for _ in range(600):
                clock.advance(1)
                assert await has(keys)
                await settled(keys)
            assert len(one.lines) <= 1 + 600 - 240 + 1
            assert keys.stale_seconds == 300
            clock.advance(3300)
            assert "answered 503" in await unavailable(keys)
            one.publish(JWKS)
            clock.advance(DUE_SECONDS)
            assert await has(keys)
            assert keys.stale_seconds == 0
            await keys.close()

    async def test_what_a_stale_key_verified_is_believed_for_a_second(self, clock: ManualClock) -> None:
        async with issuer() as one:
            keys = remote(one, clock)
            await keys.start()
            one.publish(b"", "503 Service Unavailable")
            clock.advance(400)
            found = await keys.find("k1", "ES256")
            assert found is not None
            assert found.good_until == clock.monotonic() + 1
            await keys.close()

    async def test_an_unknown_key_cannot_be_judged_while_the_issuer_is_down(self, clock: ManualClock) -> None:
        async with issuer() as one:
            keys = remote(one, clock)
            await keys.start()
            one.publish(b"", "503 Service Unavailable")
            await unavailable(keys, "k2")
            await unavailable(keys, "k2")
            assert len(one.lines) == 2
            one.publish(BOTH)
            clock.advance(DUE_SECONDS)
            assert await has(keys, "k2")
            await keys.close()

    async def test_an_issuer_that_is_away_is_asked_again_without_a_request(self, clock: ManualClock) -> None:
        async with issuer() as one:
            keys = remote(one, clock)
            await warm_without_issuer(one, clock, keys)
            one.publish(BOTH)
            clock.advance(DUE_SECONDS)
            async with asyncio.timeout(10):
                while keys.stale_seconds or retries(one):  # noqa: ASYNC110 - nothing tells that it happened
                    await asyncio.sleep(0.01)
            assert len(one.lines) == 3
            assert await has(keys, "k2")
            assert len(one.lines) == 3

    async def test_what_is_asked_in_the_background_counts_with_what_requests_ask(self, clock: ManualClock) -> None:
        async with issuer() as one:
            keys = remote(one, clock)
            await warm_without_issuer(one, clock, keys)
            clock.advance(DUE_SECONDS)
            await asked_again(keys)
            assert len(one.lines) == 3
            loop = asyncio.get_running_loop()
            woken = loop.time() + DUE_SECONDS + 0.1
            while loop.time() < woken:
                await asyncio.sleep(0.05)
                assert len(one.lines) == 3, "the clock stands still: it is too early"
            assert retries(one) == 1
            await keys.close()

    async def test_many_workers_do_not_ask_in_step(self, clock: ManualClock) -> None:
        async with issuer() as one:
            tls = ssl.create_default_context()
            workers = [remote(one, clock, tls=tls) for _ in range(20)]
            await warm_without_issuer(one, clock, *workers)
            asked = []
            for seconds in (RETRY_SECONDS - 0.01, 0.01 + JITTER_SECONDS / 2, JITTER_SECONDS / 2):
                clock.advance(seconds)
                await asked_again(*workers)
                asked.append(len(one.lines) - 40)
            assert asked[0] == 0
            assert 0 < asked[1] < 20
            assert asked[2] == 20
            await asyncio.gather(*(keys.close() for keys in workers))

    async def test_closing_ends_the_retries(self, clock: ManualClock) -> None:
        async with issuer() as one:
            keys = remote(one, clock)
            await warm_without_issuer(one, clock, keys)
            assert retries(one) == 1
            await keys.close()
            assert retries(one) == 0

    async def test_nothing_is_asked_in_the_background_without_keys_to_go_on_with(self, clock: ManualClock) -> None:
        async with issuer(b"down") as one:
            await unavailable(remote(one, clock))
            assert retries(one) == 0

    async def test_purging_ends_the_retries(self, clock: ManualClock) -> None:
        async with issuer() as one:
            keys = remote(one, clock)
            await warm_without_issuer(one, clock, keys)
            keys.purge()
            await unavailable(keys)
            async with asyncio.timeout(10):
                while retries(one):  # noqa: ASYNC110 - nothing tells that it happened
                    await asyncio.sleep(0.01)
            assert len(one.lines) == 3

    @pytest.mark.parametrize("garbage", GARBAGE)
    async def test_garbage_never_replaces_good_keys(self, clock: ManualClock, garbage: bytes) -> None:
        async with issuer() as one:
            keys = remote(one, clock)
            await keys.start()
            one.answers["/jwks"] = garbage
            clock.advance(301)
            assert await has(keys)
            assert len(one.lines) == 2
            assert keys.stale_seconds == 1
            await keys.close()

    @pytest.mark.parametrize("garbage", GARBAGE)
    async def test_garbage_at_first_is_no_key_set(self, clock: ManualClock, garbage: bytes) -> None:
        async with issuer() as one:
            one.answers["/jwks"] = garbage
            assert await unavailable(remote(one, clock))

    @pytest.mark.parametrize(
        "status", ["301 Moved Permanently", "302 Found", "307 Temporary Redirect", "308 Permanent"]
    )
    async def test_no_redirect_is_followed(self, clock: ManualClock, status: str) -> None:
        async with issuer() as elsewhere, issuer() as one:
            one.publish(b"", status, f"location: {elsewhere.jwks_url}")
            assert f"answered {status[:3]}" in await unavailable(remote(one, clock))
            assert elsewhere.connections == 0

    async def test_an_endless_answer_is_read_to_its_bound(self, clock: ManualClock) -> None:
        async with issuer() as one:
            one.answers["/jwks"] = b"HTTP/1.1 200 OK\r\n\r\n" + b" " * 20_000_000
            assert "more than 262144 bytes" in await unavailable(remote(one, clock))

    async def test_of_ten_thousand_keys_the_first_sixty_four_are_read(self, clock: ManualClock) -> None:
        many = [K1.jwk(kid=f"k{number}", x5t=None) for number in range(1000)]
        async with issuer(json.dumps({"keys": many}).encode()) as one:
            keys = remote(one, clock)
            assert await has(keys, "k63")
            assert not await has(keys, "k64")

    async def test_bad_members_are_ignored_and_said_once(
        self, clock: ManualClock, caplog: pytest.LogCaptureFixture
    ) -> None:
        poisoned = jwk_set({"kty": "oct", "k": "c2VjcmV0", "kid": "mac", "alg": "HS256"}, {**K2.jwk(), "d": "AAAA"}, K1)
        async with issuer(json.dumps(poisoned).encode()) as one:
            keys = remote(one, clock)
            for _ in range(5):
                assert await has(keys, "k1")
                clock.advance(301)
            assert not await has(keys, "mac", "HS256")
            said = [record.getMessage() for record in caplog.records if "ignored" in record.getMessage()]
            assert len(said) == 1
            assert "key 0 is a private or symmetric key; key 1 is a private or symmetric key" in said[0]
            assert "c2VjcmV0" not in caplog.text

    async def test_one_outage_is_said_once(self, clock: ManualClock, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.WARNING)
        async with issuer(b"down") as one:
            keys = remote(one, clock)
            for _ in range(5):
                await unavailable(keys)
                clock.advance(2)
            assert len(caplog.records) == 1


class TestDiscovery:
    """RFC 8414 §3, OpenID Connect Discovery §4."""

    OAUTH = "/.well-known/oauth-authorization-server"
    OPENID = "/.well-known/openid-configuration"

    @pytest.mark.parametrize(
        ("path", "well_known"),
        [
            ("", OAUTH),
            ("", OPENID),
            ("/tenant", f"{OAUTH}/tenant"),
            ("/tenant", f"{OPENID}/tenant"),
            ("/tenant", f"/tenant{OPENID}"),
            ("/tenant/", f"{OAUTH}/tenant"),
            ("/", OAUTH),
        ],
    )
    async def test_the_metadata_says_where_the_keys_are(self, clock: ManualClock, path: str, well_known: str) -> None:
        async with issuer() as one:
            identifier = f"{one.url}{path}"
            document = {"issuer": identifier, "jwks_uri": f"{one.jwks_url}"}
            one.answers[well_known] = answer(json.dumps(document).encode())
            assert await has(RemoteKeys(identifier, clock=clock))
            assert one.lines[-2:] == [well_known, "/jwks"]

    @pytest.mark.parametrize(
        ("changes", "reason"),
        [
            ({"issuer": "https://evil.example"}, "another issuer"),
            ({"issuer": None}, "another issuer"),
            ({"jwks_uri": None}, "jwks_uri"),
            ({"jwks_uri": "http://192.0.2.1/jwks"}, "https"),
            ({"jwks_uri": "file:///etc/passwd"}, "jwks_uri"),
            ({"jwks_uri": 7}, "jwks_uri"),
            ({"jwks_uri": "/jwks"}, "jwks_uri"),
        ],
    )
    async def test_metadata_that_does_not_fit_is_refused(
        self, clock: ManualClock, changes: dict[str, Any], reason: str
    ) -> None:
        async with issuer() as one:
            document = {"issuer": one.url, "jwks_uri": one.jwks_url, **changes}
            one.answers[self.OAUTH] = answer(json.dumps(document).encode())
            assert reason in await unavailable(RemoteKeys(one.url, clock=clock))
            assert "/jwks" not in one.lines

    @pytest.mark.parametrize("status", ["400 Bad Request", "403 Forbidden", "404 Not Found", "405 Method Not Allowed"])
    async def test_a_provider_may_refuse_a_place_it_does_not_know(self, clock: ManualClock, status: str) -> None:
        async with issuer() as one:
            one.answers[self.OAUTH] = answer(b"no", status)
            one.answers[self.OPENID] = answer(json.dumps({"issuer": one.url, "jwks_uri": one.jwks_url}).encode())
            assert await has(RemoteKeys(one.url, clock=clock))

    async def test_a_provider_that_fails_is_not_asked_elsewhere(self, clock: ManualClock) -> None:
        async with issuer() as one:
            one.answers[self.OAUTH] = answer(b"no", "500 Internal Server Error")
            one.answers[self.OPENID] = answer(json.dumps({"issuer": one.url, "jwks_uri": one.jwks_url}).encode())
            assert "answered 500" in await unavailable(RemoteKeys(one.url, clock=clock))

    async def test_metadata_that_is_nowhere_is_said(self, clock: ManualClock) -> None:
        async with issuer() as one:
            assert "no metadata at" in await unavailable(RemoteKeys(one.url, clock=clock))

    async def test_metadata_that_is_no_object_is_refused(self, clock: ManualClock) -> None:
        async with issuer() as one:
            one.answers[self.OAUTH] = answer(b"[]")
            assert "another issuer" in await unavailable(RemoteKeys(one.url, clock=clock))


@pytest.mark.parametrize(
    "url",
    [
        "",
        "jwks",
        "/jwks",
        "http://as.example.com/jwks",
        "http://192.0.2.1/jwks",
        "http://127.0.0.1.evil.example/jwks",
        "ftp://as.example.com/jwks",
        "file:///etc/passwd",
        "https://",
        "https:///jwks",
        "https://user:secret@as.example.com/jwks",
        "https://as.example.com/jwks#fragment",
        "https://as.example.com/a b",
        "https://as.example.com\\@evil.example/",
        "https://as.example.com:port/jwks",
        "https://[::1/jwks",
        "https://ÿ.example/jwks",
        "https://as.example.com/\r\nX: y",
    ],
)
def test_a_url_that_must_not_be_fetched_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="jwks_url"):
        RemoteKeys("https://as.example.com", url)


@pytest.mark.parametrize(
    "url",
    [
        "https://as.example.com/jwks?p=policy",
        "https://as.example.com:8443/jwks",
        "http://127.0.0.1:1/jwks",
        "http://localhost/jwks",
        "http://[::1]:1/jwks",
    ],
)
def test_a_url_over_https_or_on_loopback_may_be_fetched(url: str) -> None:
    assert check_url(url, "jwks_url") == url


def test_an_issuer_without_metadata_needs_a_key_url() -> None:
    with pytest.raises(ConfigurationError, match="jwks_url"):
        RemoteKeys("my-issuer")
    assert isinstance(RemoteKeys("my-issuer", "https://as.example.com/jwks"), RemoteKeys)


@pytest.mark.parametrize(
    ("name", "value"),
    [("max_age", timedelta(0)), ("stale_grace", timedelta(seconds=-1)), ("cooldown", timedelta(milliseconds=1))],
)
def test_freshness_has_least_values(name: str, value: timedelta) -> None:
    with pytest.raises(ConfigurationError, match=name):
        Freshness(**{name: value})
