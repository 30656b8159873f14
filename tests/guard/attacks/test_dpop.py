"""Area dpop, where an attack needs many requests, or nonces: attacks that are not shots at a common deployment."""

import json
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from mcp_guard import StaticKeys, TrustedIssuer, guard, standard
from mcp_guard.auditlog import AuditLog, NullSink
from mcp_guard.clock import ManualClock
from mcp_guard.facts import Resource
from mcp_guard.keyring import KeyRing
from mcp_guard.layers.dpop import NONCE_PURPOSE
from mcp_guard.layers.rate_limit import Limit
from mcp_guard.profiles import Limits, Proofs
from mcp_guard.protocol.nonces import Nonces
from mcp_guard.stores.base import Store
from tests.guard.asgi import CountingApp, Outcome, drive, http_scope
from tests.guard.attacks.state import KINDS
from tests.guard.proving import proof, thumbprint
from tests.guard.signing import ISSUER, NOW, RESOURCE, SigningKey, jwk_set

ISSUERS_KEY = SigningKey.new()
MODERN = "2026-07-28"
META = {
    "io.modelcontextprotocol/protocolVersion": MODERN,
    "io.modelcontextprotocol/clientInfo": {"name": "t", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}
LIST = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": META}}).encode()
FIELDS = [
    (b"host", b"mcp.example.com"),
    (b"content-type", b"application/json"),
    (b"accept", b"application/json, text/event-stream"),
    (b"mcp-protocol-version", MODERN.encode()),
    (b"mcp-method", b"tools/list"),
]
PLENTY = Limit(1_000_000, timedelta(minutes=1))
BURST = 100


class Worker:
    """A worker with the complete stack, at whatever time `clock` says."""

    def __init__(self, store: Store | None, clock: ManualClock, ring: KeyRing | None = None, **settings: Any) -> None:
        self.app, self.clock = CountingApp(), clock
        layers = standard(
            resources=[Resource(RESOURCE, "/mcp", dpop="required")],
            issuers=[TrustedIssuer(ISSUER, StaticKeys(jwk_set(ISSUERS_KEY)))],
            store=store,
            ring=ring,
            audit=AuditLog(NullSink()),
            clock=clock,
            **settings,
        )
        self.guarded = guard(self.app, *layers)

    async def send(self, token: bytes, proved: bytes, address: str = "192.0.2.7") -> Outcome:
        credentials = [(b"authorization", b"DPoP " + token), (b"dpop", proved)]
        scope = http_scope(headers=[*FIELDS, *credentials], scheme="https", client=(address, 1))
        return await drive(self.guarded, scope, LIST)


class Client:
    def __init__(self, subject: str) -> None:
        self.key = SigningKey.new()
        self.token = ISSUERS_KEY.token(sub=subject, exp=NOW + 86_000, cnf={"jkt": thumbprint(self.key)})

    def proof(self, **changes: Any) -> bytes:
        return proof(self.key, self.token, **changes)


@pytest.mark.parametrize("proofs", [2_000, pytest.param(100_000, marks=pytest.mark.load)])
async def test_dpop_07_a_flood_of_good_proofs_puts_out_no_other(proofs: int) -> None:
    from tests.guard.stubs import CountingStore

    clock = ManualClock(now=NOW)
    store = CountingStore(clock)
    limits = Limits(address=PLENTY, principal=Limit(BURST, timedelta(hours=1)))
    worker = Worker(store, clock, limits=limits)
    victim, attacker = Client("alice"), Client("mallory")
    captured = victim.proof()
    assert (await worker.send(victim.token, captured)).status == 200
    before = store.held
    statuses = [(await worker.send(attacker.token, attacker.proof())).status for _ in range(proofs)]
    assert statuses == [200] * BURST + [429] * (proofs - BURST)
    assert store.held - before <= BURST + 4, "a proof for each request that was let through, and the attacker's buckets"
    assert (await worker.send(victim.token, captured)).status == 401
    assert (await worker.send(victim.token, victim.proof())).status == 200


@pytest.mark.parametrize("kind", KINDS)
async def test_dpop_23_a_nonce_is_this_servers_own_and_any_workers(kind: str) -> None:
    make: Callable[[], Store] = KINDS[kind]
    store, ring = make(), KeyRing.generate()
    # The store keeps real time, so that the proofs must too.
    clock = ManualClock(now=time.time() + 1)
    now = clock.wall()
    first, second = (Worker(store, clock, ring, proofs=Proofs(nonces=True)) for _ in range(2))
    client = Client("alice")
    client.token = ISSUERS_KEY.token(iat=int(now) - 5, exp=int(now) + 300, cnf={"jkt": thumbprint(client.key)})
    good = Nonces(ring, NONCE_PURPOSE).current(now)
    flipped = ("A" if good[0] != "A" else "B") + good[1:]
    old = Nonces(ring, NONCE_PURPOSE).current(now - 241)
    of_an_issuer = Nonces(ring, "dpop-nonce of an issuer").current(now)
    await first.guarded.start()
    try:
        for nonce in (None, "", flipped, old, of_an_issuer):
            refused = await first.send(client.token, client.proof(iat=now, nonce=nonce))
            assert refused.status == 401
            challenge = refused.value(b"www-authenticate") or b""
            assert challenge.startswith(b'DPoP error="use_dpop_nonce", ')
            assert refused.value(b"cache-control") == b"no-store"
            told = (refused.value(b"dpop-nonce") or b"").decode()
            assert (await second.send(client.token, client.proof(iat=now, nonce=told))).status == 200
        assert first.app.calls == 0
    finally:
        await first.guarded.close()
