"""Where state lives that outlives a request: the contract, its implementations, and the choice of one."""

from datetime import timedelta
from functools import lru_cache
from typing import Final, Literal, TypeAlias

from mcp_guard.failures import ConfigurationError
from mcp_guard.secret import Secret
from mcp_guard.stores.base import Store
from mcp_guard.stores.memory import MemoryStore

Kind: TypeAlias = Literal["memory", "valkey", "postgres"]


VALKEY_DEADLINE: Final = timedelta(milliseconds=100)
POSTGRES_DEADLINE: Final = timedelta(milliseconds=250)
DEFAULT_CLEANUP: Final = timedelta(minutes=5)


@lru_cache
def selected(
    kind: Kind,
    url: Secret | None,
    *,
    deadline: timedelta | None = None,
    replicas: int = 0,
    cleanup_every: timedelta = DEFAULT_CLEANUP,
    insecure_per_worker: bool = False,
) -> Store:
    """The store of a kind at a place; whoever selects the same one in this process shares it.

    `deadline` is that of the kind, unless it is given. `replicas` is for Valkey, `cleanup_every` for PostgreSQL,
    `insecure_per_worker` for memory.

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

            return ValkeyStore(url, deadline or VALKEY_DEADLINE, replicas)
        from mcp_guard.stores.postgres import PostgresStore

        return PostgresStore(url, deadline=deadline or POSTGRES_DEADLINE, cleanup_every=cleanup_every)
    except ImportError as missing:
        raise ConfigurationError(
            f"{missing.name} is not installed; it comes with: pip install 'mcp-guard[{kind}]'"
        ) from None
