"""The registration endpoint (RFC 7591): open to all, so bounded in every way, and trusting nothing it is told."""

from mcp_guard.events import Event
from mcp_guard.oauth import clients, errors, limits, negotiation
from mcp_guard.oauth.deployment import Deployment
from mcp_guard.oauth.errors import OAuthError
from mcp_guard.oauth.web import Request, Response, json_response
from mcp_guard.protocol import strict_json
from mcp_guard.protocol.registration import (
    INVALID_CLIENT_METADATA,
    ClientMetadata,
    RegistrationError,
    parse_client_metadata,
)

MAX_BODY = 65536
MAX_DEPTH = 8


async def register(deployment: Deployment, request: Request) -> Response:
    """POST: 201 with everything that was registered (RFC 7591 §3.2.1)."""
    if request.media_type() != "application/json":
        raise OAuthError(INVALID_CLIENT_METADATA, "The body must be application/json", status=415)
    body = await request.body(MAX_BODY)
    try:
        asked = parse_client_metadata(strict_json.loads(body, max_depth=MAX_DEPTH))
        metadata = negotiation.settle(asked, deployment.metadata)
    except strict_json.JsonError as fault:
        raise OAuthError(INVALID_CLIENT_METADATA, f"The body {fault.reason}") from None
    except RegistrationError as fault:
        raise OAuthError(fault.error, fault.description) from None
    await _limit(deployment, request)
    return await _register(deployment, request, metadata)


async def _register(deployment: Deployment, request: Request, metadata: ClientMetadata) -> Response:
    client, secret = await clients.register(deployment, metadata)
    request.report(Event("client_registered", deployment.issuer.identifier, client_id=client.client_id))
    members: dict[str, object] = {
        "client_id": client.client_id,
        "client_id_issued_at": client.issued_at,
        **metadata.members(),
    }
    if metadata.scopes is not None:
        # All that it may ever ask for (RFC 7591 §3.2.1: what was asked may be replaced); what it named is its default.
        members["scope"] = " ".join(deployment.scopes)
    if secret is not None:
        members["client_secret"] = secret.reveal()
        members["client_secret_expires_at"] = 0
    return json_response(members, status=201, headers=[(b"pragma", b"no-cache")])


async def _limit(deployment: Deployment, request: Request) -> None:
    """Only what would be stored is counted, for the address and for all together."""
    rates = deployment.limits
    wait = await limits.seconds_to_wait(
        deployment.store,
        limits.bucket("register-address", rates.registrations_per_address, request.address.bucket),
        limits.bucket("register", rates.registrations),
    )
    if wait is not None:
        raise errors.too_many_requests(wait, "Too many registrations")
