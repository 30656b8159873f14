"""What the complete stack costs in round trips to the store, counted on the wire between it and a real Valkey."""

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import anyio
import pytest

from mcp_guard.asgi import Receive, Scope, Send
from mcp_guard.auditlog import AuditLog, NullSink
from mcp_guard.facts import Resource
from mcp_guard.keyring import KeyRing
from mcp_guard.keysources import StaticKeys
from mcp_guard.profiles import standard
from mcp_guard.stack import Guard, guard
from mcp_guard.stores.valkey import ValkeyStore
from mcp_guard.tokens import TrustedIssuer
from tests.benchmarks.peers import ISSUER, PLENTY_OF_ALL, Keys
from tests.guard.asgi import Outcome, body, drive, http_scope, polled, read_all, start
from tests.guard.proving import proof, thumbprint
from tests.guard.signing import SigningKey
from tests.support.tcp_proxy import TcpProxy
from tests.support.valkey_server import shared_server

URL = "http://127.0.0.1:8000/mcp"
CALL: dict[str, Any] = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "tools/call",
    "params": {"name": "add", "arguments": {"a": 1, "b": 2}},
}
MODERN = "2026-07-28"
LEGACY = {"mcp_protocol_version": "2025-06-18"}
META = {
    "io.modelcontextprotocol/protocolVersion": MODERN,
    "io.modelcontextprotocol/clientInfo": {"name": "t", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Opens a session when it is asked to, and answers."""
    asked = await read_all(receive)
    fields = [(b"content-type", b"application/json")]
    if b'"initialize"' in asked:
        fields.append((b"mcp-session-id", f"s-{time.monotonic_ns()}".encode()))
    await send(start(200, *fields))
    await send(body(b'{"jsonrpc":"2.0","id":1,"result":{}}'))


class Place:
    """The complete stack on a Valkey behind a proxy that counts."""

    def __init__(self, proxy: TcpProxy) -> None:
        self.proxy, self.keys = proxy, Keys()
        self.store = ValkeyStore(f"valkey://127.0.0.1:{proxy.port}", deadline=timedelta(seconds=5))
        layers = standard(
            resources=[Resource(URL, "/mcp")],
            issuers=[TrustedIssuer(ISSUER, StaticKeys(self.keys.jwks()))],
            store=self.store,
            ring=KeyRing.generate(),
            audit=AuditLog(NullSink()),
            limits=PLENTY_OF_ALL,
        )
        self.guarded: Guard = guard(app, *layers)
        self.token = self.keys.token(URL)
        self.key = SigningKey.new()
        self.bound_token = self.keys.token(URL, cnf={"jkt": thumbprint(self.key)})

    def proving(self) -> dict[str, str]:
        """The fields of a request with a bound token."""
        proved = proof(self.key, self.bound_token.encode(), htu=URL, iat=time.time())
        return {"authorization": f"DPoP {self.bound_token}", "dpop": proved.decode()}

    async def ask(self, message: dict[str, Any], token: str | None = None, **fields: str) -> Outcome:
        given = {
            "host": "127.0.0.1:8000",
            "content-type": "application/json",
            "accept": "application/json, text/event-stream",
            "authorization": f"Bearer {self.token if token is None else token}",
            **{name.replace("_", "-"): value for name, value in fields.items()},
        }
        scope = http_scope(headers=[(name.encode(), value.encode()) for name, value in given.items()])
        scope["client"] = ("127.0.0.1", 1)
        return await drive(self.guarded, scope, json.dumps(message).encode())

    async def one_of_many(self) -> None:
        """One of many requests at the same time."""
        assert (await self.ask(CALL, **LEGACY)).status == 200

    async def cost(self, message: dict[str, Any], fields: dict[str, str], status: int = 200) -> int:
        """The commands that a request sends to the store."""
        self.proxy.forget()
        outcome = await self.ask(message, **fields)
        assert outcome.status == status, outcome.sent
        return self.proxy.commands


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    async with running() as place:
        yield place


@asynccontextmanager
async def running() -> AsyncIterator[Place]:
    with TcpProxy(shared_server().port) as proxy:
        place = Place(proxy)
        await place.guarded.start()
        await anyio.to_thread.run_sync(polled, lambda: b"SUBSCRIBE" in b"".join(proxy.sent))
        # The script and the connection are there from the first request on.
        assert (await place.ask(CALL, **LEGACY)).status == 200
        try:
            yield place
        finally:
            await place.guarded.close()


async def test_an_authorized_stateless_call_costs_one_round_trip(place: Place) -> None:
    message = {**CALL, "params": {**CALL["params"], "_meta": META}}
    fields = {"mcp_protocol_version": MODERN, "mcp_method": "tools/call", "mcp_name": "add"}
    assert await place.cost(message, fields) == 1


async def test_an_authorized_call_in_a_session_costs_one_round_trip(place: Place) -> None:
    initialize = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {}}
    session = (await place.ask(initialize)).value(b"mcp-session-id")
    assert session is not None
    for _ in range(3):
        assert await place.cost(CALL, {"mcp_session_id": session.decode(), **LEGACY}) == 1


async def test_a_call_with_a_proof_costs_one_round_trip_and_so_does_a_replay(place: Place) -> None:
    initialize = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {}}
    session = (await place.ask(initialize, **place.proving())).value(b"mcp-session-id")
    assert session is not None
    for _ in range(3):
        fields = {**LEGACY, "mcp_session_id": session.decode(), **place.proving()}
        assert await place.cost(CALL, fields) == 1
        assert await place.cost(CALL, fields, 401) == 1


@pytest.mark.parametrize("changes", [{"dpop": ""}, {"dpop": "a.b.c"}])
async def test_a_proof_that_does_not_hold_costs_the_store_nothing(place: Place, changes: dict[str, str]) -> None:
    assert await place.cost(CALL, {**LEGACY, **place.proving(), **changes}, 401) == 0


async def test_a_theft_costs_one_round_trip(place: Place) -> None:
    assert await place.cost(CALL, {"mcp_session_id": "nobodys", **LEGACY}, 404) == 1


@pytest.mark.parametrize("token", ["", "garbage", "a.b.c"])
async def test_who_is_not_known_costs_the_store_nothing(place: Place, token: str) -> None:
    place.proxy.forget()
    assert (await place.ask(CALL, token=token)).status in (400, 401)
    assert place.proxy.commands == 0


async def test_requests_at_the_same_time_share_round_trips(place: Place) -> None:
    place.proxy.forget()
    async with anyio.create_task_group() as group:
        for _ in range(50):
            group.start_soon(place.one_of_many)
    assert 1 <= place.proxy.commands <= 25
