"""JSON with one reading."""

import contextlib
import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_guard.protocol.strict_json import JsonError, loads

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**60), 10**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)


@given(VALUES, st.booleans())
def test_what_the_standard_library_writes_is_read_as_it_was(value: Any, ascii_only: bool) -> None:
    try:
        data = json.dumps(value, ensure_ascii=ascii_only).encode()
    except UnicodeEncodeError:
        return
    assert loads(data, max_depth=64) == value


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b'\xef\xbb\xbf{"a":1}', "byte order mark"),
        ('{"a":1}'.encode("utf-16"), "not UTF-8"),
        ('{"a":1}'.encode("utf-16-le"), "not JSON"),
        ('{"a":1}'.encode("utf-32-be"), "not JSON"),
        (b'{"a":"\xff"}', "not UTF-8"),
        (b'{"a":"\xed\xa0\x80"}', "not UTF-8"),
        (b'{"a":"\xc0\xaf"}', "not UTF-8"),
        (b'{"a":1,"a":2}', "repeats"),
        (b'{"a":1,"\\u0061":2}', "repeats"),
        (b'{"x":[{"a":1,"b":2,"a":1}]}', "repeats"),
        (b'{"":1,"":1}', "repeats"),
        (b"NaN", "NaN"),
        (b"[Infinity]", "Infinity"),
        (b'{"a":-Infinity}', "-Infinity"),
        (b"1e400", "double"),
        (b"-1e400", "double"),
        (b"1" * 65, "more than 64"),
        (b"-" + b"1" * 64, "more than 64"),
        (b"1" * 5000, "more than 64"),
        (b"0." + b"1" * 63, "more than 64"),
        (b'"\\ud800"', "surrogate"),
        (b'"\\uDFFF"', "surrogate"),
        (b'{"\\ud800":1}', "surrogate"),
        (b'[["x",{"a":"\\udc00\\ud800"}]]', "surrogate"),
        (b"", "not JSON"),
        (b" ", "not JSON"),
        (b"{}{}", "not JSON"),
        (b"{} x", "not JSON"),
        (b"1 2", "not JSON"),
        (b"[1,]", "not JSON"),
        (b'{"a":1,}', "not JSON"),
        (b"{'a':1}", "not JSON"),
        (b"{a:1}", "not JSON"),
        (b"01", "not JSON"),
        (b"+1", "not JSON"),
        (b".5", "not JSON"),
        (b"1.", "not JSON"),
        (b"0x10", "not JSON"),
        (b"1_000", "not JSON"),
        ("٣".encode(), "not JSON"),
        (b'"a\nb"', "not JSON"),
        (b'"\x00"', "not JSON"),
        (b'"\\x41"', "not JSON"),
        (b"\x0b1", "not JSON"),
        ("\u00a01".encode(), "not JSON"),
        (b"// x\n1", "not JSON"),
        (b"[1", "not JSON"),
        (b'"a', "not JSON"),
        (b"True", "not JSON"),
    ],
)
def test_what_has_no_reading_or_two_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(JsonError) as caught:
        loads(data)
    assert reason in caught.value.reason


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b"1" * 64, int("1" * 64)),
        (b"1e308", 1e308),
        (b"-0", 0),
        (b' \t\r\n{"a" : [ ] }\n', {"a": []}),
        (b'"\\ud83d\\ude00"', "😀"),
        ('"\U0010ffff"'.encode(), "\U0010ffff"),
        (b'"\\\\ud800"', "\\ud800"),
        (b'{"a":{"a":{"a":1}}}', {"a": {"a": {"a": 1}}}),
        (b"null", None),
        (b'"\\u0000"', "\x00"),
    ],
)
def test_unusual_but_unambiguous_json_is_read(data: bytes, value: Any) -> None:
    assert loads(data) == value


def nested(depth: int, opening: bytes, closing: bytes) -> bytes:
    return opening * depth + b"1" + closing * depth


@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}"), (b'[{"a":', b"}]")])
def test_the_bound_on_depth_is_exact(opening: bytes, closing: bytes) -> None:
    levels = opening.count(b"[") + opening.count(b"{")
    assert loads(nested(32 // levels, opening, closing)) is not None
    with pytest.raises(JsonError, match="32 deep"):
        loads(nested(32 // levels + 1, opening, closing))


def test_brackets_side_by_side_are_not_depth() -> None:
    data = b"[" + b",".join([b"[[],{}]"] * 500) + b"]"
    assert len(loads(data, max_depth=3)) == 500
    with pytest.raises(JsonError, match="2 deep"):
        loads(data, max_depth=2)


def test_brackets_inside_strings_are_not_depth_and_hide_none() -> None:
    text = '"' + "[" * 100 + '\\"' + "{" * 100 + '\\\\"'
    assert loads(text.encode()) == "[" * 100 + '"' + "{" * 100 + "\\"
    hidden = b'["]",' * 40 + b"1" + b"]" * 40
    with pytest.raises(JsonError, match="32 deep"):
        loads(hidden)


def test_a_depth_of_zero_allows_scalars_only() -> None:
    assert loads(b"1", max_depth=0) == 1
    with pytest.raises(JsonError, match="0 deep"):
        loads(b"[]", max_depth=0)


@pytest.mark.parametrize("max_depth", [-1, 257, 100_000])
def test_a_bound_the_parser_cannot_honour_is_refused(max_depth: int) -> None:
    with pytest.raises(ValueError, match="max_depth"):
        loads(b"1", max_depth=max_depth)


@pytest.mark.parametrize(
    "data",
    [
        b"[" * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
        b"[]," * 40 + b'"' + b'\\"' * 50_000,
        b"[]," * 40 + b'"\\' * 50_000,
    ],
)
def test_deep_or_unterminated_input_is_refused_no_slower_than_good_input_is_read(data: bytes) -> None:
    good = b"[" + b",".join([b"[1]"] * 60_000) + b"]"

    def seconds(text: bytes) -> float:
        start = time.process_time()
        with contextlib.suppress(JsonError):
            loads(text)
        return time.process_time() - start

    with pytest.raises(JsonError):
        loads(data)
    assert min(seconds(data) for _ in range(5)) < min(seconds(good) for _ in range(5))


def test_no_part_of_the_input_is_quoted_in_the_reason() -> None:
    with pytest.raises(JsonError) as caught:
        loads(b'{"password":"hunter2","password":"hunter2"}')
    assert "password" not in caught.value.reason
    assert "hunter2" not in caught.value.reason
