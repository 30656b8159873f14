"""The metadata document (RFC 8414 §3). Every URL in it comes from the configured issuer, none from a request."""

from mcp_guard.oauth.deployment import Deployment
from mcp_guard.oauth.web import Request, Response, json_response

CACHE = b"public, max-age=300"


async def metadata(deployment: Deployment, request: Request) -> Response:
    """GET: the document."""
    return json_response(deployment.metadata, cache=CACHE)
