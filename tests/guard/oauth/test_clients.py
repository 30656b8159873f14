"""Client authentication at the token endpoint."""

import base64

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mcp_guard.oauth import Limits, Rate
from tests.guard.oauth.flow import REDIRECT, UNLIMITED, VERIFIER, Client, World, basic


async def confidential(world: World) -> Client:
    client = await world.register(token_endpoint_auth_method="client_secret_basic")
    assert client.secret is not None
    return client


async def attempt(
    world: World, fields: dict[str, str], headers: object = None, address: str = "192.0.2.1"
) -> httpx.Response:
    data = {
        "grant_type": "authorization_code",
        "code": "c",
        "redirect_uri": REDIRECT,
        "code_verifier": VERIFIER,
        **fields,
    }
    return await world.http(address=address).post("/token", data=data, headers=headers)  # type: ignore[arg-type]


def refused(response: httpx.Response) -> bool:
    """CLI-002: invalid_client, 401, with a challenge."""
    assert response.status_code == 401
    assert response.json() == {"error": "invalid_client", "error_description": "Client authentication failed"}
    assert response.headers["www-authenticate"].startswith('Basic realm="https://as.example"')
    return True


async def test_the_secret_opens_and_the_client_id_may_be_repeated_in_the_body(world: World) -> None:
    client = await confidential(world)
    code = (await world.browser().approve(client))["code"]
    assert (await world.redeem(client, code, client_id=client.client_id)).status_code == 200


async def test_the_scheme_is_case_insensitive_and_the_parts_are_form_encoded(world: World) -> None:
    """tok-03: "basic" in lower case is valid; RFC 6749 §2.3.1."""
    client = await confidential(world)
    encoded = "".join(f"%{byte:02X}" for byte in client.client_id.encode())
    pair = base64.b64encode(f"{encoded}:{client.secret}".encode()).decode()
    for scheme in ["basic", "BASIC", "Basic"]:
        response = await attempt(world, {}, {"authorization": f"{scheme} {pair}"})
        assert response.json()["error"] == "invalid_grant"


@pytest.mark.parametrize(
    "header",
    [
        b"Basic",
        b"Basic ",
        b"Basic !!!",
        b"Basic YQ",
        b"Basic " + base64.b64encode(b"nocolon"),
        b"Basic " + base64.b64encode(b":secret"),
        b"Basic " + base64.b64encode(b":"),
        b"Basic " + base64.b64encode(b"\xff\xfe:x"),
        b"Basic " + base64.b64encode(b"%zz:x"),
        b"Basic " + base64.b64encode(b"a:%ff"),
        b"Basic " + base64.b64encode(b"a:" + b"x" * 65536),
        b"Basic " + base64.b64encode(b"a:b") + b"=",
        b"Bearer abc",
        b"\xff",
    ],
)
async def test_a_malformed_authorization_field_is_invalid_client(world: World, header: bytes) -> None:
    """tok-03."""
    assert refused(await attempt(world, {}, [(b"authorization", header)]))


async def test_a_wrong_secret_and_an_unknown_client_are_told_apart_by_nothing(world: World) -> None:
    """CLI-002, tok-01: the same body and status whatever is wrong."""
    client = await confidential(world)
    secret = client.secret or ""
    wrong = ["", "x", "A" + secret[1:], secret[:-1] + "A", secret + "A", secret[:-1]]
    for guess in wrong:
        if guess != secret:
            assert refused(await attempt(world, {}, basic(client.client_id, guess)))
    assert refused(await attempt(world, {}, basic("unknown", secret)))
    assert refused(await attempt(world, {"client_id": "unknown"}))
    assert refused(await attempt(world, {"client_id": client.client_id}))
    assert refused(await attempt(world, {}))


async def test_a_method_that_was_not_registered_is_refused_and_the_code_not_consumed(world: World) -> None:
    """tok-02, CLI-003, CLI-008."""
    client = await confidential(world)
    secret = client.secret or ""
    code = (await world.browser().approve(client))["code"]
    fields = {"code": code}
    assert refused(await attempt(world, {**fields, "client_id": client.client_id, "client_secret": secret}))
    assert refused(await attempt(world, {**fields, "client_id": client.client_id}))
    twice = await attempt(world, {**fields, "client_id": client.client_id, "client_secret": secret}, client.headers)
    assert twice.status_code == 400
    assert twice.json()["error"] == "invalid_request"
    assert refused(await attempt(world, {**fields, "client_id": "another"}, client.headers))
    pairs = [("authorization", client.headers["authorization"])] * 2
    assert refused(await attempt(world, fields, pairs))
    assert (await world.redeem(client, code)).status_code == 200


async def test_a_public_client_that_sends_a_secret_is_refused(world: World) -> None:
    """tok-02."""
    client = await world.register()
    for fields in [{"client_secret": "s"}, {"client_secret": ""}]:
        assert refused(await attempt(world, {"client_id": client.client_id, **fields}))
    for secret in ["", "s"]:
        assert refused(await attempt(world, {}, basic(client.client_id, secret)))


async def test_an_empty_secret_is_the_secret_of_nobody(world: World) -> None:
    client = await confidential(world)
    assert refused(await attempt(world, {}, basic(client.client_id, "")))


async def test_guessing_secrets_is_limited_by_address_and_shuts_nobody_else_out() -> None:
    """CLI-004: the right secret still opens."""
    world = World(limits=Limits(client_failures_per_address=Rate(3, UNLIMITED.registrations.period)))
    client = await confidential(world)
    for _ in range(3):
        assert refused(await attempt(world, {}, basic(client.client_id, "guess")))
    limited = await attempt(world, {}, basic(client.client_id, "guess"))
    assert limited.status_code == 429
    assert int(limited.headers["retry-after"]) > 0
    assert refused(await attempt(world, {}, basic(client.client_id, "guess"), address="198.51.100.9"))
    code = (await world.browser().approve(client))["code"]
    assert (await world.redeem(client, code)).status_code == 200


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(header=st.binary(max_size=60), prefix=st.sampled_from([b"", b"Basic ", b"basic "]), encode=st.booleans())
async def test_no_authorization_field_is_answered_with_a_fault(
    world: World, header: bytes, prefix: bytes, encode: bool
) -> None:
    value = prefix + (base64.b64encode(header) if encode else header)
    assert refused(await attempt(world, {}, [(b"authorization", value.strip())]))
