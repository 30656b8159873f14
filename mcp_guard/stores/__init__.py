"""Where state lives that outlives a request: the contract, its implementations, and the choice of one."""

from datetime import timedelta
from functools import lru_cache
from typing import Literal, TypeAlias

from mcp_guard.failures import ConfigurationError
from mcp_guard.secret import Secret
from mcp_guard.stores.base import Store
from mcp_guard.stores.memory import MemoryStore

Kind: TypeAlias = Literal["memory", "valkey", "postgres"]


@lru_cache
def selected(kind: Kind, url: Secret | None, *, cleanup_every: timedelta, insecure_per_worker: bool = False) -> Store:
    """The store of a kind at a place; whoever selects the same one in this process shares it.

    `cleanup_every` is for PostgreSQL, `insecure_per_worker` for memory.

    Raises:
        ConfigurationError: the place is missing or malformed, or the package for the kind is not installed.
    """
    if kind == "memory":
        return MemoryStore(insecure_per_worker=insecure_per_worker)
    if url is None:
        raise ConfigurationError(f"a store of the kind {kind} needs a URL")
    try:
        if kind == "valkey":
            from mcp_guard.stores.valkey import ValkeyStore

            return ValkeyStore(url)
        from mcp_guard.stores.postgres import PostgresStore

        return PostgresStore(url, cleanup_every=cleanup_every)
    except ImportError as missing:
        raise ConfigurationError(
            f"{missing.name} is not installed; it comes with: pip install 'mcp-guard[{kind}]'"
        ) from None
