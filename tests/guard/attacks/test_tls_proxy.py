"""Area tls-proxy: what clients say of their way here, to a deployment of https behind a proxy, on each server.

The proxy is this process: it is trusted, and what it hands on of its client stands in the fields of each shot.
"""

from collections.abc import Iterator

import pytest

from tests.guard.attacks import test_corpus
from tests.guard.attacks.corpus import Attack, Shot
from tests.guard.attacks.deployment import Capture, Deployment, deployed
from tests.guard.attacks.http_attacks import edited
from tests.guard.attacks.oracle import judge
from tests.guard.attacks.raw import Observation, Request
from tests.guard.servers import SERVERS

PUBLIC = "https://mcp.example.com"
PROTO, FORWARDED, FOR = b"X-Forwarded-Proto", b"Forwarded", b"X-Forwarded-For"
Fields = tuple[tuple[bytes, bytes], ...]


@pytest.fixture(scope="module")
def log() -> Iterator[Capture]:
    yield from test_corpus.captured()


@pytest.fixture(scope="module", params=SERVERS)
def live(request: pytest.FixtureRequest, log: Capture) -> Iterator[Deployment]:
    with deployed(server=request.param, public=PUBLIC) as deployment:
        yield deployment


def saying(request: Request, *fields: tuple[bytes, bytes]) -> Request:
    """The request with these fields in the place of the scheme that a good proxy says."""
    return edited(request, PROTO, fields)


def is_not_redirected(seen: Observation) -> None:
    """Nor is a browser told to keep to https by an answer that anybody could have written."""
    assert not seen.values("location")
    assert not seen.values("strict-transport-security")


def cleartext(live: Deployment) -> Iterator[Shot]:
    """tls-01"""
    good, bare = live.call(live.token()), live.call(None)
    for name, fields in (("unsaid", ()), ("http", ((PROTO, b"http"),))):
        yield Shot(f"{name} with a token", saying(good, *fields), (403,), check=is_not_redirected)
        yield Shot(f"{name} without", saying(bare, *fields), (403,), check=is_not_redirected)
        page = Request(b"GET", b"/authorize?client_id=c1", ((b"Host", live.host), *fields))
        yield Shot(f"{name} page", page, (403,), check=is_not_redirected)


def unclear_schemes(live: Deployment) -> Iterator[Shot]:
    """tls-02"""
    good = live.call(live.token())
    for scheme in (
        b"https,http",
        b"http,https",
        b"HTTPS",
        b"wss",
        b"https:",
        b'"https"',
        b"https;x",
        b"",
        b"https https",
    ):
        yield Shot(repr(scheme), saying(good, (PROTO, scheme)), (400, 403))
    for first, second in ((b"https", b"http"), (b"http", b"https"), (b"https", b"https")):
        yield Shot(f"{first!r} and {second!r}", saying(good, (PROTO, first), (PROTO, second)), (400, 403))
    yield Shot("in another spelling", saying(good, (b"X_Forwarded_Proto", b"https")), (403,))
    yield Shot("as a good proxy says it", good, (200,), reaches_app=True)
    yield Shot("with blanks around it", saying(good, (PROTO, b" https \t")), (200,), reaches_app=True)


def two_families(live: Deployment) -> Iterator[Shot]:
    """tls-03: of the family that is not configured nothing is believed, and no contradiction is let through."""
    good = live.call(live.token())
    for value in (
        b"for=127.0.0.1;proto=https;host=evil.example",
        b'for="[::1";proto=https',
        b"proto=https",
        b", ".join([b"for=127.0.0.1"] * 100),
    ):
        yield Shot(f"alone {value[:20]!r}", saying(good, (FORWARDED, value)), (400, 403))
    against = (PROTO, b"https"), (FORWARDED, b"for=192.0.2.1;proto=http;host=evil.example")
    yield Shot("against the other", saying(good, *against), (400, 403))
    chain = (PROTO, b"https"), (FOR, b", ".join([b"127.0.0.1"] * 1_000))
    yield Shot("a chain of a thousand", saying(good, *chain), (400, 403, 431))
    for address in (b"127.0.0.1:", b"localhost", b"1.2.3", b"[::1", b"\xff", b"192.0.2.1;x"):
        # It names no address, so the client is one with everybody whose address is not known.
        odd = saying(good, (PROTO, b"https"), (FOR, address))
        yield Shot(f"address {address!r}", odd, (200,), reaches_app=True)
        assert live.downstream.seen[-2]["client"] == "127.0.0.1"


def certificates_in_fields(live: Deployment) -> Iterator[Shot]:
    """tls-04: nobody was said to write them, so nobody is believed, and the app is not shown them."""
    bare, good = live.call(None), live.call(live.token())
    fields: Fields = (
        (b"X-Client-Cert", b"-----BEGIN CERTIFICATE-----"),
        (b"X-SSL-Client-Verify", b"SUCCESS"),
        (b"X-Forwarded-Client-Cert", b'Subject="CN=admin"'),
        (b"Client-Cert", b":AAAA:"),
        (b"Client-Cert-Chain", b":AAAA:"),
        (b"SSL_CLIENT_S_DN", b"CN=admin"),
    )
    for name, value in fields:
        yield Shot(f"{name!r} in place of a token", edited(bare, add=((name, value),)), (401,))
        bound = live.call(live.token(cnf={"x5t#S256": "A" * 43}))
        yield Shot(f"{name!r} for a bound token", edited(bound, add=((name, value),)), (401,))
    yield Shot("beside a good token", edited(good, add=fields), (200,), reaches_app=True)
    shown = {name for name, _ in live.downstream.seen[-2]["headers"]}
    assert shown.isdisjoint({name.lower() for name, _ in fields})


ATTACKS = {
    "tls-01": cleartext,
    "tls-02": unclear_schemes,
    "tls-03": two_families,
    "tls-04": certificates_in_fields,
}


@pytest.mark.parametrize("identifier", ATTACKS)
def test_the_attack_has_no_effect_behind_a_proxy(identifier: str, live: Deployment, log: Capture) -> None:
    judge(Attack(identifier, ATTACKS[identifier]), live, log)
