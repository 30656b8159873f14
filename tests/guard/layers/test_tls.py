"""Tls: https alone, and every response says so."""

from typing import Any

import pytest

from mcp_guard.asgi import Receive, Scope, Send
from mcp_guard.failures import ConfigurationError
from mcp_guard.layers.host import Host
from mcp_guard.layers.proxy import Proxy
from mcp_guard.layers.tls import Tls
from mcp_guard.layers.wire import Wire
from mcp_guard.rejections import LIMIT_EXCEEDED, NOT_FOUND
from mcp_guard.stack import guard
from tests.guard.asgi import CountingApp, Outcome, drive, http_scope
from tests.guard.layers.handshakes import handshake
from tests.guard.stubs import Says

PUBLIC = "https://mcp.example.com/mcp"
LOCAL = "http://127.0.0.1:8765/mcp"
HERE = ("127.0.0.1", 4711)
YEAR = b"max-age=31536000"


async def sent(layer: Tls, app: CountingApp | None = None, **request: Any) -> tuple[CountingApp, Outcome]:
    inner = app or CountingApp()
    outcome = await drive(guard(inner, Proxy(trusted=("10.0.0.0/8",)), layer), http_scope(**request))
    return inner, outcome


# tls-01
@pytest.mark.parametrize(
    ("request_members", "slug"),
    [
        ({}, "cleartext"),
        ({"query": b"x=access_token"}, "cleartext"),
        ({"headers": [(b"authorization", b"Bearer abc")]}, "credential_over_cleartext"),
        ({"headers": [(b"dpop", b"abc")]}, "credential_over_cleartext"),
        ({"query": b"a=1&access_token=abc"}, "credential_over_cleartext"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "HEAD"])
async def test_tls_01_cleartext_is_refused_and_not_redirected(
    request_members: dict[str, Any], slug: str, method: str
) -> None:
    app, outcome = await sent(Tls(PUBLIC), method=method, **request_members)
    assert (outcome.status, app.calls) == (403, 0)
    assert outcome.value(b"location") is None
    assert outcome.value(b"strict-transport-security") is None
    assert outcome.value(b"x-content-type-options") == b"nosniff"
    assert method == "HEAD" or outcome.json()["error"] == slug


# tls-02
async def test_tls_02_only_a_trusted_proxy_makes_http_secure() -> None:
    secure = [(b"x-forwarded-proto", b"https")]
    app, outcome = await sent(Tls(PUBLIC), headers=secure)
    assert (outcome.status, app.calls) == (403, 0)
    app, outcome = await sent(Tls(PUBLIC), headers=secure, client=("10.0.0.1", 1))
    assert (outcome.status, app.calls) == (200, 1)
    app, outcome = await sent(Tls(PUBLIC), headers=[(b"x-forwarded-proto", b"http")], client=("10.0.0.1", 1))
    assert (outcome.status, app.calls) == (403, 0)


async def test_a_socket_or_loopback_peer_does_not_excuse_a_public_deployment() -> None:
    for client in (None, HERE):
        assert (await sent(Tls(PUBLIC), client=client))[1].status == 403


# tls-05
@pytest.mark.parametrize("host", [b"evil.example", b"mcp.example.com", b""])
@pytest.mark.parametrize("path", ["/", "/mcp", "//evil.example/..", "/authorize"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_tls_05_no_page_is_redirected_anywhere_whatever_its_host(method: str, path: str, host: bytes) -> None:
    layers = Wire(), Proxy(), Tls(PUBLIC), Host(PUBLIC)
    app = CountingApp()
    outcome = await drive(guard(app, *layers), http_scope(method, path, [(b"host", host)]))
    assert (outcome.status, app.calls) == (400 if "//" in path else 403, 0)
    assert outcome.values(b"location") == outcome.values(b"refresh") == []
    assert b"evil.example" not in outcome.body


# tls-06
@pytest.mark.parametrize("status", [200, 202, 401, 403, 404, 429, 500])
async def test_tls_06_every_response_over_https_carries_hsts(status: int) -> None:
    _, outcome = await sent(Tls(PUBLIC), CountingApp(status=status), scheme="https")
    assert outcome.status == status
    assert outcome.value(b"strict-transport-security") == YEAR


async def test_tls_06_a_refusal_of_an_inner_layer_carries_hsts() -> None:
    refusing = Says(fault=NOT_FOUND.because("nothing here"))
    outcome = await drive(guard(CountingApp(), Proxy(), Tls(PUBLIC), refusing), http_scope(scheme="https"))
    assert outcome.status == 404
    assert outcome.value(b"strict-transport-security") == YEAR
    assert outcome.value(b"x-frame-options") == b"DENY"


async def test_tls_06_a_stream_carries_hsts_and_over_http_nothing_does() -> None:
    stream = CountingApp(headers=[(b"content-type", b"text/event-stream")])
    assert (await sent(Tls(PUBLIC), stream, scheme="https"))[1].value(b"strict-transport-security") == YEAR
    for layer in (Tls(LOCAL), Tls(PUBLIC, insecure_allow_cleartext=True)):
        _, outcome = await sent(layer, client=HERE)
        assert (outcome.status, outcome.value(b"strict-transport-security")) == (200, None)


async def test_tls_06_an_app_that_raises_and_a_limit_carry_hsts() -> None:
    async def raising(scope: Scope, receive: Receive, send: Send) -> None:
        raise RuntimeError("a fault of the app")

    outcome = await drive(guard(raising, Proxy(), Tls(PUBLIC)), http_scope(scheme="https"))
    assert (outcome.status, outcome.value(b"strict-transport-security")) == (500, YEAR)
    limited = guard(CountingApp(), Proxy(), Tls(PUBLIC), Says(fault=LIMIT_EXCEEDED.because("too many")))
    outcome = await drive(limited, http_scope(scheme="https"))
    assert (outcome.status, outcome.value(b"strict-transport-security")) == (429, YEAR)


async def test_subdomains_are_included_on_request() -> None:
    _, outcome = await sent(Tls(PUBLIC, hsts_max_age_seconds=63_072_000, hsts_include_subdomains=True), scheme="https")
    assert outcome.value(b"strict-transport-security") == b"max-age=63072000; includeSubDomains"


# HTTP-024
async def test_responses_say_that_they_are_neither_framed_sniffed_stored_nor_referred_to() -> None:
    _, outcome = await sent(Tls(PUBLIC), scheme="https")
    assert outcome.value(b"x-content-type-options") == b"nosniff"
    assert outcome.value(b"x-frame-options") == b"DENY"
    assert outcome.value(b"referrer-policy") == b"no-referrer"
    assert outcome.value(b"content-security-policy") == b"default-src 'none'; frame-ancestors 'none'"
    assert outcome.value(b"cache-control") == b"no-store"


async def test_an_app_that_serves_pages_has_its_own_say_but_for_sniffing() -> None:
    said = [
        (b"Content-Security-Policy", b"default-src 'self'"),
        (b"cache-control", b"max-age=60"),
        (b"referrer-policy", b"same-origin"),
        (b"x-frame-options", b"SAMEORIGIN"),
        (b"X-Content-Type-Options", b"none"),
        (b"strict-transport-security", b"max-age=0"),
    ]
    _, outcome = await sent(Tls(PUBLIC), CountingApp(headers=said), scheme="https")
    for name, value in said[:4]:
        assert outcome.value(name.lower()) == value
    assert outcome.value(b"x-content-type-options") == b"nosniff"
    assert outcome.value(b"strict-transport-security") == YEAR


@pytest.mark.parametrize("client", [HERE, ("::1", 1), ("::ffff:127.0.0.1", 1), None])
async def test_a_loopback_deployment_takes_http_from_this_machine_without_hsts(client: object) -> None:
    app, outcome = await sent(Tls(LOCAL), client=client)
    assert (outcome.status, app.calls) == (200, 1)
    assert outcome.value(b"strict-transport-security") is None
    assert outcome.value(b"x-content-type-options") == b"nosniff"


async def test_a_loopback_deployment_that_listens_elsewhere_too_refuses_what_comes_from_there() -> None:
    app, outcome = await sent(Tls(LOCAL), client=("192.0.2.7", 1), headers=[(b"authorization", b"Bearer abc")])
    assert (outcome.status, app.calls) == (403, 0)
    app, outcome = await sent(Tls(LOCAL, insecure_allow_cleartext=True), client=("192.0.2.7", 1))
    assert (outcome.status, app.calls) == (200, 1)


async def test_a_loopback_host_never_gets_hsts() -> None:
    _, outcome = await sent(Tls("https://localhost:8443/mcp"), scheme="https", client=HERE)
    assert outcome.status == 200
    assert outcome.value(b"strict-transport-security") is None


async def test_a_handshake_in_cleartext_is_refused() -> None:
    assert await handshake(Proxy(), Tls(PUBLIC)) == "cleartext"


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"public_url": "http://mcp.example.com"}, "public_url"),
        ({"public_url": ""}, "public_url"),
        ({"public_url": PUBLIC, "hsts_max_age_seconds": 31_535_999}, "hsts_max_age_seconds"),
    ],
)
def test_a_setting_that_cannot_work_is_named(settings: dict[str, Any], name: str) -> None:
    with pytest.raises(ConfigurationError, match=name):
        Tls(**settings)


def test_tls_needs_the_proxy_layer_before_it() -> None:
    with pytest.raises(ConfigurationError, match="put Proxy before Tls"):
        guard(CountingApp(), Tls(PUBLIC), Proxy())
