"""The registration endpoint."""

from typing import Any

import httpx
import pytest

from mcp_guard.oauth import Limits, Rate
from tests.guard.oauth.flow import REDIRECT, UNLIMITED, World, request_of


async def post(world: World, document: object, *, address: str = "192.0.2.1") -> httpx.Response:
    return await world.http(address=address).post("/register", json=document)


async def test_a_public_client_gets_an_id_and_no_secret(world: World) -> None:
    """REG-001, REG-005."""
    document = {
        "redirect_uris": [REDIRECT],
        "token_endpoint_auth_method": "none",
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "client_name": "Größe",
        "scope": "mcp:read mcp:write",
        "software_id": "x",
        "application_type": "native",
    }
    response = await post(world, document)
    assert response.status_code == 201
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["content-type"] == "application/json"
    told = response.json()
    del document["application_type"]
    assert {name: told[name] for name in document} == document
    assert set(told) - set(document) == {"client_id", "client_id_issued_at"}
    assert told["client_id_issued_at"] == int(world.clock.wall())


async def test_a_confidential_client_gets_a_secret_once(world: World) -> None:
    """REG-001: client_secret_expires_at goes with a secret; it is the method when none is named."""
    told = (await post(world, {"redirect_uris": [REDIRECT]})).json()
    assert told["token_endpoint_auth_method"] == "client_secret_basic"
    assert len(told["client_secret"]) == 43
    assert told["client_secret_expires_at"] == 0


async def test_a_client_chooses_neither_its_id_nor_its_secret(world: World) -> None:
    """dcr-12, REG-004, TOK-022."""
    victim = await world.register()
    document = {
        "redirect_uris": ["https://evil.example/cb"],
        "client_id": victim.client_id,
        "client_secret": "mine",
        "registration_access_token": "mine",
        "client_id_issued_at": 1,
        "client_secret_expires_at": 1,
        "software_statement": "e30.e30.",
    }
    told = (await post(world, document)).json()
    assert told["client_id"] != victim.client_id
    assert told["client_secret"] != "mine"
    assert "registration_access_token" not in told
    assert told["client_id_issued_at"] == int(world.clock.wall())
    assert (await world.browser().open(victim)).status_code == 302
    assert (await world.browser().open(victim, redirect_uri="https://evil.example/cb")).status_code == 400


async def test_ids_are_new_and_look_like_no_url(world: World) -> None:
    """REG-010."""
    ids = {(await world.register()).client_id for _ in range(20)}
    assert len(ids) == 20
    assert not any("/" in client_id or ":" in client_id for client_id in ids)


@pytest.mark.parametrize(
    ("asked", "registered"),
    [
        ("mcp:read", "mcp:read mcp:write"),
        ("mcp:read mcp:admin", "mcp:read mcp:write"),
        ("mcp:admin", None),
        (None, None),
    ],
)
async def test_a_client_that_names_scopes_is_registered_for_those_that_are_offered(
    world: World, asked: str | None, registered: str | None
) -> None:
    """REG-004, dcr-14."""
    response = await post(world, {"redirect_uris": [REDIRECT], "scope": asked})
    assert response.status_code == 201
    assert response.json().get("scope") == registered


@pytest.mark.parametrize(
    ("uri", "error"),
    [
        ("javascript:alert(1)", "invalid_redirect_uri"),
        ("http://app.example/", "invalid_redirect_uri"),
        ("", "invalid_redirect_uri"),
    ],
)
async def test_a_dangerous_redirect_is_refused_and_nothing_is_stored(world: World, uri: str, error: str) -> None:
    """dcr-01, dcr-02, REG-002."""
    response = await post(world, {"redirect_uris": [uri]})
    assert response.status_code == 400
    assert response.json()["error"] == error
    assert response.headers["cache-control"] == "no-store"
    assert not world.entries


@pytest.mark.parametrize("uri", ["com.example.app:/cb", "http://localhost:5000/cb", "http://[::1]/cb"])
async def test_native_clients_are_welcome(world: World, uri: str) -> None:
    """REG-006, RFC 8252."""
    client = await world.register(redirect_uris=[uri], application_type="native")
    assert client.redirect_uri == uri


# dcr-10
@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b'{"redirect_uris":["https://a.example/"],"x":"' + b"y" * 1_000_000 + b'"}', "application/json", 413),
        (b'{"redirect_uris":[' + b'"https://a.example/",' * 3000 + b'"x"]}', "application/json", 400),
        (b'{"redirect_uris":' + b"[" * 10_000 + b"]" * 10_000 + b"}", "application/json", 400),
        (b'{"x":' * 9 + b"1" + b"}" * 9, "application/json", 400),
        (b"[]", "application/json", 400),
        (b"null", "application/json", 400),
        (b"", "application/json", 400),
        (b"{", "application/json", 400),
        (b'\xef\xbb\xbf{"redirect_uris":["https://a.example/"]}', "application/json", 400),
        (b'{"redirect_uris":["https://a.example/"],"redirect_uris":["https://b.example/"]}', "application/json", 400),
        ('{"redirect_uris":["https://a.example/"]}'.encode("utf-16"), "application/json", 400),
        (b'{"redirect_uris":["https://a.example/"],"client_name":"\\ud800"}', "application/json", 400),
        (b'{"redirect_uris":["https://a.example/"],"x":NaN}', "application/json", 400),
        (b"redirect_uris=https://a.example/", "application/x-www-form-urlencoded", 415),
        (b'{"redirect_uris":["https://a.example/"]}', "text/plain", 415),
        (b'{"redirect_uris":["https://a.example/"]}', "", 415),
    ],
)
async def test_a_body_that_is_not_bounded_json_is_refused(world: World, body: bytes, kind: str, status: int) -> None:
    headers = {"content-type": kind} if kind else {}
    response = await world.http().post("/register", content=body, headers=headers)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/json"
    assert response.json()["error"] in {"invalid_client_metadata", "invalid_redirect_uri", "invalid_request"}
    assert not world.entries


async def test_json_with_a_charset_is_json(world: World) -> None:
    response = await world.http().post(
        "/register",
        content=b'{"redirect_uris":["https://a.example/"]}',
        headers={"content-type": "Application/JSON; charset=utf-8"},
    )
    assert response.status_code == 201


PERIOD = UNLIMITED.registrations.period


async def test_registrations_are_limited_by_address() -> None:
    """dcr-09, REG-007: clients that exist are not touched."""
    world = World(limits=Limits(registrations_per_address=Rate(3, PERIOD)))
    client = await world.register()
    document = {"redirect_uris": [REDIRECT]}
    statuses = [(await post(world, document)).status_code for _ in range(5)]
    assert statuses == [201, 201, 201, 429, 429]
    response = await post(world, document)
    assert int(response.headers["retry-after"]) > 0
    assert response.json()["error"] == "temporarily_unavailable"
    assert (await post(world, document, address="198.51.100.1")).status_code == 201
    assert (await world.browser().open(client)).status_code == 302


async def test_registrations_of_one_ipv6_network_count_together() -> None:
    world = World(limits=Limits(registrations_per_address=Rate(2, PERIOD)))
    document = {"redirect_uris": [REDIRECT]}
    statuses = [(await post(world, document, address=f"2001:db8::{number}")).status_code for number in range(4)]
    assert statuses == [201, 201, 429, 429]


async def test_registrations_are_limited_for_all_together() -> None:
    """dcr-09: from as many addresses as there are."""
    world = World(limits=Limits(registrations=Rate(10, PERIOD)))
    document = {"redirect_uris": [REDIRECT]}
    statuses = [(await post(world, document, address=f"198.51.100.{number}")).status_code for number in range(20)]
    assert statuses == [201] * 10 + [429] * 10


async def test_what_is_refused_anyway_is_not_counted() -> None:
    world = World(limits=Limits(registrations_per_address=Rate(1, PERIOD)))
    for _ in range(3):
        assert (await post(world, {"redirect_uris": []})).status_code == 400
    assert (await post(world, {"redirect_uris": [REDIRECT]})).status_code == 201


async def test_a_flood_of_registrations_leaves_a_bounded_number(world: World) -> None:
    """dcr-09: the default limits, six thousand registrations within a minute from as many addresses."""
    world = World(limits=Limits())
    document = {"redirect_uris": [REDIRECT]}
    for number in range(6000):
        if number % 100 == 0:
            world.clock.advance(1)
        await post(world, document, address=f"10.0.{number % 251}.{number % 241}")
    stored = len([key for key in world.entries if key.startswith("mcp:oauth:client:")])
    assert 5000 <= stored <= 5010


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", '"><img src=x onerror=1>', "'; DROP TABLE x", "{{7*7}}"])
async def test_display_values_are_inert_in_every_page(world: World, name: str) -> None:
    """dcr-07, REG-009."""
    client = await world.register(client_name=name, client_uri="https://evil.example/")
    browser = world.browser()
    login = await browser.follow(await browser.open(client))
    consent = await browser.follow(await browser.sign_in(login))
    for page in [login, consent]:
        assert "<script" not in page.text
        assert "<img" not in page.text
        assert "evil.example" not in page.text


async def test_urls_in_the_metadata_are_never_fetched(world: World) -> None:
    """dcr-13."""
    import socket

    with socket.socket() as canary:
        canary.bind(("127.0.0.1", 0))
        canary.listen()
        canary.setblocking(False)
        address = f"http://127.0.0.1:{canary.getsockname()[1]}/"
        names = ["jwks_uri", "logo_uri", "sector_identifier_uri", "client_uri", "tos_uri"]
        members: dict[str, Any] = dict.fromkeys(names, address)
        client = await world.register(**members, request_uris=[address])
        await world.tokens(client)
        with pytest.raises(BlockingIOError):
            canary.accept()


async def test_registering_is_not_logging_in(world: World) -> None:
    response = await world.http().get("/authorize", params=request_of(await world.register()))
    assert "set-cookie" not in response.headers
