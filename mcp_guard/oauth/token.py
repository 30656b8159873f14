"""The token endpoint (OAuth 2.1 §3.2): codes and refresh tokens become access tokens.

Parameters come from the body alone, each at most once; the client is authenticated before anything else is looked at.
"""

from mcp_guard.events import Event
from mcp_guard.oauth import clients, errors, grants, possession
from mcp_guard.oauth.deployment import Deployment
from mcp_guard.oauth.errors import OAuthError
from mcp_guard.oauth.grants import Issued
from mcp_guard.oauth.parameters import ParameterError, Parameters, parse_form
from mcp_guard.oauth.records import Client
from mcp_guard.oauth.web import Request, Response, json_response
from mcp_guard.protocol import pkce
from mcp_guard.protocol import scopes as scope_rules
from mcp_guard.protocol.dpop import Proof
from mcp_guard.secret import fingerprint

MAX_BODY = 65536
"""Bytes of a token request."""


async def token(deployment: Deployment, request: Request) -> Response:
    """POST: a token response (RFC 6749 §5.1)."""
    if request.query:
        raise OAuthError(errors.INVALID_REQUEST, "Parameters belong in the body, not in the URL")
    if request.media_type() != "application/x-www-form-urlencoded":
        raise OAuthError(errors.INVALID_REQUEST, "The body must be application/x-www-form-urlencoded")
    try:
        parameters = Parameters(parse_form(await request.body(MAX_BODY)))
        if parameters.repeated() is not None:
            raise ParameterError("a parameter is repeated")
        client = await clients.authenticate(deployment, request, parameters)
        proof = possession.proof_of(deployment, request, client)
        issued = await _issue(deployment, client, parameters, proof)
    except ParameterError as fault:
        raise OAuthError(errors.INVALID_REQUEST, f"The request is malformed: {fault}") from None
    name = "token_refreshed" if parameters.one("grant_type") == "refresh_token" else "code_redeemed"
    issuer, token_name = deployment.issuer.identifier, fingerprint(issued.access_token)
    request.report(Event(name, issuer, issued.subject, client.client_id, issued.tenant, token_name))
    return _response(deployment, issued).with_headers(*possession.next_nonce(deployment, proof))


async def _issue(deployment: Deployment, client: Client, parameters: Parameters, proof: Proof | None) -> Issued:
    grant_type = parameters.one("grant_type")
    if grant_type is None:
        raise OAuthError(errors.INVALID_REQUEST, "The grant_type is missing")
    if grant_type not in {"authorization_code", "refresh_token"}:
        raise OAuthError(errors.UNSUPPORTED_GRANT_TYPE, "The grant_type is authorization_code or refresh_token")
    if grant_type not in client.grant_types:
        raise OAuthError(errors.UNAUTHORIZED_CLIENT, "The client did not register this grant_type")
    if parameters.has("resource") and parameters.one("resource") is None:
        raise OAuthError(errors.INVALID_TARGET, "The resource must be one absolute URI")
    if grant_type == "refresh_token":
        return await _refresh(deployment, client, parameters, proof)
    return await _redeem(deployment, client, parameters, proof)


async def _redeem(deployment: Deployment, client: Client, parameters: Parameters, proof: Proof | None) -> Issued:
    code = parameters.one("code")
    verifier = parameters.one("code_verifier")
    if code is None or verifier is None:
        raise OAuthError(errors.INVALID_REQUEST, "The code and the code_verifier are required")
    if not pkce.is_verifier(verifier):
        raise OAuthError(errors.INVALID_GRANT, "The code_verifier is malformed")
    return await grants.redeem_code(
        deployment,
        client,
        code,
        redirect_uri=parameters.one("redirect_uri"),
        verifier=verifier,
        resource=parameters.one("resource"),
        proof=proof,
    )


async def _refresh(deployment: Deployment, client: Client, parameters: Parameters, proof: Proof | None) -> Issued:
    refresh_token = parameters.one("refresh_token")
    if refresh_token is None:
        raise OAuthError(errors.INVALID_GRANT, "The refresh token is not valid for this request")
    text = parameters.one("scope")
    try:
        scopes = None if text is None else tuple(sorted(scope_rules.parse(text)))
    except scope_rules.ScopeError:
        raise OAuthError(errors.INVALID_SCOPE, "The scope is malformed") from None
    resource = parameters.one("resource")
    return await grants.refresh(deployment, client, refresh_token, scopes=scopes, resource=resource, proof=proof)


def _response(deployment: Deployment, issued: Issued) -> Response:
    members: dict[str, object] = {
        "access_token": issued.access_token,
        "token_type": "Bearer" if issued.jkt is None else "DPoP",
        "expires_in": int(deployment.lifetimes.access_token.total_seconds()),
    }
    if issued.refresh_token is not None:
        members["refresh_token"] = issued.refresh_token
    if issued.scopes:
        members["scope"] = " ".join(issued.scopes)
    return json_response(members, headers=[(b"pragma", b"no-cache")])
