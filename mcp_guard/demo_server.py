"""The demo's MCP server: the official SDK's, without any protection of its own."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
from mcp.server.auth.middleware.auth_context import get_access_token
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.transport_security import TransportSecuritySettings
from mcp.types import ToolAnnotations
from starlette.applications import Starlette

from mcp_guard.asgi import ASGIApp

STEP_SECONDS = 0.2
"""How often the long-running tool reports progress."""

READS = ToolAnnotations(read_only_hint=True)


def demo_server() -> ASGIApp:
    """Streamable HTTP at /mcp (both eras) and HTTP+SSE at /sse; at /clock another server, which is none of theirs."""
    server, clock = demo_tools(), demo_clock()
    # The guard checks Host and Origin for all transports at once.
    unchecked = TransportSecuritySettings(enable_dns_rebinding_protection=False)
    streamable = server.streamable_http_app(transport_security=unchecked)
    events = server.sse_app(transport_security=unchecked)
    other = clock.streamable_http_app(streamable_http_path="/clock", transport_security=unchecked)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with server.session_manager.run(), clock.session_manager.run():
            yield

    return Starlette(routes=[*streamable.routes, *events.routes, *other.routes], lifespan=lifespan)


def demo_tools() -> MCPServer[Any]:
    """A server with four tools, one of which takes its time."""
    server = MCPServer("mcp-guard demo", log_level="WARNING")
    counted = 0

    @server.tool(annotations=READS)
    def whoami() -> dict[str, Any]:
        """Say who is asking, as the guard verified it."""
        token = get_access_token()
        if token is None:
            return {"user": None}
        return {"user": token.subject, "client": token.client_id, "scopes": token.scopes}

    @server.tool(annotations=READS)
    def add(a: int, b: int) -> int:
        """Add two integers."""
        return a + b

    @server.tool()
    async def count(seconds: int, ctx: Context[Any, Any]) -> str:
        """Take `seconds` (at most 60) and report progress on the way."""
        nonlocal counted
        steps = max(1, int(min(seconds, 60) / STEP_SECONDS))
        for step in range(steps):
            await anyio.sleep(STEP_SECONDS)
            await ctx.report_progress(step + 1, steps)
        counted += steps
        return f"counted {steps} steps"

    @server.tool()
    def reset() -> str:
        """Forget how many steps were counted. Needs a scope that no client has unless it asks for it."""
        nonlocal counted
        forgotten, counted = counted, 0
        return f"forgot {forgotten} steps"

    return server


def demo_clock() -> MCPServer[Any]:
    """A server with one tool."""
    server = MCPServer("mcp-guard demo clock", log_level="WARNING")

    @server.tool(annotations=READS)
    async def ticks() -> float:
        """Say how many seconds the event loop's clock has counted."""
        return anyio.current_time()

    return server
