"""The login page."""

from html import unescape

import httpx
import pytest

from mcp_guard.asgi import Scope
from mcp_guard.oauth import Limits, Rate
from tests.guard.oauth.flow import (
    ISSUER,
    PASSWORDS,
    UNLIMITED,
    Browser,
    Form,
    World,
    claims_of,
    query_of,
    recording,
    request_of,
)

COOKIE = "__Host-mcp-guard-session"


async def login_page(world: World, browser: Browser) -> httpx.Response:
    client = await world.register()
    response = await browser.follow(await browser.open(client))
    assert response.status_code == 200
    return response


async def test_the_page_is_framed_by_nobody_and_loads_nothing(world: World) -> None:
    """csrf-09, RED-010, RED-011, HSTS-003."""
    page = await login_page(world, world.browser())
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "base-uri 'none'" in policy
    assert "form-action 'self' https://app.example;" in policy
    assert "script-src" not in policy
    assert "unsafe" not in policy
    assert page.headers["x-frame-options"] == "DENY"
    assert page.headers["cache-control"] == "no-store"
    assert page.headers["referrer-policy"] == "no-referrer"
    assert page.headers["x-content-type-options"] == "nosniff"
    assert page.headers["strict-transport-security"].startswith("max-age=")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    for outside in ["<script", " src=", "<link", "<img", "@import", "url("]:
        assert outside not in page.text


async def test_the_style_is_the_one_whose_hash_is_allowed(world: World) -> None:
    import base64
    import hashlib

    page = await login_page(world, world.browser())
    style = page.text.partition("<style>")[2].partition("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}';" in page.headers["content-security-policy"]


async def test_the_cookie_is_hardened(world: World) -> None:
    """csrf-09, CSRF-005."""
    page = await login_page(world, world.browser())
    value = page.headers["set-cookie"]
    assert value.startswith(f"{COOKIE}=")
    assert set(value.split("; ")[1:]) == {"Path=/", "HttpOnly", "SameSite=Lax", "Secure"}


async def test_on_a_loopback_host_the_cookie_is_named_by_port_and_works_without_tls() -> None:
    world = World(issuer="http://127.0.0.1:8765")
    client = await world.register()
    browser = world.browser()
    page = await browser.follow(await browser.open(client))
    value = page.headers["set-cookie"]
    assert value.startswith("mcp-guard-session-8765=")
    assert set(value.split("; ")[1:]) == {"Path=/", "HttpOnly", "SameSite=Lax"}
    assert "strict-transport-security" not in page.headers
    told = await world.browser().approve(client)
    assert told["iss"] == "http://127.0.0.1:8765"


async def test_the_page_names_the_app_and_where_the_answer_goes(world: World) -> None:
    client = await world.register(client_name="<b>Evil</b> & co", redirect_uris=["https://app.example:8443/cb"])
    browser = world.browser()
    page = await browser.follow(await browser.open(client))
    assert "&lt;b&gt;Evil&lt;/b&gt; &amp; co" in page.text
    assert "<b>Evil" not in page.text
    assert "app.example:8443" in page.text
    assert 'lang="en"' in page.text
    assert '<label for="username">' in page.text
    assert '<label for="password">' in page.text


async def test_signing_in_answers_303_with_a_new_cookie(world: World) -> None:
    """RED-009; a cookie that was planted before is worth nothing afterwards."""
    browser = world.browser()
    page = await login_page(world, browser)
    planted = browser.http.cookies[COOKIE]
    response = await browser.sign_in(page)
    assert response.status_code == 303
    assert response.headers["location"].startswith(f"{ISSUER}/authorize?")
    assert browser.http.cookies[COOKIE] != planted
    thief = world.http()
    thief.cookies.set(COOKIE, planted)
    assert (await thief.get(response.headers["location"])).headers["location"].startswith(f"{ISSUER}/login?")


@pytest.mark.parametrize(
    "changes",
    [
        {"password": "wrong"},
        {"password": ""},
        {"password": "alice's password "},
        {"password": "x" * 2000},
        {"username": "nobody"},
        {"username": ""},
        {"username": "ALICE"},
        {"username": "x" * 300},
        {"username": "a\0lice"},
        {"username": "bob"},
    ],
)
async def test_a_wrong_name_or_password_shows_the_form_again(world: World, changes: dict[str, str]) -> None:
    browser = world.browser()
    page = await login_page(world, browser)
    response = await browser.sign_in(page, **changes)
    assert response.status_code == 403
    assert "Name or password is wrong." in response.text
    assert 'role="alert"' in response.text
    assert "location" not in response.headers
    assert "set-cookie" not in response.headers
    again = await browser.sign_in(response)
    assert again.status_code == 303


async def test_the_name_that_was_typed_is_shown_escaped_and_the_password_never(world: World) -> None:
    browser = world.browser()
    page = await login_page(world, browser)
    response = await browser.sign_in(page, username='"><img src=x>', password="hunter2-secret")
    assert "<img" not in response.text
    assert 'value="&quot;&gt;&lt;img src=x&gt;"' in response.text
    assert "hunter2-secret" not in response.text


@pytest.mark.parametrize("csrf", ["", "x", "0" * 64])
async def test_a_form_without_the_right_token_signs_nobody_in(world: World, csrf: str) -> None:
    """csrf-05 at the login page: login CSRF."""
    browser = world.browser()
    page = await login_page(world, browser)
    response = await browser.sign_in(page, csrf=csrf)
    assert response.status_code == 403
    assert "location" not in response.headers
    assert (await browser.sign_in(response)).status_code == 303


async def test_a_token_fits_one_browser_and_one_request(world: World) -> None:
    client = await world.register()
    mine, theirs = world.browser(), world.browser()
    my_page = await mine.follow(await mine.open(client))
    their_page = await theirs.follow(await theirs.open(client))
    assert (await mine.sign_in(my_page, csrf=Form(their_page.text).fields["csrf"])).status_code == 403
    other = await mine.follow(await mine.open(client, state="another"))
    assert (await mine.sign_in(my_page, csrf=Form(other.text).fields["csrf"])).status_code == 403


async def test_a_tab_that_another_tab_overtook_goes_on_as_the_same_person_and_changes_nothing(world: World) -> None:
    client = await world.register()
    browser = world.browser()
    first = await browser.follow(await browser.open(client))
    second = await browser.follow(await browser.open(client, state="two"))
    await browser.sign_in(first)
    cookie = browser.http.cookies[COOKIE]
    response = await browser.sign_in(second)
    assert response.status_code == 303
    assert query_of(response.headers["location"])["state"] == "two"
    assert browser.http.cookies[COOKIE] == cookie


@pytest.mark.parametrize("changes", [{"username": "bob", "password": PASSWORDS["bob"]}, {"password": "wrong"}])
async def test_a_tab_that_another_tab_overtook_signs_nobody_else_in(world: World, changes: dict[str, str]) -> None:
    """csrf-05 at the login page: login CSRF."""
    client = await world.register()
    browser = world.browser()
    first = await browser.follow(await browser.open(client))
    second = await browser.follow(await browser.open(client, state="two"))
    await browser.sign_in(first)
    cookie = browser.http.cookies[COOKIE]
    response = await browser.sign_in(second, **changes)
    assert response.status_code == 403
    assert browser.http.cookies[COOKIE] == cookie
    assert "You are signed in as <strong>Alice</strong>" in response.text
    assert query_of(unescape(response.text.partition('<a href="')[2].partition('"')[0]))["state"] == "two"


async def test_a_form_from_a_browser_without_a_cookie_signs_nobody_in(world: World) -> None:
    page = await login_page(world, world.browser())
    stranger = world.browser()
    response = await stranger.sign_in(page)
    assert response.status_code == 403
    assert (await stranger.sign_in(response)).status_code == 303


@pytest.mark.parametrize("values", [["a" * 43, "b" * 43], ["short"], ["a" * 43 + "\u00e9"], ["a" * 42 + "%"]])
async def test_a_cookie_that_is_not_one_of_ours_counts_as_none(world: World, values: list[str]) -> None:
    client = await world.register()
    header = "; ".join(f"{COOKIE}={value}" for value in values)
    response = await world.http().get(
        "/login", params=request_of(client), headers=[(b"cookie", header.encode("latin-1"))]
    )
    assert response.status_code == 200
    assert "set-cookie" in response.headers


async def test_cookies_of_others_do_not_matter(world: World) -> None:
    client = await world.register()
    browser = world.browser()
    page = await browser.follow(await browser.open(client))
    browser.http.cookies.set("x", "1")
    browser.http.cookies.set("mcp-guard-session", "a" * 43)
    assert (await browser.sign_in(page)).status_code == 303


async def test_a_second_tab_does_not_spoil_the_first(world: World) -> None:
    client = await world.register()
    browser = world.browser()
    first = await browser.follow(await browser.open(client))
    second = await browser.follow(await browser.open(client, state="two"))
    assert "set-cookie" not in second.headers
    assert (await browser.sign_in(first)).status_code == 303


# csrf-02, csrf-04
@pytest.mark.parametrize(
    "headers",
    [
        [("origin", "https://evil.example")],
        [("origin", "http://as.example")],
        [("origin", "https://as.example.evil.net")],
        [("origin", "https://as.example:443@evil.net")],
        [("origin", "https://as.example.")],
        [("origin", "https://as.example:8443")],
        [("origin", ISSUER), ("origin", "https://evil.example")],
        [("origin", f"{ISSUER}, https://evil.example")],
        [("origin", "null"), ("sec-fetch-site", "cross-site")],
        [("sec-fetch-site", "cross-site")],
        [("sec-fetch-site", "same-site")],
        [("sec-fetch-site", "none")],
        [("origin", ISSUER), ("sec-fetch-site", "cross-site")],
        [("sec-fetch-site", "same-origin"), ("sec-fetch-site", "cross-site")],
        [("origin", "")],
    ],
)
@pytest.mark.parametrize("place", ["login", "consent"])
async def test_a_form_posted_by_another_site_is_refused(
    world: World, headers: list[tuple[str, str]], place: str
) -> None:
    browser = world.browser()
    page = await login_page(world, browser)
    if place == "consent":
        page = await browser.follow(await browser.sign_in(page))
    form = Form(page.text)
    fields = {**form.fields, "username": "alice", "password": "alice's password", "decision": "approve"}
    response = await browser.http.post(form.action, data=fields, headers=headers)
    assert response.status_code == 403
    assert "location" not in response.headers
    assert "access-control-allow-origin" not in response.headers
    assert (await browser.http.post(form.action, data=fields)).status_code == 303


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": ISSUER},
        {"origin": "null"},
        {"origin": "null", "sec-fetch-site": "same-origin"},
        {"origin": ISSUER, "sec-fetch-site": "same-origin"},
    ],
)
async def test_a_form_posted_by_our_own_page_is_taken(world: World, headers: dict[str, str]) -> None:
    """Pages that send no referrer post with `Origin: null`."""
    browser = world.browser()
    form = Form((await login_page(world, browser)).text)
    fields = {**form.fields, "username": "alice", "password": "alice's password"}
    assert (await browser.http.post(form.action, data=fields, headers=headers)).status_code == 303


async def test_another_account_can_be_chosen_from_the_consent_page(world: World) -> None:
    client = await world.register()
    browser = world.browser()
    page = await browser.start(client)
    assert "Alice" in page.text
    switch = unescape(page.text.partition('<a href="')[2].partition('"')[0])
    login = await browser.http.get(switch)
    assert "You are signed in as <strong>Alice</strong>" in login.text
    browser.user = "bob"
    consent = await browser.follow(await browser.sign_in(login))
    assert "Bob" in consent.text
    assert (await browser.decide(page)).status_code == 403
    response = await browser.decide(consent)
    tokens = (await world.redeem(client, query_of(response.headers["location"])["code"])).json()
    assert claims_of(tokens["access_token"])["sub"] == "u-bob"
    assert claims_of(tokens["access_token"])["tenant"] == "acme"


async def test_a_session_ends(world: World) -> None:
    client = await world.register()
    browser = world.browser()
    await browser.start(client)
    world.clock.advance(world.lifetimes.browser_session.total_seconds() - 1)
    assert "/consent" in (await browser.open(client)).headers["location"]
    world.clock.advance(1)
    assert "/login" in (await browser.open(client)).headers["location"]


async def test_a_session_ends_by_the_wall_clock_too(world: World) -> None:
    client = await world.register()
    browser = world.browser()
    await browser.start(client)
    world.clock.step(world.lifetimes.browser_session.total_seconds())
    assert "/login" in (await browser.open(client)).headers["location"]


PERIOD = UNLIMITED.registrations.period


@pytest.mark.parametrize(
    ("limits", "same_name", "same_address"),
    [
        (Limits(logins_per_user=Rate(3, PERIOD)), True, False),
        (Limits(logins_per_address=Rate(3, PERIOD)), False, True),
        (Limits(logins_per_user_and_address=Rate(3, PERIOD)), True, True),
    ],
    ids=["user", "address", "user and address"],
)
async def test_guesses_are_limited(limits: Limits, same_name: bool, same_address: bool) -> None:
    """The right password is refused too, so that the limit tells nothing; others are not locked out."""
    world = World(limits=limits)
    client = await world.register()

    async def attempt(number: int, password: str) -> httpx.Response:
        browser = Browser(world, world.http(address="192.0.2.1" if same_address else f"192.0.2.{number}"))
        page = await browser.follow(await browser.open(client))
        name = "alice" if same_name else f"alice{number}"
        return await browser.sign_in(page, username=name, password=password)

    for number in range(3):
        assert (await attempt(number, "wrong")).status_code == 403
    refused = await attempt(9, "alice's password")
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) > 0
    assert "location" not in refused.headers
    assert "Too many attempts" in refused.text
    other = Browser(world, world.http(address="198.51.100.1"), "bob")
    page = await other.follow(await other.open(client))
    assert (await other.sign_in(page)).status_code == 303
    world.clock.advance(int(refused.headers["retry-after"]))
    assert (await attempt(9, "wrong")).status_code == 403


async def test_nobody_alone_can_lock_somebody_else_out() -> None:
    """The default limits: one address runs out of its own tries before it has used up the user's."""
    world = World(limits=Limits())
    client = await world.register()
    attacker = Browser(world, world.http(address="192.0.2.66"))
    page = await attacker.follow(await attacker.open(client))
    outcomes = [(await attacker.sign_in(page, password="wrong")).status_code for _ in range(40)]
    assert outcomes[-1] == 429
    victim = Browser(world, world.http(address="198.51.100.1"))
    page = await victim.follow(await victim.open(client))
    assert (await victim.sign_in(page)).status_code == 303


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ({"content-type": "application/json"}, b"{}", 415),
        ({"content-type": "text/plain"}, b"username=alice", 415),
        ({"content-type": "multipart/form-data; boundary=x"}, b"--x--", 415),
        ({}, b"username=alice", 415),
        ({"content-type": "application/x-www-form-urlencoded"}, b"username=a&username=b", 400),
        ({"content-type": "application/x-www-form-urlencoded"}, b"username=%ff", 400),
        ({"content-type": "application/x-www-form-urlencoded"}, b"a=" + b"x" * 20_000, 413),
    ],
)
async def test_a_body_that_is_no_form_of_ours_is_refused(
    world: World, headers: dict[str, str], body: bytes, status: int
) -> None:
    browser = world.browser()
    form = Form((await login_page(world, browser)).text)
    response = await browser.http.post(form.action, content=body, headers=headers)
    assert response.status_code == status
    assert "location" not in response.headers


async def test_the_audit_learns_why_a_sign_in_was_refused(world: World) -> None:
    from mcp_guard.facts import FACTS_KEY
    from mcp_guard.rejections import Rejection

    scopes: list[Scope] = []
    app = recording(world.server, scopes, change=lambda scope: {**scope, FACTS_KEY: {}})
    browser = Browser(world, world.http(app=app))
    page = await login_page(world, browser)
    await browser.sign_in(page, password="a-wrong-password")
    refusal = scopes[-1][FACTS_KEY][Rejection]
    assert refusal.kind.slug == "oauth_login_failed"
    assert refusal.reason == "name or password is wrong"
    await browser.sign_in(page, csrf="x")
    assert scopes[-1][FACTS_KEY][Rejection].kind.slug == "oauth_login_forged"
