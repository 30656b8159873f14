"""Forwarding fields: read from the end, and only as far as the writers are trusted."""

import contextlib
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_guard.protocol.forwarded import (
    MAX_HOPS,
    Address,
    ForwardedError,
    Hop,
    Reading,
    forwarded,
    read_address,
    read_node,
    walk,
    x_forwarded,
)

PROXY = ip_address("10.0.0.1")
INNER = ip_address("10.0.0.2")
CLIENT = ip_address("192.0.2.7")
LIAR = ip_address("198.51.100.9")


def trusts(address: Address) -> bool:
    return address in ip_network("10.0.0.0/8")


NODES = [
    ("192.0.2.7", "192.0.2.7"),
    ("192.0.2.7:4711", "192.0.2.7"),
    ("[2001:db8::1]", "2001:db8::1"),
    ("[2001:db8::1]:99", "2001:db8::1"),
    ("2001:db8::1", "2001:db8::1"),
    ("::ffff:192.0.2.7", "192.0.2.7"),
    ("[::1]", "::1"),
]
NO_NODES = [
    "",
    "unknown",
    "_hidden",
    "192.0.2",
    "192.0.2.256",
    "192.0.2.07",
    "192.0.2.7:",
    "[::1",
    "[::1]x",
    "::1%lo",
    "a",
    "1",
]


@pytest.mark.parametrize(("text", "address"), NODES)
def test_a_node_is_an_address_without_its_port(text: str, address: str) -> None:
    assert read_node(text) == ip_address(address)


@pytest.mark.parametrize("text", NO_NODES)
def test_what_names_no_address_is_no_node(text: str) -> None:
    assert read_node(text) is None


def test_a_server_s_address_may_have_a_zone_or_be_mapped() -> None:
    assert read_address("fe80::1%eth0") == ip_address("fe80::1")
    assert read_address("::ffff:10.0.0.1") == PROXY
    assert read_address("/run/app.sock") is None


def test_the_right_most_address_that_is_not_trusted_is_the_client() -> None:
    assert walk([Hop(LIAR), Hop(CLIENT), Hop(INNER)], PROXY, trusts).client == CLIENT


def test_a_list_of_trusted_addresses_begins_with_the_client() -> None:
    assert walk([Hop(INNER)], PROXY, trusts).client == INNER


def test_an_empty_list_leaves_the_peer() -> None:
    assert walk([], PROXY, trusts) == Reading(PROXY)


def test_an_entry_without_an_address_ends_the_walk_at_the_nearest_known_one() -> None:
    assert walk([Hop(CLIENT), Hop(None, "https")], PROXY, trusts) == Reading(PROXY, "https")


def test_scheme_and_host_are_those_that_a_trusted_proxy_wrote_about_the_client() -> None:
    hops = [Hop(LIAR, "https", "evil.example"), Hop(CLIENT, "http", "mcp.example.com"), Hop(INNER, "https", "inner")]
    assert walk(hops, PROXY, trusts) == Reading(CLIENT, "http", "mcp.example.com")


# rate-03
@pytest.mark.parametrize(
    ("values", "client"),
    [
        ([b"1.2.3.4, 192.0.2.7"], CLIENT),
        ([b"1.2.3.4", b"192.0.2.7"], CLIENT),
        ([b"192.0.2.7:99"], CLIENT),
        ([b"1.2.3.4, unknown"], PROXY),
        ([b"1.2.3.4, "], PROXY),
        ([b"garbage"], PROXY),
        ([b"\xff\xfe"], PROXY),
        ([b"[::1]"], ip_address("::1")),
        ([b", ".join([b"1.2.3.4"] * 49 + [b"192.0.2.7"])], CLIENT),
        ([b"192.0.2.7, 10.0.0.2"], CLIENT),
        ([], PROXY),
    ],
)
def test_rate_03_x_forwarded_for_is_read_from_its_end(values: list[bytes], client: Address) -> None:
    assert x_forwarded(values, [], [], PROXY, trusts).client == client


def test_more_hops_than_a_chain_of_proxies_has_are_refused() -> None:
    assert x_forwarded([b",".join([b"10.0.0.2"] * MAX_HOPS)], [], [], PROXY, trusts).client == INNER
    with pytest.raises(ForwardedError):
        x_forwarded([b",".join([b"10.0.0.2"] * (MAX_HOPS + 1))], [], [], PROXY, trusts)


# tls-02
@pytest.mark.parametrize(
    "protos",
    [
        [b"https,http"],
        [b"https, https"],
        [b"https", b"http"],
        [b"https", b"https"],
        [b"HTTPS"],
        [b"wss"],
        [b"https\r\n"],
        [b""],
        [b" https"],
    ],
)
def test_tls_02_a_scheme_that_is_not_one_clear_value_is_refused(protos: list[bytes]) -> None:
    with pytest.raises(ForwardedError):
        x_forwarded([], protos, [], PROXY, trusts)


@pytest.mark.parametrize("proto", ["http", "https"])
def test_a_clear_scheme_is_taken(proto: str) -> None:
    assert x_forwarded([b"192.0.2.7"], [proto.encode()], [], PROXY, trusts) == Reading(CLIENT, proto)


def test_several_hosts_are_refused() -> None:
    assert x_forwarded([], [], [b"a.example"], PROXY, trusts).host == "a.example"
    for hosts in ([b"a.example, b.example"], [b"a.example", b"b.example"]):
        with pytest.raises(ForwardedError):
            x_forwarded([], [], hosts, PROXY, trusts)


@pytest.mark.parametrize(
    ("values", "reading"),
    [
        ([b"for=192.0.2.7;proto=https"], Reading(CLIENT, "https")),
        ([b"FOR=192.0.2.7;Proto=https;host=mcp.example.com"], Reading(CLIENT, "https", "mcp.example.com")),
        ([b'for="192.0.2.7:4711";by=10.0.0.1 ; proto="https"'], Reading(CLIENT, "https")),
        ([b'for="[2001:db8::1]:99"'], Reading(ip_address("2001:db8::1"))),
        ([b'for=_hidden;ext="a,b;\\"c";proto=https'], Reading(PROXY, "https")),
        ([b"for=1.2.3.4;proto=http, for=192.0.2.7;proto=https"], Reading(CLIENT, "https")),
        ([b"for=1.2.3.4", b"for=192.0.2.7;proto=https"], Reading(CLIENT, "https")),
        ([b"for=192.0.2.7;proto=https, for=10.0.0.2;proto=http"], Reading(CLIENT, "https")),
        ([b"proto=https"], Reading(PROXY, "https")),
    ],
)
def test_forwarded_is_read_from_its_end(values: list[bytes], reading: Reading) -> None:
    assert forwarded(values, PROXY, trusts) == reading


# tls-03
@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"for",
        b"for=",
        b"=192.0.2.7",
        b"for=192.0.2.7;",
        b";for=192.0.2.7",
        b"for=192.0.2.7,",
        b",for=192.0.2.7",
        b'for="192.0.2.7',
        b'for=192.0.2.7"',
        b'for="a"b',
        b"for=192.0.2.7;for=10.0.0.2",
        b"for=192.0.2.7:80",
        b"for=[::1]",
        b"for =192.0.2.7",
        b"for= 192.0.2.7",
        b"for=192.0.2.7 proto=https",
        b"for=192.0.2.7;proto=HTTPS",
        b"for=192.0.2.7;proto=wss",
        b'for=192.0.2.7;proto="https,http"',
        b"for=\xff",
        b", ".join([b"for=10.0.0.2;proto=https"] * (MAX_HOPS + 1)),
    ],
)
def test_tls_03_forwarded_outside_its_grammar_is_refused(value: bytes) -> None:
    with pytest.raises(ForwardedError):
        forwarded([value], PROXY, trusts)


@pytest.mark.parametrize(
    ("one", "other", "contradict"),
    [
        (Reading(CLIENT, "https"), Reading(CLIENT, "https"), False),
        (Reading(CLIENT, "https"), Reading(CLIENT), False),
        (Reading(CLIENT, "https"), Reading(CLIENT, "http"), True),
        (Reading(CLIENT, "https"), Reading(LIAR, "https"), True),
        (Reading(CLIENT), Reading(PROXY), True),
    ],
)
def test_two_readings_contradict_when_they_name_different_clients_or_schemes(
    one: Reading, other: Reading, contradict: bool
) -> None:
    assert one.contradicts(other) is contradict
    assert other.contradicts(one) is contradict


names = st.text('for=proto;,"\\ 1.0[]:2', max_size=30).map(str.encode)


@given(st.lists(st.one_of(names, st.binary(max_size=30)), max_size=3), st.lists(names, max_size=2))
def test_nothing_but_the_failure_is_raised(values: list[bytes], protos: list[bytes]) -> None:
    with contextlib.suppress(ForwardedError):
        forwarded(values, PROXY, trusts)
    with contextlib.suppress(ForwardedError):
        x_forwarded(values, protos, values, PROXY, trusts)


addresses = st.ip_addresses().filter(lambda one: not trusts(read_address(str(one)) or PROXY))
claims = st.lists(st.one_of(names, addresses.map(lambda one: str(one).encode())), max_size=5)


@given(claims, addresses, st.lists(st.sampled_from([b"10.0.0.2", b"10.9.8.7"]), max_size=3))
def test_nothing_that_a_client_prepends_changes_who_it_is(
    prepended: list[bytes], client: Address, proxies: list[bytes]
) -> None:
    written = [str(client).encode(), *proxies]
    honest = x_forwarded([b", ".join(written)], [], [], PROXY, trusts)
    spoofed = x_forwarded([b", ".join([*prepended, *written])], [], [], PROXY, trusts)
    assert honest.client == spoofed.client == read_address(str(client))
