"""Areas dos and rate: floods of tokens, of keys and of hostile strings stay within bounds, and reset nobody's limit."""

import contextlib
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from mcp_guard import TrustedIssuer, guard, standard
from mcp_guard.asgi import ASGIApp, Scope
from mcp_guard.auditlog import AuditLog, MemorySink
from mcp_guard.clock import ManualClock
from mcp_guard.delivery import Delivery
from mcp_guard.facts import ClientAddress
from mcp_guard.failures import StoreUnavailable
from mcp_guard.layer import RequestHead
from mcp_guard.layers.rate_limit import Limit
from mcp_guard.layers.shield import Shield
from mcp_guard.rejections import Rejection
from mcp_guard.stores.base import Bucket, Spend, levels_of
from mcp_guard.stores.memory import MemoryStore
from tests.guard.asgi import Client, CountingApp, drive, http_scope
from tests.guard.attacks.deployment import UNLIMITED
from tests.guard.attacks.state import in_valkey
from tests.guard.attacks.test_rate import limited
from tests.guard.layers.test_shield import Place
from tests.guard.layers.test_token import KEY, MCP, CountedKeys, bearer, guarded
from tests.guard.oauth.flow import RESOURCE, World
from tests.guard.signing import ISSUER, NOW
from tests.guard.stubs import rpc
from tests.support.valkey_server import shared_server

MIB = 2**20
HOUR = timedelta(hours=1)


def resident_bytes() -> int:
    """The memory of this process that is in RAM."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def growing_by_at_most(limit_bytes: int) -> Iterator[None]:
    before = resident_bytes()
    yield
    grown = resident_bytes() - before
    assert grown <= limit_bytes, f"grew by {grown / MIB:.1f} MiB"


def invalid(number: int) -> bytes:
    """A distinct token whose signature is wrong."""
    token = KEY.token(jti=f"invalid-{number}")
    return token[:-6] + b"AAAAAA"


# Tokens


async def test_dos_05_a_flood_of_tokens_leaves_what_is_remembered_bounded() -> None:
    one = guarded(cached_tokens=500)
    hot = bearer(KEY.token(jti="hot"))
    assert (await one.send(hot)).status == 200
    with growing_by_at_most(30 * MIB):
        for number in range(1_500):
            assert (await one.send(bearer(invalid(number)))).status == 401
        assert one.keys.asked == 1_501
        assert (await one.send(hot)).status == 200
        assert one.keys.asked == 1_501, "invalid tokens put no verified one out"
        for number in range(1_500):
            await one.send(bearer(KEY.token(jti=f"valid-{number}")))
            if number % 100 == 0:
                await one.send(hot)
    assert one.keys.asked == 3_001, "nor do valid ones put out one that is in use"
    remembered = one.layer._remembered
    assert len(remembered.young) + len(remembered.old) <= 500
    assert guarded().layer.cached_tokens == 10_000


def stack(app: ASGIApp, keys: CountedKeys, **settings: Any) -> ASGIApp:
    """The complete stack in this process."""
    issuers = [TrustedIssuer(ISSUER, keys)]
    return guard(app, *standard(resources=[MCP], issuers=issuers, audit=AuditLog(MemorySink()), **settings))


def call_fields(token: bytes) -> list[tuple[bytes, bytes]]:
    return [
        (b"host", b"mcp.example.com"),
        (b"authorization", bearer(token)),
        (b"content-type", b"application/json"),
        (b"accept", b"application/json, text/event-stream"),
    ]


async def test_rate_12_the_shield_ends_the_work_on_signatures_of_a_flood() -> None:
    app, clock = CountingApp(), ManualClock(now=NOW)
    keys = CountedKeys(clock=clock)
    protected = stack(app, keys, limits=limited(address=Limit(100, HOUR)), clock=clock)
    tokens = [invalid(number) for number in range(1_000)]
    flood = [
        (await drive(protected, http_scope(headers=call_fields(token), scheme="https"), rpc())).status
        for token in tokens
    ]
    assert flood == [401] * 100 + [429] * 900
    assert keys.asked == 100
    good = http_scope(headers=call_fields(KEY.token()), scheme="https", client=("198.51.100.9", 1))
    assert (await drive(protected, good, rpc("tools/list"))).status == 200


# Keys


@pytest.mark.slow
async def test_rate_08_a_flood_of_addresses_takes_bounded_room_and_reset_no_bucket(clock: ManualClock) -> None:
    place = Place(Shield(burst=2, period=HOUR, clock=clock))
    shield, client = place.shield, Client()
    assert await place.passing(["198.51.100.1"] * 3) == 2
    head = RequestHead(http_scope(), {}, client.receive, Delivery(client.send))  # type: ignore[arg-type]
    passed = 0
    with growing_by_at_most(64 * MIB):
        for number in range(400_000):
            # The layer itself is asked: so many whole requests would take minutes.
            head.facts[ClientAddress] = ClientAddress(IPv4Address(0x0A000000 + number))
            with contextlib.suppress(Rejection):
                await shield.admit(head)
                passed += 1
    assert passed == (shield.max_addresses - 1) + shield.burst, "those without room share one bucket"
    assert len(shield.arrivals) <= shield.max_addresses + 1
    assert (await place.ask("198.51.100.1")).status == 429
    clock.advance(3600)
    assert await place.passing(["203.0.113.7"] * 3) == 2, "when it is over everybody has a bucket again"


def spend(key: str, burst: int = 5) -> Spend:
    return Spend((Bucket(f"mcp:limit:principal:{key}", burst, HOUR),))


def digest(number: int) -> str:
    """A key as long as a real one."""
    return f"{number:064x}"


async def test_rate_08_a_store_that_is_full_refuses_new_keys_and_keeps_those_it_has(clock: ManualClock) -> None:
    store = MemoryStore(clock=clock, max_entries=20_000)
    for _ in range(5):
        assert levels_of((await store.run([spend("hot")]))[0])[0].allowed
    refused = 0
    with growing_by_at_most(30 * MIB):
        for number in range(30_000):
            try:
                await store.run([spend(digest(number))])
            except StoreUnavailable:
                refused += 1
    assert refused == 30_000 - 19_999
    assert not levels_of((await store.run([spend("hot")]))[0])[0].allowed
    clock.advance(3601)
    for number in range(1_000):
        await store.run([spend(digest(number))])
    assert store.held < store.max_entries, "what has expired made room"


async def test_rate_08_in_valkey_every_key_expires_and_takes_little_room() -> None:
    store = in_valkey()
    await store.start()
    try:
        for _ in range(5):
            assert levels_of((await store.run([spend("hot")]))[0])[0].allowed
        for first in range(0, 20_000, 200):
            await store.run([spend(digest(number)) for number in range(first, first + 200)])
        assert not levels_of((await store.run([spend("hot")]))[0])[0].allowed
    finally:
        await store.close()
    with contextlib.closing(shared_server().client()) as client:
        keys = list(client.scan_iter(match=f"{store.prefix}*", count=5_000))
        lives: list[Any] = [client.pttl(key) for key in keys]
        keys = [key for key in keys if b"mcp:limit:" in key]
        sizes: list[Any] = [client.memory_usage(key) for key in keys[:500]]
    assert len(keys) == 20_001
    assert min(lives) > 0
    assert max(sizes) <= 300


# Strings


SHAPES = (
    "a",
    "/",
    "../",
    "%2e",
    "%",
    "(",
    ",",
    ", ",
    ";q=0.1,",
    '"',
    "\\",
    '\\"',
    "a.",
    "a@",
    "-",
    ":",
    "[",
    "=?base64?",
    "\t",
    " ",
    "=",
)
LENGTHS = (100_000, 8_000)
"""More than the first layers let through, and about as much as they do."""
CPU_SECONDS = 0.010
HOSTILE = [(shape, length) for shape in SHAPES for length in LENGTHS]


def hostile(shape: str, length: int) -> bytes:
    """A string of one shape over and over, with an end that fits none."""
    return (shape * length)[:length].encode() + b"!"


async def cpu_seconds(app: ASGIApp, scope: Scope, data: bytes = b"") -> tuple[float, int | None]:
    """The processor time that an exchange takes, the least of three, and how it is answered."""
    times, status = [], None
    for _ in range(3):
        began = time.process_time()
        status = (await drive(app, dict(scope), data)).status
        times.append(time.process_time() - began)
    return min(times), status


@pytest.mark.parametrize(
    "place", ["path", "query", "origin", "accept", "mcp-name", "user-agent", "authorization", "cookie"]
)
async def test_dos_06_no_string_in_a_request_is_dear(place: str) -> None:
    keys = CountedKeys(clock=ManualClock(now=NOW))
    guarded_app = stack(CountingApp(), keys, clock=ManualClock(now=NOW), limits=UNLIMITED)
    dearest = {}
    for shape, length in HOSTILE:
        text = hostile(shape, length)
        fields = call_fields(KEY.token())
        scope = http_scope(headers=fields, scheme="https")
        if place == "path":
            scope["path"], scope["raw_path"] = "/" + text.decode(), b"/" + text
        elif place == "query":
            scope["query_string"] = text
        else:
            scope["headers"] = [pair for pair in fields if pair[0] != place.encode()] + [(place.encode(), text)]
        seconds, status = await cpu_seconds(guarded_app, scope, rpc())
        assert status in (200, 400, 401, 403, 404, 414, 431), (shape, length, status)
        dearest[shape, length] = seconds
    assert max(dearest.values()) < CPU_SECONDS, max(dearest.items(), key=lambda one: one[1])


@pytest.mark.parametrize("parameter", ["scope", "redirect_uri", "client_id", "resource", "state", "code_challenge"])
@pytest.mark.parametrize("endpoint", ["authorize", "token", "register"])
async def test_dos_06_no_string_in_a_parameter_is_dear(endpoint: str, parameter: str) -> None:
    world = World()
    client = await world.register()
    sound = {"client_id": client.client_id, "redirect_uri": client.redirect_uri, "resource": RESOURCE}
    dearest = {}
    for shape, length in HOSTILE:
        parameters = {**sound, parameter: hostile(shape, length).decode()}
        headers = [(b"host", b"as.example")]
        if endpoint == "register":
            data = json.dumps({**parameters, "redirect_uris": [parameters["redirect_uri"]]}).encode()
            headers.append((b"content-type", b"application/json"))
        else:
            data = urlencode({**parameters, "response_type": "code", "grant_type": "authorization_code"}).encode()
            headers.append((b"content-type", b"application/x-www-form-urlencoded"))
        query, data = (data, b"") if endpoint == "authorize" else (b"", data)
        method = "GET" if endpoint == "authorize" else "POST"
        scope = http_scope(method, f"/{endpoint}", headers, query, scheme="https")
        seconds, status = await cpu_seconds(world.server, scope, data)
        assert status in (201, 302, 303, 400, 401, 413, 414), (shape, length, status)
        dearest[shape, length] = seconds
    assert max(dearest.values()) < CPU_SECONDS, max(dearest.items(), key=lambda one: one[1])
