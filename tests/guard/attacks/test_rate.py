"""Area rate: whatever an attacker varies, one caller has one bucket, on one worker and on two.

The limits are refilled so slowly that nothing comes back while a test runs.
"""

import json
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from mcp_guard import StaticKeys, TrustedIssuer, guard, standard
from mcp_guard.asgi import ASGIApp
from mcp_guard.auditlog import AuditLog, MemorySink
from mcp_guard.facts import Resource
from mcp_guard.keyring import KeyRing
from mcp_guard.layers.rate_limit import Limit
from mcp_guard.oauth import SigningKeys
from mcp_guard.profiles import Limits
from mcp_guard.stores.base import Store
from tests.guard.asgi import CountingApp, drive, http_scope, polled
from tests.guard.attacks.deployment import PLENTY, UNLIMITED, Deployment, deployed
from tests.guard.attacks.http_attacks import edited
from tests.guard.attacks.raw import Observation, Request, send
from tests.guard.attacks.session_attacks import LIST
from tests.guard.attacks.state import KINDS
from tests.support.serving import serving

DAY = timedelta(days=1)
AT_ONCE = 32
"""Requests that are on their way at the same time."""


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest) -> Callable[[], Store]:
    """Makes a store of each kind."""
    return KINDS[request.param]


def limited(*, principal: Limit = PLENTY, address: Limit = PLENTY) -> Limits:
    """No limit but these."""
    return replace(UNLIMITED, principal=principal, address=address)


def is_refused_well(seen: Observation, live: Deployment) -> None:
    """A 429 says when to come back, to those who read fields and to those who read the error."""
    assert seen.status == 429
    assert int(seen.value("retry-after")) >= 1
    error = seen.json()["error"]
    assert error["code"] == -32010
    assert 0 < error["data"]["retryAfterMs"] <= 1000 * int(seen.value("retry-after"))
    assert live.audit.records()[-1]["verdict"] == "limit_exceeded"


def audited(live: Deployment, before: int = 0) -> list[str]:
    return [record["verdict"] for record in live.audit.records()[before:]]


def test_rate_01_exactly_the_limit_passes(store: Callable[[], Store]) -> None:
    with deployed(store, limits=limited(principal=Limit(100, DAY))) as live:
        call = live.call(live.token())
        seen = [live.send(call) for _ in range(101)]
        assert [one.status for one in seen] == [200] * 100 + [429]
        is_refused_well(seen[-1], live)
        assert live.downstream.calls == 100
        assert audited(live) == ["allowed"] * 100 + ["limit_exceeded"]
        assert live.send(live.call(live.token("bob"))).status == 200


def test_rate_01_waiting_as_told_is_enough(store: Callable[[], Store]) -> None:
    with deployed(store, limits=limited(principal=Limit(2, timedelta(seconds=2)))) as live:
        call = live.call(live.token())
        seen = [live.send(call) for _ in range(8)]
        refused = next(one for one in reversed(seen) if one.status == 429)
        time.sleep(int(refused.value("retry-after")))
        assert live.send(call).status == 200


def stack(app: ASGIApp, **settings: Any) -> ASGIApp:
    """The complete stack in this process, for addresses that no socket here has."""
    keys = SigningKeys([ec.generate_private_key(ec.SECP256R1())])
    issuer = TrustedIssuer("https://as.example.com", StaticKeys(keys.public_set))
    resource = Resource("https://mcp.example.com/mcp", "/mcp")
    return guard(app, *standard(resources=[resource], issuers=[issuer], audit=AuditLog(MemorySink()), **settings))


async def statuses_of(guarded: ASGIApp, peers: list[str], headers: list[list[tuple[bytes, bytes]]]) -> list[int | None]:
    """What requests without a token are answered, from each peer with each set of fields."""
    common = [(b"host", b"mcp.example.com"), (b"content-type", b"application/json")]
    return [
        (await drive(guarded, http_scope(headers=[*common, *more], client=(peer, 1), scheme="https"), b"{}")).status
        for peer in peers
        for more in headers
    ]


SPOOFED = (b"x-forwarded-for", b"forwarded", b"x-real-ip", b"true-client-ip", b"cf-connecting-ip")


async def test_rate_02_a_peer_that_is_not_trusted_has_one_bucket() -> None:
    app = CountingApp()
    guarded = stack(app, limits=limited(address=Limit(100, DAY)))
    headers = []
    for number in range(200):
        address = b"203.0.113.%d" % number
        headers += [[(name, b"for=" + address if name == b"forwarded" else address)] for name in SPOOFED]
    assert await statuses_of(guarded, ["192.0.2.50"], headers) == [401] * 100 + [429] * 900
    assert await statuses_of(guarded, ["192.0.2.51"], headers[:1]) == [401]
    assert app.calls == 0


async def test_rate_03_behind_a_trusted_proxy_the_last_address_that_is_not_trusted_counts() -> None:
    guarded = stack(CountingApp(), limits=limited(address=Limit(5, DAY)), trusted_proxies=["10.0.0.1"])
    real, https = b"203.0.113.9", (b"x-forwarded-proto", b"https")
    lists = [
        b"1.2.3.4, " + real,
        b", ".join([b"198.51.100.%d" % number for number in range(50)] + [real]),
        b"unknown, " + real,
        b"1.2.3.4:99, " + real,
        b"[::1], " + real,
        b"garbage', " + real,
        real,
        real + b":4711",
    ]
    headers = [[(b"x-forwarded-for", value), https] for value in lists]
    headers.append([(b"x-forwarded-for", b"1.2.3.4"), (b"x-forwarded-for", real), https])
    first = await statuses_of(guarded, ["10.0.0.1"], headers)
    assert first == [401] * 5 + [429] * (len(headers) - 5)
    again = await statuses_of(guarded, ["10.0.0.1"], headers)
    assert again == [429] * len(headers)
    garbage = [[(b"x-forwarded-for", value), https] for value in (b"unknown", b"%%%", b"1.2.3.4, garbage", b"", b",")]
    assert set(await statuses_of(guarded, ["10.0.0.1"], garbage)) <= {400, 401, 429}
    assert set(await statuses_of(guarded, ["10.0.0.1"], garbage * 5)) <= {400, 429}, "garbage has a bucket of its own"


async def test_rate_04_a_64_and_the_forms_of_an_address_have_one_bucket() -> None:
    guarded = stack(CountingApp(), limits=limited(address=Limit(5, DAY)))
    many = [f"2001:db8:0:1:{number:x}:{number * 7:x}::1" for number in range(5_000)]
    statuses = await statuses_of(guarded, many, [[]])
    assert statuses == [401] * 5 + [429] * 4_995
    forms = ["198.51.100.7", "::ffff:198.51.100.7", "::ffff:c633:6407", "0:0:0:0:0:ffff:c633:6407"] * 5
    assert await statuses_of(guarded, forms, [[]]) == [401] * 5 + [429] * 15
    assert await statuses_of(guarded, ["2001:db8:0:2::1"], [[]]) == [401]


def test_rate_05_a_principal_with_many_tokens_and_sessions_has_one_bucket(store: Callable[[], Store]) -> None:
    with deployed(store, limits=limited(principal=Limit(150, DAY))) as live:
        sessions = [live.open_session(live.token(jti=f"opened-{number}")) for number in range(50)]
        requests = [
            live.legacy(live.token(jti=f"j{number}", exp=int(time.time()) + 200 + number), LIST, session=session)
            for number, session in enumerate(sessions * 2)
        ]
        statuses = [live.send(request).status for request in requests]
        assert statuses == [200] * 50 + [429] * 50


class Workers:
    """Two guards of one resource's principals, each with a server, a loop and a store of its own."""

    issuer = "https://as.example.com"

    def __init__(self, store: Callable[[], Store], limits: Limits, until_closed: ExitStack) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.keys = SigningKeys([self.key])
        self.ring = KeyRing.generate()
        self.apps: list[CountingApp] = []
        self.store, self.limits = store, limits
        self.urls = [until_closed.enter_context(serving(self.build)).url for _ in range(2)]

    def build(self, origin: str) -> ASGIApp:
        self.apps.append(CountingApp())
        trusted = TrustedIssuer(self.issuer, StaticKeys(self.keys.public_set))
        layers = standard(
            resources=[Resource(f"{origin}/mcp", "/mcp")],
            issuers=[trusted],
            store=self.store(),
            ring=self.ring,
            limits=self.limits,
            audit=AuditLog(MemorySink()),
        )
        return guard(self.apps[-1], *layers)

    def requests(self) -> list[tuple[int, bytes]]:
        """For each worker its port, and a request of the one principal."""
        made = []
        for url in self.urls:
            audience = [f"{one}/mcp" for one in self.urls]
            live = Deployment(url, None, MemorySink(), self.key, self.keys.ids[0])  # type: ignore[arg-type]
            token = live.token(iss=self.issuer, aud=audience)
            made.append((live.port, live.call(token, "tools/list").encoded()))
        return made


def one_valkey() -> Callable[[], Store]:
    """A store for each worker, all with the same names on the same server."""
    first = KINDS["valkey"]()
    return lambda: replace(first)  # type: ignore[type-var]


def test_rate_06_of_a_thousand_at_once_over_two_workers_exactly_the_limit_passes() -> None:
    with ExitStack() as until_closed:
        workers = Workers(one_valkey(), limited(principal=Limit(100, DAY)), until_closed)
        shots = workers.requests() * 500
        with ThreadPoolExecutor(AT_ONCE) as pool:
            statuses = [seen.status for seen in pool.map(lambda shot: send(*shot), shots)]
        assert {status: statuses.count(status) for status in set(statuses)} == {200: 100, 429: 900}
        assert sum(app.calls for app in workers.apps) == 100
        assert all(app.calls for app in workers.apps), "both workers let requests through"


def test_rate_06_on_one_worker_too(store: Callable[[], Store]) -> None:
    with deployed(store, limits=limited(principal=Limit(100, DAY))) as live:
        call = live.call(live.token())
        with ThreadPoolExecutor(AT_ONCE) as pool:
            statuses = [seen.status for seen in pool.map(live.send, [call] * 400)]
        assert {status: statuses.count(status) for status in set(statuses)} == {200: 100, 429: 300}
        assert live.downstream.calls == 100


def spellings(live: Deployment) -> Iterator[Request]:
    """The same call, as another might spell it."""
    call = live.call(live.token())
    for target in (b"/mcp", b"/mcp/", b"//mcp", b"/mcp?x=1", b"/./mcp", b"/mc%70"):
        yield Request(call.method, target, call.headers, call.body)
    for method in (b"post", b"Post"):
        yield Request(method, call.target, call.headers, call.body)
    yield Request(call.method, call.target, tuple((name.upper(), value) for name, value in call.headers), call.body)
    yield Request(call.method, call.target, call.headers, call.body, version=b"HTTP/1.0")
    yield Request(call.method, call.target, call.headers, call.body, chunked=True)
    yield edited(call, b"Accept", ((b"Accept", b"*/*"),))


def test_rate_09_however_it_is_spelled_a_principal_has_one_bucket(store: Callable[[], Store]) -> None:
    with deployed(store, limits=limited(principal=Limit(20, DAY))) as live:
        rounds = [[live.send(request).status for request in spellings(live)] for _ in range(8)]
        assert sum(statuses.count(200) for statuses in rounds) <= 20
        assert live.downstream.calls <= 20, "what the app refuses counts as well"
        assert 429 in rounds[-1]
        assert 200 not in rounds[-1]


def aborted(live: Deployment, request: Request) -> None:
    """Send the head of a request and half of its body, and leave."""
    with socket.create_connection(("127.0.0.1", live.port), 5) as connection:
        connection.sendall(request.encoded()[: -len(request.body) // 2])


def test_rate_13_requests_that_are_refused_or_given_up_count_against_the_address() -> None:
    with deployed(limits=limited(address=Limit(40, DAY))) as live:
        token = live.token()
        large = edited(live.call(token), add=((b"Content-Length", b"99999999"),))
        large = Request(large.method, large.target, large.headers, b"", with_length=False)
        evil = edited(live.call(token), add=((b"Origin", b"https://evil.example"),))
        dear = live.call(token, params={"name": "add", "arguments": {"a": 1, "b": 2}})
        statuses = [live.send(request).status for _ in range(5) for request in (live.call(None), large, evil, dear)]
        assert statuses == [401, 413, 403, 403] * 5
        for number in range(20):
            aborted(live, live.call(token))
            polled(lambda number=number: len(live.audit.records()) >= 21 + number)  # type: ignore[misc]
        assert audited(live, 20) == ["aborted"] * 20
        assert live.send(live.call(token)).status == 429
        assert live.downstream.calls == 0


def test_rate_13_requests_that_are_refused_further_in_count_against_the_principal(store: Callable[[], Store]) -> None:
    with deployed(store, limits=limited(principal=Limit(10, DAY))) as live:
        unknown = live.legacy(live.token(), LIST, session="0123456789abcdef0123456789abcdef")
        assert [live.send(unknown).status for _ in range(12)] == [404] * 10 + [429] * 2


def test_no_refusal_of_a_limit_holds_a_secret(store: Callable[[], Store]) -> None:
    with deployed(store, limits=limited(principal=Limit(1, DAY))) as live:
        token = live.token()
        live.send(live.call(token))
        refused = live.send(live.call(token))
        written = json.dumps(live.audit.records()) + refused.body.decode() + repr(refused.headers)
        assert not any(part in written for part in token.split("."))
