"""Several workers, several chains: no two processes write one audit file."""

import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from mcp_guard.auditlog import AuditLog, FileSink, SinkTaken, verify
from mcp_guard.auditslots import SlotSink

ROOT = Path(__file__).parents[2]
HOLD = """
import sys
from pathlib import Path
from mcp_guard.auditlog import FileSink
sink = FileSink(Path(sys.argv[1]))
print(sink.open().seq, flush=True)
sys.stdin.read()
"""


def test_a_file_that_another_process_writes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with other:
        assert other.stdout is not None
        assert other.stdout.readline() == "0\n"
        with pytest.raises(SinkTaken, match=r"audit\.jsonl: another process writes it"):
            FileSink(path).open()
        other.communicate()
    file = FileSink(path)
    assert file.open().seq == 0
    file.close()


async def write_in_turns(path: Path) -> None:
    """Three workers, the second of which has a successor."""
    logs = [AuditLog(SlotSink(path, 2)) for _ in range(3)]
    for number, log in enumerate(logs):
        await log.start()
        log.write({"worker": number})
    with pytest.raises(SinkTaken, match="all 3 files"):
        SlotSink(path, 2).open()

    await logs[1].close()
    successor = AuditLog(SlotSink(path, 2))
    await successor.start()
    successor.write({"worker": 9})
    for log in (logs[0], logs[2], successor):
        await log.close()


def test_each_worker_has_a_file_of_its_own_and_goes_on_with_one_that_is_free(tmp_path: Path) -> None:
    anyio.run(write_in_turns, tmp_path / "audit.jsonl")
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["audit.1.jsonl", "audit.2.jsonl", "audit.3.jsonl"]
    heads = [verify(file.read_bytes().splitlines(keepends=True)) for file in files]
    assert [getattr(head, "seq", head) for head in heads] == [1, 2, 1]


def test_a_file_that_is_not_open_takes_no_line(tmp_path: Path) -> None:
    sink = SlotSink(tmp_path / "audit.jsonl", 1)
    with pytest.raises(OSError, match="is not open"):
        sink.write(b"line\n")
    sink.close()
