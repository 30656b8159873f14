"""A deployment on one Valkey, with a proxy between them; several tests use it one after the other."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tests.guard.faults.deployment import Deployment, deployed
from tests.support.tcp_proxy import TcpProxy
from tests.support.valkey_server import ValkeyServer, valkey_server

PATIENT_MS = 1000
"""A deadline of the store for the rows that are not about it, so that a busy machine is not taken for a fault."""


@dataclass(eq=False)
class Place:
    """A deployment, its store, and the way between them."""

    server: ValkeyServer
    proxy: TcpProxy
    deployment: Deployment


@contextlib.contextmanager
def placed(**differing: Any) -> Iterator[Place]:
    """A deployment on a Valkey of its own that persists what it is told."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(valkey_server(persistent=True))
        proxy = stack.enter_context(TcpProxy(server.port))
        settings = {"deadline_ms": PATIENT_MS, **differing}
        yield Place(server, proxy, stack.enter_context(deployed(f"valkey://127.0.0.1:{proxy.port}", **settings)))
