"""Every event of a stream, however it is cut into chunks and whatever ends its lines, against a reader line by line."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_guard.protocol.event_stream import Blocks, Fields, data_of, read_fields, type_of, with_data, write_event

ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])
CONTENTS = st.lists(
    st.sampled_from(
        [b"data: x", b"data:y", b"data", b"", b"", b": ping", b"id: 1", b"event: a", b"x\xff", b"\xef\xbb\xbf"]
    )
    | st.binary(max_size=6).map(lambda line: line.replace(b"\r", b"").replace(b"\n", b"")),
    max_size=12,
)
POINTS = st.lists(st.integers(0, 200), max_size=12)


def cut(data: bytes, points: list[int]) -> list[bytes]:
    edges = [0, *sorted(point % (len(data) + 1) for point in points), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


def lines_of(stream: bytes) -> list[bytes]:
    """The complete lines of a stream, read byte by byte."""
    lines, line, after_return = [], b"", False
    for position in range(len(stream)):
        byte = stream[position : position + 1]
        if not (byte == b"\n" and after_return):
            if byte in b"\r\n":
                lines.append(line)
                line = b""
            else:
                line += byte
        after_return = byte == b"\r"
    return lines


def events_of(stream: bytes) -> list[Fields]:
    """The events of a stream by the rules of WHATWG HTML §9.2.6, line by line; those without lines are none."""
    events: list[Fields] = []
    event: Fields = []
    for line in lines_of(stream.removeprefix(b"\xef\xbb\xbf")):
        if line:
            name, _, value = line.partition(b":")
            event.append((name, value.removeprefix(b" ")))
        elif event:
            events.append(event)
            event = []
    return events


@given(lines=CONTENTS, ends=st.lists(ENDS, min_size=12, max_size=12), points=POINTS, bom=st.booleans())
def test_the_events_are_those_of_a_reader_line_by_line(
    lines: list[bytes], ends: list[bytes], points: list[int], bom: bool
) -> None:
    stream = b"".join(line + end for line, end in zip(lines, ends, strict=False))
    if bom:
        stream = b"\xef\xbb\xbf" + stream
    cutter = Blocks()
    blocks = [block for chunk in cut(stream, points) for block in cutter.feed(chunk)]
    rest = cutter.rest()
    assert [fields for fields in map(read_fields, blocks) if fields] == events_of(stream)
    whole = b"".join(blocks) + rest
    assert whole == (stream.removeprefix(b"\xef\xbb\xbf") if blocks else stream)
    assert cutter.pending == b""


@given(lines=CONTENTS, ends=st.lists(ENDS, min_size=12, max_size=12))
def test_an_event_is_given_out_with_its_blank_line_and_not_before(lines: list[bytes], ends: list[bytes]) -> None:
    stream = b"".join(line + end for line, end in zip(lines, ends, strict=False))
    cutter, given_out = Blocks(), 0
    for position in range(len(stream)):
        given_out += len([block for block in cutter.feed(stream[position : position + 1]) if read_fields(block)])
        assert given_out == len(events_of(stream[: position + 1]))


def test_a_byte_order_mark_further_in_is_part_of_its_line() -> None:
    cutter = Blocks()
    first, second = cutter.feed(b"\xef\xbb\xbfdata: 1\n\n\xef\xbb\xbfdata: 2\n\n")
    [third] = cutter.feed(b"\xef\xbb\xbfdata: 3\n\n")
    assert read_fields(first) == [(b"data", b"1")]
    assert data_of(read_fields(second)) is None
    assert data_of(read_fields(third)) is None


def test_an_event_of_many_chunks_is_searched_once() -> None:
    """Two megabytes a hundred bytes at a time: searching all of it each time would take minutes."""
    cutter = Blocks()
    for _ in range(20_000):
        assert cutter.feed(b"x" * 100) == []
    assert [len(block) for block in cutter.feed(b"\n\n")] == [2_000_002]


NAMES = st.sampled_from([b"data", b"event", b"id", b"retry", b"", b"x"])
VALUES = st.binary(max_size=8).map(lambda line: line.replace(b"\r", b"").replace(b"\n", b""))
FIELDS = st.lists(st.tuples(NAMES, VALUES), min_size=1, max_size=6)


@given(fields=FIELDS)
def test_what_is_written_reads_the_same(fields: Fields) -> None:
    blocks = Blocks().feed(write_event(fields))
    assert [read_fields(block) for block in blocks] == [fields]


@given(fields=FIELDS, data=st.binary(max_size=30))
def test_other_data_takes_the_place_of_the_first_line_of_data(fields: Fields, data: bytes) -> None:
    changed = with_data(fields, data)
    assert data_of(changed) == data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    assert [pair for pair in changed if pair[0] != b"data"] == [pair for pair in fields if pair[0] != b"data"]
    names = [name for name, _ in fields]
    place = names.index(b"data") if b"data" in names else len(names)
    assert changed[:place] == fields[:place]
    assert changed[place][0] == b"data"


@pytest.mark.parametrize(
    ("block", "data"),
    [
        (b"data: one\ndata: two\n\n", b"one\ntwo"),
        (b"data\n\n", b""),
        (b"data:  x\n\n", b" x"),
        (b"data: a:b\n\n", b"a:b"),
        (b"data: a\revent: x\r\ndata: b\n\n", b"a\nb"),
        (b": data: x\n\n", None),
        (b"DATA: x\n data: y\n\n", None),
        (b"\n\n", None),
    ],
)
def test_data_is_read_by_the_rules_of_the_format(block: bytes, data: bytes | None) -> None:
    assert data_of(read_fields(block)) == data


@pytest.mark.parametrize(
    ("lines", "kind"),
    [
        ([], b"message"),
        ([b""], b"message"),
        ([b"message"], b"message"),
        ([b"endpoint"], b"endpoint"),
        ([b"endpoint", b"message"], b"message"),
        ([b"message", b"endpoint"], b"endpoint"),
        ([b"endpoint", b""], b"message"),
    ],
)
def test_the_last_line_that_names_a_type_counts(lines: list[bytes], kind: bytes) -> None:
    assert type_of([(b"id", b"x"), *((b"event", line) for line in lines)]) == kind
