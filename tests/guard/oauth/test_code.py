"""Authorization codes at the token endpoint."""

import hashlib
from collections import Counter
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

import anyio
import jwt
import pytest

from mcp_guard.clock import ManualClock
from mcp_guard.oauth import Lifetimes
from mcp_guard.protocol import b64url, pkce
from mcp_guard.stores.memory import MemoryStore
from tests.guard.oauth.flow import (
    ISSUER,
    KEYS,
    OTHER_RESOURCE,
    REDIRECT,
    RESOURCE,
    VERIFIER,
    Client,
    World,
    claims_of,
)


async def code_for(world: World, client: Client, **changes: str) -> str:
    return (await world.browser().approve(client, **changes))["code"]


async def test_a_code_becomes_an_access_token_of_rfc_9068(world: World) -> None:
    """TOK-018 to TOK-021; a second library verifies the signature against the published keys."""
    client = await world.register()
    response = await world.redeem(client, await code_for(world, client))
    assert response.status_code == 200
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["content-type"] == "application/json"
    assert "access-control-allow-origin" not in response.headers
    told = response.json()
    assert set(told) == {"access_token", "token_type", "expires_in", "refresh_token", "scope"}
    assert told["token_type"] == "Bearer"
    assert told["expires_in"] == 900
    assert told["scope"] == "mcp:read"
    keys = jwt.PyJWKSet.from_dict((await world.http().get("/jwks")).json())
    header = jwt.get_unverified_header(told["access_token"])
    assert header == {"alg": "ES256", "typ": "at+jwt", "kid": KEYS.ids[0]}
    claims = jwt.decode(
        told["access_token"],
        keys[header["kid"]],
        algorithms=["ES256"],
        audience=RESOURCE,
        issuer=ISSUER,
        options={"verify_exp": False, "verify_iat": False},
    )
    assert set(claims) == {"iss", "sub", "aud", "client_id", "scope", "iat", "exp", "jti", "grant"}
    assert claims["sub"] == "u-alice"
    assert claims["client_id"] == client.client_id
    assert claims["iat"] == int(world.clock.wall())
    assert claims["exp"] - claims["iat"] == 900
    assert not await world.is_revoked(told["access_token"])


async def test_everything_issued_is_long_and_new(world: World) -> None:
    """TOK-020: no repeats, nothing in common."""
    client = await world.register()
    issued: list[str] = []
    for _ in range(5):
        code = await code_for(world, client)
        told = (await world.redeem(client, code)).json()
        issued += [code, told["refresh_token"], claims_of(told["access_token"])["jti"]]
        refreshed = (await world.refresh(client, told["refresh_token"])).json()
        issued.append(refreshed["refresh_token"])
    assert len(set(issued)) == 20
    assert min(len(text) for text in issued) == 43
    assert max(Counter(text[:6] for text in issued).values()) == 1
    assert max(Counter(text[-6:] for text in issued).values()) == 1


async def test_a_client_without_the_refresh_grant_gets_no_refresh_token(world: World) -> None:
    client = await world.register(grant_types=["authorization_code"])
    told = (await world.redeem(client, await code_for(world, client))).json()
    assert "refresh_token" not in told
    response = await world.refresh(client, "A" * 86)
    assert response.json()["error"] == "unauthorized_client"


# pkce-03, pkce-05, pkce-09, pkce-11, res-08, PKCE-003, PKCE-005, PKCE-008, AUD-012
WRONG: list[tuple[dict[str, str | None], str]] = [
    ({"code_verifier": VERIFIER[::-1]}, "invalid_grant"),
    ({"code_verifier": pkce.challenge_of(VERIFIER)}, "invalid_grant"),
    ({"code_verifier": VERIFIER + "a"}, "invalid_grant"),
    ({"code_verifier": VERIFIER[:42]}, "invalid_grant"),
    ({"code_verifier": "a" * 129}, "invalid_grant"),
    ({"code_verifier": VERIFIER + " "}, "invalid_grant"),
    ({"code_verifier": VERIFIER + "\0"}, "invalid_grant"),
    ({"code_verifier": VERIFIER + "é"}, "invalid_grant"),
    ({"code_verifier": None}, "invalid_request"),
    ({"code_verifier": ""}, "invalid_request"),
    ({"redirect_uri": None}, "invalid_grant"),
    ({"redirect_uri": ""}, "invalid_grant"),
    ({"redirect_uri": REDIRECT + "/"}, "invalid_grant"),
    ({"redirect_uri": "https://APP.example/cb"}, "invalid_grant"),
    ({"redirect_uri": "https://app.example:443/cb"}, "invalid_grant"),
    ({"resource": OTHER_RESOURCE}, "invalid_target"),
    ({"resource": "https://evil.example/mcp"}, "invalid_target"),
    ({"resource": RESOURCE + "#f"}, "invalid_target"),
    ({"resource": ""}, "invalid_target"),
    ({"code": None}, "invalid_request"),
    ({"code": ""}, "invalid_request"),
    ({"code": "unknown"}, "invalid_grant"),
    ({"code": "x" * 10_000}, "invalid_grant"),
    ({"code": "\0"}, "invalid_grant"),
    ({"grant_type": None}, "invalid_request"),
    ({"grant_type": "password"}, "unsupported_grant_type"),
    ({"grant_type": "client_credentials"}, "unsupported_grant_type"),
    ({"grant_type": "authorization_code "}, "unsupported_grant_type"),
    ({"client_id": None}, "invalid_client"),
    ({"client_id": "unknown"}, "invalid_client"),
    ({"client_id": ""}, "invalid_client"),
]


@pytest.mark.parametrize(("changes", "error"), WRONG)
async def test_a_wrong_request_is_refused_and_the_code_stays_good(
    world: World, changes: dict[str, Any], error: str
) -> None:
    """Nothing changes before everything is validated."""
    client = await world.register()
    code = await code_for(world, client)
    response = await world.redeem(client, code, **changes)
    assert response.status_code == (401 if error == "invalid_client" else 400)
    assert response.json()["error"] == error
    assert response.headers["cache-control"] == "no-store"
    assert (await world.redeem(client, code, resource=RESOURCE)).status_code == 200


async def test_the_verifier_s_hash_is_not_enough_when_the_verifier_is_malformed(world: World) -> None:
    """pkce-05: the challenge is right for a verifier of 42 characters."""
    client = await world.register()
    short = "a" * 42
    code = await code_for(world, client, code_challenge=b64url.encode(hashlib.sha256(short.encode()).digest()))
    response = await world.redeem(client, code, code_verifier=short)
    assert response.json()["error"] == "invalid_grant"


async def test_another_client_cannot_redeem_a_code(world: World) -> None:
    """pkce-09: neither public nor confidential, with everything else right; the owner still can."""
    client = await world.register()
    code = await code_for(world, client)
    for other in [await world.register(), await world.register(token_endpoint_auth_method="client_secret_basic")]:
        response = await world.redeem(other, code)
        assert response.status_code == 400
        assert response.json()["error"] == "invalid_grant"
    response = await world.redeem(Client("", None), code, client_id=None)
    assert response.status_code == 401
    assert (await world.redeem(client, code)).status_code == 200


async def test_an_injected_code_fails_at_the_victim_s_verifier(world: World) -> None:
    """pkce-13."""
    client = await world.register()
    code = await code_for(world, client, code_challenge=pkce.challenge_of("attacker" * 8))
    assert (await world.redeem(client, code)).json()["error"] == "invalid_grant"


async def test_a_code_for_a_loopback_port_is_redeemed_with_that_port(world: World) -> None:
    client = await world.register(redirect_uris=["http://127.0.0.1/cb"])
    code = await code_for(world, client, redirect_uri="http://127.0.0.1:5000/cb")
    assert (await world.redeem(client, code)).json()["error"] == "invalid_grant"
    assert (await world.redeem(client, code, redirect_uri="http://127.0.0.1:5000/cb")).status_code == 200


async def test_a_code_used_twice_is_refused_and_ends_what_it_gave(world: World) -> None:
    """pkce-07, PKCE-007."""
    client = await world.register()
    code = await code_for(world, client)
    first = (await world.redeem(client, code)).json()
    again = await world.redeem(client, code)
    assert again.status_code == 400
    assert again.json()["error"] == "invalid_grant"
    assert await world.is_revoked(first["access_token"])
    assert (await world.refresh(client, first["refresh_token"])).json()["error"] == "invalid_grant"


@pytest.mark.parametrize(
    "changes",
    [
        {"code_verifier": VERIFIER[::-1]},
        {"redirect_uri": REDIRECT + "/"},
        {"resource": OTHER_RESOURCE},
        {"client_id": "unknown"},
    ],
)
async def test_a_stranger_with_a_used_code_cannot_end_anything(world: World, changes: dict[str, str]) -> None:
    """PKCE-007: a replay with a wrong verifier does not cut the user off."""
    client = await world.register()
    code = await code_for(world, client)
    first = (await world.redeem(client, code)).json()
    assert (await world.redeem(client, code, **changes)).status_code in {400, 401}
    assert (await world.redeem(await world.register(), code)).status_code == 400
    assert not await world.is_revoked(first["access_token"])
    assert (await world.refresh(client, first["refresh_token"])).status_code == 200


async def test_the_reuse_is_recognised_long_after_the_code_has_expired(world: World) -> None:
    client = await world.register()
    code = await code_for(world, client)
    first = (await world.redeem(client, code)).json()
    world.clock.advance(3600)
    assert (await world.redeem(client, code)).json()["error"] == "invalid_grant"
    assert await world.is_revoked(first["access_token"])


async def test_of_fifty_simultaneous_redemptions_exactly_one_succeeds(crowded: World) -> None:
    """pkce-08: and the grant is ended, since a code in two hands is a stolen one."""
    world = crowded
    client = await world.register()
    code = await code_for(world, client)
    responses = []

    async def redeem() -> None:
        responses.append(await world.redeem(client, code))

    async with anyio.create_task_group() as group:
        for _ in range(50):
            group.start_soon(redeem)
    assert Counter(response.status_code for response in responses) == {200: 1, 400: 49}
    (won,) = (response.json() for response in responses if response.status_code == 200)
    assert await world.is_revoked(won["access_token"])
    assert (await world.refresh(client, won["refresh_token"])).status_code == 400


@pytest.mark.parametrize(("seconds", "status"), [(59, 200), (60, 400), (61, 400)])
async def test_a_code_lives_a_minute(world: World, seconds: int, status: int) -> None:
    client = await world.register()
    code = await code_for(world, client)
    world.clock.advance(seconds)
    assert (await world.redeem(client, code)).status_code == status


@pytest.mark.parametrize(("seconds", "status"), [(59, 200), (60, 400), (61, 400)])
async def test_a_code_expires_by_its_own_record_even_when_the_store_keeps_it(seconds: int, status: int) -> None:
    """pkce-12: the store's clock stands still."""
    world = World(given_store=MemoryStore(clock=ManualClock()))
    client = await world.register()
    code = await code_for(world, client)
    world.clock.advance(seconds)
    response = await world.redeem(client, code)
    assert response.status_code == status
    if status == 400:
        assert response.json()["error"] == "invalid_grant"


async def test_a_clock_set_back_brings_no_code_back(world: World) -> None:
    client = await world.register()
    code = await code_for(world, client)
    world.clock.advance(60)
    world.clock.step(-3600)
    assert (await world.redeem(client, code)).status_code == 400


async def test_access_tokens_live_as_long_as_is_set() -> None:
    """TOK-019."""
    world = World(lifetimes=Lifetimes(access_token=timedelta(hours=1)))
    tokens = await world.tokens(await world.register())
    claims = claims_of(tokens["access_token"])
    assert tokens["expires_in"] == claims["exp"] - claims["iat"] == 3600


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("code_verifier", ["wrong" * 10, VERIFIER]),
        ("code_verifier", [VERIFIER, "wrong" * 10]),
        ("code_verifier", [VERIFIER, VERIFIER]),
        ("grant_type", ["authorization_code", "authorization_code"]),
        ("grant_type", ["refresh_token", "authorization_code"]),
        ("code", ["unknown", None]),
        ("code", [None, "unknown"]),
        ("resource", [RESOURCE, RESOURCE]),
        ("redirect_uri", [REDIRECT, "https://evil.example/"]),
        ("client_id", [None, None]),
        ("unknown", ["a", "b"]),
    ],
)
async def test_a_repeated_parameter_is_refused_in_every_order(
    world: World, name: str, values: list[str | None]
) -> None:
    """pkce-14, RED-007."""
    client = await world.register()
    code = await code_for(world, client)
    good = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": REDIRECT,
        "code_verifier": VERIFIER,
        "client_id": client.client_id,
    }
    pairs = [(key, value) for key, value in good.items() if key != name]
    pairs += [(name, good.get(name, "") if value is None else value) for value in values]
    response = await world.http().post(
        "/token",
        content=urlencode(pairs),
        headers={"content-type": "application/x-www-form-urlencoded"},
    )
    assert response.status_code == 400
    assert response.json()["error"] == "invalid_request"
    assert (await world.redeem(client, code)).status_code == 200


@pytest.mark.parametrize("query", ["code_verifier=wrong", "grant_type=authorization_code", "x=y", "client_secret=s"])
async def test_parameters_in_the_url_are_refused(world: World, query: str) -> None:
    """pkce-14, tok-04, CLI-001."""
    client = await world.register()
    code = await code_for(world, client)
    fields = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": REDIRECT,
        "code_verifier": VERIFIER,
        "client_id": client.client_id,
    }
    response = await world.http().post(f"/token?{query}", data=fields)
    assert response.status_code == 400
    assert response.json()["error"] == "invalid_request"
    response = await world.http().post("/token", params=fields)
    assert response.status_code == 400
    assert (await world.redeem(client, code)).status_code == 200


async def test_the_store_holds_nothing_in_clear(world: World) -> None:
    """rt-11."""
    client = await world.register(token_endpoint_auth_method="client_secret_basic")
    browser = world.browser()
    code = (await browser.approve(client))["code"]
    tokens = (await world.redeem(client, code)).json()
    refreshed = (await world.refresh(client, tokens["refresh_token"])).json()
    await browser.start(client)
    entries = world.entries
    dump = "\n".join(f"{key} {value.decode()}" for key, value in entries.items())
    dump += "\n".join(world.store._buckets)  # type: ignore[attr-defined]
    secrets = [
        code,
        tokens["access_token"],
        tokens["refresh_token"],
        refreshed["refresh_token"],
        client.secret,
        VERIFIER,
        browser.http.cookies["__Host-mcp-guard-session"],
        "alice's password",
    ]
    assert [secret for secret in secrets if secret is None or secret in dump] == []
    assert all(key.startswith("mcp:") for key in entries)
    assert all(value.startswith(b"{") for key, value in entries.items() if key.startswith("mcp:oauth:"))
