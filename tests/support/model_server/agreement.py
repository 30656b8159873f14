"""What the headers of a request in the stateless era repeat of its body (SEP-2243)."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable

from starlette.requests import Request

from tests.support.model_server.keys import JSON
from tests.support.model_server.protocol import (
    HEADER_MISMATCH,
    INVALID_PARAMS,
    META_CAPABILITIES,
    META_VERSION,
    MODERN,
    UNSUPPORTED_VERSION,
    RpcError,
    meta_of,
    params_of,
)

ROUTING = ("mcp-protocol-version", "mcp-method", "mcp-name")
NAMED = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}
_ENCODED = re.compile(r"=\?base64\?([A-Za-z0-9+/]*={0,2})\?=")
_LENIENTLY = re.compile(r"=\?base64\?(.*)\?=")


def check_agreement(request: Request, message: JSON, has: Callable[[str], bool]) -> None:
    """Headers and `_meta` must say the same thing, once.

    Raises:
        RpcError: -32602 when `_meta` is incomplete, -32020 on disagreement, -32022 for an unknown version.
    """
    for name in ROUTING:
        if len(request.headers.getlist(name)) > 1 and not has("first_of_two_headers_counts"):
            raise RpcError(HEADER_MISMATCH, f"{name} is sent twice")
    meta = meta_of(message)
    if META_VERSION not in meta or META_CAPABILITIES not in meta:
        raise RpcError(INVALID_PARAMS, "_meta lacks the protocol version or the client's capabilities")
    version = meta[META_VERSION]
    if request.headers.get("mcp-protocol-version", MODERN) != version:
        if has("version_in_body_ignored"):
            return
        raise RpcError(HEADER_MISMATCH, "MCP-Protocol-Version differs from _meta")
    if not _same_method(request.headers.get("mcp-method"), message["method"], has):
        raise RpcError(HEADER_MISMATCH, "Mcp-Method differs from the method")
    member = NAMED.get(message["method"])
    if member is not None and not _same_name(request.headers.get("mcp-name"), params_of(message).get(member), has):
        raise RpcError(HEADER_MISMATCH, f"Mcp-Name differs from {member}")
    if version != MODERN:
        raise RpcError(UNSUPPORTED_VERSION, "unsupported version", {"supported": [MODERN], "requested": version})


def _same_method(header: str | None, method: str, has: Callable[[str], bool]) -> bool:
    if header is None:
        return has("method_header_optional")
    header = header.strip(" \t")
    return header == method or (has("method_header_case_blind") and header.lower() == method.lower())


def _same_name(header: str | None, name: object, has: Callable[[str], bool]) -> bool:
    if header is None and has("name_header_optional"):
        return True
    if header is None or has("encoded_names_refused"):
        return header == name
    strictly = not has("encoded_names_read_leniently")
    encoded = (_ENCODED if strictly else _LENIENTLY).fullmatch(header)
    if encoded is None:
        return header == name
    try:
        return base64.b64decode(encoded[1], validate=strictly).decode("utf-8") == name
    except (binascii.Error, UnicodeDecodeError):
        return False
