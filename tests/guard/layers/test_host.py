"""Host: the deployment's hosts and no other."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_guard.failures import ConfigurationError
from mcp_guard.layers.host import Host
from mcp_guard.layers.proxy import Proxy
from mcp_guard.stack import guard
from tests.guard.asgi import CountingApp, drive, http_scope
from tests.guard.layers.handshakes import handshake

PUBLIC = Host("https://mcp.example.com/mcp")
LOCAL = Host("http://127.0.0.1:8000/mcp")


async def status(layer: Host, *hosts: bytes) -> int | None:
    app = CountingApp()
    outcome = await drive(guard(app, Proxy(), layer), http_scope(headers=[(b"host", host) for host in hosts]))
    assert app.calls == (outcome.status == 200)
    return outcome.status


@pytest.mark.parametrize(
    "host", [b"mcp.example.com", b"mcp.example.com:443", b"MCP.example.COM", b"MCP.EXAMPLE.COM:443"]
)
async def test_the_public_host_is_served_in_any_case_with_and_without_its_port(host: bytes) -> None:
    assert await status(PUBLIC, host) == 200


FOREIGN = [
    b"evil.example",
    b"mcp.example.com:80",
    b"mcp.example.com:8443",
    b"mcp.example.com.",
    b"mcp.example.com.evil.example",
    b"evilmcp.example.com",
    b"example.com",
    b"127.0.0.1",
    b"localhost",
    b"[::1]",
    b"a/b?c=",
    b"",
    b"x@mcp.example.com",
    b"mcp.example.com@evil.example",
    b"mcp.example.com:99999",
    b"mcp.example.com:443:443",
    b"mcp.example.com, evil",
    b"mcp.example.com ",
    b"mcp.example.com\xff",
    "mcp.example.c\u043em".encode(),
]


# http-23
@pytest.mark.parametrize("host", FOREIGN)
async def test_http_23_any_other_host_is_misdirected(host: bytes) -> None:
    assert await status(PUBLIC, host) == 421


async def test_http_23_a_missing_host_is_misdirected() -> None:
    app = CountingApp()
    outcome = await drive(guard(app, Proxy(), PUBLIC), http_scope())
    assert (outcome.status, app.calls) == (421, 0)
    assert outcome.json()["error"] == "host_not_allowed"


# ORIG-004
@pytest.mark.parametrize(
    "host", [b"127.0.0.1:8000", b"localhost:8000", b"LOCALHOST:8000", b"[::1]:8000", b"[0::1]:8000"]
)
async def test_a_loopback_deployment_is_known_under_all_names_of_loopback(host: bytes) -> None:
    assert await status(LOCAL, host) == 200


# csrf-03
@pytest.mark.parametrize(
    "host",
    [
        b"evil.example:8000",
        b"localhost:8000.evil.example",
        b"localhost:evil",
        b"localhost",
        b"localhost:80",
        b"localhost:08000",
        b"localhost.:8000",
        b"x.localhost:8000",
        b"127.0.0.2:8000",
        b"127.1:8000",
        b"2130706433:8000",
        b"::1:8000",
        b"0.0.0.0:8000",
        b"[::ffff:127.0.0.1]:8000",
    ],
)
async def test_csrf_03_a_rebound_name_is_misdirected(host: bytes) -> None:
    assert await status(LOCAL, host) == 421


async def test_further_hosts_are_served_when_they_are_listed() -> None:
    layer = Host("https://mcp.example.com/mcp", also=("mcp.internal:8443", "192.0.2.10", "[2001:db8::1]"))
    for host in (b"mcp.internal:8443", b"192.0.2.10", b"192.0.2.10:443", b"[2001:DB8:0::1]", b"mcp.example.com"):
        assert await status(layer, host) == 200
    for host in (b"mcp.internal", b"192.0.2.10:8443", b"[2001:db8::2]"):
        assert await status(layer, host) == 421


async def test_the_default_port_is_that_of_the_public_url() -> None:
    layer = Host("http://localhost/mcp")
    assert await status(layer, b"localhost") == 200
    assert await status(layer, b"localhost:80") == 200
    assert await status(layer, b"localhost:443") == 421


async def test_a_handshake_to_another_host_is_refused() -> None:
    assert await handshake(Proxy(), LOCAL, headers=[(b"host", b"evil.example:8000")]) == "host_not_allowed"


@given(st.one_of(st.binary(max_size=30), st.text("mcp.example:43[]@/,", max_size=24).map(str.encode)))
async def test_nothing_that_is_not_the_host_is_served(host: bytes) -> None:
    expected = 200 if host.lower() in (b"mcp.example.com", b"mcp.example.com:443") else 421
    assert await status(PUBLIC, host) == expected


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"public_url": "http://mcp.example.com"}, "public_url"),
        ({"public_url": "https://mcp.example.com", "also": ("*",)}, "also"),
        ({"public_url": "https://mcp.example.com", "also": ("https://other",)}, "also"),
        ({"public_url": "https://mcp.example.com", "also": ("*.example.com",)}, "also"),
        ({"public_url": "https://mcp.example.com", "also": "mcp.internal"}, "also"),
        ({"public_url": "https://mcp.example.com", "also": ("",)}, "also"),
    ],
)
def test_a_setting_that_cannot_work_is_named(settings: dict[str, Any], name: str) -> None:
    with pytest.raises(ConfigurationError, match=name):
        Host(**settings)
