"""Where a deployment under attack keeps its state: in memory, or in a real Valkey of its own names."""

import secrets
from collections.abc import Callable, Mapping
from datetime import timedelta

from mcp_guard.stores.base import Store
from mcp_guard.stores.memory import MemoryStore
from mcp_guard.stores.valkey import ValkeyStore
from tests.support.valkey_server import shared_server


def in_valkey() -> ValkeyStore:
    """A store on the server of this test process, under a prefix that nobody else uses.

    The machine is shared: what takes long there is no fault of the store.
    """
    return ValkeyStore(shared_server().url, timedelta(seconds=5), prefix=f"{secrets.token_hex(8)}:")


KINDS: Mapping[str, Callable[[], Store]] = {"memory": MemoryStore, "valkey": in_valkey}
