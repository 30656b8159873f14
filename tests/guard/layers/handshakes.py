"""WebSocket handshakes against layers: why they were refused, which the server is not told."""

from typing import Any

from mcp_guard.check import Layer
from mcp_guard.facts import FACTS_KEY
from mcp_guard.rejections import Rejection
from mcp_guard.stack import guard
from tests.guard.asgi import CountingApp, drive, websocket_scope


async def handshake(*layers: Layer, **request: Any) -> str:
    """The slug for which `layers` refuse a handshake."""
    facts: dict[type, Any] = {}
    app = CountingApp()
    outcome = await drive(guard(app, *layers), {**websocket_scope(**request), FACTS_KEY: facts})
    assert [message["type"] for message in outcome.sent] == ["websocket.close"]
    assert app.calls == 0
    slug: str = facts[Rejection].kind.slug
    return slug
