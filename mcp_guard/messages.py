"""Reads the JSON-RPC messages of a response, wherever they are: in a JSON body, or in the events of a stream.

A stream is not held up: of it only the event that is not complete yet is kept. A message is shown to its reader before
the client can see the whole of it, so that a handle in it is bound before it can be used; the reader may change it.
An event that a stream breaks off in is none by the standard; it does not go out if it may hold such a message.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from mcp_guard import rejections
from mcp_guard.asgi import RawHeaders
from mcp_guard.protocol.event_stream import Blocks, Fields, data_of, read_fields, type_of, with_data, write_event
from mcp_guard.rejections import Rejection

MAX_MESSAGE_BYTES = 16 * 1024 * 1024
"""The longest message that is read; a longer one cannot be judged, and ends the response."""

ENCODER = json.JSONEncoder(allow_nan=False, separators=(",", ":"))
"""In ASCII, in which a lone surrogate of the app's has a spelling too."""

BLANKS = b" \t"
"""What may stand before the value of a field and is no part of it (RFC 9110 §5.5); some servers send it as it is."""

ESCAPED = b"\\u"
"""A member's name may be spelled with it, so a message that has it is read in any case."""


@dataclass(eq=False, kw_only=True)
class MessageRewrite(ABC):
    """A `Rewrite` of the messages of one response. Subclasses say in `marks` what a message must hold to concern them.

    A mark is part of a message's text, in ASCII: without any of them it passes unread and unchanged.
    """

    marks: ClassVar[tuple[bytes, ...]]

    wants_body: bool = False
    _blocks: Blocks | None = field(default=None, init=False)
    _whole: bytearray = field(init=False)

    @abstractmethod
    async def message(self, message: dict[str, Any]) -> dict[str, Any] | None:
        """Look at a message of the app. Answers what goes out in its place; None to leave it as it is.

        Raises:
            Rejection: it must not go out.
            Unavailable: that cannot be decided now.
        """

    async def event(self, fields: Fields) -> Fields | None:
        """Look at an event (only `message` events are read). Answers what goes out in its place, None for the same."""
        data = data_of(fields)
        if data is None or type_of(fields) != b"message":
            return None
        changed = await self._text(data)
        return None if changed is None else with_data(fields, changed)

    def on_start(self, status: int, headers: RawHeaders) -> RawHeaders:
        is_stream = is_event_stream(headers)
        self.wants_body = is_stream or _is_of_type(headers, b"application/json")
        if not self.wants_body:
            return headers
        self._blocks, self._whole = (Blocks() if is_stream else None), bytearray()
        return readable(headers)

    async def on_body(self, chunk: bytes, more: bool) -> bytes:
        if self._blocks is None:
            if not (more or self._whole or self.concerns(chunk)):
                return chunk
            return await self._json(chunk, more)
        return await self._stream(self._blocks, chunk, more)

    async def _json(self, chunk: bytes, more: bool) -> bytes:
        if more or self._whole:
            self._whole += chunk
            check_size(len(self._whole))
            if more:
                return b""
            chunk = bytes(self._whole)
        changed = await self._text(chunk)
        return chunk if changed is None else changed

    async def _stream(self, blocks: Blocks, chunk: bytes, more: bool) -> bytes:
        passed = [await self._block(block) for block in blocks.feed(chunk)]
        check_size(len(blocks.pending))
        if not more:
            rest = blocks.rest()
            passed.append(b"" if self.concerns(rest) else rest)
        return b"".join(passed)

    async def _block(self, block: bytes) -> bytes:
        if not self.concerns(block):
            return block
        changed = await self.event(read_fields(block))
        return block if changed is None else write_event(changed)

    def concerns(self, text: bytes) -> bool:
        """Whether a text may hold what this rewrite is about."""
        return ESCAPED in text or any(map(text.__contains__, self.marks))

    async def _text(self, text: bytes) -> bytes | None:
        """What goes out in place of a text; None when nothing changes."""
        if not text or not self.concerns(text):
            return None
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            raise _not_json() from None
        changed = await self._value(value)
        if changed is None:
            return None
        try:
            return ENCODER.encode(changed).encode()
        except ValueError:
            raise _not_json() from None

    async def _value(self, value: object) -> object:
        if isinstance(value, list):
            return await self._batch(value)
        return await self.message(value) if isinstance(value, dict) else None

    async def _batch(self, values: Sequence[Any]) -> list[Any] | None:
        changed = [await self._value(value) for value in values]
        if all(one is None for one in changed):
            return None
        return [old if new is None else new for old, new in zip(values, changed, strict=True)]


def is_event_stream(headers: RawHeaders) -> bool:
    """Whether a response with these fields is an event stream."""
    return _is_of_type(headers, b"text/event-stream")


def readable(headers: RawHeaders) -> RawHeaders:
    """The fields of a response whose body is read and may change: all but `Content-Length`.

    Raises:
        Rejection: the app encodes it, so that it cannot be read.
    """
    kept: RawHeaders = []
    for pair in headers:
        name = pair[0].lower()
        if name == b"content-encoding" and pair[1].lower() != b"identity":
            raise rejections.GUARD_FAULT.because("the app encodes its response, which cannot be judged then")
        if name != b"content-length":
            kept.append(pair)
    return kept


def check_size(held: int) -> None:
    """Refuse a message of which too many bytes are held already.

    Raises:
        Rejection: there are.
    """
    if held > MAX_MESSAGE_BYTES:
        raise rejections.GUARD_FAULT.because(f"a message of the app is longer than {MAX_MESSAGE_BYTES} bytes")


def _is_of_type(headers: RawHeaders, kind: bytes) -> bool:
    # Asked of every response by several layers; a loop takes less than any().
    for name, value in headers:
        if name.lower() == b"content-type" and value.lower().lstrip(BLANKS).startswith(kind):
            return True
    return False


def _not_json() -> Rejection:
    return rejections.GUARD_FAULT.because("a message of the app is not JSON")
