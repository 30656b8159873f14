"""A token whose grant was revoked is refused before it expires."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from mcp_guard import rejections
from mcp_guard.check import Check, compile_layers
from mcp_guard.clock import ManualClock
from mcp_guard.facts import Principal, Resource
from mcp_guard.failures import StoreUnavailable
from mcp_guard.layer import Admission, RequestHead
from mcp_guard.layers.revocation import Revocation
from mcp_guard.revocation import GRANT_CLAIM
from mcp_guard.revocation import revoke as revoke_for
from mcp_guard.stores.base import Operation, Put, Result, Store
from mcp_guard.stores.memory import MemoryStore
from tests.guard.asgi import CountingApp, Outcome, drive
from tests.guard.stubs import MCP, principal


@dataclass(frozen=True)
class Asking(Check):
    """Adds a principal with these claims."""

    adds = (Principal, Resource)

    claims: dict[str, Any]

    async def admit(self, request: RequestHead) -> Admission:
        return Admission(facts=(principal("alice", claims=self.claims), MCP))


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


async def test_a_token_without_a_grant_costs_the_store_nothing() -> None:
    assert (await send(Broken(), {})).status == 200


@pytest.mark.parametrize("claim", ["g1", 7, "", ["g1"], {"a": 1}])
async def test_a_store_that_does_not_answer_lets_nobody_through(claim: object) -> None:
    app = CountingApp()
    assert (await send(Broken(), {GRANT_CLAIM: claim}, app)).status == 503
    assert app.calls == 0
