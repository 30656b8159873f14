"""An MCP server with users and a login of its own, in one process."""

from mcp.server.auth.middleware.auth_context import get_access_token
from mcp.server.mcpserver import MCPServer
from mcp.server.transport_security import TransportSecuritySettings

from mcp_guard import MemoryStore, Resource, guard, standard
from mcp_guard.oauth import AuthorizationServer, SigningKeys, StaticUsers

server = MCPServer("notes")


@server.tool()
def whoami() -> str:
    """Say who is asking."""
    token = get_access_token()
    return str(token.subject) if token else "nobody"


store = MemoryStore()
resource = Resource("https://mcp.example.com/mcp", "/mcp", scopes=frozenset({"mcp:tools"}))
login = AuthorizationServer(
    issuer="https://mcp.example.com",
    store=store,
    users=StaticUsers.from_file("users.toml"),
    resources=[resource],
    scopes={"mcp:tools": "Use your notes"},
    keys=SigningKeys.from_file("signing-key.pem"),
)
app = guard(
    server.streamable_http_app(transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False)),
    *standard(resources=[resource], authorization_server=login, store=store),
)
