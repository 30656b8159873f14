"""What a body asks, under which rules: JSON-RPC 2.0 and the revisions of MCP over HTTP.

A body is read once into `RpcMessage`s, and every decision is made on those. The revision is selected for each request
from its header and its body, never from what the connection did before; declaring an older one sheds no check.
"""

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeGuard

from mcp_guard import rejections
from mcp_guard.facts import Call, MessageKind, RpcMessage
from mcp_guard.rejections import Rejection

LEGACY_REVISIONS: Final = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
"""Revisions with an `initialize` handshake."""
MODERN_REVISIONS: Final = ("2026-07-28",)
"""Revisions in which each request stands alone and says its revision in header and body."""
REVISIONS: Final = LEGACY_REVISIONS + MODERN_REVISIONS

BATCHES_IN: Final = "2025-03-26"
"""The one revision in which servers must take batches; also the one to assume when no header says otherwise."""

VERSION_MEMBER: Final = "io.modelcontextprotocol/protocolVersion"
"""The member of `params._meta` that says a request's revision (2026-07-28 basic §Per-request fields)."""

NAME_MEMBERS: Final[Mapping[str, str]] = {
    "tools/call": "name",
    "prompts/get": "name",
    "resources/read": "uri",
    "resources/subscribe": "uri",
    "resources/unsubscribe": "uri",
    "tasks/get": "taskId",
    "tasks/update": "taskId",
    "tasks/cancel": "taskId",
    "tasks/result": "taskId",
}
"""The member of `params` that names what a method is about."""
NAME_REQUIRED: Final = frozenset({"tools/call", "prompts/get", "resources/read"})
"""Methods whose `Mcp-Name` must be there; for tasks only the extension asks for it, so it is compared when it is."""

MAX_ID_CHARACTERS: Final = 256
MAX_ID: Final = 2**63
MAX_METHOD_CHARACTERS: Final = 256
MAX_BATCH: Final = 50

_JUDGED: Final = frozenset({"_meta", "arguments", "notifications", "ref", "taskId"})
"""Members of `params` that layers decide on, whatever the method; `requestState` is judged by its own layer."""
_SPELLINGS: Final = frozenset({"_meta", "arguments", "notifications", "ref", "taskid", "task_id"})
"""The same as they are for a reader that ignores case, or that takes the Python name for a member's."""

_MEMBERS: Final = frozenset({"jsonrpc", "id", "method", "params", "result", "error"})
_FOLDED: Final = {member: member.casefold() for member in NAME_MEMBERS.values()}
_SENTINEL = re.compile(r"=\?base64\?(.*)\?=")
_REVISION = re.compile(r"[0-9A-Za-z.-]{1,32}")
_VISIBLE = re.compile(r"[\t -~]*")


class Headers(NamedTuple):
    """The fields that mirror the body, None when they are absent (2026-07-28 §Standard Request Headers)."""

    revision: str | None = None
    method: str | None = None
    name: str | None = None


def read_call(body: object, headers: Headers, revisions: Sequence[str] = REVISIONS) -> Call:
    """Read a parsed body under the rules of the revision that it and `headers` declare.

    `revisions` are those the deployment serves.

    Raises:
        Rejection: `not_json_rpc`, `batch`, `revision` or `header_body_mismatch`, each with the id of the request when
            it is one request with a readable id.
    """
    try:
        return _read_call(body, headers, revisions)
    except Rejection as rejection:
        rejection.request_id = readable_id(body)
        raise


def bodiless_call(revision: str | None, revisions: Sequence[str] = REVISIONS) -> Call:
    """The call of a request without a body: opening or ending what an earlier one began.

    Raises:
        Rejection: `revision`, when the header names one that is not served.
    """
    check_revision(revision, revisions)
    return Call((), revision, is_modern(revision))


def check_revision(revision: str | None, revisions: Sequence[str]) -> None:
    """Refuse a revision that is not served; None is for the era to judge.

    Raises:
        Rejection: `revision`, with the served ones in its data.
    """
    if revision is not None and revision not in revisions:
        shown = revision if _REVISION.fullmatch(revision) else ""
        data = {"supported": list(revisions), "requested": shown}
        raise rejections.REVISION.because("MCP-Protocol-Version names a revision that is not served", data=data)


def is_modern(revision: str | None) -> bool:
    """Whether the rules of 2026-07-28 and later apply. Revisions are dates and compare as text."""
    return revision is not None and revision >= MODERN_REVISIONS[0]


def readable_id(body: object) -> str | int | None:
    """The id of a body that is one request, for use in the answer to it; None when there is none to echo."""
    if isinstance(body, dict) and "method" in body:
        found = body.get("id")
        if _is_id(found):
            return found
    return None


def decode_header_value(value: str) -> str | None:
    """What a mirrored field says (2026-07-28 §Value Encoding): itself, or the UTF-8 text in `=?base64?…?=`.

    None when the wrapped part is not base64 in its one canonical form (RFC 4648 §3.5) or not UTF-8, or when the value
    has characters that must have been wrapped.
    """
    found = _SENTINEL.fullmatch(value)
    if found is None:
        return value if _VISIBLE.fullmatch(value) else None
    try:
        decoded = base64.b64decode(found[1], validate=True)
        return decoded.decode("utf-8") if base64.b64encode(decoded).decode("ascii") == found[1] else None
    except (binascii.Error, ValueError):
        return None


def _read_call(body: object, headers: Headers, revisions: Sequence[str]) -> Call:
    check_revision(headers.revision, revisions)
    if isinstance(body, list):
        return _read_batch(body, headers, revisions)
    message = _read_message(body)
    declared = _declared(message)
    if is_modern(headers.revision) or (declared is not None and declared not in LEGACY_REVISIONS):
        _check_modern(message, declared, headers, revisions)
        return Call((message,), headers.revision, modern=True)
    if declared is not None and headers.revision is not None and declared != headers.revision:
        raise _mismatch("MCP-Protocol-Version and the body name different revisions")
    _check_legacy(headers.revision, revisions)
    return Call((message,), headers.revision, modern=False)


def _read_batch(body: list[object], headers: Headers, revisions: Sequence[str]) -> Call:
    """Read an array of messages; each is judged on its own further in.

    Raises:
        Rejection: the revision has no batches, or the array is empty, too long or not of messages that may be in one.
    """
    if headers.revision not in (None, BATCHES_IN) or BATCHES_IN not in revisions:
        raise rejections.BATCH.because("the revision has no batches")
    if not 1 <= len(body) <= MAX_BATCH:
        raise rejections.BATCH.because(f"a batch has 1 to {MAX_BATCH} messages")
    messages = tuple(_read_message(member) for member in body)
    if any(message.method == "initialize" for message in messages):
        raise rejections.BATCH.because("initialize does not stand in a batch")
    if any(_declared(message) is not None for message in messages):
        raise rejections.BATCH.because("a message of a batch declares a revision of its own")
    return Call(messages, headers.revision, modern=False, batch=True)


def _read_message(value: object) -> RpcMessage:
    """One message (JSON-RPC 2.0 §4, §5).

    Raises:
        Rejection: it is none, or another reader could take it for a different one.
    """
    if not isinstance(value, dict) or value.get("jsonrpc") != "2.0":
        raise _invalid("not an object with jsonrpc 2.0")
    if not _MEMBERS.issuperset(value):
        _check_variants(value)
    if "method" in value:
        return _read_request(value)
    if ("result" in value) == ("error" in value):
        raise _invalid("neither a request nor a response with either a result or an error")
    return _read_response(value)


def _read_request(value: dict[str, Any]) -> RpcMessage:
    method, params = value["method"], value.get("params", {})
    if not isinstance(method, str) or not 1 <= len(method) <= MAX_METHOD_CHARACTERS or not method.isprintable():
        raise _invalid("the method is no name")
    if not isinstance(params, dict):
        raise _invalid("params is no object")
    if any(name not in _JUDGED and name.casefold() in _SPELLINGS for name in params):
        raise _invalid("a member of params is another one in different spelling")
    if "result" in value or "error" in value:
        raise _invalid("both a request and a response")
    if "id" not in value:
        return RpcMessage(MessageKind.NOTIFICATION, method, None, _name(method, params), params)
    known = value["id"]
    if not _is_id(known):
        raise _invalid("the id is neither a string nor an integer within bounds")
    return RpcMessage(MessageKind.REQUEST, method, known, _name(method, params), params)


def _read_response(value: dict[str, Any]) -> RpcMessage:
    known, error = value.get("id"), value.get("error")
    if "id" not in value or not (_is_id(known) or (known is None and "error" in value)):
        raise _invalid("a response without the id of a request")
    if "error" in value and not (
        isinstance(error, dict) and type(error.get("code")) is int and isinstance(error.get("message"), str)
    ):
        raise _invalid("an error without code and message")
    return RpcMessage(MessageKind.RESPONSE, None, known, None)


def _is_id(value: object) -> TypeGuard[str | int]:
    if isinstance(value, str):
        return len(value) <= MAX_ID_CHARACTERS
    return type(value) is int and -MAX_ID <= value < MAX_ID


def _name(method: str, params: dict[str, Any]) -> str | None:
    member = NAME_MEMBERS.get(method)
    if member is None:
        return None
    for other in params:
        if other != member and other.casefold() == _FOLDED[member]:
            raise _invalid("a member of params is its name in different case")
    found = params.get(member)
    return found if isinstance(found, str) else None


def _check_variants(value: dict[str, Any]) -> None:
    """Refuse a member that a reader which ignores case takes for one of JSON-RPC's.

    Raises:
        Rejection: there is one.
    """
    for name in value:
        if name not in _MEMBERS and name.casefold() in _MEMBERS:
            raise _invalid("a member is another one in different case")


def _declared(message: RpcMessage) -> object:
    """What the body says of its revision; None when it says nothing, which modern requests may not."""
    meta = message.params.get("_meta")
    if not isinstance(meta, dict) or VERSION_MEMBER not in meta:
        return None
    declared = meta[VERSION_MEMBER]
    return declared if isinstance(declared, str) else ""


def _check_modern(message: RpcMessage, declared: object, headers: Headers, revisions: Sequence[str]) -> None:
    """The equality of header and body (2026-07-28 basic/transports/streamable-http §Server Validation).

    Raises:
        Rejection: they are not equal, or the message is of a kind that clients do not send.
    """
    if message.kind is MessageKind.RESPONSE:
        raise _invalid("clients send no responses in this revision")
    is_request = message.kind is MessageKind.REQUEST
    if headers.revision is None or (declared != headers.revision and (is_request or declared is not None)):
        data = {"supported": list(revisions)}
        raise _mismatch("MCP-Protocol-Version is not what the body says", data)
    if headers.method != message.method and (is_request or headers.method is not None):
        raise _mismatch("Mcp-Method is not the method of the body")
    if is_request and message.method in NAME_MEMBERS:
        _check_name(message, headers.name)


def _check_name(message: RpcMessage, mirrored: str | None) -> None:
    if mirrored is None:
        if message.name is not None and message.method in NAME_REQUIRED:
            raise _mismatch("Mcp-Name is missing")
        return
    decoded = decode_header_value(mirrored)
    if decoded is None or decoded != message.name:
        raise _mismatch("Mcp-Name is not the name in the body")


def _check_legacy(revision: str | None, revisions: Sequence[str]) -> None:
    if revision is None and not any(served in LEGACY_REVISIONS for served in revisions):
        raise _mismatch("MCP-Protocol-Version is missing", {"supported": list(revisions)})


def _invalid(reason: str) -> Rejection:
    return rejections.NOT_JSON_RPC.because(reason)


def _mismatch(reason: str, data: Mapping[str, Any] | None = None) -> Rejection:
    return rejections.HEADER_BODY_MISMATCH.because(reason, data=data)
