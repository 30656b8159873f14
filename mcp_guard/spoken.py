"""One message of a client on a WebSocket, as the POST that it is judged as.

What a POST says in header fields beside its body is taken from the message itself: on a socket there is nobody who
could say something else there.
"""

import asyncio
import base64
from dataclasses import dataclass, field
from typing import Any, Final

from mcp_guard.asgi import Message, RawHeaders, Scope
from mcp_guard.protocol.mcp import MODERN_REVISIONS, NAME_MEMBERS, VERSION_MEMBER
from mcp_guard.protocol.strict_json import JsonError, loads

MIRRORED: Final = frozenset({b"content-encoding", b"mcp-method", b"mcp-name", b"mcp-protocol-version"})
"""Fields of the handshake that say nothing of the messages."""
ENCODED: Final = "=?base64?"


@dataclass(eq=False, slots=True)
class Spoken:
    """The message, and what comes of it.

    `taken` is set when the app has it, `judged` once the next message may be judged, `done` at the end.
    """

    data: bytes
    taken: asyncio.Event = field(default_factory=asyncio.Event)
    judged: asyncio.Event = field(default_factory=asyncio.Event)
    done: asyncio.Event = field(default_factory=asyncio.Event)
    answer: asyncio.Future[bytes] = field(default_factory=asyncio.Future)
    status: int = 0
    body: bytearray = field(default_factory=bytearray)
    complete: bool = False
    read: bool = False

    async def receive(self) -> Message:
        """The body of the POST; after it the client stays until there is an answer."""
        if self.read:
            await self.done.wait()
            return {"type": "http.disconnect"}
        self.read = True
        return {"type": "http.request", "body": self.data, "more_body": False}

    async def send(self, message: Message) -> None:
        """The response to the POST."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
        else:
            self.body += message.get("body", b"")
            self.complete = not message.get("more_body", False)


def as_post(scope: Scope, data: bytes, revision: str | None) -> dict[str, Any]:
    """The request for a message on the socket that `scope` opened, under the `revision` that was agreed on there."""
    headers = [(name, value) for name, value in scope["headers"] if name not in MIRRORED]
    length = (b"content-length", str(len(data)).encode())
    said = [*headers, (b"content-type", b"application/json"), length, *mirrored(data, revision)]
    return {**scope, "method": "POST", "headers": said}


def mirrored(data: bytes, revision: str | None) -> RawHeaders:
    """The fields that mirror a message (MCP 2026-07-28 §Standard Request Headers); those that cannot be are left out,
    and the message is refused for it.
    """
    try:
        value = loads(data)
    except JsonError:
        return []
    params = value.get("params") if isinstance(value, dict) else None
    params = params if isinstance(params, dict) else {}
    meta = params.get("_meta")
    declared = meta.get(VERSION_MEMBER) if isinstance(meta, dict) else None
    if declared not in MODERN_REVISIONS:
        return [] if revision is None else [(b"mcp-protocol-version", revision.encode())]
    method = value.get("method")
    fields: RawHeaders = [(b"mcp-protocol-version", declared.encode())]
    if isinstance(method, str):
        if is_plain(method):
            fields.append((b"mcp-method", method.encode()))
        name = params.get(NAME_MEMBERS.get(method, ""))
        if isinstance(name, str):
            fields.append((b"mcp-name", written(name)))
    return fields


def is_plain(text: str) -> bool:
    """Whether a field can carry a text as it is."""
    return text.isascii() and text.isprintable() and text == text.strip() and not text.startswith(ENCODED)


def written(text: str) -> bytes:
    """A text as a field carries it (MCP 2026-07-28 §Value Encoding)."""
    if is_plain(text):
        return text.encode()
    return f"{ENCODED}{base64.b64encode(text.encode('utf-8', 'surrogatepass')).decode()}?=".encode()
