"""An MCP server for the users of an identity provider that is already there."""

import os

from mcp.server.auth.middleware.auth_context import get_access_token
from mcp.server.mcpserver import MCPServer
from mcp.server.transport_security import TransportSecuritySettings

from mcp_guard import RemoteKeys, Resource, TrustedIssuer, guard, standard

server = MCPServer("notes")


@server.tool()
def whoami() -> str:
    """Say who is asking."""
    token = get_access_token()
    return str(token.subject) if token else "nobody"


issuer = os.environ["MCP_OAUTH_ISSUER"]
app = guard(
    server.streamable_http_app(transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False)),
    *standard(
        resources=[Resource("https://mcp.example.com/mcp", "/mcp", scopes=frozenset({"mcp:tools"}))],
        issuers=[TrustedIssuer(issuer, RemoteKeys(issuer))],
    ),
)
