"""The command `mcp-guard revoke …`: writes a revocation into the store of a deployment and says what it does.

Tokens and session ids come from the environment or from standard input: arguments are visible to every user of the
machine.
"""

import asyncio
import os
import sys
from collections.abc import Mapping
from typing import Any

from mcp_guard.failures import ConfigurationError
from mcp_guard.revocation import Revoker, announce
from mcp_guard.secret import fingerprint
from mcp_guard.sessions import session_key
from mcp_guard.stores.base import Delete, Store
from mcp_guard.stores.memory import MemoryStore

VARIABLES: Mapping[str, str] = {"token": "MCP_TOKEN", "session": "MCP_SESSION"}


def revoke(store: Store, what: str, named: Mapping[str, Any]) -> str:
    """Revoke `what`: a `user` or a `client`, who is `named`, or a `token` or a `session`, which is read.

    Raises:
        ConfigurationError: the store is one that no other process shares, or there is nothing to revoke.
        StoreUnavailable: it was not written.
    """
    if isinstance(store, MemoryStore):
        raise ConfigurationError("MCP_SESSION_STORE is memory: only the process that keeps the state can revoke in it")
    return asyncio.run(_in_store(store, what, named))


async def _in_store(store: Store, what: str, named: Mapping[str, Any]) -> str:
    await store.start()
    try:
        return await _written(store, what, named)
    finally:
        await store.close()


async def _written(store: Store, what: str, named: Mapping[str, Any]) -> str:
    revoker = Revoker(store)
    if what == "user":
        await revoker.user(named["issuer"], named["subject"])
        return f"refused: every token that {named['issuer']} issued to {named['subject']} until now"
    if what == "client":
        await revoker.client(named["issuer"], named["client"])
        return f"refused: every token that {named['issuer']} issued to the client {named['client']} until now"
    value = given(VARIABLES[what])
    if what == "token":
        await revoker.token(value)
        return f"refused: the token {fingerprint(value)}"
    key = session_key(value)
    ended, _ = await store.run([Delete(key), announce(key)])
    return f"{'ended' if ended else 'unknown'}: the session {fingerprint(value)}"


def given(variable: str) -> str:
    """What the environment or standard input holds.

    Raises:
        ConfigurationError: neither holds anything.
    """
    value = (os.environ.get(variable) or sys.stdin.readline()).strip()
    if not value:
        raise ConfigurationError(f"set {variable}, or write it to standard input")
    return value
