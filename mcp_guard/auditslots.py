"""Audit files for several workers: each worker has a chain of its own, in a file that no other one writes."""

from dataclasses import dataclass, field
from pathlib import Path

from mcp_guard.auditlog import FileSink, Head, SinkTaken


@dataclass(eq=False)
class SlotSink:
    """The first file that no other process writes, of `slots` files beside `path`: `audit.1.jsonl`, `audit.2.jsonl`, …

    A worker that takes the place of one that ended goes on with its file, so that there are never more files than
    workers, but for those that overlap while one takes the place of another: they may be one more.
    """

    path: Path
    slots: int
    _file: FileSink | None = field(default=None, init=False)

    def open(self) -> Head:
        """See `mcp_guard.auditlog.Sink`.

        Raises:
            SinkTaken: every file is written by another process.
        """
        for slot in range(1, self.slots + 2):
            file = FileSink(self.path.with_name(f"{self.path.stem}.{slot}{self.path.suffix}"))
            try:
                head = file.open()
            except SinkTaken:
                continue
            self._file = file
            return head
        raise SinkTaken(f"audit file {self.path}: all {self.slots + 1} files beside it are written by other processes")

    def write(self, line: bytes) -> None:
        """Append one line to the file that was taken."""
        if self._file is None:
            raise OSError("the audit file is not open")
        self._file.write(line)

    def close(self) -> None:
        """Let another process have the file."""
        if self._file is not None:
            self._file.close()
            self._file = None
