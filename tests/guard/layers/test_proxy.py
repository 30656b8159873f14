"""Proxy: who the client is, and whom we believe about it."""

from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_guard.facts import ClientAddress, Transport, fact
from mcp_guard.failures import ConfigurationError
from mcp_guard.layers.proxy import CLAIMS, Proxy
from tests.guard.asgi import CountingApp, Outcome, drive, http_scope
from tests.guard.layers.handshakes import handshake

Headers = list[tuple[bytes, bytes]]
HOST = (b"host", b"mcp.example.com")
PEER = ("10.0.0.1", 4711)
BEHIND = Proxy(trusted=("10.0.0.0/8", "2001:db8::/32"))
STANDARD = Proxy(trusted=("10.0.0.0/8",), header="forwarded")


async def sent(layer: Proxy, *headers: tuple[bytes, bytes], **scope: Any) -> tuple[CountingApp, Outcome]:
    app = CountingApp()
    return app, await drive(layer.wrap(app), http_scope(headers=[HOST, *headers], **{"client": PEER, **scope}))


async def learned(layer: Proxy, *headers: tuple[bytes, bytes], **scope: Any) -> tuple[str, str, str]:
    """Client address, scheme and authority as the layers further in know them."""
    app, outcome = await sent(layer, *headers, **scope)
    assert outcome.status == 200
    transport = fact(app.scopes[-1], Transport)
    return str(fact(app.scopes[-1], ClientAddress)), transport.scheme, transport.authority


async def malformed(layer: Proxy, *headers: tuple[bytes, bytes], **scope: Any) -> None:
    app, outcome = await sent(layer, *headers, **scope)
    assert (outcome.status, app.calls) == (400, 0)
    assert outcome.json()["error"] == "forwarded_malformed"


SPOOFED: Headers = [
    (b"x-forwarded-for", b"127.0.0.1"),
    (b"x-forwarded-proto", b"https"),
    (b"x-forwarded-host", b"evil.example"),
    (b"forwarded", b"for=127.0.0.1;proto=https;host=evil.example"),
    (b"x-real-ip", b"127.0.0.1"),
    (b"true-client-ip", b"127.0.0.1"),
    (b"cf-connecting-ip", b"127.0.0.1"),
]


# rate-02, tls-02, tls-03, TLS-005
@pytest.mark.parametrize("spoof", SPOOFED)
@pytest.mark.parametrize("layer", [Proxy(), BEHIND, Proxy(trusted=("unix",))])
async def test_rate_02_a_peer_that_is_not_trusted_is_not_believed(layer: Proxy, spoof: tuple[bytes, bytes]) -> None:
    app, outcome = await sent(layer, spoof, client=("192.0.2.7", 1))
    assert outcome.status == 200
    seen = app.scopes[-1]
    assert fact(seen, ClientAddress) == ClientAddress(ip_address("192.0.2.7"))
    assert fact(seen, Transport) == Transport("http", "mcp.example.com")
    assert seen["headers"] == [HOST]
    assert (seen["scheme"], seen["client"]) == ("http", ("192.0.2.7", 1))


# tls-03
@pytest.mark.parametrize("value", [b'for="', b",", b"for=1;for=2", b", ".join([b"for=1.2.3.4"] * 100)])
async def test_tls_03_nonsense_of_a_peer_that_is_not_trusted_is_ignored(value: bytes) -> None:
    assert await learned(Proxy(), (b"forwarded", value)) == ("10.0.0.1", "http", "mcp.example.com")


# rate-03
@pytest.mark.parametrize(
    ("values", "client"),
    [
        ([b"1.2.3.4, 192.0.2.7"], "192.0.2.7"),
        ([b"1.2.3.4", b"192.0.2.7"], "192.0.2.7"),
        ([b"192.0.2.7:99"], "192.0.2.7"),
        ([b"192.0.2.7, 10.3.3.3"], "192.0.2.7"),
        ([b"::ffff:192.0.2.7"], "192.0.2.7"),
        ([b"unknown"], "10.0.0.1"),
        ([b"garbage, \xff"], "10.0.0.1"),
        ([], "10.0.0.1"),
    ],
)
async def test_rate_03_behind_a_trusted_proxy_the_right_most_stranger_is_the_client(
    values: list[bytes], client: str
) -> None:
    headers = [(b"x-forwarded-for", value) for value in values]
    assert await learned(BEHIND, *headers, (b"x-forwarded-proto", b"https")) == (client, "https", "mcp.example.com")


# rate-04
@pytest.mark.parametrize("peer", ["::ffff:192.0.2.7", "192.0.2.7"])
async def test_rate_04_a_mapped_address_is_the_address(peer: str) -> None:
    app, _ = await sent(Proxy(), client=(peer, 1))
    assert fact(app.scopes[-1], ClientAddress).bucket == "192.0.2.7"


async def test_rate_04_addresses_of_one_v6_network_share_a_bucket() -> None:
    buckets = set()
    for n in (1, 2, 0xFFFF):
        app, _ = await sent(BEHIND, (b"x-forwarded-for", f"2a00:1:2:3::{n:x}".encode()))
        buckets.add(fact(app.scopes[-1], ClientAddress).bucket)
    assert buckets == {"2a00:1:2:3::/64"}


async def test_a_mapped_peer_is_trusted_like_its_address() -> None:
    for layer in (BEHIND, Proxy(trusted=("::ffff:10.0.0.0/104",))):
        assert (await learned(layer, (b"x-forwarded-for", b"192.0.2.7"), client=("::ffff:10.0.0.1", 1)))[
            0
        ] == "192.0.2.7"


# tls-02
@pytest.mark.parametrize(
    "values", [[b"https,http"], [b"https", b"http"], [b"https", b"https"], [b"HTTPS"], [b"wss"], [b"https "], [b""]]
)
async def test_tls_02_an_unclear_scheme_of_a_trusted_proxy_is_refused(values: list[bytes]) -> None:
    await malformed(BEHIND, *[(b"x-forwarded-proto", value) for value in values])


async def test_without_a_word_on_the_scheme_it_is_the_connection_s() -> None:
    assert (await learned(BEHIND, (b"x-forwarded-for", b"192.0.2.7")))[1] == "http"
    assert (await learned(BEHIND, (b"x-forwarded-for", b"192.0.2.7"), scheme="https"))[1] == "https"
    assert (await learned(BEHIND, (b"x-forwarded-proto", b"http"), scheme="https"))[1] == "http"


async def test_the_standard_field_is_read_where_it_is_configured() -> None:
    field = (b"forwarded", b"for=1.2.3.4;proto=http, for=192.0.2.7;proto=https;host=evil.example")
    assert await learned(STANDARD, field) == ("192.0.2.7", "https", "mcp.example.com")
    assert await learned(BEHIND, field) == ("10.0.0.1", "http", "mcp.example.com")
    assert await learned(STANDARD, (b"x-forwarded-for", b"1.2.3.4")) == ("10.0.0.1", "http", "mcp.example.com")
    await malformed(STANDARD, (b"forwarded", b"for=192.0.2.7;for=1.2.3.4"))


# tls-03
@pytest.mark.parametrize("layer", [BEHIND, STANDARD])
async def test_tls_03_families_that_contradict_each_other_are_refused(layer: Proxy) -> None:
    usual = [(b"x-forwarded-for", b"192.0.2.7"), (b"x-forwarded-proto", b"https")]
    await malformed(layer, *usual, (b"forwarded", b"for=1.2.3.4;proto=https"))
    await malformed(layer, *usual, (b"forwarded", b"for=192.0.2.7;proto=http"))
    await malformed(layer, *usual, (b"forwarded", b'for="'))
    assert await learned(layer, *usual, (b"forwarded", b"for=192.0.2.7;proto=https")) == (
        "192.0.2.7",
        "https",
        "mcp.example.com",
    )


async def test_the_app_sees_the_client_where_it_looks_for_it_and_no_claims() -> None:
    app, _ = await sent(BEHIND, (b"x-forwarded-for", b"192.0.2.7"), (b"x-forwarded-proto", b"https"), (b"x-a", b"1"))
    seen = app.scopes[-1]
    assert (seen["scheme"], seen["client"]) == ("https", ("192.0.2.7", 0))
    assert seen["headers"] == [HOST, (b"x-a", b"1")]


# http-06, tls-04
@pytest.mark.parametrize(
    "name",
    [*sorted(CLAIMS), b"x-forwarded-client-cert", b"x-ssl-client-verify", b"x-auth-request-user", b"x-forwarded-user"],
)
@pytest.mark.parametrize("peer", [PEER, ("192.0.2.7", 1)])
async def test_tls_04_who_the_client_is_said_to_be_is_never_handed_on(name: bytes, peer: tuple[str, int]) -> None:
    headers = [HOST, (name, b"for=192.0.2.9"), (name, b"for=192.0.2.9")]
    app = CountingApp()
    await drive(BEHIND.wrap(app), http_scope(headers=headers, client=peer))
    assert app.scopes[-1]["headers"] == [HOST]


async def test_a_very_long_host_is_handed_on_like_a_short_one() -> None:
    app = CountingApp()
    await drive(Proxy().wrap(app), http_scope(headers=[(b"host", b"h" * 5000)]))
    assert fact(app.scopes[-1], Transport).authority == "h" * 5000


async def test_many_long_names_are_looked_through_like_few() -> None:
    long = [(b"x-" + b"a" * 60 + b"-%d" % n, b"") for n in range(60)]
    app, _ = await sent(Proxy(), *long, (b"x-real-ip", b"127.0.0.1"))
    assert app.scopes[-1]["headers"] == [HOST, *long]


async def test_the_host_is_taken_from_a_proxy_only_when_it_is_trusted_with_it() -> None:
    layer = Proxy(trusted=("10.0.0.0/8",), trust_host=True)
    field = (b"x-forwarded-host", b"public.example.com")
    assert (await learned(BEHIND, field))[2] == "mcp.example.com"
    assert (await learned(layer, field, client=("192.0.2.7", 1)))[2] == "mcp.example.com"
    app, _ = await sent(layer, field, (b"x-a", b"1"))
    assert fact(app.scopes[-1], Transport).authority == "public.example.com"
    assert app.scopes[-1]["headers"] == [(b"host", b"public.example.com"), (b"x-a", b"1")]
    standard = Proxy(trusted=("10.0.0.0/8",), header="forwarded", trust_host=True)
    assert (await learned(standard, (b"forwarded", b'for=1.2.3.4;host="public.example.com:444"')))[2] == (
        "public.example.com:444"
    )
    assert (await learned(BEHIND, field, field, (b"x-forwarded-host", b"a/b")))[2] == "mcp.example.com"
    for value in (b"a/b", b"evil@public.example.com", b"a, b", b""):
        await malformed(layer, (b"x-forwarded-host", value))


async def test_one_address_may_be_trusted() -> None:
    layer = Proxy(trusted=("2001:db8::1", "192.0.2.1/32"))
    field = (b"x-forwarded-for", b"1.2.3.4")
    for peer, client in (("2001:db8::1", "1.2.3.4"), ("2001:db8::2", "2001:db8::2"), ("192.0.2.1", "1.2.3.4")):
        assert (await learned(layer, field, client=(peer, 1)))[0] == client


async def test_a_socket_file_is_trusted_when_it_is_listed() -> None:
    field = (b"x-forwarded-for", b"192.0.2.7")
    for peer in (None, ("/run/app.sock", None)):
        assert (await learned(Proxy(trusted=("unix",)), field, client=peer))[0] == "192.0.2.7"
        assert (await learned(BEHIND, field, client=peer))[0] == "unknown"
    assert (await learned(Proxy(trusted=("unix",)), client=None))[0] == "unknown"
    assert (await learned(Proxy(trusted=("unix",)), (b"x-forwarded-for", b"unknown"), client=None))[0] == "unknown"


@pytest.mark.parametrize(("scheme", "known"), [("ws", "http"), ("wss", "https"), ("gopher", "http")])
async def test_the_scheme_is_http_or_https(scheme: str, known: str) -> None:
    assert (await learned(Proxy(), scheme=scheme))[1] == known


async def test_a_scope_without_members_that_asgi_makes_optional_is_a_stranger_over_http() -> None:
    scope = http_scope(headers=[])
    del scope["client"], scope["scheme"]
    app = CountingApp()
    await drive(Proxy().wrap(app), scope)
    assert fact(app.scopes[-1], ClientAddress).ip is None
    assert fact(app.scopes[-1], Transport) == Transport("http", "")


async def test_a_second_host_field_is_refused() -> None:
    app, outcome = await sent(Proxy(), HOST)
    assert (outcome.status, app.calls) == (400, 0)
    assert outcome.json()["error"] == "header_repeated"


async def test_a_handshake_is_judged_too() -> None:
    assert await handshake(Proxy(), headers=[HOST, HOST]) == "header_repeated"


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"trusted": ("*",)}, "trusted"),
        ({"trusted": ("10.0.0.1/8",)}, "trusted"),
        ({"trusted": ("proxy.internal",)}, "trusted"),
        ({"trusted": ("",)}, "trusted"),
        ({"trusted": ("0.0.0.0/0",)}, "trusted"),
        ({"trusted": ("::/0",)}, "trusted"),
        ({"trusted": "10.0.0.0/8"}, "trusted"),
        ({"header": "x-real-ip"}, "header"),
    ],
)
def test_a_setting_that_cannot_work_is_named(settings: dict[str, Any], name: str) -> None:
    with pytest.raises(ConfigurationError, match=name):
        Proxy(**settings)


async def test_every_address_is_trusted_only_by_a_setting_that_says_so() -> None:
    layer = Proxy(trusted=("0.0.0.0/0", "::/0"), insecure_trust_any_proxy=True)
    assert (await learned(layer, (b"x-forwarded-for", b"192.0.2.7"), client=("8.8.8.8", 1)))[0] == "192.0.2.7"


claimed = st.lists(
    st.tuples(
        st.sampled_from([name for name, _ in SPOOFED]), st.text('for=127.0.1, ;https[]:"', max_size=20).map(str.encode)
    ),
    max_size=5,
)


@given(claimed, st.ip_addresses(v=4).filter(lambda one: one not in BEHIND.networks[0]))
async def test_nothing_that_a_stranger_says_changes_a_fact(headers: Headers, peer: object) -> None:
    told = await learned(BEHIND, *headers, client=(str(peer), 1))
    assert told == await learned(BEHIND, client=(str(peer), 1))
