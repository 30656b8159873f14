"""What two workers say to each other: frames, each with its kind, sealed once both sides have proved themselves.

On the wire a frame is the length of its content (4 bytes, big-endian), its kind (1 byte) and the content. A sealed
content is encrypted and authenticated together with its kind (AES-256-GCM, NIST SP 800-38D); each direction has a key
of its own, and its nonce is the number of the frame. A frame that was changed, repeated, left out, moved or sent back
does not open.
"""

import struct
from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

HEAD = struct.Struct(">IB")
MAX_CONTENT_BYTES = 8 * 1024 * 1024
"""The longest content between workers that know each other; an `OPEN` grows with the messages of a batch."""
MAX_STRANGER_BYTES = 512
"""The longest content before both sides have proved themselves."""
PART_BYTES = 64 * 1024
"""A longer part of a body is sent in several frames."""


class Kind(IntEnum):
    """What a frame is."""

    HELLO = 1
    WELCOME = 2
    CONFIRM = 3
    OPEN = 4
    """A request: its scope and its facts."""
    BODY = 5
    BODY_END = 6
    START = 7
    """The status and the fields of the response."""
    CHUNK = 8
    CHUNK_END = 9
    END = 10
    """The app is done, whether its response is whole or not; the connection is free for another request."""


class Frame(NamedTuple):
    """One frame; `kind` is a number that may be none of `Kind`."""

    kind: int
    content: bytes


@dataclass(eq=False, slots=True)
class Seal:
    """One direction of a connection."""

    key: bytes = field(repr=False)
    number: int = 0
    aead: AESGCM = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.aead = AESGCM(self.key)

    def close(self, frame: Frame) -> Frame:
        """The next frame, sealed."""
        return Frame(frame.kind, self.aead.encrypt(self._nonce(), frame.content, bytes((frame.kind,))))

    def open(self, frame: Frame) -> Frame | None:
        """The next frame, opened; None when it is not what the other side sent next."""
        try:
            return Frame(frame.kind, self.aead.decrypt(self._nonce(), frame.content, bytes((frame.kind,))))
        except InvalidTag:
            return None

    def _nonce(self) -> bytes:
        self.number += 1
        return self.number.to_bytes(12, "big")


def parts(body: bytes, more: bool, going_on: Kind, ending: Kind) -> list[Frame]:
    """The frames of a part of a body; the last of the body is of the kind `ending`."""
    pieces = (
        [body[at : at + PART_BYTES] for at in range(0, len(body), PART_BYTES)] if len(body) > PART_BYTES else [body]
    )
    frames = [Frame(going_on, piece) for piece in pieces]
    if not more:
        frames[-1] = Frame(ending, pieces[-1])
    return frames
