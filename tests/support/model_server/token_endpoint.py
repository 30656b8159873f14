"""The token, revocation and introspection endpoints (RFC 6749 §5, RFC 7636, RFC 7009, RFC 7662, RFC 8707)."""

from __future__ import annotations

import hashlib
import hmac
import re
from urllib.parse import parse_qsl

import anyio
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tests.support.model_server.clients import Client, Clients, OAuthError
from tests.support.model_server.deployment import ACCESS_TOKEN_SECONDS, BASE_SCOPE, MCP_PATH, Deployment
from tests.support.model_server.grants import Code, Grant, Grants
from tests.support.model_server.keys import JSON, b64url
from tests.support.model_server.minting import Minter
from tests.support.model_server.proofs import Asked, ProofError, Proofs
from tests.support.model_server.strict import Ambiguous, unique_form
from tests.support.model_server.verification import Crashed

FORM = "application/x-www-form-urlencoded"
_VERIFIER = re.compile(r"[A-Za-z0-9._~-]{43,128}")
RACE_SECONDS = 0.2
KNOWN = frozenset(
    {"grant_type", "code", "redirect_uri", "code_verifier", "client_id", "client_secret", "refresh_token", "scope"}
    | {"resource"}
)


async def form_of(request: Request, *, last_wins: bool = False) -> dict[str, str]:
    """The form of a POST, each parameter once; or the last of each.

    Raises:
        OAuthError: `invalid_request`.
    """
    if request.method != "POST" or request.headers.get("content-type", "").partition(";")[0].strip() != FORM:
        raise OAuthError("invalid_request", "send a form by POST")
    if request.scope["query_string"]:
        raise OAuthError("invalid_request", "parameters belong in the body")
    try:
        text = (await request.body()).decode("latin-1")
        return dict(parse_qsl(text, keep_blank_values=True)) if last_wins else unique_form(text)
    except Ambiguous:
        raise OAuthError("invalid_request", "a parameter is given twice") from None


class TokenEndpoint:
    """POST /token."""

    def __init__(self, deployment: Deployment, clients: Clients, grants: Grants, minter: Minter) -> None:
        self._deployment = deployment
        self._clients = clients
        self._grants = grants
        self._minter = minter
        self._proofs = Proofs(deployment, at_resource=False)
        self.has = deployment.has

    async def serve(self, request: Request) -> Response:
        try:
            form = await form_of(request, last_wins=self.has("repeats_at_token"))
            if self.has("unknown_token_parameters_refused") and not form.keys() <= KNOWN:
                raise OAuthError("invalid_request", "a parameter is not known")
            client = await self._client(request, form)
            jkt = await self._key(request, client)
            match form.get("grant_type"):
                case "authorization_code":
                    return await self._redeem(client, form, jkt)
                case "refresh_token":
                    return self._refresh(client, form, jkt)
                case "client_credentials" if self.has("clients_choose_their_id"):
                    return self._for_itself(client)
            raise OAuthError("unsupported_grant_type", "the grant type is not offered")
        except OAuthError as error:
            return error.response()

    async def _client(self, request: Request, form: dict[str, str]) -> Client:
        """The client that asks, as it is known to itself or, for the sake of a fault, to the refresh token."""
        held = self._grants.refresh(form.get("refresh_token", ""))
        if held is not None and "authorization" not in request.headers:
            owner = await self._clients.find(held.grant.client_id)
            named = form.get("client_id")
            if owner and named is None and self.has("refresh_without_client"):
                return owner
            if owner and named == owner.client_id and self.has("refresh_without_secret"):
                return owner
        return await self._clients.authenticate(request, form)

    async def _key(self, request: Request, client: Client) -> str:
        """The key that the request proves; "" when it has no proof.

        Raises:
            OAuthError: `invalid_dpop_proof`.
        """
        if "dpop" not in request.headers:
            if client.dpop_bound and not self.has("bound_clients_get_bearer"):
                raise OAuthError("invalid_dpop_proof", "the client gets no bearer tokens")
            return ""
        try:
            return await self._proofs.check(request, Asked(f"{self._deployment.issuer}/token"))
        except ProofError as error:
            raise OAuthError(error.slug, error.reason) from None

    def _check_key(self, bound_to: str, jkt: str, fault: str) -> None:
        """Raises: OAuthError, when a code or a refresh token is bound to another key."""
        if bound_to and not jkt:
            raise OAuthError("invalid_dpop_proof", "a proof is needed")
        if bound_to not in {"", jkt} and not self.has(fault):
            raise OAuthError("invalid_grant", "the proof is of another key")

    async def _redeem(self, client: Client, form: dict[str, str], jkt: str) -> Response:
        code = self._grants.code(form.get("code", ""))
        if code is None or (code.grant.client_id != client.client_id and not self.has("code_for_any_client")):
            raise OAuthError("invalid_grant", "the code is not known")
        if form.get("redirect_uri") != code.redirect_uri and not self.has("code_for_any_redirect"):
            raise OAuthError("invalid_grant", "the redirect URI differs")
        self._check_key(code.jkt, jkt, "code_for_any_key")
        if code.used and self.has("code_reuse_by_strangers_revokes"):
            self._grants.revoke(code.grant)
        if not self._verified(code, form):
            raise OAuthError("invalid_grant", "the code verifier does not fit")
        resource = self._resource(code.grant, form, "resource_at_token_refused", "token_request_widens")
        if self.has("code_race") and not code.used:
            await anyio.sleep(RACE_SECONDS)
        elif code.used and not self.has("code_reusable"):
            if not self.has("code_reuse_forgiven"):
                self._grants.revoke(code.grant, sparing_refresh=self.has("refresh_outlives_grant"))
            raise OAuthError("invalid_grant", "the code was used before")
        code.used = True
        code.grant.jkt = jkt if client.secret is None else ""
        return self._issued(client, code.grant, resource, code.grant.scope, jkt)

    def _verified(self, code: Code, form: dict[str, str]) -> bool:
        has, verifier = self.has, form.get("code_verifier")
        if verifier is not None and len(verifier) > 128 and has("long_verifier_crashes"):
            raise Crashed("value too long")
        if code.method == "none":
            return verifier is None or has("verifier_without_challenge")
        if verifier is None:
            return has("verifier_optional")
        if verifier == "" and has("empty_verifier_accepted"):
            return True
        if has("verifier_ignored") or (verifier == code.challenge and has("verifier_may_be_the_challenge")):
            return True
        if code.method == "plain":
            return hmac.compare_digest(verifier.encode(), code.challenge.encode())
        if not _VERIFIER.fullmatch(verifier):
            return False
        return self._fits(verifier, code.challenge)

    def _fits(self, verifier: str, challenge: str) -> bool:
        if self.has("verifier_prefix"):
            verifier = verifier[:43]
        digest = b64url(hashlib.sha256(verifier.encode("ascii")).digest())
        if self.has("verifier_any_case") and digest.lower() == challenge.lower():
            return True
        return hmac.compare_digest(digest, challenge)

    def _resource(self, grant: Grant, form: dict[str, str], refusing: str, widening: str) -> str:
        """The audience to issue for: the one that was authorized, whatever spelling names it now."""
        asked = form.get("resource")
        if asked is None:
            return grant.resource
        if self.has(refusing):
            raise OAuthError("invalid_request", "resource is not understood")
        known = self._deployment.known_resource(asked)
        if grant.resource in {known, asked}:
            return grant.resource
        if self.has(widening):
            return asked
        raise OAuthError("invalid_target", "the resource was not authorized")

    def _refresh(self, client: Client, form: dict[str, str], jkt: str) -> Response:
        has, text = self.has, form.get("refresh_token", "")
        held = self._grants.refresh(text)
        if (held is None and has("bad_refresh_crashes")) or (len(text) > 1000 and has("long_refresh_crashes")):
            raise Crashed("no such row")
        if held is None or held.grant.revoked or not self._owns(client, held.grant):
            raise OAuthError("invalid_grant", "the refresh token is not known")
        grant = held.grant
        self._check_key(grant.jkt, jkt, "refresh_by_any_key")
        scope = " ".join(form.get("scope", grant.scope).split())
        if not set(scope.split()) <= set(grant.scope.split()) and not has("refresh_widens_scope"):
            raise OAuthError("invalid_scope", "the scope was not granted")
        resource = self._resource(grant, form, "resource_at_refresh_refused", "refresh_widens")
        if held.used and not has("old_refresh_token_valid"):
            if not has("refresh_reuse_forgiven") and (held.is_last or not has("refresh_reuse_of_the_last_noticed")):
                self._grants.revoke(grant)
            raise OAuthError("invalid_grant", "the refresh token was used before")
        held.used = not has("refresh_tokens_do_not_rotate")
        self._grants.replaced(held)
        if has("refresh_narrows_grant"):
            grant.scope = scope
        return self._issued(client, grant, resource, scope, jkt, text if has("refresh_tokens_do_not_rotate") else None)

    def _owns(self, client: Client, grant: Grant) -> bool:
        return grant.client_id == client.client_id or self.has("refresh_by_any_client")

    def _for_itself(self, client: Client) -> Response:
        grant = Grant(client.client_id, client.client_id, self._deployment.resources[MCP_PATH], BASE_SCOPE)
        return self._issued(client, grant, grant.resource, grant.scope)

    def _issued(
        self, client: Client, grant: Grant, resource: str, scope: str, jkt: str = "", same_refresh: str | None = None
    ) -> Response:
        has = self.has
        claims = self._minter.claims(grant.user, client.client_id, resource, scope)
        if jkt:
            claims["cnf"] = {"jkt": jkt}
        token = self._minter.sign(self._minter.header(), claims)
        self._grants.remember(token, claims, grant)
        body: JSON = {
            "access_token": token,
            "token_type": "DPoP" if jkt and not has("dpop_token_says_bearer") else "Bearer",
            "expires_in": 86400 if has("day_long_tokens") else ACCESS_TOKEN_SECONDS,
            "refresh_token": same_refresh or self._grants.issue_refresh(grant),
            "scope": scope,
        }
        if has("token_response_without_type"):
            del body["token_type"]
        if has("lifetime_untold"):
            del body["expires_in"]
        headers = {} if has("token_response_cacheable") else {"Cache-Control": "no-store", "Pragma": "no-cache"}
        return JSONResponse(body, headers=headers, media_type="text/plain" if has("token_response_as_text") else None)


class TokenCare:
    """POST /revoke (RFC 7009) and POST /introspect (RFC 7662)."""

    def __init__(self, deployment: Deployment, clients: Clients, grants: Grants) -> None:
        self._deployment = deployment
        self._clients = clients
        self._grants = grants
        self.has = deployment.has

    async def revoke(self, request: Request) -> Response:
        try:
            form = await form_of(request)
            client = await self._clients.authenticate(request, form)
            self._revoke(client, form.get("token", ""))
        except OAuthError as error:
            return error.response()
        return Response(status_code=200, headers={"Cache-Control": "no-store"})

    def _revoke(self, client: Client, token: str) -> None:
        has, refresh, access = self.has, self._grants.refresh(token), self._grants.access(token)
        grant = refresh.grant if refresh else access[0] if access else None
        if grant is None:
            if has("revocation_refuses_unknown"):
                raise OAuthError("invalid_request", "the token is not known")
            return
        if grant.client_id != client.client_id and not has("revocation_by_any_client"):
            raise OAuthError("invalid_grant", "the token was issued to another client")
        if refresh is not None:
            if not has("revocation_without_effect"):
                self._grants.revoke(grant, sparing_access=has("refresh_revocation_spares_access"))
        elif access is not None:
            self._grants.revoke_token(str(access[1].get("jti", "")))

    async def introspect(self, request: Request) -> Response:
        try:
            if request.method == "GET" and self.has("introspection_by_get"):
                return self._described(None, request.query_params.get("token", ""))
            form = await form_of(request)
            client = None if self.has("introspection_open") else await self._authenticated(request, form)
            return self._described(client, form.get("token", ""))
        except OAuthError as error:
            return error.response()

    async def _authenticated(self, request: Request, form: dict[str, str]) -> Client:
        if "authorization" not in request.headers:
            raise OAuthError("invalid_client", "the client must authenticate", 401)
        return await self._clients.authenticate(request, form)

    def _described(self, client: Client | None, token: str) -> Response:
        """What the client's own token is worth; of any other only that it is worth nothing."""
        found = self._grants.access(token)
        headers = {"Cache-Control": "no-store"}
        if found is None or (client is not None and found[0].client_id != client.client_id):
            return JSONResponse({"active": False}, headers=headers)
        claims = found[1]
        revoked = self._grants.is_revoked(str(claims.get("jti"))) and not self.has("introspection_ignores_revocation")
        if revoked or claims["exp"] <= self._deployment.clock():
            known = {"sub": claims["sub"], "client_id": client.client_id if client else ""}
            return JSONResponse(
                {"active": False, **(known if self.has("introspection_talks") else {})}, headers=headers
            )
        kind = "DPoP" if "cnf" in claims else "Bearer"
        return JSONResponse({"active": True, "token_type": kind, **claims}, headers=headers)
