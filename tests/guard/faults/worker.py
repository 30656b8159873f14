"""What each worker of the deployment under load serves: the app behind the complete stack."""

import json
import os
import struct
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from mcp_guard.affinity import Worker
from mcp_guard.asgi import ASGIApp
from mcp_guard.auditlog import AuditLog
from mcp_guard.auditslots import SlotSink
from mcp_guard.clock import SystemClock
from mcp_guard.facts import Resource
from mcp_guard.keyring import KeyRing
from mcp_guard.keysources import StaticKeys
from mcp_guard.layers.rate_limit import Limit
from mcp_guard.profiles import Handling, Limits, standard
from mcp_guard.stack import guard
from mcp_guard.stores.valkey import ValkeyStore
from mcp_guard.tokens import TrustedIssuer
from tests.guard.faults.app import Shop
from tests.guard.faults.serve import MCP_URL, VARIABLE, Settings
from tests.guard.signing import ISSUER

MINUTE = timedelta(minutes=1)
PLENTY = Limit(1_000_000, MINUTE)
PER_PRINCIPAL = Limit(6000, MINUTE)
"""Ten times what the load asks of one principal, and more than twice when it is a quarter of that."""
LIMITS = Limits(PLENTY, PER_PRINCIPAL, PLENTY, connections=PLENTY, address_connections=PLENTY)


def stepped(folder: Path) -> SystemClock:
    """The system's clock, set wrong by the seconds in the file `clock`, a float of 8 bytes."""

    def wall() -> float:
        (offset,) = struct.unpack("d", (folder / "clock").read_bytes())
        return time.time() + float(offset)

    return SystemClock(wall)


def application() -> ASGIApp:
    """The app, guarded as the environment says."""
    settings = Settings(**json.loads(os.environ[VARIABLE]))
    folder = Path(settings.folder)
    store = ValkeyStore(settings.store, timedelta(milliseconds=settings.deadline_ms), settings.replicas)
    ring = KeyRing.parse(settings.ring)
    layers = standard(
        resources=(Resource(MCP_URL, "/mcp"),),
        issuers=(TrustedIssuer(ISSUER, StaticKeys(settings.jwks)),),
        store=store,
        ring=ring,
        worker=Worker(listen=f"unix:{folder / 'w'}", ring=ring, store=store),
        audit=AuditLog(SlotSink(folder / "audit.jsonl", settings.workers)),
        limits=replace(LIMITS, streams=settings.streams),
        handling=Handling(single_use=frozenset({"pay"})),
        clock=stepped(folder),
    )
    return guard(Shop(folder), *layers)
