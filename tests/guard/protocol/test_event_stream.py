"""The first event of a stream, however it is cut into chunks and whatever ends its lines."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_guard.protocol.event_stream import MAX_FIRST_EVENT_BYTES, Event, FirstEvent

ENDPOINT = Event("endpoint", "/messages/?session_id=0123abcd")
LINE_ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])


def first(*chunks: bytes) -> list[Event]:
    """The events that a reader answers with over these chunks."""
    reader = FirstEvent()
    return [event for event in map(reader.feed, chunks) if event is not None]


def cut(data: bytes, points: list[int]) -> list[bytes]:
    edges = [0, *sorted(point % (len(data) + 1) for point in points), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


def joined(lines: list[bytes], ends: list[bytes]) -> bytes:
    """The lines, each with its end. A carriage return is not put before a line feed: they would be one end."""
    data = b""
    for line, end in zip(lines, ends, strict=False):
        data += line + (b"\r" if data.endswith(b"\r") and not line and end == b"\n" else end)
    return data


@given(
    ends=st.lists(LINE_ENDS, min_size=8, max_size=8),
    points=st.lists(st.integers(0, 10_000), max_size=12),
    bom=st.booleans(),
    comments=st.booleans(),
    space=st.sampled_from([b"", b" "]),
    tail=st.sampled_from([b"", b"event: message\ndata: {}\n\n", b": ping\n\n"]),
)
def test_the_endpoint_is_read_over_any_chunks_and_line_ends(
    ends: list[bytes], points: list[int], bom: bool, comments: bool, space: bytes, tail: bytes
) -> None:
    lines = [b"event:" + space + b"endpoint", b"data:" + space + ENDPOINT.data.encode(), b""]
    if comments:
        lines = [b": welcome", b"retry: 100", b"", b"id: 7", *lines]
    data = joined(lines, ends)
    stream = (b"\xef\xbb\xbf" if bom else b"") + data + tail
    assert first(*cut(stream, points)) == [ENDPOINT]


@given(ends=st.lists(LINE_ENDS, min_size=3, max_size=3), points=st.lists(st.integers(0, 100), max_size=5))
def test_the_event_is_complete_with_its_blank_line_and_not_before(ends: list[bytes], points: list[int]) -> None:
    lines = [b"event: endpoint", b"data: /m?s=1", b""]
    data = joined(lines, ends)
    reader = FirstEvent()
    blank_line_ends_at = len(data) - data.endswith(b"\r\n")
    for position in range(len(data)):
        event = reader.feed(data[position : position + 1])
        # The carriage return of a CRLF ends the line by itself: a client dispatches the event there.
        assert (event is not None) == (position + 1 == blank_line_ends_at)
    assert first(*cut(data, points)) == [Event("endpoint", "/m?s=1")]


@pytest.mark.parametrize(
    ("stream", "event"),
    [
        (b"data: x\n\n", Event("message", "x")),
        (b"event:\ndata: x\n\n", Event("message", "x")),
        (b"event: a\nevent: b\ndata: x\n\n", Event("b", "x")),
        (b"data: one\ndata: two\n\n", Event("message", "one\ntwo")),
        (b"data\n\n", Event("message", "")),
        (b"data:  two blanks\n\n", Event("message", " two blanks")),
        (b"event: lost\n\ndata: x\n\n", Event("message", "x")),
        (b"\n\n\ndata: x\n\n", Event("message", "x")),
        (b"data: a:b\n\n", Event("message", "a:b")),
        (b"data: \xff\n\n", Event("message", "\N{REPLACEMENT CHARACTER}")),
        (b"DATA: x\n data: y\n\ndata: z\n\n", Event("message", "z")),
    ],
)
def test_an_event_is_read_by_the_rules_of_the_format(stream: bytes, event: Event) -> None:
    assert first(stream) == [event]


@pytest.mark.parametrize("stream", [b"", b"data: x", b"data: x\n", b": ping\n\n", b"event: endpoint\n\n", b"\r\n\r\n"])
def test_what_is_no_complete_event_is_not_answered(stream: bytes) -> None:
    assert first(stream) == []


def test_only_the_first_event_is_answered_and_nothing_is_kept_after_it() -> None:
    reader = FirstEvent()
    assert reader.feed(b"data: 1\n\ndata: 2\n\n") == Event("message", "1")
    assert reader.done
    assert reader.feed(b"data: 3\n\n") is None
    assert reader.pending == b""


def test_a_stream_without_an_event_is_given_up_at_the_bound() -> None:
    reader = FirstEvent()
    done = [(reader.feed(chunk), reader.done) for chunk in (b"x" * MAX_FIRST_EVENT_BYTES, b"x", b"\ndata: late\n\n")]
    assert done == [(None, False), (None, True), (None, True)]
    assert reader.pending == b""


def test_a_first_chunk_beyond_the_bound_is_read_if_its_event_is_complete() -> None:
    assert first(b"data: 1\n\n" + b": more\n" * MAX_FIRST_EVENT_BYTES) == [Event("message", "1")]
