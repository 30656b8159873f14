"""What the session eras share on both transports: initialize, the methods, elicitation, cancellation."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from dataclasses import replace

import anyio
from starlette.requests import Request

from tests.support.model_server.keys import JSON
from tests.support.model_server.principal import Principal
from tests.support.model_server.protocol import (
    INVALID_PARAMS,
    INVALID_REQUEST,
    LEGACY,
    METHOD_NOT_FOUND,
    SERVER_INFO,
    RpcError,
    params_of,
    result,
)
from tests.support.model_server.sessions import Pending, Session, Sessions
from tests.support.model_server.streams import frame
from tests.support.model_server.tools import Tools, failed, said

ASK_SECONDS = 20.0
COLOUR = {"type": "object", "properties": {"colour": {"type": "string"}}, "required": ["colour"]}


class LegacyEra:
    """Answers messages within one session."""

    def __init__(self, tools: Tools, sessions: Sessions) -> None:
        self._tools = tools
        self._sessions = sessions
        self.has = tools.has

    def initialize(self, session: Session, message: JSON) -> JSON:
        params = params_of(message)
        if not isinstance(params.get("protocolVersion"), str):
            raise RpcError(INVALID_PARAMS, "protocolVersion is missing")
        capabilities = params.get("capabilities")
        session.capabilities = capabilities if isinstance(capabilities, dict) else {}
        session.initialized = True
        version = params["protocolVersion"] if params["protocolVersion"] in LEGACY else LEGACY[-1]
        offered = {"tools": {"listChanged": False}, "logging": {}}
        return {"protocolVersion": version, "capabilities": offered, "serverInfo": SERVER_INFO}

    def answer(self, session: Session, request: Request, principal: Principal, message: JSON) -> JSON:
        """The response to a request; a JSON-RPC error is one too.

        Raises:
            Refused: a scope is missing.
        """
        try:
            return result(message["id"], self._value(session, request, principal, message))
        except RpcError as error:
            return error.body(message["id"])

    def _value(self, session: Session, request: Request, principal: Principal, message: JSON) -> JSON:
        method, caller = message["method"], request.scope.get("client")
        principal = self.effective(session, request, principal)
        self._tools.require_base(principal)
        if method == "initialize":
            if session.initialized:
                raise RpcError(INVALID_REQUEST, "the session is initialized already")
            return self.initialize(session, message)
        if method in {"ping", "logging/setLevel"}:
            return {}
        if not session.initialized and not self.has("calls_before_initialize_on_sse"):
            raise RpcError(INVALID_REQUEST, "initialize comes first")
        if method == "tools/list":
            return {"tools": self._tools.listed(principal, caller)}
        if method == "tools/call":
            return self._call(session, request, principal, message)
        raise RpcError(METHOD_NOT_FOUND, "there is no such method")

    def _call(self, session: Session, request: Request, principal: Principal, message: JSON) -> JSON:
        params = params_of(message)
        tool = self._tools.authorize(params.get("name"), principal)
        arguments = params.get("arguments")
        value = self._tools.run(
            tool, arguments if isinstance(arguments, dict) else {}, principal, request.scope.get("client")
        )
        text = f"{tool.name} was called"
        if self.has("token_in_log_message"):
            text += f" with {principal.token}"
        log = {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": text}}
        session.notify(log, everywhere=self.has("messages_on_every_stream"))
        return value

    def effective(self, session: Session, request: Request, principal: Principal) -> Principal:
        if self.has("session_keeps_scopes"):
            principal = replace(principal, scopes=principal.scopes | session.owner.scopes)
        return self._tools.elevated(principal, {}, request.headers.get("x-user", ""))

    def asks(self, session: Session, principal: Principal, message: JSON) -> bool:
        """Whether this call will ask the user, so that its answer has to be a stream."""
        wanted = message["method"] == "tools/call" and params_of(message).get("name") == "ask"
        return wanted and "elicitation" in session.capabilities

    async def ask(self, session: Session, message: JSON) -> AsyncIterator[str]:
        """The frames of a call of `ask`: the elicitation, then, once the client has answered, the result."""
        ask_id, pending = f"ask-{secrets.token_hex(4)}", Pending()
        session.pending[ask_id] = pending
        params = {"message": "Which colour?", "requestedSchema": COLOUR}
        yield frame({"jsonrpc": "2.0", "id": ask_id, "method": "elicitation/create", "params": params})
        value = failed("nobody answered")
        scope = anyio.CancelScope(deadline=anyio.current_time() + ASK_SECONDS)
        session.running[str(message["id"])] = scope
        try:
            with scope:
                await pending.answered.wait()
                answer = pending.response.get("result", {})
                content = answer.get("content") if isinstance(answer, dict) else None
                value = said(str((content or {}).get("colour", "none")))
        finally:
            session.pending.pop(ask_id, None)
            session.running.pop(str(message["id"]), None)
        yield frame(result(message["id"], value))

    def take(self, session: Session, message: JSON) -> None:
        """A response or a notification of the client; it reaches only what its own session waits for."""
        if "method" not in message:
            everywhere = self.has("responses_across_sessions")
            for one in self._sessions.every() if everywhere else [session]:
                pending = one.pending.get(str(message["id"]))
                if pending is not None:
                    pending.response = message
                    pending.answered.set()
        elif message["method"] == "notifications/cancelled":
            everywhere = self.has("cancels_across_sessions")
            for one in self._sessions.every() if everywhere else [session]:
                scope = one.running.get(str(params_of(message).get("requestId")))
                if scope is not None:
                    scope.cancel()
