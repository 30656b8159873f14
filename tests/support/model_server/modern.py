"""The stateless era (2026-07-28): every POST stands alone and its headers must agree with its body."""

from __future__ import annotations

import base64
import binascii
import re

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tests.support.model_server.keys import JSON
from tests.support.model_server.principal import Principal
from tests.support.model_server.protocol import (
    HEADER_MISMATCH,
    INVALID_PARAMS,
    INVALID_REQUEST,
    META_CAPABILITIES,
    META_CLIENT,
    META_SERVER,
    META_VERSION,
    METHOD_NOT_FOUND,
    MODERN,
    SERVER_INFO,
    UNSUPPORTED_VERSION,
    RpcError,
    is_notification,
    is_request,
    meta_of,
    params_of,
    result,
)
from tests.support.model_server.tools import Tools

ROUTING = ("mcp-protocol-version", "mcp-method", "mcp-name")
NAMED = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}
_ENCODED = re.compile(r"=\?base64\?([A-Za-z0-9+/]*={0,2})\?=")


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
            check_agreement(request, message)
            value = self._answer(request, principal, message)
        except RpcError as error:
            return error.response(message["id"])
        value["resultType"] = "complete"
        value["_meta"] = {META_SERVER: SERVER_INFO}
        return JSONResponse(result(message["id"], value))

    def _answer(self, request: Request, principal: Principal, message: JSON) -> JSON:
        method, params = message["method"], params_of(message)
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
            tool = self._tools.authorize(params.get("name"), principal)
            arguments = params.get("arguments")
            return self._tools.run(tool, arguments if isinstance(arguments, dict) else {}, principal, caller)
        raise RpcError(METHOD_NOT_FOUND, "there is no such method")


def check_agreement(request: Request, message: JSON) -> None:
    """Headers and `_meta` must say the same thing, once.

    Raises:
        RpcError: -32602 when `_meta` is incomplete, -32020 on disagreement, -32022 for an unknown version.
    """
    for name in ROUTING:
        if len(request.headers.getlist(name)) > 1:
            raise RpcError(HEADER_MISMATCH, f"{name} is sent twice")
    meta = meta_of(message)
    if META_VERSION not in meta or META_CAPABILITIES not in meta:
        raise RpcError(INVALID_PARAMS, "_meta lacks the protocol version or the client's capabilities")
    version = meta[META_VERSION]
    if request.headers.get("mcp-protocol-version") != version:
        raise RpcError(HEADER_MISMATCH, "MCP-Protocol-Version differs from _meta")
    if request.headers.get("mcp-method") != message["method"]:
        raise RpcError(HEADER_MISMATCH, "Mcp-Method differs from the method")
    member = NAMED.get(message["method"])
    if member is not None and _decoded(request.headers.get("mcp-name")) != params_of(message).get(member):
        raise RpcError(HEADER_MISMATCH, f"Mcp-Name differs from {member}")
    if version != MODERN:
        raise RpcError(UNSUPPORTED_VERSION, "unsupported version", {"supported": [MODERN], "requested": version})


def _decoded(value: str | None) -> str | None:
    encoded = None if value is None else _ENCODED.fullmatch(value)
    if encoded is None:
        return value
    try:
        return base64.b64decode(encoded[1], validate=True).decode("utf-8")
    except (binascii.Error, UnicodeDecodeError):
        return None
