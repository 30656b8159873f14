"""One layer in an app's own middleware list: pages of other origins are kept out, nothing else changes."""

from mcp.server.mcpserver import MCPServer
from mcp.server.transport_security import TransportSecuritySettings
from starlette.applications import Starlette
from starlette.middleware import Middleware

from mcp_guard.layers.origin import Origin

server = MCPServer("notes")
unchecked = TransportSecuritySettings(enable_dns_rebinding_protection=False)
mcp_app = server.streamable_http_app(transport_security=unchecked)

origin = Origin("https://mcp.example.com/mcp", allowed=("https://app.example.com",))
app = Starlette(routes=mcp_app.routes, middleware=[Middleware(origin.wrap)], lifespan=mcp_app.router.lifespan_context)
