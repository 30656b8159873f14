"""The stateless era (2026-07-28): every POST stands alone and its headers must agree with its body."""

from __future__ import annotations

import re

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tests.support.model_server.agreement import check_agreement
from tests.support.model_server.keys import JSON
from tests.support.model_server.principal import Principal
from tests.support.model_server.protocol import (
    INVALID_REQUEST,
    META_CLIENT,
    META_SERVER,
    METHOD_NOT_FOUND,
    MODERN,
    SERVER_INFO,
    RpcError,
    is_notification,
    is_request,
    meta_of,
    params_of,
    result,
)
from tests.support.model_server.tools import Tools
from tests.support.model_server.verification import Crashed

_TRACE = re.compile(r"[0-9a-f]{2}-[0-9a-f]+-[0-9a-f]+-[0-9a-f]{2}")


class ModernEra:
    """Answers one request at a time and remembers nothing."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools

    async def post(self, request: Request, principal: Principal, message: JSON) -> Response:
        """The answer to one request or notification.

        Raises:
            Refused: a scope is missing.
        """
        if is_notification(message):
            return Response(status_code=202)
        if not is_request(message):
            return RpcError(INVALID_REQUEST, "responses have no place in this revision").response()
        try:
            check_agreement(request, message, self._tools.has)
            if self._tools.has("odd_traceparent_is_500") and not _TRACE.fullmatch(_trace(message)):
                raise Crashed("a malformed traceparent")
            executed = await request.state.reader.executed(request, message)
            value = self._answer(request, principal, message, executed)
        except RpcError as error:
            return error.response(message["id"])
        value["resultType"] = "complete"
        value["_meta"] = {META_SERVER: SERVER_INFO}
        request_id = message["id"]
        return JSONResponse(result(str(request_id) if self._tools.has("ids_become_text") else request_id, value))

    def _answer(self, request: Request, principal: Principal, message: JSON, executed: JSON) -> JSON:
        method, params = executed["method"], params_of(executed)
        client = meta_of(message).get(META_CLIENT)
        principal = self._tools.elevated(
            principal, client if isinstance(client, dict) else {}, request.headers.get("x-user", "")
        )
        self._tools.require_base(principal)
        caller = request.scope.get("client")
        if method == "server/discover":
            return {"supportedVersions": [MODERN], "capabilities": {"tools": {}}, "ttlMs": 0, "cacheScope": "private"}
        if method == "tools/list":
            return {"tools": self._tools.listed(principal, caller), "ttlMs": 0, "cacheScope": "private"}
        if method == "tools/call":
            judged = self._tools.authorize(params_of(message).get("name"), principal)
            tool = self._tools.named(params.get("name")) or judged
            arguments = params.get("arguments")
            return self._tools.run(tool, arguments if isinstance(arguments, dict) else {}, principal, caller)
        raise RpcError(METHOD_NOT_FOUND, "there is no such method")


def _trace(message: JSON) -> str:
    return str(meta_of(message).get("traceparent", "00-0-0-00"))
