"""The requests that a fault serves although their token is missing or bad. A sound server exempts nothing."""

from __future__ import annotations

from starlette.requests import Request

from tests.support.model_server.deployment import MCP_PATH, MESSAGES_PATH, SCOPES, SSE_PATH, Deployment
from tests.support.model_server.principal import Principal, Refused
from tests.support.model_server.protocol import (
    METHOD_NOT_FOUND,
    RpcError,
    read_message,
)
from tests.support.model_server.sessions import Sessions
from tests.support.model_server.sse import KEY
from tests.support.model_server.streamable import SESSION

METHODS = {
    "initialize",
    "ping",
    "tools/list",
    "tools/call",
    "server/discover",
    "subscriptions/listen",
    "logging/setLevel",
}
NOBODY = Principal("", "", "", frozenset(SCOPES), "", float("inf"), "")
BY_METHOD = {
    "initialize": "initialize_without_token",
    "tools/list": "tools_list_without_token",
    "server/discover": "discover_without_token",
    "subscriptions/listen": "listen_without_token",
}


class Exemptions:
    """Asks the switched-on faults whether an unauthenticated request may pass, and as whom."""

    def __init__(self, deployment: Deployment, sessions: Sessions, keyed: Sessions) -> None:
        self._sessions = sessions
        self._keyed = keyed
        self._remembered: dict[object, Principal] = {}
        self.has = deployment.has

    def remember(self, request: Request, principal: Principal) -> None:
        self._remembered[request.scope.get("client")] = principal

    async def before_token(self, request: Request) -> None:
        """Faults that look at the body first.

        Raises:
            RpcError: what such a server says about the body.
        """
        if request.method != "POST" or not (self.has("body_before_token") or self.has("unknown_method_before_token")):
            return
        try:
            message = await read_message(request)
        except RpcError:
            if self.has("body_before_token"):
                raise
            return
        if self.has("unknown_method_before_token") and message.get("method") not in METHODS and "id" in message:
            raise RpcError(METHOD_NOT_FOUND, "there is no such method")

    async def principal(self, request: Request, refusal: Refused) -> Principal | None:
        """Whom a request without a good token passes as, or None."""
        path = request.scope["path"]
        if self.has("local_callers_need_no_token") and not refusal.slug:
            return NOBODY
        if self.has("user_field_believed") and request.headers.get("x-forwarded-user"):
            return NOBODY
        if self.has("connection_remembers") and not refusal.slug:
            return self._remembered.get(request.scope.get("client"))
        if path == MESSAGES_PATH and self.has("messages_without_token"):
            keyed = self._keyed.find(request.query_params.get(KEY, ""))
            return keyed.owner if keyed else None
        if path == SSE_PATH:
            return NOBODY if self.has("sse_without_token") else None
        return (await self._by_body(request) or self._by_session(request, refusal)) if path == MCP_PATH else None

    def _by_session(self, request: Request, refusal: Refused) -> Principal | None:
        has, method = self.has, request.method
        waived = (
            (has("session_is_a_credential") and method == "POST" and not refusal.slug)
            or (has("session_is_a_credential_on_get") and method == "GET" and not refusal.slug)
            or (has("session_is_a_credential_on_delete") and method == "DELETE" and not refusal.slug)
            or (has("session_excuses_a_bad_token") and bool(refusal.slug))
        )
        session = self._sessions.find(request.headers.get(SESSION, "")) if waived else None
        return session.owner if session else None

    async def _by_body(self, request: Request) -> Principal | None:
        if request.method != "POST":
            return None
        try:
            message = await read_message(request)
        except RpcError:
            return None
        method = str(message.get("method"))
        if method in BY_METHOD and self.has(BY_METHOD[method]):
            return NOBODY
        if "id" not in message and self.has("notifications_without_token"):
            return NOBODY
        return NOBODY if method not in METHODS and self.has("unknown_method_without_token") else None

    def short_answer(self, request: Request) -> bool:
        """Whether a fault answers 2xx at once, before the endpoint could ask for a session."""
        has = self.has
        return (
            (has("get_without_token") and request.method == "GET")
            or (has("delete_without_token") and request.method == "DELETE")
            or (has("websocket_unguarded") and request.scope["type"] == "websocket")
        )
