"""Baskets that belong to whoever opened them: the handles of an app, declared to the guard."""

import os
import secrets

from mcp.server.mcpserver import MCPServer
from mcp.server.transport_security import TransportSecuritySettings

from mcp_guard import RemoteKeys, Resource, TrustedIssuer, guard, standard
from mcp_guard.keyring import KeyRing
from mcp_guard.layers.handles import Handle, Handles
from mcp_guard.stores.memory import MemoryStore

server = MCPServer("shop")
baskets: dict[str, list[str]] = {}


@server.tool()
def open_basket() -> dict[str, str]:
    """A new basket."""
    handle = secrets.token_urlsafe(16)
    baskets[handle] = []
    return {"basket": handle}


@server.tool()
def add(basket: str, item: str) -> int:
    """Put something into a basket. Answers how much is in it."""
    baskets[basket].append(item)
    return len(baskets[basket])


basket = Handle(kind="basket", minted={"open_basket": "$.basket"}, used={"add": "$.basket"})

issuer = os.environ["MCP_OAUTH_ISSUER"]
store = MemoryStore()
*outer, bridge = standard(
    resources=[Resource("https://mcp.example.com/mcp", "/mcp", scopes=frozenset({"mcp:tools"}))],
    issuers=[TrustedIssuer(issuer, RemoteKeys(issuer))],
    store=store,
)
app = guard(
    server.streamable_http_app(transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False)),
    *outer,
    Handles(store=store, ring=KeyRing.generate(), handles=(basket,)),
    bridge,
)
