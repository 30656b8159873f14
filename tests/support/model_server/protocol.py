"""JSON-RPC 2.0 messages as MCP uses them, and the revisions this server speaks."""

from __future__ import annotations

import traceback
from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tests.support.model_server.keys import JSON
from tests.support.model_server.reading import BODY_BYTES, Reader, TooLarge

MODERN = "2026-07-28"
LEGACY = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
META_VERSION = "io.modelcontextprotocol/protocolVersion"
META_CAPABILITIES = "io.modelcontextprotocol/clientCapabilities"
META_CLIENT = "io.modelcontextprotocol/clientInfo"
META_SERVER = "io.modelcontextprotocol/serverInfo"
SERVER_INFO: JSON = {"name": "model-server", "version": "1.0.0"}

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
HEADER_MISMATCH = -32020
UNSUPPORTED_VERSION = -32022
HTTP_STATUS = {METHOD_NOT_FOUND: 404}


class RpcError(Exception):
    """A JSON-RPC error; `status` is the HTTP status the stateless era gives it."""

    def __init__(self, code: int, message: str, data: object = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.data = data

    @property
    def status(self) -> int:
        return HTTP_STATUS.get(self.code, 400)

    def body(self, request_id: object) -> JSON:
        error: JSON = {"code": self.code, "message": self.message}
        if self.data is not None:
            error["data"] = self.data
        return {"jsonrpc": "2.0", "id": request_id, "error": error}

    def response(self, request_id: object = None, status: int | None = None) -> Response:
        return JSONResponse(self.body(request_id), status or self.status)


class OverBound(RpcError):
    """A message that is larger than this server reads."""

    @property
    def status(self) -> int:
        return 413


def result(request_id: object, value: JSON) -> JSON:
    return {"jsonrpc": "2.0", "id": request_id, "result": value}


def params_of(message: JSON) -> JSON:
    params = message.get("params")
    return params if isinstance(params, dict) else {}


def meta_of(message: JSON) -> JSON:
    meta = params_of(message).get("_meta")
    return meta if isinstance(meta, dict) else {}


def is_request(message: JSON) -> bool:
    return "method" in message and "id" in message


def is_notification(message: JSON) -> bool:
    return "method" in message and "id" not in message


async def read_message(request: Request) -> JSON:
    """The one JSON-RPC message in the body.

    Raises:
        RpcError: not JSON, ambiguous, a batch, or no JSON-RPC message.
    """
    reader: Reader = request.state.reader
    try:
        message = await reader.value(request)
    except TooLarge:
        raise OverBound(INVALID_REQUEST, "the body is too large") from None
    except ValueError:
        raise RpcError(PARSE_ERROR, _inner("the body is no unambiguous JSON text", reader.has)) from None
    if isinstance(message, list) and len(message) == 1 and reader.has("array_of_one_is_served"):
        message = message[0]
    is_marked = isinstance(message, dict) and (message.get("jsonrpc") == "2.0" or reader.has("jsonrpc_member_ignored"))
    if not is_marked:
        raise RpcError(INVALID_REQUEST, "the body is no single JSON-RPC message")
    if "method" in message:
        if not isinstance(message["method"], str) or not isinstance(message.get("params", {}), dict):
            raise RpcError(INVALID_REQUEST, "method or params has the wrong type")
        if "id" in message and not _is_id(message["id"]) and not reader.has("any_id_is_served"):
            raise RpcError(INVALID_REQUEST, "id has the wrong type")
    elif "id" not in message or ("result" in message) == ("error" in message):
        raise RpcError(INVALID_REQUEST, "the body is neither request, notification nor response")
    return dict(message)


def _is_id(value: object) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool)


def _inner(text: str, has: Callable[[str], bool]) -> str:
    """The words of an error, with what a fault adds to them."""
    if has("errors_hold_a_traceback"):
        return f"{text}: {traceback.format_exc()}"
    return f"{text} (/srv/model/app/reading.py:74)" if has("errors_hold_a_path") else text


def refuse_form(request: Request) -> Response | None:
    """406, 413 or 415 when a POST is not of the form that the transport asks for."""
    accept = request.headers.get("accept", "")
    if "*/*" not in accept and not ("application/json" in accept and "text/event-stream" in accept):
        return JSONResponse({"error": "accept both application/json and text/event-stream"}, 406)
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        return JSONResponse({"error": "send application/json"}, 415)
    length = request.headers.get("content-length", "0")
    if request.state.reader.has("body_unbounded"):
        return None
    return JSONResponse({"error": "too large"}, 413) if length.isdecimal() and int(length) > BODY_BYTES else None
