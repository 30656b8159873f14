"""The part of the event stream format (WHATWG HTML §9.2) that a guard needs: the first event of a stream, and each one.

An HTTP+SSE stream (MCP 2024-11-05) opens with an `endpoint` event that names the URL for the client's messages. The
streams of later revisions carry one JSON-RPC message in the data of each event.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

MAX_FIRST_EVENT_BYTES = 8 * 1024
"""A first event longer than this is no endpoint event."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event: its type (`message` when the stream names none) and its data."""

    type: str
    data: str


@dataclass(slots=True)
class FirstEvent:
    """Reads chunks until the first event is complete. `done` is True when there is nothing more to learn."""

    pending: bytearray = field(default_factory=bytearray)
    done: bool = False

    def feed(self, chunk: bytes) -> Event | None:
        """Take a chunk in. Answers the first event once, when the blank line after it has arrived."""
        if self.done:
            return None
        self.pending += chunk
        event = self._read()
        if event is not None or len(self.pending) > MAX_FIRST_EVENT_BYTES:
            self.done = True
            self.pending.clear()
        return event

    def _read(self) -> Event | None:
        # CRLF, LF and CR all end a line. A CR at the very end does so too, even as the first half of a CRLF.
        text = bytes(self.pending).removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *blocks, _ = text.split(b"\n\n")
        return next((event for event in map(_event, blocks) if event is not None), None)


def _event(block: bytes) -> Event | None:
    """The event of a block of lines; None when it has no data, as a block of comments has none."""
    kind, data = "message", []
    for line in block.decode("utf-8", errors="replace").split("\n"):
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            kind = value
        elif name == "data":
            data.append(value)
    return Event(kind or "message", "\n".join(data)) if data else None


Fields: TypeAlias = list[tuple[bytes, bytes]]
"""The lines of an event as names and values, in order; a comment has the empty name."""

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_END = re.compile(rb"(?>\r\n|\n|\r){2}")
_LINE_END = re.compile(rb"\r\n|\n|\r")


@dataclass(slots=True)
class Blocks:
    """Cuts a stream into events, byte for byte: each block ends with the blank line that ends the event.

    The byte order mark that a stream may begin with is left out: it is part of no line.
    """

    pending: bytearray = field(default_factory=bytearray)
    begun: bool = False

    def feed(self, chunk: bytes) -> list[bytes]:
        """Take a chunk in. Answers the events that are complete now."""
        # What was there before holds no end of a block; one may begin with its last byte.
        searched = max(0, len(self.pending) - 1)
        self.pending += chunk
        blocks: list[bytes] = []
        begin = 0
        while (found := _END.search(self.pending, max(begin, searched))) is not None:
            blocks.append(bytes(self.pending[begin : found.end()]))
            begin = found.end()
        if blocks and not self.begun:
            self.begun = True
            blocks[0] = blocks[0].removeprefix(_BYTE_ORDER_MARK)
        del self.pending[:begin]
        return blocks

    def rest(self) -> bytes:
        """What is left at the end of the stream; by the standard it is no event."""
        left = bytes(self.pending)
        self.pending.clear()
        return left


def read_fields(block: bytes) -> Fields:
    """The lines of an event."""
    fields: Fields = []
    for line in _LINE_END.split(block):
        if line:
            name, _, value = line.partition(b":")
            fields.append((name, value.removeprefix(b" ")))
    return fields


def type_of(fields: Sequence[tuple[bytes, bytes]]) -> bytes:
    """The type of an event: what the last line that names one says, `message` when none does or it is empty."""
    named = [value for name, value in fields if name == b"event"]
    return (named[-1] if named else b"") or b"message"


def data_of(fields: Sequence[tuple[bytes, bytes]]) -> bytes | None:
    """The data of an event, its lines joined; None when it has none."""
    lines = [value for name, value in fields if name == b"data"]
    return b"\n".join(lines) if lines else None


def with_data(fields: Sequence[tuple[bytes, bytes]], data: bytes) -> Fields:
    """The same event with other data, in the place of its first line of data."""
    first = next((place for place, (name, _) in enumerate(fields) if name == b"data"), len(fields))
    lines: Fields = [(b"data", line) for line in _LINE_END.split(data)]
    return [*fields[:first], *lines, *[pair for pair in fields[first:] if pair[0] != b"data"]]


def write_event(fields: Sequence[tuple[bytes, bytes]]) -> bytes:
    """An event with these lines, and the blank line that ends it."""
    return b"".join([name + b": " + value + b"\n" for name, value in fields]) + b"\n"
