"""The authorization endpoint."""

from urllib.parse import urlencode

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mcp_guard.oauth import Limits, Rate
from mcp_guard.protocol import pkce
from tests.guard.oauth.flow import (
    ISSUER,
    OTHER_RESOURCE,
    REDIRECT,
    RESOURCE,
    UNLIMITED,
    VERIFIER,
    Browser,
    Form,
    World,
    claims_of,
    query_of,
    request_of,
)

CHALLENGE = pkce.challenge_of(VERIFIER)


async def signed_in(world: World, user: str = "alice") -> Browser:
    """A browser that has a session already."""
    browser = world.browser(user)
    page = await browser.start(await world.register())
    assert page.status_code == 200
    return browser


async def test_a_person_approves_and_the_client_gets_a_code_state_and_issuer(world: World) -> None:
    """disc-08, RED-006: iss once, byte for byte."""
    client = await world.register()
    response = await world.browser().decide(await world.browser().start(client))
    assert response.status_code == 403
    browser = world.browser()
    response = await browser.decide(await browser.start(client))
    assert response.status_code == 303
    assert response.headers["location"].startswith(f"{REDIRECT}?")
    told = query_of(response.headers["location"])
    assert set(told) == {"code", "state", "iss"}
    assert told["iss"] == ISSUER
    assert told["state"] == "a state"
    assert response.headers["cache-control"] == "no-store"


async def test_an_authorization_url_may_be_opened_many_times_and_stores_nothing(world: World) -> None:
    """dos-04: whoever has not signed in costs no memory."""
    client = await world.register()
    entries = len(world.entries)
    for _ in range(200):
        response = await world.browser().open(client)
        assert response.status_code == 302
        assert (await world.browser().follow(response)).status_code == 200
    assert len(world.store._values) == entries  # type: ignore[attr-defined]
    assert "code" in await world.browser().approve(client)


# RED-003, dcr-03, dcr-05, csrf-11, pkce-15
@pytest.mark.parametrize(
    "changes",
    [
        {"client_id": None},
        {"client_id": ""},
        {"client_id": "unknown"},
        {"client_id": "x" * 3000},
        {"redirect_uri": None},
        {"redirect_uri": ""},
        {"redirect_uri": "https://evil.example/cb"},
        {"redirect_uri": f"{REDIRECT}/"},
        {"redirect_uri": f"{REDIRECT}?x=1"},
        {"redirect_uri": "https://APP.example/cb"},
        {"redirect_uri": "https://app.example:443/cb"},
        {"redirect_uri": "https://app.example@evil.net/cb"},
        {"redirect_uri": "javascript:alert(1)"},
        {"redirect_uri": f"{REDIRECT}\r\nSet-Cookie: x=1"},
        {"redirect_uri": "https://evil.example/cb", "response_type": "token"},
        {"state": "x" * 9000},
    ],
)
@pytest.mark.parametrize("with_session", [False, True])
async def test_a_request_that_cannot_be_trusted_leads_nowhere(
    world: World, changes: dict[str, str | None], with_session: bool
) -> None:
    client = await world.register()
    browser = await signed_in(world) if with_session else world.browser()
    for path in ["/authorize", "/login"]:
        response = await browser.http.get(f"{path}?{urlencode(request_of(client, **changes))}")
        assert response.status_code == 400
        assert "location" not in response.headers
        assert "evil" not in response.text
        assert response.headers["x-frame-options"] == "DENY"
        assert "frame-ancestors 'none'" in response.headers["content-security-policy"]


@pytest.mark.parametrize("name", ["client_id", "redirect_uri"])
@pytest.mark.parametrize("first", [False, True])
async def test_a_repeated_client_or_redirect_leads_nowhere(world: World, name: str, first: bool) -> None:
    """pkce-15."""
    client = await world.register()
    pairs = list(request_of(client).items())
    extra = (name, "https://evil.example/cb")
    pairs = [extra, *pairs] if first else [*pairs, extra]
    response = await (await signed_in(world)).http.get(f"/authorize?{urlencode(pairs)}")
    assert response.status_code == 400
    assert "location" not in response.headers


@pytest.mark.parametrize("query", ["%", "client_id=%ff", "client_id=a%zz", "&".join(["a=b"] * 65), "client_id=%c3%28"])
async def test_a_query_that_does_not_decode_leads_nowhere(world: World, query: str) -> None:
    response = await world.browser().http.get(f"/authorize?{query}")
    assert response.status_code == 400


# pkce-01, pkce-02, pkce-04, pkce-05, pkce-15, res-06, dcr-14, RED-007, RED-008, PKCE-002, PKCE-006
ERRORS: list[tuple[dict[str, str | None], str]] = [
    ({"code_challenge": None}, "invalid_request"),
    ({"code_challenge": ""}, "invalid_request"),
    ({"code_challenge": None, "code_challenge_method": None}, "invalid_request"),
    ({"code_challenge_method": "plain"}, "invalid_request"),
    ({"code_challenge_method": None}, "invalid_request"),
    ({"code_challenge_method": ""}, "invalid_request"),
    ({"code_challenge_method": "s256"}, "invalid_request"),
    ({"code_challenge_method": "S256 "}, "invalid_request"),
    ({"code_challenge": CHALLENGE[:42]}, "invalid_request"),
    ({"code_challenge": f"{CHALLENGE}A"}, "invalid_request"),
    ({"code_challenge": f"{CHALLENGE[:42]}+"}, "invalid_request"),
    ({"code_challenge": f"{CHALLENGE}="}, "invalid_request"),
    ({"code_challenge": "a" * 10_00}, "invalid_request"),
    ({"response_type": None}, "invalid_request"),
    ({"response_type": ""}, "invalid_request"),
    ({"response_type": "token"}, "unsupported_response_type"),
    ({"response_type": "code token"}, "unsupported_response_type"),
    ({"response_type": "id_token token"}, "unsupported_response_type"),
    ({"response_type": "none"}, "unsupported_response_type"),
    ({"response_type": "CODE"}, "unsupported_response_type"),
    ({"response_mode": "form_post"}, "invalid_request"),
    ({"response_mode": "fragment"}, "invalid_request"),
    ({"request": "e30.e30."}, "request_not_supported"),
    ({"request_uri": "https://evil.example/r"}, "request_uri_not_supported"),
    ({"resource": "https://evil.example/mcp"}, "invalid_target"),
    ({"resource": f"{RESOURCE}#f"}, "invalid_target"),
    ({"resource": f"{RESOURCE}/"}, "invalid_target"),
    ({"resource": "https://mcp.example/MCP"}, "invalid_target"),
    ({"resource": "mcp.example.com"}, "invalid_target"),
    ({"resource": ""}, "invalid_target"),
    ({"scope": "unknown"}, "invalid_scope"),
    ({"scope": "mcp:read  mcp:write"}, "invalid_scope"),
    ({"scope": "mcp:admin"}, "invalid_scope"),
    ({"scope": '"'}, "invalid_scope"),
]


@pytest.mark.parametrize(("changes", "error"), ERRORS)
async def test_an_error_is_told_to_the_client_once_the_person_is_known(
    world: World, changes: dict[str, str | None], error: str
) -> None:
    """RED-012: never before sign-in; then with state and issuer, and no code."""
    client = await world.register()
    browser = world.browser()
    first = await browser.open(client, **changes)
    assert first.headers["location"].startswith(f"{ISSUER}/login?")
    response = await browser.follow(await browser.sign_in(await browser.follow(first)))
    assert response.status_code == 302
    assert response.headers["location"].startswith(f"{REDIRECT}?")
    told = query_of(response.headers["location"])
    assert set(told) == {"error", "error_description", "state", "iss"}
    assert told["error"] == error
    assert told["state"] == "a state"
    assert told["iss"] == ISSUER
    assert not any(key.startswith("mcp:oauth:code:") for key in world.entries)


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("response_type", "invalid_request"),
        ("scope", "invalid_request"),
        ("code_challenge", "invalid_request"),
        ("code_challenge_method", "invalid_request"),
        ("state", "invalid_request"),
        ("resource", "invalid_target"),
        ("unknown", "invalid_request"),
    ],
)
async def test_a_repeated_parameter_is_an_error(world: World, name: str, error: str) -> None:
    """pkce-15, RED-007: the same value twice is refused too; a state that is not one is not returned."""
    client = await world.register()
    pairs = list({**request_of(client), "unknown": "x"}.items())
    pairs.append((name, dict(pairs)[name]))
    response = await (await signed_in(world)).http.get(f"/authorize?{urlencode(pairs)}")
    told = query_of(response.headers["location"])
    assert told["error"] == error
    assert told.get("state") == (None if name == "state" else "a state")


async def test_unknown_parameters_are_ignored_and_empty_ones_count_as_omitted(world: World) -> None:
    """RED-007, RFC 6749 §3.1."""
    client = await world.register()
    told = await world.browser().approve(client, unknown="x", scope="", state="", response_mode="", prompt="none")
    assert set(told) == {"code", "iss"}
    response = await world.redeem(client, told["code"])
    assert response.json()["scope"] == "mcp:read mcp:write"


@pytest.mark.parametrize(
    "state",
    ["<script>alert(1)</script>", "%0d%0aSet-Cookie:x=1", "a\r\nb", "\u2028", "a b+c&d=e", "ä🙂", "\0", "x" * 2000],
)
@pytest.mark.parametrize("decision", ["approve", "deny"])
async def test_any_state_comes_back_unchanged(world: World, state: str, decision: str) -> None:
    """pkce-16, RED-005."""
    client = await world.register()
    browser = world.browser()
    page = await browser.start(client, state=state)
    assert "<script" not in page.text
    response = await browser.decide(page, decision)
    assert query_of(response.headers["location"])["state"] == state
    assert "x" not in response.cookies


async def test_a_request_without_resource_is_for_the_first_one(world: World) -> None:
    """res-05: never the server itself, never absent."""
    client = await world.register()
    tokens = await world.tokens(client, resource=None)  # type: ignore[arg-type]
    assert claims_of(tokens["access_token"])["aud"] == RESOURCE


async def test_a_request_may_be_for_any_of_the_resources(world: World) -> None:
    """AUD-010."""
    client = await world.register()
    tokens = await world.tokens(client, resource=OTHER_RESOURCE)
    assert claims_of(tokens["access_token"])["aud"] == OTHER_RESOURCE


async def test_the_case_of_scheme_and_host_names_no_other_resource(world: World) -> None:
    """AUD-005: the audience is spelled as it is configured, however the client spells the resource."""
    client = await world.register()
    tokens = await world.tokens(client, resource=RESOURCE.replace("https://mcp.example", "HTTPS://MCP.Example"))
    assert claims_of(tokens["access_token"])["aud"] == RESOURCE


@pytest.mark.parametrize(
    ("registered", "asked", "granted"),
    [
        (None, None, "mcp:read mcp:write"),
        (None, "mcp:write", "mcp:write"),
        (None, "mcp:write unknown", "mcp:write"),
        ("mcp:read", None, "mcp:read"),
        ("mcp:read", "mcp:read mcp:write", "mcp:read mcp:write"),
        ("mcp:read", "mcp:write mcp:admin", "mcp:write"),
        ("mcp:read mcp:admin", None, "mcp:read"),
        ("openid profile", None, "mcp:read mcp:write"),
    ],
)
async def test_no_more_is_granted_than_offered_and_asked_or_else_named_before(
    world: World, registered: str | None, asked: str | None, granted: str
) -> None:
    """dcr-14."""
    client = await world.register(scope=registered)
    tokens = await world.tokens(client, scope=asked)  # type: ignore[arg-type]
    assert tokens["scope"] == granted
    assert claims_of(tokens["access_token"])["scope"] == granted


async def test_no_more_is_granted_than_the_person_may_give(world: World) -> None:
    client = await world.register()
    tokens = await world.tokens(client, user="carol", scope="mcp:read mcp:write")
    assert tokens["scope"] == "mcp:read"
    response = await world.browser("carol").start(client, scope="mcp:write")
    assert query_of(response.headers["location"])["error"] == "invalid_scope"


async def test_a_thousand_scopes_are_an_error(world: World) -> None:
    """dcr-14."""
    client = await world.register()
    scope = " ".join(f"s{number}" for number in range(1000))
    response = await world.browser().start(client, scope=scope)
    assert query_of(response.headers["location"])["error"] == "invalid_scope"


async def test_a_server_without_scopes_grants_none() -> None:
    world = World(scopes={})
    tokens = await world.tokens(await world.register(), scope="whatever")
    assert "scope" not in tokens
    assert claims_of(tokens["access_token"])["scope"] == ""


async def test_a_loopback_client_may_come_with_another_port(world: World) -> None:
    """dcr-04: the port it came with is the one it is answered at."""
    client = await world.register(redirect_uris=["http://127.0.0.1/cb"])
    browser = world.browser()
    response = await browser.decide(await browser.start(client, redirect_uri="http://127.0.0.1:51234/cb"))
    assert response.headers["location"].startswith("http://127.0.0.1:51234/cb?code=")


async def test_consent_is_shown_every_time(world: World) -> None:
    """RED-014, CSRF-003: an earlier answer is not remembered."""
    client = await world.register()
    browser = world.browser()
    await browser.approve(client)
    again = await browser.follow(await browser.open(client))
    assert again.status_code == 200
    assert Form(again.text).action == f"{ISSUER}/consent"


async def test_pending_consents_of_a_person_are_bounded() -> None:
    """dos-04."""
    limits = Limits(transactions_per_user=Rate(3, UNLIMITED.registrations.period))
    world = World(limits=limits)
    client = await world.register()
    browser = await signed_in(world)
    for _ in range(2):
        assert (await browser.open(client)).status_code == 302
    response = await browser.open(client)
    assert response.status_code == 429
    assert int(response.headers["retry-after"]) > 0
    assert "location" not in response.headers
    assert (await (await signed_in(world, "bob")).open(client)).status_code == 302


NAMES = ["response_type", "client_id", "redirect_uri", "code_challenge", "code_challenge_method", "state", "scope"]


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    noise=st.lists(
        st.tuples(
            st.sampled_from([*NAMES, "resource", "request", "response_mode", "x"]),
            st.text(st.characters(exclude_categories=["Cs"]), max_size=30),
        ),
        max_size=6,
    ),
    replacing=st.booleans(),
)
async def test_no_request_is_answered_with_a_fault_or_a_code(
    world: World, noise: list[tuple[str, str]], replacing: bool
) -> None:
    client = await world.register()
    good = [(name, value) for name, value in request_of(client).items() if not replacing or name not in dict(noise)]
    browser = await signed_in(world)
    response = await browser.http.get(f"/authorize?{urlencode([*good, *noise])}")
    assert response.status_code in {302, 400}
    location = response.headers.get("location", f"{ISSUER}/")
    assert location.startswith((f"{ISSUER}/", f"{REDIRECT}?error="))
    assert "code=" not in location


async def test_the_challenge_is_in_no_response(world: World) -> None:
    """PKCE-009."""
    client = await world.register()
    browser = world.browser()
    response = await browser.decide(await browser.start(client))
    assert CHALLENGE not in response.headers["location"]
