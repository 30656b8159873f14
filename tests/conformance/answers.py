"""Exchanges that were never sent, for what judges them."""

from __future__ import annotations

import json
from typing import Any

from pytest_mcp_conformance.exchange import Exchange, Request, Response

REQUEST = Request("POST", "http://127.0.0.1:9/mcp")


def answered(status: int, *headers: tuple[str, str], body: Any = b"", request: Request = REQUEST) -> Exchange:
    """An exchange with this answer; a body that is not bytes is sent as JSON."""
    fields = headers
    if not isinstance(body, bytes):
        body, fields = json.dumps(body).encode(), (*headers, ("Content-Type", "application/json"))
    return Exchange(1, request, Response(status, "", fields, body))


def unanswered(failure: str = "reset") -> Exchange:
    return Exchange(1, REQUEST, None, failure)


RESULT = {"jsonrpc": "2.0", "id": 1, "result": {"tools": []}}


def rpc_error(code: int) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "error": {"code": code, "message": "no"}}
