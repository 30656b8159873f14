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
