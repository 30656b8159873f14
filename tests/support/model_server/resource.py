"""The resource server: every protected path goes through one gate, in one order."""

from __future__ import annotations

import anyio
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tests.support.model_server.browsers import BrowserRules
from tests.support.model_server.challenges import Challenges
from tests.support.model_server.credentials import BearerCredentials
from tests.support.model_server.deployment import MCP_PATH, MESSAGES_PATH, SSE_PATH, Deployment
from tests.support.model_server.exemptions import NOBODY, Exemptions
from tests.support.model_server.grants import Grant, Grants
from tests.support.model_server.limits import CallLimits
from tests.support.model_server.possession import Possession
from tests.support.model_server.principal import InvalidToken, Principal, Refused
from tests.support.model_server.protocol import RpcError
from tests.support.model_server.resource_metadata import ResourceMetadata
from tests.support.model_server.sessions import Sessions
from tests.support.model_server.sse import HttpSse
from tests.support.model_server.streamable import StreamableHttp
from tests.support.model_server.tools import Tools
from tests.support.model_server.verification import Verifier

KEY_FETCH_SECONDS = 0.3
RESOURCE_OF = {MCP_PATH: MCP_PATH, SSE_PATH: SSE_PATH, MESSAGES_PATH: SSE_PATH}


class ResourceServer:
    """`/mcp`, `/sse` and `/messages/`."""

    def __init__(self, deployment: Deployment, grants: Grants, metadata: ResourceMetadata, rules: BrowserRules) -> None:
        self._deployment = deployment
        self._grants = grants
        self._rules = rules
        self._challenges = Challenges(deployment, metadata)
        self._credentials = BearerCredentials(deployment)
        self._verifier = Verifier(deployment)
        self._possession = Possession(deployment)
        self._limits = CallLimits(deployment)
        self._closing = False
        self._fetching = anyio.Lock()
        tools, sessions, keyed = Tools(deployment), Sessions(deployment), Sessions(deployment)
        self._sessions, self._keyed = sessions, keyed
        self._exemptions = Exemptions(deployment, sessions, keyed)
        self._streamable = StreamableHttp(tools, sessions, self.live)
        self._sse = HttpSse(tools, keyed, self.live)
        self.has = deployment.has

    def close(self) -> None:
        """End every open stream; safe to call from another thread."""
        self._closing = True

    def pending(self, session_id: str) -> list[str]:
        session = self._sessions.find(session_id)
        return list(session.pending) if session else []

    def keys_of_open_streams(self) -> list[str]:
        return [session.id for session in self._keyed.every()]

    def live(self, principal: Principal) -> bool:
        """Whether a stream opened by this principal may stay open."""
        if self._closing:
            return False
        current = principal.expires > self._deployment.clock() and not self._revoked(principal)
        return current or self.has("stream_outlives_revocation")

    def _revoked(self, principal: Principal) -> bool:
        return self._grants.is_revoked(principal.jti) and not self.has("revocation_ignored")

    def path_of(self, request: Request) -> str | None:
        """The protected path a request is for. Only exact spellings exist; a fault knows more of them."""
        path: str = request.scope["path"]
        if path in RESOURCE_OF:
            return path
        return MCP_PATH if self._loose(request) else None

    def _loose(self, request: Request) -> bool:
        """Whether a fault serves this spelling of the path, past the gate."""
        has, path = self.has, request.scope["path"]
        raw = request.scope.get("raw_path", b"").partition(b"?")[0].decode("latin-1")
        return (
            (has("double_slash_unguarded") and path == "//mcp")
            or (has("trailing_slash_unguarded") and path == "/mcp/")
            or (has("upper_case_unguarded") and path == "/MCP")
            or (has("encoded_path_unguarded") and path == MCP_PATH and "%" in raw)
        )

    async def serve(self, request: Request, path: str) -> Response:
        """Origin, preflight, credentials, then the endpoint. Every answer is marked for caches and browsers."""
        response = self._rules.refusal(request)
        if response is None:
            response = self._preflight(request) or await self._admitted(request, path)
        self._rules.decorate(request, response)
        if self.has("responses_cacheable") and "authorization" in request.headers:
            response.headers["Cache-Control"] = "public, s-maxage=60"
        elif not self.has("responses_without_cache_control"):
            response.headers["Cache-Control"] = "no-store"
        return response

    def _preflight(self, request: Request) -> Response | None:
        return None if self.has("preflight_needs_a_token") else self._rules.preflight(request)

    async def _admitted(self, request: Request, path: str) -> Response:
        resource_path = RESOURCE_OF[path]
        try:
            await self._exemptions.before_token(request)
            principal = await self._authenticate(request, resource_path)
            if principal is NOBODY and self._exemptions.short_answer(request):
                return Response("", 200 if request.method == "GET" else 204, media_type="text/event-stream")
            return await self._endpoint(request, path, principal)
        except Refused as refusal:
            return self._challenges.answer(request, resource_path, refusal)
        except RpcError as error:
            return error.response()

    async def _authenticate(self, request: Request, resource_path: str) -> Principal:
        if self._loose(request) or ("authorization" not in request.headers and self._exemptions.short_answer(request)):
            return NOBODY
        try:
            principal = await self._judge(request, self._deployment.resources[resource_path])
        except Refused as refusal:
            passed = await self._exemptions.principal(request, refusal)
            if passed is None:
                raise
            return passed
        self._exemptions.remember(request, principal)
        return principal

    async def _judge(self, request: Request, resource: str) -> Principal:
        tokens = await self._credentials.tokens(request)
        if not tokens:
            raise Refused(401, "", "a bearer token is needed")
        failure = Refused(401, "", "a bearer token is needed")
        for token in tokens:
            try:
                await self._fetch_keys(token)
                if self.has("refresh_tokens_serve") and (held := self._grants.refresh(token)):
                    return self._grantee(held.grant, token)
                if self.has("codes_serve") and (code := self._grants.code(token)):
                    return self._grantee(code.grant, token)
                principal = self._verifier.verify(token, resource)
                await self._possession.check(request, principal)
                if self._revoked(principal):
                    raise InvalidToken("the token was revoked")
                return principal
            except InvalidToken as refusal:
                refusal.credentials = token
                failure = refusal
        raise failure

    def _grantee(self, grant: Grant, token: str) -> Principal:
        scopes = frozenset(grant.scope.split())
        return Principal(self._deployment.issuer, grant.user, grant.client_id, scopes, "", float("inf"), token)

    async def _fetch_keys(self, token: str) -> None:
        """The fault of fetching keys anew for every token, while everybody waits."""
        if self.has("unknown_kid_is_fetched"):
            async with self._fetching:
                if not self._verifier.knows_key(token):
                    await anyio.sleep(KEY_FETCH_SECONDS)

    async def _endpoint(self, request: Request, path: str, principal: Principal) -> Response:
        standing = await self._limits.standing(request, principal)
        if standing.refusal is not None:
            return standing.refusal
        response = await self._reached(request, path, principal)
        response.headers.update(standing.headers)
        return response

    async def _reached(self, request: Request, path: str, principal: Principal) -> Response:
        if path == SSE_PATH:
            return await self._sse.stream(request, principal)
        if path == MESSAGES_PATH:
            return await self._sse.message(request, principal)
        return await self._streamable.serve(request, principal)


def not_found() -> Response:
    return JSONResponse({"error": "not_found"}, 404, headers={"Cache-Control": "no-store"})
