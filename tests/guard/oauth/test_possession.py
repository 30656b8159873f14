"""Tokens that are bound to a key of the client (RFC 9449 §5, §10)."""

from typing import Any

import anyio
import pytest

from mcp_guard.failures import ConfigurationError
from mcp_guard.keyring import KeyRing
from mcp_guard.layers.dpop import NONCE_PURPOSE
from mcp_guard.oauth import ProofTerms
from mcp_guard.protocol.dpop import Window
from mcp_guard.protocol.nonces import Nonces
from tests.guard.oauth.flow import OTHER_RESOURCE, Client, World, claims_of
from tests.guard.oauth.prover import Prover
from tests.guard.signing import SigningKey, public_members


@pytest.fixture
def world() -> World:
    """A server that has been up for longer than proofs live."""
    world = World()
    world.clock.advance(120)
    return world


@pytest.fixture
def prover(world: World) -> Prover:
    return Prover(world.clock)


async def code_for(world: World, client: Client, **changes: str | None) -> str:
    answer = await world.browser().approve(client, **changes)
    return answer["code"]


async def bound(world: World, prover: Prover, **members: Any) -> tuple[Client, dict[str, Any]]:
    """A client and its tokens, bound to the key of `prover`."""
    client = await world.register(**members)
    response = await world.redeem(client, await code_for(world, client), proofs=[prover.proof()])
    assert response.status_code == 200, response.text
    return client, response.json()


async def test_a_request_with_a_proof_gets_tokens_that_are_bound_to_its_key(world: World, prover: Prover) -> None:
    _, tokens = await bound(world, prover)
    assert tokens["token_type"] == "DPoP"
    assert claims_of(tokens["access_token"])["cnf"] == {"jkt": prover.jkt}


async def test_a_request_without_a_proof_gets_bearer_tokens(world: World) -> None:
    tokens = await world.tokens(await world.register())
    assert tokens["token_type"] == "Bearer"
    assert "cnf" not in claims_of(tokens["access_token"])


@pytest.mark.parametrize("alg", ["ES256", "ES384", "EdDSA", "PS256"])
async def test_the_metadata_names_the_algorithms_that_proofs_may_have(world: World, alg: str) -> None:
    document = (await world.http().get("/.well-known/oauth-authorization-server")).json()
    offered = document["dpop_signing_alg_values_supported"]
    assert alg in offered
    assert not {"none", "HS256", "RS256"}.intersection(offered)
    _, tokens = await bound(world, Prover(world.clock, key=SigningKey.new(alg)))
    assert tokens["token_type"] == "DPoP"


WRONG: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("typ", {"typ": "at+jwt"}, {}),
    ("no typ", {"typ": None}, {}),
    ("no key", {"jwk": None}, {}),
    ("private key", {"jwk": {"kty": "EC", "crv": "P-256", "x": "x", "y": "y", "d": "d"}}, {}),
    ("another's key", {"jwk": public_members(SigningKey.new().private)}, {}),
    ("none", {"alg": "none"}, {}),
    ("method", {}, {"htm": "GET"}),
    ("no method", {}, {"htm": None}),
    ("authorization endpoint", {}, {"htu": "https://as.example/authorize"}),
    ("another server", {}, {"htu": "https://other.example/token"}),
    ("path below", {}, {"htu": "https://as.example/token/"}),
    ("no url", {}, {"htu": None}),
    ("no jti", {}, {"jti": None}),
    ("no time", {}, {"iat": None}),
]


@pytest.mark.parametrize(("header", "changes"), [pytest.param(*row[1:], id=row[0]) for row in WRONG])
async def test_a_proof_that_does_not_hold_gets_no_token_and_costs_no_code(
    world: World, prover: Prover, header: dict[str, Any], changes: dict[str, Any]
) -> None:
    client = await world.register()
    code = await code_for(world, client)
    refused = await world.redeem(client, code, proofs=[prover.proof(header, **changes)])
    assert_refused(refused, "invalid_dpop_proof")
    assert (await world.redeem(client, code, proofs=[prover.proof()])).status_code == 200


def assert_refused(response: Any, *errors: str) -> None:
    assert response.status_code == 400, response.text
    assert response.json()["error"] in errors
    assert "access_token" not in response.text
    assert response.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("age", [61, -11])
async def test_a_proof_that_is_too_old_or_ahead_does_not_hold(world: World, prover: Prover, age: int) -> None:
    client = await world.register()
    proof = prover.proof(iat=int(world.clock.wall()) - age)
    assert_refused(await world.redeem(client, await code_for(world, client), proofs=[proof]), "invalid_dpop_proof")


@pytest.mark.parametrize("age", [60, -10])
async def test_a_proof_at_the_edge_of_its_time_holds(world: World, prover: Prover, age: int) -> None:
    client = await world.register()
    proof = prover.proof(iat=int(world.clock.wall()) - age)
    assert (await world.redeem(client, await code_for(world, client), proofs=[proof])).status_code == 200


@pytest.mark.parametrize("count", [2, 3])
async def test_a_field_that_is_repeated_does_not_hold(world: World, prover: Prover, count: int) -> None:
    client = await world.register()
    proofs = [prover.proof() for _ in range(count)]
    assert_refused(await world.redeem(client, await code_for(world, client), proofs=proofs), "invalid_dpop_proof")


@pytest.mark.parametrize("field", ["", "x", "a.b.c", "{}"])
async def test_a_field_that_holds_no_proof_does_not_hold(world: World, field: str) -> None:
    client = await world.register()
    assert_refused(await world.redeem(client, await code_for(world, client), proofs=[field]), "invalid_dpop_proof")


async def test_a_proof_counts_once(world: World, prover: Prover) -> None:
    client, proof = await world.register(), prover.proof()
    first, second = await code_for(world, client), await code_for(world, client)
    assert (await world.redeem(client, first, proofs=[proof])).status_code == 200
    assert_refused(await world.redeem(client, second, proofs=[proof]), "invalid_dpop_proof")
    assert (await world.redeem(client, second, proofs=[prover.proof()])).status_code == 200


async def test_a_proof_is_remembered_until_it_is_too_old(world: World, prover: Prover) -> None:
    client, proof = await world.register(), prover.proof(iat=int(world.clock.wall()) + 10)
    await world.redeem(client, await code_for(world, client), proofs=[proof])
    world.clock.advance(70)
    assert_refused(await world.redeem(client, await code_for(world, client), proofs=[proof]), "invalid_dpop_proof")


async def test_a_store_that_forgot_takes_no_proof_from_before(world: World, prover: Prover) -> None:
    proof = prover.proof()
    world.clock.advance(1)
    forgetful = World(clock=world.clock)
    client = await forgetful.register()
    code = await code_for(forgetful, client)
    assert_refused(await forgetful.redeem(client, code, proofs=[proof]), "invalid_dpop_proof")
    assert (await forgetful.redeem(client, code, proofs=[prover.proof()])).status_code == 200


async def test_of_ten_requests_with_one_proof_one_gets_tokens(crowded: World) -> None:
    crowded.clock.advance(120)
    client, proof = await crowded.register(), Prover(crowded.clock).proof()
    codes = [await code_for(crowded, client) for _ in range(10)]
    responses = []

    async def redeem(code: str) -> None:
        responses.append(await crowded.redeem(client, code, proofs=[proof]))

    async with anyio.create_task_group() as group:
        for code in codes:
            group.start_soon(redeem, code)
    assert sorted(response.status_code for response in responses) == [200] + [400] * 9


async def test_a_request_that_is_sent_again_as_it_was_ends_nothing(world: World, prover: Prover) -> None:
    client, proof = await world.register(), prover.proof()
    code = await code_for(world, client)
    tokens = (await world.redeem(client, code, proofs=[proof])).json()
    assert_refused(await world.redeem(client, code, proofs=[proof]), "invalid_dpop_proof")
    assert not await world.is_revoked(tokens["access_token"])
    again = prover.proof()
    assert (await world.refresh(client, tokens["refresh_token"], proofs=[again])).status_code == 200
    assert_refused(await world.refresh(client, tokens["refresh_token"], proofs=[again]), "invalid_dpop_proof")
    assert not await world.is_revoked(tokens["access_token"])


async def test_a_code_that_is_used_again_with_a_new_proof_ends_the_grant(world: World, prover: Prover) -> None:
    client = await world.register()
    code = await code_for(world, client)
    tokens = (await world.redeem(client, code, proofs=[prover.proof()])).json()
    assert_refused(await world.redeem(client, code, proofs=[prover.proof()]), "invalid_grant")
    assert await world.is_revoked(tokens["access_token"])


@pytest.mark.parametrize("change", [{"code_verifier": "another" * 8}, {"resource": OTHER_RESOURCE}])
async def test_a_request_that_fails_otherwise_does_not_use_up_its_proof(
    world: World, prover: Prover, change: dict[str, Any]
) -> None:
    client, proof = await world.register(), prover.proof()
    code = await code_for(world, client)
    assert_refused(await world.redeem(client, code, proofs=[proof], **change), "invalid_grant", "invalid_target")
    assert (await world.redeem(client, code, proofs=[proof])).status_code == 200


@pytest.mark.parametrize("change", [{"scope": "mcp:write"}, {"resource": OTHER_RESOURCE}])
async def test_a_refresh_that_fails_otherwise_does_not_use_up_its_proof(
    world: World, prover: Prover, change: dict[str, Any]
) -> None:
    client, tokens = await bound(world, prover)
    proof = prover.proof()
    refused = await world.refresh(client, tokens["refresh_token"], proofs=[proof], **change)
    assert_refused(refused, "invalid_scope", "invalid_target")
    assert (await world.refresh(client, tokens["refresh_token"], proofs=[proof])).status_code == 200


async def test_a_code_is_redeemed_with_the_key_that_it_was_asked_for_with(world: World, prover: Prover) -> None:
    """dpop-24: the code is left to the client whatever a thief tries."""
    client, thief = await world.register(), Prover(world.clock)
    code = await code_for(world, client, dpop_jkt=prover.jkt)
    assert_refused(await world.redeem(client, code, proofs=[thief.proof()]), "invalid_grant")
    assert_refused(await world.redeem(client, code), "invalid_dpop_proof")
    tokens = (await world.redeem(client, code, proofs=[prover.proof()])).json()
    assert tokens["token_type"] == "DPoP"
    assert_refused(await world.redeem(client, code, proofs=[thief.proof()]), "invalid_grant")
    assert_refused(await world.redeem(client, code), "invalid_dpop_proof")
    assert not await world.is_revoked(tokens["access_token"]), "whoever has no key ends nothing"


@pytest.mark.parametrize("jkt", ["x", "a" * 42, "a" * 44, "a" * 42 + "+", "a" * 42 + "b", "a" * 43 + "="])
async def test_a_malformed_thumbprint_is_told_to_the_client(world: World, jkt: str) -> None:
    browser = world.browser()
    answer = await browser.start(await world.register(), dpop_jkt=jkt)
    assert "error=invalid_request" in answer.headers["location"]


async def test_refresh_tokens_of_a_public_client_are_bound_to_its_key(world: World, prover: Prover) -> None:
    client, first = await bound(world, prover)
    thief = Prover(world.clock)
    assert_refused(await world.refresh(client, first["refresh_token"], proofs=[thief.proof()]), "invalid_grant")
    assert_refused(await world.refresh(client, first["refresh_token"]), "invalid_dpop_proof")
    second = (await world.refresh(client, first["refresh_token"], proofs=[prover.proof()])).json()
    assert second["token_type"] == "DPoP"
    assert claims_of(second["access_token"])["cnf"] == {"jkt": prover.jkt}
    assert_refused(await world.refresh(client, second["refresh_token"], proofs=[thief.proof()]), "invalid_grant")
    assert (await world.refresh(client, second["refresh_token"], proofs=[prover.proof()])).status_code == 200


async def test_an_old_refresh_token_ends_no_grant_without_the_key(world: World, prover: Prover) -> None:
    client, first = await bound(world, prover)
    second = (await world.refresh(client, first["refresh_token"], proofs=[prover.proof()])).json()
    thief = Prover(world.clock)
    assert_refused(await world.refresh(client, first["refresh_token"], proofs=[thief.proof()]), "invalid_grant")
    assert not await world.is_revoked(second["access_token"])
    assert_refused(await world.refresh(client, first["refresh_token"], proofs=[prover.proof()]), "invalid_grant")
    assert await world.is_revoked(second["access_token"])


async def test_refresh_tokens_are_bound_from_the_first_proof_on(world: World, prover: Prover) -> None:
    client = await world.register()
    first = await world.tokens(client)
    second = (await world.refresh(client, first["refresh_token"], proofs=[prover.proof()])).json()
    assert second["token_type"] == "DPoP"
    assert_refused(await world.refresh(client, second["refresh_token"]), "invalid_dpop_proof")


async def test_refresh_tokens_of_a_confidential_client_are_bound_to_no_key(world: World, prover: Prover) -> None:
    client, first = await bound(world, prover, token_endpoint_auth_method="client_secret_basic")
    other = Prover(world.clock)
    second = (await world.refresh(client, first["refresh_token"], proofs=[other.proof()])).json()
    assert claims_of(second["access_token"])["cnf"] == {"jkt": other.jkt}
    third = (await world.refresh(client, second["refresh_token"])).json()
    assert third["token_type"] == "Bearer"


@pytest.mark.parametrize("method", ["none", "client_secret_basic"])
async def test_a_client_that_asked_for_bound_tokens_alone_gets_no_others(
    world: World, prover: Prover, method: str
) -> None:
    members: dict[str, Any] = {"token_endpoint_auth_method": method, "dpop_bound_access_tokens": True}
    client = await world.register(**members)
    code = await code_for(world, client)
    assert_refused(await world.redeem(client, code), "invalid_dpop_proof")
    tokens = (await world.redeem(client, code, proofs=[prover.proof()])).json()
    assert tokens["token_type"] == "DPoP"
    assert_refused(await world.refresh(client, tokens["refresh_token"]), "invalid_dpop_proof")
    assert (await world.refresh(client, tokens["refresh_token"], proofs=[prover.proof()])).status_code == 200


@pytest.mark.parametrize(("value", "status"), [(True, 201), (False, 201), (1, 400), ("true", 400), (None, 400)])
async def test_the_registration_says_whether_tokens_are_bound(world: World, value: object, status: int) -> None:
    members = {"redirect_uris": ["https://app.example/cb"], "dpop_bound_access_tokens": value}
    answer = await world.http().post("/register", json=members)
    assert answer.status_code == status
    assert (answer.json().get("dpop_bound_access_tokens") is True) == (value is True)


async def test_a_server_may_give_out_bound_tokens_alone() -> None:
    world = World(proofs=ProofTerms("required"))
    world.clock.advance(120)
    client = await world.register()
    code = await code_for(world, client)
    assert_refused(await world.redeem(client, code), "invalid_dpop_proof")
    response = await world.redeem(client, code, proofs=[Prover(world.clock).proof()])
    assert response.json()["token_type"] == "DPoP"


async def test_a_server_may_give_out_bearer_tokens_alone() -> None:
    world = World(proofs=ProofTerms("off"))
    document = (await world.http().get("/.well-known/oauth-authorization-server")).json()
    assert "dpop_signing_alg_values_supported" not in document
    client, prover = await world.register(), Prover(world.clock)
    code = await code_for(world, client, dpop_jkt=prover.jkt)
    response = await world.redeem(client, code, proofs=[prover.proof()])
    assert response.json()["token_type"] == "Bearer"
    members = {"redirect_uris": ["https://app.example/cb"], "dpop_bound_access_tokens": True}
    refused = await world.http().post("/register", json=members)
    assert (refused.status_code, refused.json()["error"]) == (400, "invalid_client_metadata")


async def test_the_client_is_authenticated_before_its_proof_is_looked_at(world: World) -> None:
    client = await world.register(token_endpoint_auth_method="client_secret_basic")
    impostor = Client(client.client_id, "a guess")
    answer = await world.redeem(impostor, await code_for(world, client), proofs=["x"])
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")


async def test_a_nonce_is_asked_for_and_given_and_the_code_is_kept() -> None:
    """RFC 9449 §8."""
    world = World(proofs=ProofTerms(nonces=KeyRing.generate()))
    client, prover = await world.register(), Prover(world.clock)
    code = await code_for(world, client)
    refused = await world.redeem(client, code, proofs=[prover.proof()])
    assert_refused(refused, "use_dpop_nonce")
    nonce = refused.headers["dpop-nonce"]
    response = await world.redeem(client, code, proofs=[prover.proof(nonce=nonce)])
    assert response.status_code == 200
    assert "dpop-nonce" not in response.headers, "it has the current one"


async def test_a_nonce_is_good_as_long_again_and_its_successor_is_given_with_the_tokens() -> None:
    world = World(proofs=ProofTerms(nonces=KeyRing.generate()))
    client, prover = await world.register(), Prover(world.clock)
    refused = await world.redeem(client, await code_for(world, client), proofs=[prover.proof()])
    nonce = refused.headers["dpop-nonce"]
    world.clock.advance(120)
    response = await world.redeem(client, await code_for(world, client), proofs=[prover.proof(nonce=nonce)])
    assert response.status_code == 200
    successor = response.headers["dpop-nonce"]
    assert successor != nonce
    world.clock.advance(120)
    late = await world.refresh(client, response.json()["refresh_token"], proofs=[prover.proof(nonce=nonce)])
    assert_refused(late, "use_dpop_nonce")
    kept = await world.refresh(client, response.json()["refresh_token"], proofs=[prover.proof(nonce=successor)])
    assert kept.status_code == 200


async def test_a_nonce_of_a_resource_is_none_of_the_authorization_server() -> None:
    ring = KeyRing.generate()
    world = World(proofs=ProofTerms(nonces=ring))
    client, prover = await world.register(), Prover(world.clock)
    nonce = Nonces(ring, NONCE_PURPOSE).current(world.clock.wall())
    for other in (nonce, "x", ""):
        refused = await world.redeem(client, await code_for(world, client), proofs=[prover.proof(nonce=other)])
        assert_refused(refused, "use_dpop_nonce")


async def test_a_nonce_is_told_to_nobody_whose_proof_is_wrong_otherwise() -> None:
    world = World(proofs=ProofTerms(nonces=KeyRing.generate()))
    client, prover = await world.register(), Prover(world.clock)
    refused = await world.redeem(client, await code_for(world, client), proofs=[prover.proof(htm="GET")])
    assert_refused(refused, "invalid_dpop_proof")
    assert "dpop-nonce" not in refused.headers


async def test_bearer_tokens_need_no_nonce() -> None:
    world = World(proofs=ProofTerms(nonces=KeyRing.generate()))
    tokens = await world.tokens(await world.register())
    assert tokens["token_type"] == "Bearer"


def test_terms_that_cannot_work_are_named() -> None:
    policy: Any = "requierd"
    with pytest.raises(ConfigurationError, match=r"proofs\.policy must be off, allowed or required"):
        ProofTerms(policy)
    for lifetime in (0.9, 600.1, float("nan")):
        with pytest.raises(ConfigurationError, match=r"proofs\.window: a proof lives"):
            ProofTerms(window=Window(lifetime))
    for leeway in (-0.1, 300.1, float("nan")):
        with pytest.raises(ConfigurationError, match=r"proofs\.window: the leeway"):
            ProofTerms(window=Window(leeway_seconds=leeway))
    assert ProofTerms("off", Window(1, 0)).policy == "off"
    assert ProofTerms("required", Window(600, 300)).policy == "required"
