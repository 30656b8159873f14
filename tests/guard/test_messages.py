"""The messages of a response are found wherever they are, and nothing else of it changes."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_guard import rejections
from mcp_guard.asgi import RawHeaders
from mcp_guard.failures import StoreUnavailable
from mcp_guard.layer import Admission
from mcp_guard.messages import MAX_MESSAGE_BYTES, MessageRewrite
from mcp_guard.protocol.event_stream import read_fields
from mcp_guard.rejections import Rejection
from mcp_guard.stack import guard
from tests.guard.asgi import Headers, body, drive, sending, start
from tests.guard.stubs import Says

JSON = (b"content-type", b"application/json")
STREAM = (b"content-type", b"text/event-stream")


@dataclass(eq=False)
class Stamping(MessageRewrite):
    """Puts a stamp into each message that has a member `mark`; keeps what it was shown."""

    marks = (b"mark",)

    seen: list[dict[str, Any]] = field(default_factory=list)
    fault: Exception | None = None

    async def message(self, message: dict[str, Any]) -> dict[str, Any] | None:
        self.seen.append(message)
        if self.fault is not None:
            raise self.fault
        return {**message, "stamp": 1} if "mark" in message else None


async def rewritten(rewrite: MessageRewrite, headers: Headers, chunks: Sequence[bytes]) -> list[bytes]:
    """What goes out for each chunk; the last one is followed by nothing."""
    rewrite.on_start(200, list(headers))
    out = []
    for position, chunk in enumerate(chunks, start=1):
        if rewrite.wants_body:
            chunk = await rewrite.on_body(chunk, position < len(chunks))
        out.append(chunk)
    return out


def through(rewrite: MessageRewrite, headers: Headers, *chunks: bytes) -> bytes:
    return b"".join(anyio.run(rewritten, rewrite, headers, chunks))


def cut(data: bytes, points: Sequence[int]) -> list[bytes]:
    edges = [0, *sorted(point % (len(data) + 1) for point in points), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


def refused(headers: Headers, *chunks: bytes, fault: Exception | None = None) -> str:
    with pytest.raises(Rejection) as caught:
        through(Stamping(fault=fault), headers, *chunks)
    assert caught.value.kind is rejections.GUARD_FAULT
    return caught.value.reason


MEMBERS = st.dictionaries(
    st.sampled_from(["id", "x", "mark", "é", '"', "\\"]),
    st.none() | st.integers(-9, 9) | st.text('aé"\\\u2028\n', max_size=4) | st.lists(st.booleans(), max_size=2),
    max_size=4,
)
POINTS = st.lists(st.integers(0, 300), max_size=8)


def stamped(message: dict[str, Any]) -> dict[str, Any]:
    return {**message, "stamp": 1} if "mark" in message else message


# JSON bodies


@given(message=MEMBERS, points=POINTS, ascii=st.booleans(), indent=st.sampled_from([None, 2]))
def test_a_message_in_a_body_is_found_however_it_is_cut_and_spelled(
    message: dict[str, Any], points: list[int], ascii: bool, indent: int | None
) -> None:
    text = json.dumps(message, ensure_ascii=ascii, indent=indent).encode()
    out = through(Stamping(), [JSON], *cut(text, points))
    assert json.loads(out) == stamped(message)
    if "mark" not in message:
        assert out == text


@given(batch=st.lists(MEMBERS, max_size=4), points=POINTS)
def test_each_message_of_a_batch_is_found(batch: list[dict[str, Any]], points: list[int]) -> None:
    text = json.dumps(batch).encode()
    out = through(Stamping(), [JSON], *cut(text, points))
    assert json.loads(out) == [stamped(message) for message in batch]
    if not any("mark" in message for message in batch):
        assert out == text


@pytest.mark.parametrize("name", [r"\u006dark", r"m\u0061rk", r"mar\u006B", r"\u006d\u0061\u0072\u006b"])
@pytest.mark.parametrize("content", [JSON, STREAM])
def test_a_name_that_is_spelled_with_escapes_is_found(name: str, content: tuple[bytes, bytes]) -> None:
    text = f'{{"{name}":1}}'.encode()
    out = through(Stamping(), [content], text if content is JSON else b"data: " + text + b"\n\n")
    assert json.loads(out.removeprefix(b"data: ")) == {"mark": 1, "stamp": 1}


@pytest.mark.parametrize("text", [b"", b"not JSON", b"\xff", b'{"x":', b"[", b'{"id":1}'])
def test_what_does_not_concern_it_passes_unread(text: bytes) -> None:
    rewrite = Stamping()
    assert through(rewrite, [JSON], text) == text
    assert through(rewrite, [JSON], text, b"") == text
    assert rewrite.seen == []


@pytest.mark.parametrize("text", [b'"mark"', b'["mark",[{"x":"mark"}],7]', b'{"x":"mark"}', b'[{"mark_":1}]'])
def test_what_only_mentions_it_passes_as_it_is(text: bytes) -> None:
    assert through(Stamping(), [JSON], text) == text


def test_a_message_of_a_batch_in_a_batch_is_found() -> None:
    assert json.loads(through(Stamping(), [JSON], b'[[{"mark":1}]]')) == [[{"mark": 1, "stamp": 1}]]


@pytest.mark.parametrize(
    "text", [b"mark", b'{"mark":', b'{"mark":\xff}', b'{"mark":"\x00"}', b'{"mark":1}{', b'{"x":' * 100_000 + b'"mark"']
)
def test_what_concerns_it_and_is_no_json_does_not_go_out(text: bytes) -> None:
    assert "not JSON" in refused([JSON], text)
    if b"\x00" not in text:
        assert "not JSON" in refused([STREAM], b"data: " + text + b"\n\n")


@pytest.mark.parametrize("number", [b"1e999", b"-1e999", b"NaN", b"Infinity"])
def test_a_number_that_json_has_no_spelling_for_does_not_go_out(number: bytes) -> None:
    assert "not JSON" in refused([JSON], b'{"mark":' + number + b"}")


def test_a_lone_surrogate_of_the_app_goes_out_as_it_was() -> None:
    out = through(Stamping(), [JSON], b'{"mark":"\\ud800"}')
    assert json.loads(out) == {"mark": "\ud800", "stamp": 1}
    out.decode("ascii")


def test_a_body_is_held_until_it_is_whole() -> None:
    chunks = anyio.run(rewritten, Stamping(), [JSON], [b'{"ma', b'rk":1', b"}", b""])
    assert chunks[:3] == [b"", b"", b""]
    assert json.loads(chunks[3]) == {"mark": 1, "stamp": 1}


def test_a_body_in_one_part_beyond_the_bound_is_read() -> None:
    text = b'{"mark":"' + b"x" * MAX_MESSAGE_BYTES + b'"}'
    assert through(Stamping(), [JSON], text).endswith(b'"stamp":1}')


@pytest.mark.parametrize("content", [JSON, STREAM])
def test_no_more_is_held_than_the_bound(content: tuple[bytes, bytes]) -> None:
    quarter = b"x" * (MAX_MESSAGE_BYTES // 4)
    assert "longer than 16777216 bytes" in refused([content], *[quarter] * 4, b"x")
    assert through(Stamping(), [content], *[quarter] * 4) == quarter * 4


# Event streams


ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])


@st.composite
def events(draw: st.DrawFn) -> tuple[bytes, list[dict[str, Any]]]:
    """An event of one message, its data over several lines now and then; and what was in it."""
    message, end = draw(MEMBERS), draw(ENDS)
    text = json.dumps(message, indent=draw(st.sampled_from([None, 1])), ensure_ascii=draw(st.booleans()))
    kind = draw(st.sampled_from([[], [b"event: message"], [b"event:"], [b"event: x", b"event: message"]]))
    lines = [*kind, b"id: 1", *(b"data: " + line.encode() for line in text.split("\n")), b": c"]
    return b"".join(line + end for line in lines) + end, [message]


OTHER_EVENTS: st.SearchStrategy[tuple[bytes, list[dict[str, Any]]]] = st.sampled_from(
    [
        (b": ping\n\n", []),
        (b"event: endpoint\ndata: /mark\n\n", []),
        (b"event: message\nevent: x\r\ndata: mark\n\n", []),
        (b"id: mark\r\r", []),
        (b"\n\n", []),
        (b"data: \n\n", []),
    ]
)


@given(parts=st.lists(events() | OTHER_EVENTS, max_size=4), points=POINTS, bom=st.booleans())
def test_the_messages_of_a_stream_are_found_however_it_is_cut(
    parts: list[tuple[bytes, list[dict[str, Any]]]], points: list[int], bom: bool
) -> None:
    # A carriage return and a line feed that meet would be one end.
    stream = b"".join([b": begin\n\n" + part for part, _ in parts]) + b": end\n\n"
    out = through(Stamping(), [STREAM], *cut((b"\xef\xbb\xbf" if bom else b"") + stream, points))
    assert [stamped(one) for _, messages in parts for one in messages] == messages_of(out)
    assert lines_but_data(out) == lines_but_data(stream)
    if not any("mark" in one for _, messages in parts for one in messages):
        assert out.removeprefix(b"\xef\xbb\xbf") == stream


def messages_of(stream: bytes) -> list[Any]:
    """The messages of a stream, read line by line."""
    found, kind, data = [], b"", list[bytes]()
    for line in stream.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n"):
        name, _, value = line.partition(b":")
        if name == b"event":
            kind = value.strip()
        elif name == b"data":
            data.append(value)
        elif not line:
            if any(data) and kind in (b"", b"message") and b"".join(data).strip():
                found.append(json.loads(b"\n".join(data)))
            kind, data = b"", []
    return found


def lines_but_data(stream: bytes) -> list[tuple[bytes, bytes]]:
    return [pair for pair in read_fields(stream) if pair[0] != b"data"]


def test_an_event_goes_out_as_soon_as_it_is_complete() -> None:
    chunks = [b"data: 1\n", b"\ndata: ", b'{"mark"', b":1}\n\n: p", b"ing\n\n"]
    out = anyio.run(rewritten, Stamping(), [STREAM], chunks)
    assert out == [b"", b"data: 1\n\n", b"", b'data: {"mark":1,"stamp":1}\n\n', b": ping\n\n"]


def test_an_unfinished_event_at_the_end_passes_only_if_it_concerns_nobody() -> None:
    assert through(Stamping(), [STREAM], b"data: 1\n\ndata: 2") == b"data: 1\n\ndata: 2"
    assert through(Stamping(), [STREAM], b'data: 1\n\ndata: {"mark":1}\n') == b"data: 1\n\n"
    assert through(Stamping(), [STREAM], b'data: 1\n\ndata: {"m\\u0061rk":1}') == b"data: 1\n\n"


@pytest.mark.parametrize("kind", [b"endpoint", b"Message", b"message ", b"x"])
def test_events_of_other_types_are_not_read(kind: bytes) -> None:
    stream = b"event: " + kind + b"\ndata: mark\n\n"
    assert through(Stamping(), [STREAM], stream) == stream


# The response around it


@pytest.mark.parametrize("content", [b"text/html", b"application/octet-stream", b"text/plain; x=application/json", b""])
def test_other_content_is_not_looked_at(content: bytes) -> None:
    headers: RawHeaders = [(b"content-type", content), (b"content-encoding", b"gzip"), (b"content-length", b"3")]
    rewrite = Stamping()
    assert rewrite.on_start(200, headers) == headers
    assert not rewrite.wants_body


@pytest.mark.parametrize(
    "content",
    [
        b"application/json",
        b"Application/JSON; charset=utf-8",
        b" application/json",
        b"text/event-stream",
        b"TEXT/Event-Stream;x",
        b"\t text/event-stream",
    ],
)
def test_a_response_that_is_looked_at_has_no_length(content: bytes) -> None:
    headers: RawHeaders = [(b"Content-Type", content), (b"Content-Length", b"3"), (b"content-encoding", b"Identity")]
    rewrite = Stamping()
    assert rewrite.on_start(200, headers) == [headers[0], headers[2]]
    assert rewrite.wants_body


@pytest.mark.parametrize("encoding", [b"gzip", b"br", b"identity, gzip", b""])
@pytest.mark.parametrize("content", [JSON, STREAM])
def test_what_is_encoded_does_not_go_out(content: tuple[bytes, bytes], encoding: bytes) -> None:
    assert "encodes its response" in refused([content, (b"Content-Encoding", encoding)], b"")


@pytest.mark.parametrize("fault", [rejections.GUARD_FAULT.because("no"), StoreUnavailable("no")])
async def test_what_a_reader_refuses_does_not_go_out(fault: Exception) -> None:
    app = sending(start(200, STREAM), body(b": hello\n\n", more=True), body(b'data: {"mark":1}\n\n', more=True), body())
    outcome = await drive(guard(app, Says(Admission(rewrite=Stamping(fault=fault)))))
    assert outcome.body == b": hello\n\n"
    assert not outcome.complete


async def test_two_rewrites_of_one_response_see_it_one_after_the_other() -> None:
    inner, outer = Stamping(), Stamping()
    app = sending(start(200, JSON), body(b'{"mark":1}'))
    layers = (Says(Admission(rewrite=outer)), Says(Admission(rewrite=inner)))
    outcome = await drive(guard(app, *layers))
    assert outcome.json() == {"mark": 1, "stamp": 1}
    assert (inner.seen, outer.seen) == ([{"mark": 1}], [{"mark": 1, "stamp": 1}])
