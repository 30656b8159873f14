"""Clients: found, registered, authenticated (RFC 6749 §2.3, RFC 7591).

A client secret is 256 bits from the operating system, so a plain digest of it is as good as a slow hash.
"""

import base64
import binascii

from mcp_guard.oauth import errors, limits
from mcp_guard.oauth.deployment import Deployment
from mcp_guard.oauth.errors import OAuthError
from mcp_guard.oauth.parameters import ParameterError, Parameters, parse_form
from mcp_guard.oauth.records import Client, client_key, decode, encode
from mcp_guard.oauth.web import Request
from mcp_guard.protocol.registration import ClientMetadata
from mcp_guard.secret import Secret, constant_time_equals, digest, mint_token
from mcp_guard.stores.base import Get, Put, Renew

_NOBODY = digest("no client has this secret")
_NO_CLIENT = encode(
    Client(
        client_id=mint_token(),
        auth_method="client_secret_basic",
        secret_digest=_NOBODY,
        redirect_uris=("http://127.0.0.1/callback",),
        grant_types=("authorization_code", "refresh_token"),
        scopes=None,
        name="No client",
        issued_at=0,
    )
)


async def find(deployment: Deployment, client_id: str) -> Client | None:
    """The client with this id, None when there is none."""
    (found,) = await deployment.store.run([Get(client_key(client_id))])
    return decode(Client, found)


def keep(deployment: Deployment, client: Client) -> Renew:
    """The operation that keeps a client that was just used."""
    return Renew(client_key(client.client_id), encode(client), deployment.lifetimes.client)


async def register(deployment: Deployment, metadata: ClientMetadata) -> tuple[Client, Secret | None]:
    """Store a new client under an id of our own. The secret is returned once and kept only as a digest."""
    secret = None if metadata.auth_method == "none" else mint_token()
    client = Client(
        client_id=mint_token(),
        auth_method=metadata.auth_method,
        secret_digest=None if secret is None else digest(secret),
        redirect_uris=metadata.redirect_uris,
        grant_types=metadata.grant_types,
        scopes=metadata.scopes,
        name=metadata.extra.get("client_name"),
        issued_at=int(deployment.clock.wall()),
        dpop_bound=metadata.dpop_bound,
    )
    await deployment.store.run([Put(client_key(client.client_id), encode(client), deployment.lifetimes.unused_client)])
    return client, None if secret is None else Secret(secret)


async def authenticate(deployment: Deployment, request: Request, parameters: Parameters) -> Client:
    """The client of a token request, by the one method it registered.

    Raises:
        OAuthError: `invalid_client` with 401, the same for every cause; 429 after too many failures.
        ParameterError: a parameter is repeated.
    """
    client_id, secret = _presented(request, parameters)
    client = None if client_id is None else await find(deployment, client_id)
    if client is None:
        decode(Client, _NO_CLIENT)  # An unknown client takes as long as a known one.
    expected = (client.secret_digest if client else None) or _NOBODY
    secret_is_good = constant_time_equals(digest(secret or ""), expected)
    if client is not None and (secret is None if client.is_public else secret_is_good):
        return client
    bucket = limits.bucket("client", deployment.limits.client_failures_per_address, request.address.bucket)
    wait = await limits.seconds_to_wait(deployment.store, bucket)
    if wait is not None:
        raise errors.too_many_requests(wait, "Too many failed attempts")
    raise _refusal(deployment)


def _refusal(deployment: Deployment) -> OAuthError:
    challenge = f'Basic realm="{deployment.issuer.identifier}", charset="UTF-8"'
    return OAuthError(
        errors.INVALID_CLIENT,
        "Client authentication failed",
        status=401,
        headers=[(b"www-authenticate", challenge.encode("ascii"))],
    )


def _presented(request: Request, parameters: Parameters) -> tuple[str | None, str | None]:
    """The id and secret that were sent. (None, None) when what was sent cannot be either."""
    client_id = parameters.one("client_id")
    fields = request.values(b"authorization")
    if not fields:
        # A secret in the body is a method nobody registered, so it is as wrong as a wrong secret.
        return (None, None) if parameters.has("client_secret") else (client_id, None)
    if parameters.has("client_secret"):
        raise OAuthError(errors.INVALID_REQUEST, "More than one client authentication method was used")
    credentials = _basic(fields[0]) if len(fields) == 1 else None
    if credentials is None or (client_id is not None and client_id != credentials[0]):
        return None, None
    return credentials


def _basic(field: bytes) -> tuple[str, str] | None:
    """Id and secret of HTTP Basic, each form-encoded before (RFC 6749 §2.3.1)."""
    scheme, _, encoded = field.partition(b" ")
    if scheme.lower() != b"basic":
        return None
    try:
        decoded = base64.b64decode(encoded.strip(b" "), validate=True)
    except binascii.Error:
        return None
    client_id, colon, secret = decoded.partition(b":")
    if not colon or not client_id:
        return None
    try:
        return _form_decoded(client_id), _form_decoded(secret)
    except ParameterError:
        return None


def _form_decoded(text: bytes) -> str:
    pairs = parse_form(b"=" + text.replace(b"&", b"%26"))
    return pairs[0][1] if pairs else ""
