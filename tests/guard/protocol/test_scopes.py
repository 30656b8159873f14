"""Scopes are compared exactly, as sets of tokens."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_guard.protocol import scopes
from mcp_guard.protocol.scopes import ScopeError

TOKENS = st.text(st.sampled_from([chr(code) for code in range(0x21, 0x7F) if chr(code) not in '"\\']), min_size=1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", set()),
        ("mcp:read", {"mcp:read"}),
        ("mcp:read mcp:admin", {"mcp:read", "mcp:admin"}),
        ("a a", {"a"}),
        ("!#[]~", {"!#[]~"}),
        ("mcp:read,mcp:admin", {"mcp:read,mcp:admin"}),
    ],
)
def test_a_list_of_scopes_is_read(text: str, expected: set[str]) -> None:
    assert scopes.parse(text) == expected


@pytest.mark.parametrize(
    "text", [" ", " a", "a ", "a  b", "a\tb", "a\nb", "a\n", "a\u00a0b", 'a"b', "a\\b", "é", "a\x00", "a\x7f", "\x1f"]
)
def test_any_other_spelling_is_refused(text: str) -> None:
    with pytest.raises(ScopeError):
        scopes.parse(text)


@given(st.frozensets(TOKENS))
def test_what_is_rendered_reads_back(some: frozenset[str]) -> None:
    assert scopes.parse(scopes.render(some)) == some


def test_the_same_set_is_always_spelled_the_same() -> None:
    assert scopes.render(["b", "a", "b"]) == scopes.render({"a", "b"}) == "a b"


@pytest.mark.parametrize("scope", ["", "a b", 'a"', "a\\", "a\r\nX: y", "é"])
def test_what_is_no_scope_is_not_rendered(scope: str) -> None:
    assert not scopes.is_scope_token(scope)
    with pytest.raises(ScopeError):
        scopes.render(["good", scope])


@pytest.mark.parametrize(
    ("required", "granted", "expected"),
    [
        ({"mcp:admin"}, {"mcp:adminx"}, {"mcp:admin"}),
        ({"mcp:admin"}, {"MCP:ADMIN"}, {"mcp:admin"}),
        ({"mcp:admin"}, {"mcp:admi"}, {"mcp:admin"}),
        ({"mcp:admin"}, {"mcp:read,mcp:admin"}, {"mcp:admin"}),
        ({"mcp:admin"}, {"mcp:*"}, {"mcp:admin"}),
        ({"a", "b", "c"}, {"b"}, {"a", "c"}),
        ({"a"}, {"a", "b"}, set()),
        (set(), set(), set()),
    ],
)
def test_only_the_identical_scope_counts(required: set[str], granted: set[str], expected: set[str]) -> None:
    assert scopes.missing(required, granted) == expected
