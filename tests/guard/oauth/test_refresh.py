"""Refresh tokens."""

from collections import Counter
from datetime import timedelta
from typing import Any

import anyio
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from mcp_guard.oauth import Lifetimes
from tests.guard.oauth.flow import OTHER_RESOURCE, RESOURCE, Client, World, claims_of


async def start(world: World, **members: Any) -> tuple[Client, dict[str, Any]]:
    client = await world.register(**members)
    return client, await world.tokens(client, scope="mcp:read mcp:write")


async def test_a_refresh_token_becomes_the_next_once(world: World) -> None:
    """REF-001."""
    client, first = await start(world)
    world.clock.advance(600)
    response = await world.refresh(client, first["refresh_token"])
    assert response.status_code == 200
    assert response.headers["cache-control"] == "no-store"
    second = response.json()
    assert second["refresh_token"] != first["refresh_token"]
    assert second["scope"] == "mcp:read mcp:write"
    before, after = claims_of(first["access_token"]), claims_of(second["access_token"])
    assert after["exp"] == before["exp"] + 600
    assert after["jti"] != before["jti"]
    for name in ["iss", "sub", "aud", "client_id", "scope", "grant"]:
        assert after[name] == before[name]
    assert (await world.refresh(client, second["refresh_token"])).status_code == 200


async def test_an_old_token_ends_the_family(world: World) -> None:
    """rt-01, REF-002: the newest refresh token and the access tokens too."""
    client, first = await start(world)
    second = (await world.refresh(client, first["refresh_token"])).json()
    third = (await world.refresh(client, second["refresh_token"])).json()
    assert not await world.is_revoked(third["access_token"])
    replay = await world.refresh(client, first["refresh_token"])
    assert replay.status_code == 400
    assert replay.json()["error"] == "invalid_grant"
    assert await world.is_revoked(third["access_token"])
    assert (await world.refresh(client, third["refresh_token"])).json()["error"] == "invalid_grant"
    assert [key for key in world.entries if key.startswith("mcp:oauth:family:")] == []


async def test_an_old_token_ends_the_family_weeks_later(world: World) -> None:
    client, first = await start(world)
    second = (await world.refresh(client, first["refresh_token"])).json()
    world.clock.advance(20 * 86400)
    assert (await world.refresh(client, first["refresh_token"])).status_code == 400
    assert (await world.refresh(client, second["refresh_token"])).status_code == 400


async def test_another_grant_of_the_same_client_lives_on(world: World) -> None:
    client, first = await start(world)
    other = await world.tokens(client)
    await world.refresh(client, first["refresh_token"])
    await world.refresh(client, first["refresh_token"])
    assert not await world.is_revoked(other["access_token"])
    assert (await world.refresh(client, other["refresh_token"])).status_code == 200


async def test_of_twenty_simultaneous_refreshes_exactly_one_succeeds(crowded: World) -> None:
    """rt-02: never two live heads."""
    world = crowded
    client, first = await start(world)
    responses = []

    async def refresh() -> None:
        responses.append(await world.refresh(client, first["refresh_token"]))

    async with anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(refresh)
    assert Counter(response.status_code for response in responses) == {200: 1, 400: 19}
    (won,) = (response.json() for response in responses if response.status_code == 200)
    assert await world.is_revoked(won["access_token"])
    assert (await world.refresh(client, won["refresh_token"])).status_code == 400


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"scope": "mcp:read mcp:write mcp:admin"}, "invalid_scope"),
        ({"scope": "unknown"}, "invalid_scope"),
        ({"scope": "mcp:read  mcp:write"}, "invalid_scope"),
        ({"resource": OTHER_RESOURCE}, "invalid_target"),
        ({"resource": "https://evil.example/mcp"}, "invalid_target"),
        ({"resource": ""}, "invalid_target"),
    ],
)
async def test_a_refresh_never_widens_and_the_token_stays_good(
    world: World, changes: dict[str, str], error: str
) -> None:
    """rt-04, REF-004, AUD-012."""
    client, first = await start(world)
    response = await world.refresh(client, first["refresh_token"], **changes)
    assert response.status_code == 400
    assert response.json()["error"] == error
    assert (await world.refresh(client, first["refresh_token"])).status_code == 200


async def test_a_narrower_access_token_does_not_narrow_the_grant(world: World) -> None:
    """REF-004."""
    client, first = await start(world)
    narrow = (await world.refresh(client, first["refresh_token"], scope="mcp:read", resource=RESOURCE)).json()
    assert narrow["scope"] == "mcp:read"
    assert claims_of(narrow["access_token"])["scope"] == "mcp:read"
    wide = (await world.refresh(client, narrow["refresh_token"])).json()
    assert wide["scope"] == "mcp:read mcp:write"


async def test_another_client_can_neither_use_nor_end_a_family(world: World) -> None:
    """REF-003: with a new token and with an old one."""
    client, first = await start(world)
    second = (await world.refresh(client, first["refresh_token"])).json()
    for other in [await world.register(), await world.register(token_endpoint_auth_method="client_secret_basic")]:
        for token in [first["refresh_token"], second["refresh_token"]]:
            response = await world.refresh(other, token)
            assert response.json()["error"] == "invalid_grant"
    assert (await world.refresh(Client(""), second["refresh_token"], client_id=None)).status_code == 401
    assert not await world.is_revoked(second["access_token"])
    assert (await world.refresh(client, second["refresh_token"])).status_code == 200


async def test_a_confidential_client_must_authenticate_to_refresh(world: World) -> None:
    """CLI-008, REF-003."""
    client, first = await start(world, token_endpoint_auth_method="client_secret_basic")
    response = await world.refresh(Client(client.client_id), first["refresh_token"])
    assert response.status_code == 401
    assert response.json()["error"] == "invalid_client"
    assert (await world.refresh(client, first["refresh_token"])).status_code == 200


@pytest.mark.parametrize(
    "token",
    [
        "",
        "x",
        "A" * 85,
        "A" * 86,
        "A" * 87,
        "A" * 85 + "B",
        "x" * 10_000,
        "\0",
        "a\0" * 43,
        "é" * 86,
        "A" * 43,
        "null",
        "A" * 80 + "======",
    ],
)
async def test_anything_else_is_an_invalid_grant(world: World, token: str) -> None:
    """rt-05, REF-006."""
    client, first = await start(world)
    response = await world.refresh(client, token)
    assert response.status_code == 400
    assert response.json()["error"] == "invalid_grant"
    assert response.headers["cache-control"] == "no-store"
    assert (await world.refresh(client, first["refresh_token"])).status_code == 200


async def test_no_other_credential_is_a_refresh_token(world: World) -> None:
    """rt-05."""
    client = await world.register()
    code = (await world.browser().approve(client))["code"]
    told = (await world.redeem(client, code)).json()
    for token in [told["access_token"], code, client.client_id]:
        assert (await world.refresh(client, token)).json()["error"] == "invalid_grant"
    assert (await world.refresh(client, told["refresh_token"])).status_code == 200
    response = await world.refresh(client, "", refresh_token=None)
    assert response.json()["error"] == "invalid_grant"


async def test_a_token_with_one_bit_changed_ends_nothing_unless_it_names_the_family(world: World) -> None:
    """Whoever never held a token of the family cannot end it."""
    client, first = await start(world)
    token = first["refresh_token"]
    for place in [0, 20, 42, 43, 60, 80]:
        changed = token[:place] + ("A" if token[place] != "A" else "B") + token[place + 1 :]
        assert (await world.refresh(client, changed)).json()["error"] == "invalid_grant"
    assert not await world.is_revoked(first["access_token"])
    assert (await world.refresh(client, token)).status_code == 200


@pytest.mark.parametrize("store_expires", [True, False])
async def test_a_grant_ends_after_thirty_days_however_often_it_was_refreshed(store_expires: bool) -> None:
    """rt-06: by the record itself, too."""
    from mcp_guard.clock import ManualClock
    from mcp_guard.stores.memory import MemoryStore

    world = World() if store_expires else World(given_store=MemoryStore(clock=ManualClock()))
    client, tokens = await start(world)
    for _ in range(29):
        world.clock.advance(86400)
        tokens = (await world.refresh(client, tokens["refresh_token"])).json()
    world.clock.advance(86399)
    tokens = (await world.refresh(client, tokens["refresh_token"])).json()
    world.clock.advance(1)
    response = await world.refresh(client, tokens["refresh_token"])
    assert response.status_code == 400
    assert response.json()["error"] == "invalid_grant"


async def test_a_client_that_is_gone_cannot_refresh(world: World) -> None:
    """rt-07."""
    from mcp_guard.oauth.records import client_key
    from mcp_guard.stores.base import Delete

    client, tokens = await start(world)
    await world.store.run([Delete(client_key(client.client_id))])
    response = await world.refresh(client, tokens["refresh_token"])
    assert response.status_code == 401
    assert response.json()["error"] == "invalid_client"


async def test_using_a_client_keeps_it() -> None:
    """An unused registration is forgotten after a day, a used one ninety days after its last use."""
    world = World(lifetimes=Lifetimes(refresh_token=timedelta(days=400)))
    unused = await world.register()
    client, tokens = await start(world)
    world.clock.advance(86400)
    assert (await world.browser().open(unused)).status_code == 400
    for _ in range(3):
        world.clock.advance(80 * 86400)
        tokens = (await world.refresh(client, tokens["refresh_token"])).json()
    assert (await world.browser().open(client)).status_code == 302
    world.clock.advance(90 * 86400)
    assert (await world.browser().open(client)).status_code == 400


async def test_many_rotations_cost_one_record(world: World) -> None:
    client, tokens = await start(world)
    entries = len(world.entries)
    for _ in range(50):
        tokens = (await world.refresh(client, tokens["refresh_token"])).json()
    assert len(world.store._values) <= entries  # type: ignore[attr-defined]


class Families(RuleBasedStateMachine):
    """Issue, refresh, replay, let strangers try: the server agrees with a model of one live head for each family."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.families: list[tuple[Client, list[str], str]] = []
        self.dead: set[int] = set()

    def run(self, call: Any, *arguments: Any) -> Any:
        return anyio.run(call, *arguments)

    @initialize()
    def register(self) -> None:
        self.client = self.run(self.world.register)
        self.stranger = self.run(self.world.register)

    @rule()
    def issue(self) -> None:
        if len(self.families) < 4:
            tokens = self.run(self.world.tokens, self.client)
            self.families.append((self.client, [tokens["refresh_token"]], tokens["access_token"]))

    @rule(data=st.data())
    def present(self, data: st.DataObject) -> None:
        if not self.families:
            return
        number = data.draw(st.integers(0, len(self.families) - 1))
        client, issued, _ = self.families[number]
        place = data.draw(st.integers(0, len(issued) - 1))
        response = self.run(self.world.refresh, client, issued[place])
        good = place == len(issued) - 1 and number not in self.dead
        assert response.status_code == (200 if good else 400)
        if good:
            issued.append(response.json()["refresh_token"])
        else:
            self.dead.add(number)

    @rule(data=st.data())
    def intrude(self, data: st.DataObject) -> None:
        if not self.families:
            return
        _, issued, _ = data.draw(st.sampled_from(self.families))
        assert self.run(self.world.refresh, self.stranger, data.draw(st.sampled_from(issued))).status_code == 400

    @invariant()
    def exactly_the_dead_are_revoked(self) -> None:
        for number, (_, _, access_token) in enumerate(self.families):
            assert self.run(self.world.is_revoked, access_token) == (number in self.dead)


def test_every_family_has_one_live_head_whatever_is_presented() -> None:
    run_state_machine_as_test(Families, settings=settings(max_examples=25, stateful_step_count=20))
