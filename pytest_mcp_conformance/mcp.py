"""MCP messages as each era writes them. Builds requests; sends nothing."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pytest_mcp_conformance.exchange import Header, Request

MODERN_REVISION = "2026-07-28"
LEGACY_REVISIONS = ("2025-03-26", "2025-06-18", "2025-11-25")
CLIENT_INFO = {"name": "pytest-mcp-conformance", "version": "0.1"}
_NAMED_BY = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}
_META = "io.modelcontextprotocol"
ACCEPT = "application/json, text/event-stream"


class Era(StrEnum):
    """A way of speaking MCP over HTTP."""

    MODERN = "modern"  # 2026-07-28: one self-contained POST per request
    LEGACY = "legacy"  # Streamable HTTP with initialize and Mcp-Session-Id
    SSE = "http+sse"  # 2024-11-05: a GET stream that names a POST endpoint


@dataclass(frozen=True)
class Message:
    """One JSON-RPC message with the headers its era wants beside it."""

    era: Era
    payload: Mapping[str, Any]
    headers: tuple[Header, ...]

    @property
    def method(self) -> str:
        return str(self.payload.get("method", ""))

    def request(self, url: str, *extra: Header) -> Request:
        """A POST of this message to `url`; `extra` headers replace those of the same name."""
        return Request("POST", url, self.headers, json.dumps(self.payload).encode()).with_headers(*extra)


def modern(
    method: str,
    params: Mapping[str, Any] | None = None,
    *,
    request_id: int | str | None = 1,
    revision: str = MODERN_REVISION,
) -> Message:
    """A request of the stateless era; a notification when `request_id` is None. Headers mirror the body."""
    meta = {
        f"{_META}/protocolVersion": revision,
        f"{_META}/clientInfo": CLIENT_INFO,
        f"{_META}/clientCapabilities": {},
    }
    body = dict(params or {})
    body["_meta"] = {**meta, **body.get("_meta", {})}
    headers: list[Header] = [
        *_plain_headers(),
        ("MCP-Protocol-Version", revision),
        ("Mcp-Method", header_value(method)),
    ]
    if method in _NAMED_BY and isinstance(body.get(_NAMED_BY[method]), str):
        headers.append(("Mcp-Name", header_value(body[_NAMED_BY[method]])))
    return Message(Era.MODERN, _payload(method, body, request_id), tuple(headers))


def legacy(
    method: str,
    params: Mapping[str, Any] | None = None,
    *,
    request_id: int | str | None = 1,
    session: str = "",
    revision: str = LEGACY_REVISIONS[-1],
) -> Message:
    """A request of the stateful era, inside `session` when given; a notification when `request_id` is None."""
    headers: list[Header] = _plain_headers()
    if method != "initialize":
        headers.append(("MCP-Protocol-Version", revision))
    if session:
        headers.append(("Mcp-Session-Id", session))
    return Message(Era.LEGACY, _payload(method, params, request_id), tuple(headers))


def response(request_id: int | str, result: Mapping[str, Any], *, session: str) -> Message:
    """The client's answer to a request of the server, inside a session of the stateful era."""
    payload = {"jsonrpc": "2.0", "id": request_id, "result": dict(result)}
    return Message(Era.LEGACY, payload, legacy("", session=session).headers)


def initialize(revision: str = LEGACY_REVISIONS[-1]) -> Message:
    """The handshake that opens a stateful session."""
    params = {"protocolVersion": revision, "capabilities": {}, "clientInfo": CLIENT_INFO}
    return legacy("initialize", params, revision=revision)


def sse(method: str, params: Mapping[str, Any] | None = None, *, request_id: int | str | None = 1) -> Message:
    """A request for the POST endpoint of HTTP+SSE; its answer comes on the stream."""
    return Message(Era.SSE, _payload(method, params, request_id), tuple(_plain_headers()))


def header_value(text: str) -> str:
    """`text` as MCP writes it into a header: as it is, or base64 in `=?base64?…?=` when it would not survive."""
    plain = text.isascii() and text.isprintable() and text == text.strip() and not text.startswith("=?base64?")
    return text if plain else f"=?base64?{base64.b64encode(text.encode()).decode()}?="


def _plain_headers() -> list[Header]:
    return [("Content-Type", "application/json"), ("Accept", ACCEPT)]


def _payload(method: str, params: Mapping[str, Any] | None, request_id: int | str | None) -> dict[str, Any]:
    payload: dict[str, Any] = {"jsonrpc": "2.0", "method": method}
    if request_id is not None:
        payload["id"] = request_id
    if params is not None:
        payload["params"] = dict(params)
    return payload
