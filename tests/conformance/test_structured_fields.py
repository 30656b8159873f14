"""Structured fields are read by RFC 9651, and nothing looser."""

from __future__ import annotations

import pytest

from pytest_mcp_conformance.structured_fields import Item, Malformed, Token, read_list


def test_a_list_of_strings_with_parameters_is_read() -> None:
    assert read_list(['"a";q=10;w=60;pk=:YQ==:, "b\\"c";x;y=?0;z=1.5;t=tok']) == [
        Item("a", {"q": 10, "w": 60, "pk": b"a"}),
        Item('b"c', {"x": True, "y": False, "z": 1.5, "t": "tok"}),
    ]


def test_lines_are_joined_and_no_line_is_an_empty_list() -> None:
    assert [item.value for item in read_list(['"a"', ' "b" '])] == ["a", "b"]
    assert read_list([]) == []


def test_a_token_is_told_from_a_string() -> None:
    item, quoted = read_list(['word, "word"'])
    assert isinstance(item.value, Token)
    assert not isinstance(quoted.value, Token)


@pytest.mark.parametrize(
    "text", ['"a', '"a",', '"a" "b"', '"a";', '"a";Q=1', '"a";q=', '"a\tb"', ":a:", "@1", ",", "é"]
)
def test_what_is_no_list_is_refused(text: str) -> None:
    with pytest.raises(Malformed):
        read_list([text])
