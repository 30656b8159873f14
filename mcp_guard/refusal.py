"""What a client reads of a refusal."""

import json
from typing import Any

from mcp_guard import rejections
from mcp_guard.asgi import RawHeaders
from mcp_guard.facts import Call
from mcp_guard.failures import Unavailable
from mcp_guard.rejections import Kind, Rejection

ENCODER = json.JSONEncoder(separators=(",", ":"))
RETRY_SOON: RawHeaders = [(b"retry-after", b"1")]

FIELDS: RawHeaders = [
    (b"content-type", b"application/json"),
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
]
"""What every refusal says of itself, also where no layer further out does."""


def guard_fault() -> Rejection:
    """The refusal for a defect of a layer."""
    return rejections.GUARD_FAULT.because("a guard layer failed", RETRY_SOON)


def unavailable(fault: Unavailable) -> Rejection:
    """The refusal for something that cannot decide now."""
    return rejections.UNAVAILABLE.because(fault.reason, [(b"retry-after", str(fault.retry_after_seconds).encode())])


def body_of(rejection: Rejection, call: Call | None) -> bytes:
    """What the client reads: a JSON-RPC error where the kind has a code, an OAuth error otherwise."""
    kind: Kind = rejection.kind
    if kind.code is None:
        return _json({"error": kind.error or kind.slug, "error_description": kind.description})
    return jsonrpc_error(rejection, call)


def jsonrpc_error(rejection: Rejection, call: Call | None) -> bytes:
    """The refusal as a JSON-RPC error; of a kind without a code, as one of those of JSON-RPC 2.0 §5.1."""
    kind = rejection.kind
    code = kind.code or (rejections.INTERNAL_ERROR if kind.status >= 500 else rejections.INVALID_REQUEST)
    known = call.request_id if call is not None else rejection.request_id
    error: dict[str, Any] = {"code": code, "message": kind.description}
    if rejection.data is not None:
        error["data"] = dict(rejection.data)
    return _json({"jsonrpc": "2.0", "id": known, "error": error})


def _json(value: object) -> bytes:
    return ENCODER.encode(value).encode()
