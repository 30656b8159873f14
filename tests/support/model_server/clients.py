"""Clients: dynamic registration (RFC 7591), authentication (RFC 6749 §2.3) and redirect URIs (RFC 9700 §4.1.3)."""

from __future__ import annotations

import base64
import binascii
import hmac
import secrets
from dataclasses import dataclass
from urllib.parse import unquote_plus

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tests.support.model_server.client_documents import Unusable, client_document
from tests.support.model_server.deployment import Deployment
from tests.support.model_server.keys import JSON
from tests.support.model_server.redirect_uris import acceptable
from tests.support.model_server.strict import strict_json

METHODS = ("none", "client_secret_basic")
GRANTS = ("authorization_code", "refresh_token")
CLIENTS = 5000


class OAuthError(Exception):
    """An error response of the token, revocation, introspection or registration endpoint (RFC 6749 §5.2)."""

    def __init__(self, code: str, description: str, status: int = 400) -> None:
        super().__init__(description)
        self.code = code
        self.description = description
        self.status = status

    def response(self) -> Response:
        headers = {"Cache-Control": "no-store"}
        if self.status == 401:
            headers["WWW-Authenticate"] = 'Basic realm="clients"'
        return JSONResponse({"error": self.code, "error_description": self.description}, self.status, headers=headers)


@dataclass(frozen=True)
class Client:
    """A registered client. `secret` is None for a public one."""

    client_id: str
    secret: str | None
    name: str
    redirect_uris: tuple[str, ...]


class Clients:
    """The registered clients of one deployment."""

    def __init__(self, deployment: Deployment) -> None:
        self._clients: dict[str, Client] = {}
        self.has = deployment.has

    async def find(self, client_id: str) -> Client | None:
        """The client of this id: registered, or described by the document that the id is the URL of."""
        if client_id in self._clients or not client_id.startswith("https://"):
            return self._clients.get(client_id)
        try:
            document = await client_document(client_id)
        except Unusable:
            return None
        uris = document.get("redirect_uris")
        if not isinstance(uris, list) or not uris or not acceptable(uris, self.has):
            return None
        return Client(client_id, None, str(document.get("client_name", client_id))[:80], tuple(uris))

    async def register(self, request: Request) -> Response:
        """POST /register (RFC 7591 §3)."""
        try:
            metadata = strict_json(await request.body())
        except ValueError:
            return OAuthError("invalid_client_metadata", "the body is no JSON text").response()
        if not isinstance(metadata, dict):
            return OAuthError("invalid_client_metadata", "the body is no JSON object").response()
        try:
            return self._registered(metadata)
        except OAuthError as error:
            return error.response()

    def _registered(self, metadata: JSON) -> Response:
        uris = metadata.get("redirect_uris")
        if not isinstance(uris, list) or not uris or not acceptable(uris, self.has):
            raise OAuthError("invalid_redirect_uri", "every redirect URI must be https or go to this machine")
        method = metadata.get("token_endpoint_auth_method", "client_secret_basic")
        grants = metadata.get("grant_types", ["authorization_code"])
        allowed = (*GRANTS, "client_credentials") if self.has("clients_choose_their_id") else GRANTS
        if method not in METHODS or not isinstance(grants, list) or not set(map(str, grants)) <= set(allowed):
            raise OAuthError("invalid_client_metadata", "an authentication method or grant type is not offered")
        if metadata.get("response_types", ["code"]) != ["code"]:
            raise OAuthError("invalid_client_metadata", "only the response type code is offered")
        if len(self._clients) >= CLIENTS:
            raise OAuthError("invalid_client_metadata", "no more clients are registered", 429)
        client_id = secrets.token_urlsafe(16)
        if self.has("clients_choose_their_id") and metadata.get("client_id"):
            client_id = str(metadata["client_id"])
        secret = None if method == "none" else secrets.token_urlsafe(32)
        name = str(metadata.get("client_name", client_id))[:80]
        self._clients[client_id] = Client(client_id, secret, name, tuple(uris))
        answer: JSON = {
            "client_id": client_id,
            "client_name": name,
            "redirect_uris": uris,
            "token_endpoint_auth_method": method,
            "grant_types": grants,
            "response_types": ["code"],
        }
        if secret is not None:
            answer |= {"client_secret": secret, "client_secret_expires_at": 0}
        return JSONResponse(answer, 201, headers={"Cache-Control": "no-store"})

    async def authenticate(self, request: Request, form: dict[str, str]) -> Client:
        """The client that sends a token, revocation or introspection request.

        Raises:
            OAuthError: 401 `invalid_client`.
        """
        header = request.headers.get("authorization")
        if header is None:
            client = await self.find(form.get("client_id", ""))
            if client is None or client.secret is not None or "client_secret" in form:
                raise OAuthError("invalid_client", "the client is not known or must authenticate", 401)
            return client
        client_id, secret = _basic(header)
        client = await self.find(client_id)
        known = "" if client is None or client.secret is None else client.secret
        if client is None or not known or not hmac.compare_digest(known.encode(), secret.encode()):
            raise OAuthError("invalid_client", "the client did not authenticate", 401)
        if form.get("client_id", client_id) != client_id:
            raise OAuthError("invalid_request", "two clients are named")
        return client


def _basic(header: str) -> tuple[str, str]:
    scheme, _, encoded = header.partition(" ")
    try:
        text = base64.b64decode(encoded.strip(), validate=True).decode("utf-8")
    except (binascii.Error, UnicodeDecodeError):
        text = ""
    if scheme.lower() != "basic" or ":" not in text:
        raise OAuthError("invalid_client", "client credentials are malformed", 401)
    client_id, _, secret = text.partition(":")
    return unquote_plus(client_id), unquote_plus(secret)
