"""Clients: dynamic registration (RFC 7591), authentication (RFC 6749 §2.3) and redirect URIs (RFC 9700 §4.1.3)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote_plus

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tests.support.model_server.client_documents import Unusable, client_document
from tests.support.model_server.deployment import Deployment
from tests.support.model_server.keys import JSON
from tests.support.model_server.redirect_uris import acceptable
from tests.support.model_server.strict import strict_json
from tests.support.model_server.verification import Crashed

METHODS = ("none", "client_secret_basic")
GRANTS = ("authorization_code", "refresh_token")
CLIENTS = 5000
REDIRECTS = 20
DOCUMENT_BYTES = 65_536
TYPES: Mapping[str, type] = {
    "redirect_uris": list,
    "grant_types": list,
    "response_types": list,
    "client_name": str,
    "token_endpoint_auth_method": str,
    "jwks": dict,
    "jwks_uri": str,
    "application_type": str,
    "dpop_bound_access_tokens": bool,
}
KNOWN = TYPES.keys() | {"scope", "client_uri", "client_id", "client_secret", "software_statement"}


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
    """A registered client. `secret` is None for a public one, `dpop_bound` says that it gets no bearer tokens."""

    client_id: str
    secret: str | None
    name: str
    redirect_uris: tuple[str, ...]
    dpop_bound: bool = False


class Clients:
    """The registered clients of one deployment."""

    def __init__(self, deployment: Deployment) -> None:
        self._clients: dict[str, Client] = {}
        self.silent = False
        self.has = deployment.has

    async def find(self, client_id: str) -> Client | None:
        """The client of this id: registered, or described by the document that the id is the URL of."""
        over_http = self.has("documents_over_http") and client_id.startswith("http://")
        if client_id in self._clients or not (client_id.startswith("https://") or over_http):
            return self._clients.get(client_id)
        try:
            self.silent = False
            document = await client_document(client_id, self.has)
        except Unusable as fault:
            self.silent = isinstance(fault.__cause__, ConnectionRefusedError)
            return None
        uris = document.get("redirect_uris")
        if not isinstance(uris, list) or not uris or not acceptable(uris, self.has):
            return None
        return Client(client_id, None, str(document.get("client_name", client_id))[:80], tuple(uris))

    async def register(self, request: Request) -> Response:
        """POST /register (RFC 7591 §3)."""
        try:
            return self._registered(self._metadata(await request.body()))
        except OAuthError as error:
            if error.code == "invalid_redirect_uri" and self.has("bad_redirect_crashes"):
                raise Crashed("bad redirect URI") from None
            if error.code == "invalid_redirect_uri" and self.has("bad_redirect_refused_oddly"):
                return Response("forbidden", 403)
            return error.response()

    def _metadata(self, body: bytes) -> JSON:
        if len(body) > DOCUMENT_BYTES and not self.has("registrations_of_any_size"):
            raise OAuthError("invalid_client_metadata", "the body is too large", 413)
        try:
            metadata = strict_json(body)
        except ValueError:
            if self.has("bad_json_crashes"):
                raise Crashed("no JSON") from None
            raise OAuthError("invalid_client_metadata", "the body is no JSON text") from None
        if isinstance(metadata, list) and self.has("registration_of_arrays_crashes"):
            raise Crashed("no object")
        if not isinstance(metadata, dict):
            raise OAuthError("invalid_client_metadata", "the body is no JSON object")
        return metadata

    def _registered(self, metadata: JSON) -> Response:
        has = self.has
        self._check_types(metadata)
        uris = self._redirects(metadata.get("redirect_uris"))
        method = metadata.get("token_endpoint_auth_method", "client_secret_basic")
        grants = metadata.get("grant_types", ["authorization_code"])
        allowed = (*GRANTS, "client_credentials") if self.has("clients_choose_their_id") else GRANTS
        if method not in METHODS or not isinstance(grants, list) or not set(map(str, grants)) <= set(allowed):
            raise OAuthError("invalid_client_metadata", "an authentication method or grant type is not offered")
        agree = "authorization_code" in grants or has("grants_may_disagree") or "client_credentials" in grants
        if metadata.get("response_types", ["code"]) != ["code"] or not agree:
            raise OAuthError("invalid_client_metadata", "only the response type code is offered")
        if len(self._clients) >= CLIENTS:
            raise OAuthError("invalid_client_metadata", "no more clients are registered", 429)
        client_id = self._new_id(metadata, uris)
        if method == "none" and has("auth_method_replaced"):
            method = "client_secret_basic"
        secret = None if method == "none" and not has("public_clients_get_secrets") else secrets.token_urlsafe(32)
        if has("client_secrets_chosen") and secret is not None:
            secret = str(metadata.get("client_secret", secret))
        name = self._name(metadata, client_id)
        bound = bool(metadata.get("dpop_bound_access_tokens"))
        self._clients[client_id] = Client(client_id, secret, name, tuple(uris), bound)
        answer: JSON = {
            "client_id": client_id,
            "client_name": name,
            "redirect_uris": uris,
            "token_endpoint_auth_method": method,
            "grant_types": grants,
            "response_types": ["code"],
            "dpop_bound_access_tokens": bound,
        }
        if secret is not None:
            answer["client_secret"] = secret
            if not has("secret_expiry_untold"):
                answer["client_secret_expires_at"] = 0
        return self._answered(answer, metadata)

    def _answered(self, answer: JSON, metadata: JSON) -> Response:
        has = self.has
        if has("odd_name_registered") and isinstance(metadata.get("client_name"), list):
            answer["client_name"] = metadata["client_name"]
        if has("keys_twice_registered"):
            answer |= {name: metadata[name] for name in ("jwks", "jwks_uri") if name in metadata}
        if has("registration_not_echoed"):
            answer = {name: answer[name] for name in ("client_id", "client_secret") if name in answer}
        return JSONResponse(
            answer,
            200 if has("registration_is_200") else 201,
            headers={} if has("registration_cacheable") else {"Cache-Control": "no-store"},
            media_type="text/plain" if has("registration_as_text") else None,
        )

    def _redirects(self, uris: object) -> list[str]:
        has = self.has
        if (uris is None and has("redirects_optional")) or (uris == [] and has("redirects_may_be_none")):
            return []
        few = isinstance(uris, list) and (len(uris) <= REDIRECTS or has("any_number_of_redirects"))
        if not isinstance(uris, list) or not few or not uris or not acceptable(uris, has):
            raise OAuthError("invalid_redirect_uri", "every redirect URI must be https or go to this machine")
        return uris

    def _check_types(self, metadata: JSON) -> None:
        """Refuse members of the wrong type, and what contradicts itself. Unknown members are ignored."""
        has = self.has
        if has("unknown_metadata_refused") and not metadata.keys() <= KNOWN:
            raise OAuthError("invalid_client_metadata", "a member is not known")
        for name, kind in TYPES.items():
            value = metadata.get(name)
            odd_name = name == "client_name" and isinstance(value, list) and has("odd_name_registered")
            odd_items = isinstance(value, list) and not all(isinstance(item, str) for item in value)
            if value is None or odd_name or (isinstance(value, kind) and not odd_items):
                continue
            if has("odd_metadata_crashes"):
                raise Crashed("wrong type")
            error = "invalid_redirect_uri" if name == "redirect_uris" else "invalid_client_metadata"
            raise OAuthError(error, f"{name} is of the wrong type")
        if {"jwks", "jwks_uri"} <= metadata.keys() and not has("keys_twice_registered"):
            raise OAuthError("invalid_client_metadata", "jwks and jwks_uri exclude each other")
        local = any("localhost" in str(uri) for uri in metadata.get("redirect_uris") or [])
        unwelcome = has("native_clients_refused") or (local and has("native_localhost_refused"))
        if metadata.get("application_type") == "native" and unwelcome:
            raise OAuthError("invalid_client_metadata", "native applications are not served")

    def _new_id(self, metadata: JSON, uris: list[str]) -> str:
        has, wanted = self.has, str(metadata.get("client_id", ""))
        if (has("clients_choose_their_id") and wanted) or (has("client_ids_taken") and wanted in self._clients):
            return wanted
        if has("client_ids_repeat"):
            return hashlib.sha256(repr((uris, metadata.get("client_name"))).encode()).hexdigest()[:32]
        fresh = secrets.token_urlsafe(16)
        return f"https://clients.example/{fresh}" if has("client_ids_are_urls") else fresh

    def _name(self, metadata: JSON, client_id: str) -> str:
        if self.has("statements_believed") and "software_statement" in metadata:
            payload = str(metadata["software_statement"]).split(".")[1]
            metadata = {**metadata, **strict_json(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))}
        return str(metadata.get("client_name", client_id))[:80]

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
