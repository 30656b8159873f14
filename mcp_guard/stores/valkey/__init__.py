"""The store of many workers: Valkey, or a server that is compatible with Redis 7.0. Needs the package `valkey`."""

from mcp_guard.stores.valkey.store import ValkeyStore

__all__ = ["ValkeyStore"]
