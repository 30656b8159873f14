"""The audit log: every tampering is found, a chain goes on after a restart, and a lost record is never acknowledged."""

import hashlib
import json
import os
import resource
import signal
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_guard.auditlog import (
    GENESIS,
    TAIL_BYTES,
    AuditLog,
    DescriptorSink,
    FileSink,
    Flaw,
    Head,
    MemorySink,
    NullSink,
    Sink,
    short,
    verify,
)
from mcp_guard.failures import AuditUnavailable, ConfigurationError


def opened(sink: Sink) -> AuditLog:
    """A log that is ready to be written."""
    log = AuditLog(sink)
    log.head = sink.open()
    return log


def chain(length: int) -> list[bytes]:
    """The lines of a sound chain."""
    sink = MemorySink()
    log = opened(sink)
    for number in range(length):
        log.write({"time": f"2027-01-15T08:00:{number:02}", "verdict": "allowed"})
    return sink.lines


def head_of(lines: list[bytes]) -> Head:
    head = verify(lines)
    assert isinstance(head, Head)
    return head


# Verification


def test_a_sound_chain_has_a_head() -> None:
    lines = chain(3)
    assert head_of(lines).seq == 3
    assert json.loads(lines[0])["prev"] == GENESIS
    assert head_of([]) == Head(0, GENESIS)


CHAINS = st.integers(2, 6).map(chain)


@given(st.data(), CHAINS)
def test_any_changed_byte_is_found_at_its_line_or_the_next(data: st.DataObject, lines: list[bytes]) -> None:
    head = head_of(lines)
    victim = data.draw(st.integers(0, len(lines) - 1))
    place = data.draw(st.integers(0, len(lines[victim]) - 1))
    other = data.draw(st.integers(0, 255).filter(lambda byte: byte != lines[victim][place]))
    tampered = list(lines)
    tampered[victim] = lines[victim][:place] + bytes([other]) + lines[victim][place + 1 :]

    flaw = verify(tampered, head)
    assert isinstance(flaw, Flaw)
    assert flaw.line in (victim + 1, victim + 2)


@given(st.data(), CHAINS)
def test_a_removed_line_is_found(data: st.DataObject, lines: list[bytes]) -> None:
    victim = data.draw(st.integers(0, len(lines) - 1))
    flaw = verify(lines[:victim] + lines[victim + 1 :], head_of(lines))
    assert isinstance(flaw, Flaw)
    assert flaw.line == victim + 1


@given(st.data(), CHAINS)
def test_swapped_lines_are_found_at_the_first_of_them(data: st.DataObject, lines: list[bytes]) -> None:
    first = data.draw(st.integers(0, len(lines) - 2))
    second = data.draw(st.integers(first + 1, len(lines) - 1))
    swapped = list(lines)
    swapped[first], swapped[second] = lines[second], lines[first]
    flaw = verify(swapped)
    assert isinstance(flaw, Flaw)
    assert flaw.line == first + 1


@given(
    st.data(),
    CHAINS,
    st.sampled_from([b"\n", b"{}\n", b"[]\n", b"null\n", b"x\n", b'{"seq":1}\n', b"[" * 100_000 + b"\n"]) | st.none(),
)
def test_an_inserted_line_is_found(data: st.DataObject, lines: list[bytes], foreign: bytes | None) -> None:
    place = data.draw(st.integers(0, len(lines)))
    inserted = lines[max(0, place - 1)] if foreign is None else foreign
    flaw = verify([*lines[:place], inserted, *lines[place:]])
    if place == 0 and foreign is None:
        assert flaw == Flaw(2, "does not follow the line before it")
    else:
        assert isinstance(flaw, Flaw)
        assert flaw.line == place + 1


@given(st.integers(1, 6), st.integers(1, 6))
def test_a_cut_off_end_is_found_with_a_head_kept_elsewhere(length: int, cut: int) -> None:
    lines = chain(length)
    head = head_of(lines)
    left = lines[: max(0, length - cut)]

    assert isinstance(verify(left), Head), "a chain alone cannot show that its end was cut off"
    flaw = verify(left, head)
    assert isinstance(flaw, Flaw)
    assert flaw.line == len(left) + 1
    assert "cut off" in flaw.problem


def test_an_older_head_is_part_of_a_chain_that_grew() -> None:
    lines = chain(5)
    for length in range(6):
        assert verify(lines, head_of(lines[:length])) == head_of(lines)


def test_a_chain_written_anew_is_found_with_a_head_kept_elsewhere() -> None:
    sink = MemorySink()
    log = opened(sink)
    for _ in range(5):
        log.write({"verdict": "rewritten"})
    assert isinstance(verify(sink.lines), Head)
    assert isinstance(verify(sink.lines, head_of(chain(5))), Flaw)


def test_a_torn_last_line_is_recognised() -> None:
    lines = chain(3)
    assert verify([*lines[:2], lines[2][:20]]) == Flaw(3, "the line is torn")
    assert verify([*lines[:2], lines[2][:-1]]) == Flaw(3, "the line is torn")


def test_a_number_that_does_not_count_on_is_found() -> None:
    log = opened(MemorySink())
    assert log.head is not None
    log.head = Head(6, GENESIS)
    log.write({})
    assert isinstance(log.sink, MemorySink)
    assert verify(log.sink.lines) == Flaw(1, "has number 7 where 1 is due")


# Texts in records


@pytest.mark.parametrize(
    "text", ["a\r\nb", "\x1b[31mred", "\u2028", "\x00", "}{", '"', "\ud800", "\N{PILE OF POO}", "x" * 1_000_000]
)
def test_whatever_a_text_holds_a_record_is_one_line_of_ascii_that_reads_back(text: str) -> None:
    sink = MemorySink()
    opened(sink).write({"tool": short(text)})
    (line,) = sink.lines
    assert line.isascii()
    assert line.endswith(b"}\n")
    assert not any(byte < 0x20 or byte == 0x7F for byte in line[:-1])
    assert len(line) < 4096
    assert sink.records()[0]["tool"].startswith(text[:256])


def test_a_long_text_is_cut_with_its_length_and_fingerprint() -> None:
    assert short("x" * 256) == "x" * 256
    assert short("x" * 257) == f"{'x' * 256}… (257 characters, sha256:{hashlib.sha256(b'x' * 257).hexdigest()[:16]})"
    assert short("\ud800" * 1000).endswith(")")


# Files


def test_a_file_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    opened(FileSink(path)).write({})
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_a_chain_goes_on_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    for run in range(3):
        log = AuditLog(FileSink(path))
        await log.start()
        await log.start()
        log.write({"run": run})
        log.write({"run": run})
        await log.close()
        await log.close()
    lines = path.read_bytes().splitlines(keepends=True)
    assert head_of(lines).seq == 6


@pytest.mark.parametrize("size", [1, TAIL_BYTES - 1, TAIL_BYTES, TAIL_BYTES + 1, 3 * TAIL_BYTES])
def test_a_chain_goes_on_after_a_last_line_of_any_length(tmp_path: Path, size: int) -> None:
    path = tmp_path / "audit.jsonl"
    for _ in range(2):
        sink = FileSink(path)
        log = opened(sink)
        log.write({"short": 1})
        log.write({"long": "x" * size})
        sink.close()
    assert head_of(path.read_bytes().splitlines(keepends=True)).seq == 4


@pytest.mark.parametrize("whole", [0, 1, 3])
@pytest.mark.parametrize("torn", [1, 7, 20, -1])
def test_a_torn_last_line_is_cut_off_and_the_chain_goes_on(tmp_path: Path, whole: int, torn: int) -> None:
    lines = chain(whole + 1)
    path = tmp_path / "audit.jsonl"
    path.write_bytes(b"".join(lines[:whole]) + lines[whole][:torn])

    sink = FileSink(path)
    log = opened(sink)
    log.write({"after": "the crash"})
    sink.close()

    written = path.read_bytes().splitlines(keepends=True)
    assert written[:whole] == lines[:whole]
    assert head_of(written).seq == whole + 1


@pytest.mark.parametrize(
    "content",
    [
        b"precious",
        b"precious\n",
        b"[1]\n",
        b"{}\n",
        b'{"seq":"x"}\n',
        b'{ "seq":1}\n',
        b'{"seq":1,\n',
        b"\n",
        b'{"seq":1,"prev":"0"}\nprecious',
    ],
)
def test_a_file_that_is_no_audit_log_is_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    sink = FileSink(path)
    with pytest.raises(ConfigurationError, match=r"notes\.txt: does not end in a line of an audit log"):
        sink.open()
    assert path.read_bytes() == content
    with pytest.raises(OSError, match="not open"):
        sink.write(b"x\n")


def test_a_file_that_cannot_be_opened_is_a_wrong_setting(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"audit file .*absent/audit\.jsonl: No such file"):
        FileSink(tmp_path / "absent" / "audit.jsonl").open()
    with pytest.raises(ConfigurationError, match="Is a directory"):
        FileSink(tmp_path).open()


def test_a_full_disk_is_an_error_and_the_chain_stands_where_it_stood() -> None:
    sink = FileSink(Path("/dev/full"))
    log = opened(sink)
    with pytest.raises(AuditUnavailable, match="No space left on device"):
        log.write({"lost": True})
    assert log.head == Head(0, GENESIS)
    sink.close()


@contextmanager
def largest_file(size_bytes: int) -> Iterator[None]:
    """No file can grow beyond this."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_line_that_fits_in_part_leaves_no_torn_line_and_the_chain_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    sink = FileSink(path)
    log = opened(sink)
    log.write({"n": 1})
    whole = path.read_bytes()

    with largest_file(len(whole) + 10):
        for _ in range(2):
            with pytest.raises(AuditUnavailable, match=r"10 of|File too large"):
                log.write({"n": 2})
            assert path.read_bytes() == whole

    log.write({"n": 3})
    sink.close()
    lines = path.read_bytes().splitlines(keepends=True)
    assert [json.loads(line)["n"] for line in lines] == [1, 3]
    assert head_of(lines).seq == 2


async def test_a_log_that_is_not_open_writes_nothing(tmp_path: Path) -> None:
    log = AuditLog(FileSink(tmp_path / "audit.jsonl"))
    with pytest.raises(AuditUnavailable, match="not open"):
        log.write({})
    await log.start()
    await log.close()
    with pytest.raises(AuditUnavailable, match="not open"):
        log.write({})


# Descriptors


def test_a_descriptor_that_takes_a_line_in_parts_gets_it_whole() -> None:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    try:
        sink = DescriptorSink(writer)
        log = opened(sink)
        log.write({"n": 1})
        log.write({"n": 2})
        sink.close()
        lines = os.read(reader, 65_536).splitlines(keepends=True)
        assert head_of(lines).seq == 2
    finally:
        os.close(reader)
        os.close(writer)


def test_a_closed_descriptor_is_an_error() -> None:
    reader, writer = os.pipe()
    log = opened(DescriptorSink(writer))
    os.close(writer)
    with pytest.raises(AuditUnavailable, match="Bad file descriptor"):
        log.write({})
    os.close(reader)


def test_a_full_pipe_is_an_error() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    try:
        log = opened(DescriptorSink(writer))
        log.write({"n": 1})
        head = log.head
        with pytest.raises(AuditUnavailable, match="temporarily unavailable"):
            log.write({"n": "x" * 1_000_000})
        assert log.head == head
    finally:
        os.close(reader)
        os.close(writer)


def test_the_null_sink_keeps_nothing() -> None:
    sink = NullSink()
    log = opened(sink)
    log.write({"n": 1})
    sink.close()
    assert log.head is not None
    assert log.head.seq == 1
