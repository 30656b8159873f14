"""The key set (RFC 7517 §5): the public half of every signing key."""

from mcp_guard.oauth.deployment import Deployment
from mcp_guard.oauth.web import Request, Response, json_response

CACHE = b"public, max-age=600"
"""A key must be published this long before it signs."""


async def jwks(deployment: Deployment, request: Request) -> Response:
    """GET: the keys."""
    return json_response(deployment.keys.public_set(), cache=CACHE)
