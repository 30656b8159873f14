"""A token whose grant was revoked is refused before it expires."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from mcp_guard import rejections
from mcp_guard.check import Check, compile_layers
from mcp_guard.clock import ManualClock
from mcp_guard.facts import Principal, Resource
from mcp_guard.failures import ConfigurationError, StoreUnavailable
from mcp_guard.layer import Admission, RequestHead
from mcp_guard.layers.revocation import Revocation
from mcp_guard.revocation import GRANT_CLAIM, Listening, Revoker, announce, user_key
from mcp_guard.revocation import revoke as revoke_for
from mcp_guard.secret import fingerprint
from mcp_guard.stores.base import Operation, Put, Result, Store
from mcp_guard.stores.memory import MemoryStore
from tests.guard.asgi import CountingApp, Outcome, drive
from tests.guard.stubs import ISSUER, MCP, CountingStore, principal

TOKEN = "the.access.token"


@dataclass(frozen=True)
class Asking(Check):
    """Adds a principal with these claims."""

    adds = (Principal, Resource)

    claims: dict[str, Any]

    async def admit(self, request: RequestHead) -> Admission:
        return Admission(facts=(principal("alice", token=fingerprint(TOKEN), claims=self.claims), MCP))


class Broken(MemoryStore):
    """A store that does not answer."""

    async def run(self, operations: Sequence[Operation]) -> list[Result]:
        raise StoreUnavailable("the store is down")


async def send(store: Store, claims: dict[str, Any], app: CountingApp | None = None) -> Outcome:
    return await drive(compile_layers((Asking(claims), Revocation(store=store)), app or CountingApp()))


def revoke(grant: str) -> Put:
    return revoke_for(grant, timedelta(hours=1))


async def test_a_grant_that_was_not_revoked_is_let_through() -> None:
    store = MemoryStore()
    await store.run([revoke("another")])
    assert (await send(store, {GRANT_CLAIM: "g1"})).status == 200


async def test_a_revoked_grant_is_refused_with_a_challenge() -> None:
    store, app = MemoryStore(), CountingApp()
    await store.run([revoke("g1")])
    outcome = await send(store, {GRANT_CLAIM: "g1"}, app)
    assert outcome.status == rejections.TOKEN_REVOKED.status == 401
    assert outcome.value(b"www-authenticate") == (
        b'Bearer error="invalid_token", error_description="The token was revoked", '
        b'resource_metadata="https://mcp.example/.well-known/oauth-protected-resource/mcp"'
    )
    assert app.calls == 0


async def test_a_revocation_ends_when_everything_of_the_grant_has_expired() -> None:
    clock = ManualClock()
    store = MemoryStore(clock=clock)
    await store.run([revoke("g1")])
    clock.advance(3600)
    assert (await send(store, {GRANT_CLAIM: "g1"})).status == 200


async def test_a_token_of_which_nothing_is_revoked_is_let_through() -> None:
    assert (await send(MemoryStore(), {})).status == 200


ISSUED = 1_800_000_000


@pytest.mark.parametrize("what", ["user", "client", "token", "grant"])
async def test_whatever_a_token_comes_from_can_be_revoked(what: str) -> None:
    store, clock = MemoryStore(), ManualClock(now=ISSUED + 1.0)
    revoker, claims = Revoker(store, clock), {"iat": ISSUED, GRANT_CLAIM: "g1"}
    await REVOKE[what](revoker, "another")
    assert (await send(store, claims)).status == 200
    await REVOKE[what](revoker, "")
    refused = await send(store, claims)
    assert refused.status == 401
    assert b'error="invalid_token"' in (refused.value(b"www-authenticate") or b"")


REVOKE: dict[str, Callable[[Revoker, str], Awaitable[None]]] = {
    "user": lambda revoker, other: revoker.user(ISSUER, other or "alice"),
    "client": lambda revoker, other: revoker.client(other or ISSUER, "client-1"),
    "token": lambda revoker, other: revoker.token(other or TOKEN),
    "grant": lambda revoker, other: revoker.grant(other or "g1"),
}


@pytest.mark.parametrize("what", ["user", "client"])
@pytest.mark.parametrize(("issued", "status"), [(-1, 401), (0, 401), (1, 200)])
async def test_a_person_or_a_client_goes_on_with_what_was_issued_afterwards(
    what: str, issued: int, status: int
) -> None:
    store = MemoryStore()
    await REVOKE[what](Revoker(store, ManualClock(now=float(ISSUED))), "")
    assert (await send(store, {"iat": ISSUED + issued})).status == status


@pytest.mark.parametrize("issued", [None, "1800000001", True, [1]])
async def test_when_it_cannot_be_told_when_a_token_was_issued_it_is_refused(issued: object) -> None:
    store = MemoryStore()
    await Revoker(store, ManualClock(now=1.0)).user(ISSUER, "alice")
    assert (await send(store, {"iat": issued})).status == 401


async def test_a_revocation_that_cannot_be_read_refuses() -> None:
    store = MemoryStore()
    await store.run([Put(user_key(ISSUER, "alice"), b"garbage", timedelta(hours=1))])
    assert (await send(store, {"iat": ISSUED})).status == 401


async def test_a_revocation_outlives_every_token() -> None:
    clock = ManualClock()
    store = MemoryStore(clock=clock)
    await Revoker(store, clock).token(TOKEN)
    clock.advance(24 * 3600)
    assert (await send(store, {"iat": ISSUED})).status == 401


# When the store is silent


class Place:
    """The layer over a store that can fall silent."""

    def __init__(self, grace: timedelta = timedelta(seconds=60)) -> None:
        self.store = CountingStore()
        self.clock = self.store.clock
        self.layer = Revocation(store=self.store, outage_grace=grace, clock=self.clock)

    async def ask(self, **claims: Any) -> int:
        app = compile_layers((Asking({"iat": ISSUED, **claims}), self.layer), CountingApp())
        status = (await drive(app)).status
        assert status is not None
        return status

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        for one in self.layer.managed():
            await one.start()
        yield
        for one in self.layer.managed():
            await one.close()

    def fall_silent(self) -> None:
        self.store.fault = StoreUnavailable("down")


@pytest.mark.parametrize(("after", "status"), [(0, 200), (60, 200), (60.1, 503)])
async def test_an_outage_is_bridged_until_its_grace_ends(after: float, status: int) -> None:
    place = Place()
    assert await place.ask() == 200
    place.fall_silent()
    place.clock.advance(after)
    assert await place.ask() == status


async def test_a_worker_that_the_store_never_answered_lets_nobody_through() -> None:
    place = Place()
    place.fall_silent()
    assert await place.ask() == 503


async def test_without_a_grace_nothing_goes_on_without_the_store() -> None:
    place = Place(timedelta(0))
    assert await place.ask() == 200
    place.fall_silent()
    place.clock.advance(0.001)
    assert await place.ask() == 503


async def test_what_was_heard_or_found_before_an_outage_is_refused_in_it() -> None:
    place = Place()
    async with place.running():
        assert await place.ask(**{GRANT_CLAIM: "found"}) == 200
        await place.store.run([revoke("found")])
        assert await place.ask(**{GRANT_CLAIM: "found"}) == 401
        await Revoker(place.store, place.clock).grant("heard")
        place.fall_silent()
        assert await place.ask(**{GRANT_CLAIM: "found"}) == 401
        assert await place.ask(**{GRANT_CLAIM: "heard"}) == 401
        assert await place.ask(**{GRANT_CLAIM: "another"}) == 200


async def test_what_is_remembered_for_an_outage_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mcp_guard.layers.revocation.MAX_HEARD", 3)
    heard = Place().layer.heard
    for number in range(10):
        heard.hear(f"mcp:revoked:token:{number}".encode())
        heard.hear(b"mcp:session:ended")
    assert list(heard.keys) == [f"mcp:revoked:token:{number}" for number in (7, 8, 9)]


async def test_listening_begins_once_and_ends() -> None:
    store, heard = MemoryStore(), list[bytes]()
    listening = Listening(store, heard.append)
    await listening.start()
    await listening.start()
    await store.run([announce("one")])
    await listening.close()
    await listening.close()
    await store.run([announce("two")])
    assert heard == [b"one"]


@pytest.mark.parametrize("grace", [timedelta(seconds=-1), timedelta(hours=2)])
def test_a_grace_out_of_range_is_refused(grace: timedelta) -> None:
    with pytest.raises(ConfigurationError, match="outage_grace must be from 0 to one hour"):
        Revocation(store=MemoryStore(), outage_grace=grace)


@pytest.mark.parametrize("claim", ["g1", 7, "", ["g1"], {"a": 1}])
async def test_a_store_that_does_not_answer_lets_nobody_through(claim: object) -> None:
    app = CountingApp()
    assert (await send(Broken(), {GRANT_CLAIM: claim}, app)).status == 503
    assert app.calls == 0
