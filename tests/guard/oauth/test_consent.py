"""The consent page."""

import anyio
import pytest

from tests.guard.oauth.flow import ISSUER, REDIRECT, Browser, Form, World, claims_of, query_of


async def test_the_page_says_who_asks_for_what_and_where_the_answer_goes(world: World) -> None:
    """CSRF-004, RED-013, dcr-07, REG-009."""
    client = await world.register(client_name='"><img src=x onerror=1>')
    page = await world.browser().start(client, scope="mcp:read mcp:write")
    text = page.text
    assert "&quot;&gt;&lt;img src=x onerror=1&gt;" in text
    assert "<img" not in text
    assert client.client_id in text
    assert "app.example" in text
    assert "Read your things" in text
    assert "Change your things" in text
    assert "<code>mcp:write</code>" in text
    assert "https://mcp.example/mcp" in text
    assert "Alice" in text
    assert "Example Tools" in text
    assert "nobody checked it" in text
    assert "on this device" not in text


@pytest.mark.parametrize(
    ("uri", "warning", "source"),
    [
        ("http://127.0.0.1:5000/cb", "a program on this device", "http://127.0.0.1:5000"),
        ("http://localhost/cb", "a program on this device", "http://localhost"),
        ("http://[::1]:5000/cb", "a program on this device", "http:"),
        ("com.example.app:/cb", "<code>com.example.app:</code> links", "com.example.app:"),
    ],
)
async def test_a_redirect_to_this_device_is_warned_about(world: World, uri: str, warning: str, source: str) -> None:
    """RED-013, cimd-12; the redirect after the form is allowed by the page's policy."""
    client = await world.register(redirect_uris=[uri], client_name=None)
    page = await world.browser().start(client)
    assert warning in page.text
    assert "An app without a name" in page.text
    assert f"form-action 'self' {source};" in page.headers["content-security-policy"]


async def test_the_page_is_framed_by_nobody(world: World) -> None:
    """csrf-09."""
    page = await world.browser().start(await world.register())
    assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
    assert page.headers["x-frame-options"] == "DENY"
    assert page.headers["cache-control"] == "no-store"
    assert page.headers["referrer-policy"] == "no-referrer"


async def test_denying_is_told_to_the_client(world: World) -> None:
    """csrf-11."""
    client = await world.register()
    browser = world.browser()
    page = await browser.start(client)
    response = await browser.decide(page, "deny")
    assert response.status_code == 303
    assert response.headers["location"].startswith(f"{REDIRECT}?")
    told = query_of(response.headers["location"])
    assert told["error"] == "access_denied"
    assert told["state"] == "a state"
    assert told["iss"] == ISSUER
    assert (await browser.decide(page)).status_code == 400


@pytest.mark.parametrize("csrf", ["", "x", "0" * 64])
async def test_a_form_without_the_right_token_decides_nothing(world: World, csrf: str) -> None:
    """csrf-05: the transaction is still pending for its owner."""
    browser = world.browser()
    page = await browser.start(await world.register())
    response = await browser.decide(page, csrf=csrf)
    assert response.status_code == 403
    assert "location" not in response.headers
    assert (await browser.decide(page)).status_code == 303


async def test_the_token_of_another_transaction_or_browser_decides_nothing(world: World) -> None:
    """csrf-05."""
    client = await world.register()
    mine, theirs = world.browser(), world.browser("bob")
    page, other = await mine.start(client), await mine.start(client, state="other")
    foreign = await theirs.start(client)
    for source in [other, foreign]:
        response = await mine.decide(page, csrf=Form(source.text).fields["csrf"])
        assert response.status_code == 403
        assert "location" not in response.headers
    assert (await mine.decide(page)).status_code == 303


async def test_the_login_form_s_token_is_no_consent(world: World) -> None:
    client = await world.register()
    browser = world.browser()
    page = await browser.start(client)
    again = await browser.http.get(Form(page.text).action.replace("/consent", "/login"), params={"client_id": "x"})
    assert again.status_code == 400
    login = await browser.follow(await world.browser().open(client))
    assert (await browser.decide(page, csrf=Form(login.text).fields["csrf"])).status_code == 403


async def test_another_browser_can_neither_see_nor_answer_the_page(world: World) -> None:
    """csrf-05, csrf-07: also the same person's other browser."""
    client = await world.register()
    owner = world.browser()
    page = await owner.start(client)
    for stranger in [world.browser("bob"), world.browser("alice"), None]:
        browser = world.browser() if stranger is None else stranger
        if stranger is not None:
            await browser.start(client)
        seen = await browser.http.get(str(page.url))
        assert seen.status_code == 403
        assert "Approve" not in seen.text
        response = await browser.decide(page)
        assert response.status_code == 403
        assert "location" not in response.headers
    assert (await owner.decide(page)).status_code == 303


async def test_what_is_granted_comes_from_the_transaction_alone(world: World) -> None:
    """csrf-06."""
    client, other = await world.register(), await world.register(redirect_uris=["https://evil.example/cb"])
    browser = world.browser()
    response = await browser.decide(
        await browser.start(client),
        scope="mcp:read mcp:write",
        client_id=other.client_id,
        redirect_uri="https://evil.example/cb",
        resource="https://mcp.example/sse",
        state="planted",
        user="bob",
    )
    assert response.headers["location"].startswith(f"{REDIRECT}?")
    told = query_of(response.headers["location"])
    assert told["state"] == "a state"
    assert (await world.redeem(other, told["code"])).status_code == 400
    claims = claims_of((await world.redeem(client, told["code"])).json()["access_token"])
    assert claims["scope"] == "mcp:read"
    assert claims["aud"] == "https://mcp.example/mcp"
    assert claims["sub"] == "u-alice"


async def test_a_transaction_is_answered_once(world: World) -> None:
    """csrf-05: reused."""
    browser = world.browser()
    page = await browser.start(await world.register())
    assert (await browser.decide(page)).status_code == 303
    again = await browser.decide(page)
    assert again.status_code == 400
    assert "location" not in again.headers


async def test_of_many_simultaneous_answers_one_counts(crowded: World) -> None:
    browser = crowded.browser()
    page = await browser.start(await crowded.register())
    statuses: list[int] = []

    async def answer(decision: str) -> None:
        statuses.append((await browser.decide(page, decision)).status_code)

    async with anyio.create_task_group() as group:
        for number in range(20):
            group.start_soon(answer, "approve" if number % 2 else "deny")
    assert sorted(statuses) == [303] + [400] * 19


@pytest.mark.parametrize("decision", ["", "yes", "APPROVE", "approve "])
async def test_anything_but_approve_and_deny_is_no_decision(world: World, decision: str) -> None:
    browser = world.browser()
    page = await browser.start(await world.register())
    assert (await browser.decide(page, decision)).status_code == 400
    assert (await browser.decide(page)).status_code == 303


async def test_approving_by_get_does_nothing(world: World) -> None:
    """csrf-05."""
    browser = world.browser()
    page = await browser.start(await world.register())
    fields = {**Form(page.text).fields, "decision": "approve"}
    response = await browser.http.get("/consent", params=fields)
    assert "location" not in response.headers
    assert (await browser.decide(page)).status_code == 303


@pytest.mark.parametrize(
    "query", ["", "transaction=", "transaction=unknown", "transaction=a&transaction=b", "transaction=%ff", "x" * 300]
)
async def test_an_unknown_or_malformed_transaction_is_over(world: World, query: str) -> None:
    browser = world.browser()
    await browser.start(await world.register())
    response = await browser.http.get(f"/consent?{query}")
    assert response.status_code == 400
    assert "frame-ancestors 'none'" in response.headers["content-security-policy"]


@pytest.mark.parametrize("by_wall_clock_alone", [False, True])
async def test_a_transaction_expires(world: World, by_wall_clock_alone: bool) -> None:
    browser = world.browser()
    page = await browser.start(await world.register())
    seconds = world.lifetimes.transaction.total_seconds()
    (world.clock.step if by_wall_clock_alone else world.clock.advance)(seconds)
    response = await browser.decide(page)
    assert response.status_code == 400
    assert "location" not in response.headers


async def test_a_transaction_of_a_client_that_is_gone_is_over(world: World) -> None:
    from mcp_guard.oauth.records import client_key
    from mcp_guard.stores.base import Delete

    client = await world.register()
    browser = world.browser()
    page = await browser.start(client)
    await world.store.run([Delete(client_key(client.client_id))])
    assert (await browser.decide(page)).status_code == 400


async def test_a_person_whose_session_ended_cannot_approve(world: World) -> None:
    from datetime import timedelta

    from mcp_guard.oauth import Lifetimes

    world = World(lifetimes=Lifetimes(browser_session=timedelta(minutes=1)))
    browser: Browser = world.browser()
    page = await browser.start(await world.register())
    world.clock.advance(60)
    response = await browser.decide(page)
    assert response.status_code == 403
    assert "location" not in response.headers
