"""Hosts, origins and public URLs: parsed strictly, shown in one form."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_guard.failures import ConfigurationError
from mcp_guard.protocol.uris import (
    OPAQUE_ORIGIN,
    Authority,
    PublicUrl,
    UriError,
    WebOrigin,
    is_loopback,
    normalised,
    parse_host,
    parse_origin,
)

HOSTS = [
    (b"mcp.example.com", "mcp.example.com", None),
    (b"MCP.Example.COM:8443", "mcp.example.com", 8443),
    (b"localhost:1", "localhost", 1),
    (b"127.0.0.1:65535", "127.0.0.1", 65535),
    (b"[::1]", "[::1]", None),
    (b"[0:0:0::1]:80", "[::1]", 80),
    (b"[2001:DB8::A]", "[2001:db8::a]", None),
    (b"[::ffff:192.0.2.1]", "[::ffff:c000:201]", None),
    (b"xn--bcher-kva.example", "xn--bcher-kva.example", None),
    (b"under_score.example", "under_score.example", None),
    (b"1e100.net", "1e100.net", None),
    (b"3com", "3com", None),
]

# http-23, csrf-03
BAD_HOSTS = [
    b"",
    b" ",
    b"a/b?c=",
    b"a/b",
    b"a?b",
    b"a#b",
    b"x@mcp.example.com",
    b"x:y@mcp.example.com",
    b"mcp.example.com:99999",
    b"mcp.example.com:0",
    b"mcp.example.com:080",
    b"mcp.example.com:",
    b"mcp.example.com:80:80",
    b"mcp.example.com, evil",
    b"mcp.example.com,evil",
    b"mcp.example.com evil",
    b"mcp.example.com\t",
    b"mcp.example.com\n",
    b" mcp.example.com",
    b"mcp.example.com.",
    b".mcp.example.com",
    b"mcp..example.com",
    b"-a.example",
    b"a-.example",
    b"localhost:evil",
    b"localhost:8000.evil.example",
    b"localhost:+80",
    b"localhost:8_0",
    b"::1",
    b"[::1",
    b"[::1]x",
    b"[::1%25lo]",
    b"[::1%lo]",
    b"[v1.fe80::a]",
    b"[127.0.0.1]",
    b"[]",
    b"[:::]",
    b"127.1",
    b"127.0.0.01",
    b"127.0.0.256",
    b"127.0.0.0x1",
    b"0x7f.0.0.1",
    b"2130706433",
    b"0x7f000001",
    b"evil.123",
    b"%61.example",
    b"b\xc3\xbccher.example",
    "bücher.example".encode("latin-1"),
    b"a\\b",
    b"a" * 64 + b".example",
    b".".join([b"a" * 60] * 5),
]

ORIGINS = [
    (b"https://app.example.com", WebOrigin("https", "app.example.com", 443)),
    (b"http://localhost:3000", WebOrigin("http", "localhost", 3000)),
    (b"http://[::1]:3000", WebOrigin("http", "[::1]", 3000)),
    (b"vscode-webview://0a1b2c", WebOrigin("vscode-webview", "0a1b2c", None)),
    (b"null", OPAQUE_ORIGIN),
]

# csrf-02, ORIG-002
BAD_ORIGINS = [
    b"",
    b"Null",
    b"https://app.example.com/",
    b"https://app.example.com:443",
    b"http://app.example.com:80",
    b"https://APP.example.com",
    b"HTTPS://app.example.com",
    b"https://app.example.com.",
    b"https://app.example.com:443@evil.net",
    b"https://app.example.com@evil.net",
    b"https://app.example.com, https://evil.example",
    b"https://app.example.com https://evil.example",
    b"https://app.example.com#x",
    b"https://app.example.com?x",
    b"https://app.example.com\\@evil.net",
    b"https:app.example.com",
    b"//app.example.com",
    b"app.example.com",
    b"file://",
    b"http://[0:0::1]",
    b"https://",
    b"https://b\xc3\xbccher.example",
    b"null ",
    b"https://app.example.com\n",
]

PUBLIC = [
    ("https://mcp.example.com/mcp", "https://mcp.example.com/mcp"),
    ("HTTPS://MCP.Example.com:443/Mcp/", "https://mcp.example.com/Mcp/"),
    ("https://mcp.example.com", "https://mcp.example.com"),
    ("https://mcp.example.com/", "https://mcp.example.com/"),
    ("https://mcp.example.com:8443/a/b", "https://mcp.example.com:8443/a/b"),
    ("http://127.0.0.1:8765/mcp", "http://127.0.0.1:8765/mcp"),
    ("http://localhost/mcp", "http://localhost/mcp"),
    ("http://[0::1]:80/mcp", "http://[::1]/mcp"),
    ("https://h.example/caf%C3%A9", "https://h.example/caf%C3%A9"),
]

BAD_PUBLIC = [
    "",
    "mcp.example.com",
    "/mcp",
    "ftp://mcp.example.com/",
    "http://mcp.example.com/mcp",
    "http://127.0.0.1.evil.example/mcp",
    "http://localhost.evil.example/mcp",
    "https://user@mcp.example.com/mcp",
    "https://mcp.example.com/mcp?x=1",
    "https://mcp.example.com/mcp#x",
    "https://mcp.example.com/mcp?",
    "https://mcp.example.com//mcp",
    "https://mcp.example.com/../mcp",
    "https://mcp.example.com/a b",
    "https://mcp.example.com/é",
    "https://mcp.example.com/%ff",
    "https://mcp.example.com/%6dcp",
    "https://bücher.example/mcp",
    "https://mcp.example.com:0/mcp",
    "https://mcp.example.com:99999/mcp",
    "https:///mcp",
    "https://mcp.example.com/mcp\n",
    " https://mcp.example.com/mcp",
    "https://mcp.example.com\\@evil/mcp",
]


@pytest.mark.parametrize(("value", "host", "port"), HOSTS)
def test_a_host_is_read_into_one_form(value: bytes, host: str, port: int | None) -> None:
    assert parse_host(value) == Authority(host, port)


@pytest.mark.parametrize("value", BAD_HOSTS)
def test_anything_but_one_host_and_port_is_refused(value: bytes) -> None:
    with pytest.raises(UriError):
        parse_host(value)


@given(st.one_of(st.binary(max_size=40), st.text("ab.:[]1f0x-_%@/", max_size=20).map(str.encode)))
def test_whatever_host_is_read_shows_itself_as_it_is_read_again(value: bytes) -> None:
    try:
        authority = parse_host(value)
    except UriError:
        return
    assert parse_host(str(authority).encode()) == authority


@given(st.ip_addresses())
def test_every_address_is_a_host(address: object) -> None:
    text = f"[{address}]" if ":" in str(address) else str(address)
    assert parse_host(text.encode()).port is None


@pytest.mark.parametrize(("value", "origin"), ORIGINS)
def test_a_serialised_origin_is_read_and_shown_again(value: bytes, origin: WebOrigin) -> None:
    assert parse_origin(value) == origin
    assert str(origin).encode() == value
    assert origin.is_opaque == (value == b"null")


@pytest.mark.parametrize("value", BAD_ORIGINS)
def test_anything_but_the_one_serialisation_of_an_origin_is_refused(value: bytes) -> None:
    with pytest.raises(UriError):
        parse_origin(value)


@given(st.one_of(st.binary(max_size=40), st.text("htps:/a.b1[]@#:", max_size=24).map(str.encode)))
def test_whatever_origin_is_read_is_exactly_its_serialisation(value: bytes) -> None:
    try:
        origin = parse_origin(value)
    except UriError:
        return
    assert str(origin).encode() == value


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.9.10", "[::1]", "::1", "[::ffff:127.0.0.1]"])
def test_loopback_is_known_in_all_its_forms(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host",
    ["example.com", "10.0.0.1", "[::2]", "app.localhost", "127.1", "[::ffff:10.0.0.1]", "0.0.0.0", "[::]", "[x]", ""],
)
def test_nothing_else_is_loopback(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize(("text", "shown"), PUBLIC)
def test_a_public_url_is_shown_in_one_form(text: str, shown: str) -> None:
    url = PublicUrl.parse(text)
    assert str(url) == shown
    assert PublicUrl.parse(shown) == url


@pytest.mark.parametrize("text", BAD_PUBLIC)
def test_a_public_url_that_cannot_be_one_is_a_configuration_error_that_names_the_setting(text: str) -> None:
    with pytest.raises(ConfigurationError, match="base_url: "):
        PublicUrl.parse(text, setting="base_url")


@given(st.text(max_size=40))
def test_a_public_url_fails_as_a_configuration_error_alone(text: str) -> None:
    for given_text in (text, f"https://{text}", f"https://h.example/{text}"):
        try:
            url = PublicUrl.parse(given_text)
        except ConfigurationError:
            continue
        assert PublicUrl.parse(str(url)) == url


def test_a_public_url_knows_its_parts() -> None:
    url = PublicUrl.parse("https://mcp.example.com:8443/mcp")
    assert (url.origin, url.authority, url.port, url.path) == (
        "https://mcp.example.com:8443",
        "mcp.example.com:8443",
        8443,
        "/mcp",
    )
    assert url.hosts == ("mcp.example.com",)
    assert not url.is_loopback
    assert url.is_secure
    assert not PublicUrl.parse("http://localhost").is_secure


def test_a_loopback_deployment_is_known_under_every_name_of_loopback() -> None:
    assert set(PublicUrl.parse("http://127.0.0.2:80/").hosts) == {"127.0.0.2", "127.0.0.1", "localhost", "[::1]"}


@pytest.mark.parametrize(
    ("spelled", "form"),
    [
        ("https://mcp.example.com/mcp", "https://mcp.example.com/mcp"),
        ("HTTPS://MCP.EXAMPLE.COM:443/mcp", "https://mcp.example.com/mcp"),
        ("http://localhost:80", "http://localhost/"),
        ("http://localhost:8000?x", "http://localhost:8000/"),
        ("https://[0:0::1]:/a", "https://[::1]/a"),
        ("https://h/a/./b/../c", "https://h/a/c"),
        ("https://h/../../a", "https://h/a"),
        ("https://h/a/..", "https://h/"),
        ("https://h/a/.", "https://h/a/"),
        ("https://h/%2e%2E/%7ea%2f%c3%a9", "https://h/~a%2F%C3%A9"),
        ("https://h//a", "https://h//a"),
        ("https://h/a/", "https://h/a/"),
        ("https://h/.well-known/a", "https://h/.well-known/a"),
        ("https://h/a?b=/../c#d", "https://h/a"),
        ("https://h/a#d?\n", "https://h/a"),
    ],
)
def test_the_spellings_of_a_url_have_one_form(spelled: str, form: str) -> None:
    assert normalised(spelled) == form
    assert normalised(form) == form


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/a",
        "h/a",
        "//h/a",
        "ftp://h/a",
        "https:/h/a",
        "https:///a",
        "https://u@h/a",
        "https://h\\a",
        "https://h/a b",
        "https://h/%zz",
        "https://h/%2",
        "https://h/\u00e9",
        "https://h:0/",
        "https://h:99999/",
        "https://h::/",
        " https://h/",
    ],
)
def test_what_is_no_url_of_the_web_has_no_form(text: str) -> None:
    with pytest.raises(UriError):
        normalised(text)
