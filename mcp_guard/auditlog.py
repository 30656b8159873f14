"""The audit log: JSON lines, each holding the hash of the line before it.

A line is a JSON object with `seq` (counting from 1), `prev` (SHA-256 of the previous line in hexadecimal, 64 zeros for
the first) and the record. Changing, removing, inserting or swapping lines breaks the chain at that place. A chain alone
cannot show that its end was cut off: keep the head (`seq` and hash) elsewhere and give it to `verify`.
"""

import hashlib
import json
import logging
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from json.encoder import encode_basestring_ascii
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from mcp_guard.failures import AuditUnavailable, ConfigurationError
from mcp_guard.secret import fingerprint

logger = logging.getLogger("mcp_guard")

GENESIS = "0" * 64
MAX_FIELD_CHARACTERS = 256
"""Longer texts in a record are cut, and their length and fingerprint noted."""

TAIL_BYTES = 64 * 1024
"""How much of the end of a file is read at first to find its last line."""

OPENING = b'{"seq":'
"""How every line begins."""


class Head(NamedTuple):
    """The last line of a chain: its number and its hash."""

    seq: int
    hash: str


class SinkTaken(ConfigurationError):
    """Another process appends to the same file: two could not keep one chain."""


class Sink(Protocol):
    """Where lines go. A line is written whole or not at all, as far as the medium can promise."""

    def open(self) -> Head:
        """Open for appending and read where the chain stands.

        Raises:
            ConfigurationError: it cannot be written, or does not end in a whole line of a chain.
        """

    def write(self, line: bytes) -> None:
        """Append one line, which ends in a newline.

        Raises:
            OSError: it was not written.
        """

    def close(self) -> None:
        """Let go."""


@dataclass(eq=False)
class FileSink:
    """A file that is only appended to, readable and writable by its owner, and locked while it is open.

    A torn line at its end, left by a crash or a full disk, is cut off: the response it was to record never went out.
    """

    path: Path
    _descriptor: int | None = field(default=None, init=False)

    def open(self) -> Head:
        try:
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
            self._lock(self._descriptor)
            return self._resume(self._descriptor)
        except OSError as error:
            self.close()
            raise ConfigurationError(f"audit file {self.path}: {error.strerror}") from error
        except ConfigurationError:
            self.close()
            raise

    def _lock(self, descriptor: int) -> None:
        if sys.platform == "win32":
            return
        import fcntl

        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SinkTaken(f"audit file {self.path}: another process writes it") from None

    def _resume(self, descriptor: int) -> Head:
        size = os.fstat(descriptor).st_size
        last, torn = _last_line(descriptor, size)
        head = _head(last) if last else Head(0, GENESIS)
        if head is None or not torn.startswith(OPENING[: len(torn)]):
            raise ConfigurationError(f"audit file {self.path}: does not end in a line of an audit log")
        if torn:
            logger.warning("audit file %s: a torn line of %d bytes at its end is cut off", self.path, len(torn))
            os.ftruncate(descriptor, size - len(torn))
        return head

    def write(self, line: bytes) -> None:
        if self._descriptor is None:
            raise OSError("the audit file is not open")
        written = os.write(self._descriptor, line)
        if written != len(line):
            os.ftruncate(self._descriptor, os.fstat(self._descriptor).st_size - written)
            raise OSError(f"only {written} of {len(line)} bytes were written")

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


@dataclass(eq=False)
class MemorySink:
    """Lines in a list, for tests and for reading one's own records."""

    lines: list[bytes] = field(default_factory=list)

    def open(self) -> Head:
        return Head(len(self.lines), _hash(self.lines[-1]) if self.lines else GENESIS)

    def write(self, line: bytes) -> None:
        self.lines.append(line)

    def close(self) -> None:
        """Nothing to let go of."""

    def records(self) -> list[dict[str, Any]]:
        """The lines, parsed."""
        return [json.loads(line) for line in self.lines]


class NullSink:
    """Nowhere: records are chained and dropped. For a demo; never for a deployment."""

    def open(self) -> Head:
        return Head(0, GENESIS)

    def write(self, line: bytes) -> None:
        """Drop the line."""

    def close(self) -> None:
        """Nothing to let go of."""


@dataclass(eq=False)
class DescriptorSink:
    """An open file descriptor, such as that of standard error; its chain starts anew with the process."""

    descriptor: int = 2

    def open(self) -> Head:
        return Head(0, GENESIS)

    def write(self, line: bytes) -> None:
        while line:
            line = line[os.write(self.descriptor, line) :]

    def close(self) -> None:
        """The descriptor is not ours to close."""


@dataclass(eq=False)
class AuditLog:
    """Chains records and writes them. One log writes to one sink; it is not shared between processes."""

    sink: Sink
    head: Head | None = field(default=None, init=False)

    async def start(self) -> None:
        """Open the sink.

        Raises:
            ConfigurationError: it cannot be written.
        """
        if self.head is None:
            self.head = self.sink.open()

    async def close(self) -> None:
        """Close the sink."""
        self.sink.close()
        self.head = None

    def write(self, record: Mapping[str, Any]) -> None:
        """Append a record.

        Raises:
            AuditUnavailable: it was not written; the chain stands where it stood.
        """
        self.write_members(json.dumps(record, separators=(",", ":"))[1:-1])

    def write_members(self, members: str) -> None:
        """Append a record that is spelled already: the members of a JSON object, in ASCII, without line breaks.

        Raises:
            AuditUnavailable: it was not written; the chain stands where it stood.
        """
        if self.head is None:
            raise AuditUnavailable("the audit log is not open")
        seq = self.head.seq + 1
        comma = "," if members else ""
        line = f'{{"seq":{seq},"prev":"{self.head.hash}"{comma}{members}}}\n'.encode("ascii")
        try:
            self.sink.write(line)
        except OSError as error:
            raise AuditUnavailable(f"the audit record was not written: {error.strerror or error}") from error
        self.head = Head(seq, _hash(line))


@dataclass(frozen=True, slots=True)
class Flaw:
    """The first place where a chain is broken; `line` counts from 1."""

    line: int
    problem: str


def verify(lines: Iterable[bytes], expected: Head | None = None) -> Head | Flaw:
    """Follow a chain from its first line. Answers its head, or the first flaw.

    With `expected`, a head kept elsewhere, a chain that was cut off before it is a flaw too.
    """
    head = Head(0, GENESIS)
    passed = expected is None or expected == head
    number = 0
    for number, line in enumerate(lines, start=1):
        if not line.endswith(b"\n"):
            return Flaw(number, "the line is torn")
        try:
            record = json.loads(line)
            seq, prev = record["seq"], record["prev"]
        except (ValueError, TypeError, KeyError, RecursionError):
            return Flaw(number, "not a record of a chain")
        if prev != head.hash:
            return Flaw(number, "does not follow the line before it")
        if seq != head.seq + 1:
            return Flaw(number, f"has number {seq} where {head.seq + 1} is due")
        head = Head(seq, _hash(line))
        passed = passed or head == expected
    if not passed:
        return Flaw(number + 1, "the chain does not contain the expected head: its end was cut off or replaced")
    return head


def short(text: str) -> str:
    """`text` for a record: as it is, or cut with its length and fingerprint."""
    if len(text) <= MAX_FIELD_CHARACTERS:
        return text
    return f"{text[:MAX_FIELD_CHARACTERS]}… ({len(text)} characters, sha256:{fingerprint(text)})"


def spelled(text: str | None) -> str:
    """`text` as JSON in ASCII, cut to what a record may hold."""
    if text is None:
        return "null"
    return encode_basestring_ascii(text if len(text) <= MAX_FIELD_CHARACTERS else short(text))


def _hash(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()


def _head(line: bytes) -> Head | None:
    """The head of a chain that ends in `line`; None when it is no record of a chain."""
    try:
        seq = json.loads(line)["seq"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return Head(seq, _hash(line)) if isinstance(seq, int) and line.startswith(OPENING) else None


def _last_line(descriptor: int, size: int) -> tuple[bytes, bytes]:
    """The last whole line of a file of `size` bytes (empty when there is none), and what stands after it."""
    window = 0
    while True:
        window = min(size, max(TAIL_BYTES, 2 * window))
        os.lseek(descriptor, size - window, os.SEEK_SET)
        lines, newline, torn = os.read(descriptor, window).rpartition(b"\n")
        if b"\n" in lines or window == size:
            return (lines.rpartition(b"\n")[2] + newline), torn
