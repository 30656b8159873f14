"""Origin: pages of other origins stay out, listed ones come in, cookies never."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_guard.failures import ConfigurationError
from mcp_guard.layers.origin import Origin
from mcp_guard.rejections import NOT_FOUND
from mcp_guard.stack import guard
from tests.guard.asgi import CountingApp, Outcome, drive, http_scope
from tests.guard.layers.handshakes import handshake
from tests.guard.stubs import Says

URL = "https://mcp.example.com/mcp"
APP = b"https://app.example.com"
LAYER = Origin(URL, allowed=("https://app.example.com", "http://localhost:3000", "vscode-webview://abc"))
PREFLIGHT = (b"access-control-request-method", b"POST")


async def sent(
    layer: Origin, *origins: bytes, app: CountingApp | None = None, **request: Any
) -> tuple[CountingApp, Outcome]:
    inner = app or CountingApp()
    headers = [(b"origin", origin) for origin in origins] + request.pop("headers", [])
    return inner, await drive(layer.wrap(inner), http_scope(headers=headers, **request))


def shares(outcome: Outcome) -> bool:
    return any(name.lower().startswith(b"access-control-") for name, _ in outcome.headers)


# csrf-02 control, ORIG-003
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
async def test_a_request_of_no_page_is_admitted_and_shared_with_none(method: str) -> None:
    app, outcome = await sent(LAYER, method=method)
    assert (outcome.status, app.calls) == (200, 1)
    assert not shares(outcome)


@pytest.mark.parametrize("origin", [b"https://mcp.example.com", APP, b"http://localhost:3000", b"vscode-webview://abc"])
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
async def test_an_allowed_origin_may_read_the_response_but_send_no_cookies(origin: bytes, method: str) -> None:
    app, outcome = await sent(LAYER, origin, method=method)
    assert (outcome.status, app.calls) == (200, 1)
    assert outcome.value(b"access-control-allow-origin") == origin
    assert outcome.value(b"access-control-allow-credentials") is None
    assert outcome.value(b"vary") == b"origin"
    exposed = (outcome.value(b"access-control-expose-headers") or b"").lower().split(b", ")
    assert {b"www-authenticate", b"mcp-session-id", b"mcp-protocol-version", b"ratelimit", b"retry-after"} <= set(
        exposed
    )


FOREIGN = [
    b"https://evil.example",
    b"null",
    b"http://app.example.com",
    b"https://app.example.com:444",
    b"https://app.example.com.evil.net",
    b"https://app.example.com:443@evil.net",
    b"https://app.example.com.",
    b"https://evilapp.example.com",
    b"https://app.example.com/",
    b"https://app.example.com, https://evil.example",
    b"https://mcp.example.com:8443",
    b"http://localhost:3001",
    b"http://localhost",
    b"file://",
    b"",
    b"*",
    b"https://app.ex\xc3\xa4mple.com",
]


# csrf-01, csrf-02, csrf-04, ORIG-001, ORIG-002
@pytest.mark.parametrize("origin", FOREIGN)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "OPTIONS"])
async def test_csrf_02_any_other_origin_is_refused(origin: bytes, method: str) -> None:
    app, outcome = await sent(LAYER, origin, method=method, headers=[PREFLIGHT, (b"authorization", b"Bearer good")])
    assert (outcome.status, app.calls) == (403, 0)
    assert outcome.json()["error"] == "origin_not_allowed"
    assert not shares(outcome)
    assert outcome.value(b"vary") == b"origin"


@pytest.mark.parametrize("origins", [(APP, b"https://evil.example"), (b"https://evil.example", APP), (APP, APP)])
async def test_csrf_02_two_origins_are_refused(origins: tuple[bytes, bytes]) -> None:
    app, outcome = await sent(LAYER, *origins)
    assert (outcome.status, app.calls) == (403, 0)
    assert not shares(outcome)


async def test_null_is_admitted_only_by_a_setting_that_says_so() -> None:
    app, outcome = await sent(Origin(URL, insecure_allow_null=True), b"null")
    assert (outcome.status, app.calls) == (200, 1)
    assert outcome.value(b"access-control-allow-origin") == b"null"


@pytest.mark.parametrize("origin", [b"http://127.0.0.1:8000", b"http://localhost:8000", b"http://[::1]:8000"])
async def test_a_loopback_deployment_is_its_own_origin_under_all_names_of_loopback(origin: bytes) -> None:
    layer = Origin("http://127.0.0.1:8000/mcp")
    assert (await sent(layer, origin))[1].status == 200
    assert (await sent(layer, origin + b"1"))[1].status == 403
    assert (await sent(layer, origin.replace(b"http", b"https")))[1].status == 403


async def test_an_app_s_own_sharing_fields_do_not_reach_an_allowed_origin() -> None:
    app = CountingApp(headers=[(b"Access-Control-Allow-Origin", b"*")])
    _, outcome = await sent(LAYER, APP, app=app)
    assert outcome.values(b"access-control-allow-origin") == [APP]


async def test_a_refusal_of_an_inner_layer_can_be_read_by_an_allowed_origin() -> None:
    stack = guard(CountingApp(), LAYER, Says(fault=NOT_FOUND.because("nothing here")))
    outcome = await drive(stack, http_scope(headers=[(b"origin", APP)]))
    assert outcome.status == 404
    assert outcome.value(b"access-control-allow-origin") == APP


# http-22, csrf-04, ORIG-005
async def test_http_22_a_preflight_is_answered_with_what_mcp_needs() -> None:
    asked = b"Authorization, Mcp-Param-Region, mcp-param-a b, X-Evil, mcp-param-\xff"
    app, outcome = await sent(
        LAYER, APP, method="OPTIONS", headers=[PREFLIGHT, (b"access-control-request-headers", asked)]
    )
    assert (outcome.status, app.calls, outcome.body) == (204, 0, b"")
    assert outcome.value(b"access-control-allow-origin") == APP
    assert outcome.value(b"access-control-allow-methods") == b"DELETE, GET, POST"
    assert outcome.value(b"access-control-allow-credentials") is None
    assert outcome.value(b"access-control-max-age") == b"600"
    fields = (outcome.value(b"access-control-allow-headers") or b"").split(b", ")
    assert {b"authorization", b"content-type", b"mcp-session-id", b"mcp-protocol-version", b"last-event-id"} <= set(
        fields
    )
    assert b"mcp-param-region" in fields
    assert not any(b"evil" in name or b" " in name or b"\xff" in name for name in fields)


async def test_a_preflight_may_ask_for_few_parameters_alone() -> None:
    asked = b",".join(b"mcp-param-%d" % n for n in range(1000))
    _, outcome = await sent(
        LAYER, APP, method="OPTIONS", headers=[PREFLIGHT, (b"access-control-request-headers", asked)]
    )
    assert len(outcome.value(b"access-control-allow-headers") or b"") < 1000


# http-22
@pytest.mark.parametrize(("origins", "headers"), [((), []), ((), [PREFLIGHT]), ((APP,), [])])
async def test_http_22_other_options_requests_never_reach_the_app(
    origins: tuple[bytes, ...], headers: list[tuple[bytes, bytes]]
) -> None:
    app, outcome = await sent(LAYER, *origins, method="OPTIONS", headers=[*headers, (b"authorization", b"Bearer good")])
    assert (outcome.status, app.calls) == (405, 0)
    assert outcome.value(b"allow") == b"DELETE, GET, POST"


async def test_a_handshake_of_a_foreign_page_is_refused() -> None:
    assert await handshake(LAYER, headers=[(b"origin", b"https://evil.example")]) == "origin_not_allowed"


@given(st.one_of(st.binary(max_size=40), st.text("htps:/ap.exmlcon443@,*", max_size=30).map(str.encode)))
async def test_no_origin_is_reflected_that_is_not_listed(origin: bytes) -> None:
    _, outcome = await sent(LAYER, origin)
    assert outcome.status == 403
    assert not shares(outcome)


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"public_url": "http://mcp.example.com"}, "public_url"),
        ({"public_url": URL, "allowed": ("*",)}, "allowed"),
        ({"public_url": URL, "allowed": ("null",)}, "insecure_allow_null"),
        ({"public_url": URL, "allowed": ("https://app.example.com/",)}, "allowed"),
        ({"public_url": URL, "allowed": ("https://*.example.com",)}, "allowed"),
        ({"public_url": URL, "allowed": ("https://APP.example.com",)}, "allowed"),
        ({"public_url": URL, "allowed": "https://app.example.com"}, "allowed"),
    ],
)
def test_a_setting_that_cannot_work_is_named(settings: dict[str, Any], name: str) -> None:
    with pytest.raises(ConfigurationError, match=name):
        Origin(**settings)
