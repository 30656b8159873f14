"""The part of the event stream format (WHATWG HTML §9.2) that a guard needs: the first event of a stream.

An HTTP+SSE stream (MCP 2024-11-05) opens with an `endpoint` event that names the URL for the client's messages.
"""

from dataclasses import dataclass, field

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
        # CRLF, LF and CR all end a line; a CR at the very end may be the first half of a CRLF.
        text = bytes(self.pending).removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n")
        if not text.endswith(b"\r"):
            text = text.replace(b"\r", b"\n")
        while True:
            block, separator, rest = text.partition(b"\n\n")
            if not separator:
                self.done = len(self.pending) > MAX_FIRST_EVENT_BYTES
                return None
            event = _event(block)
            if event is not None:
                self.done = True
                return event
            text = rest


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
    return Event(kind, "\n".join(data)) if data else None
