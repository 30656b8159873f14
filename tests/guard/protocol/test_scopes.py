"""Scopes are compared exactly, as sets of tokens."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_guard.protocol import scopes
from mcp_guard.protocol.scopes import CircleError, ScopeError

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


HIERARCHY = {"admin": frozenset({"write"}), "write": frozenset({"read", "list"}), "read": frozenset({"see"})}


def test_a_closed_hierarchy_says_everything_that_a_scope_implies() -> None:
    assert scopes.closed(HIERARCHY) == {
        "admin": {"write", "read", "list", "see"},
        "write": {"read", "list", "see"},
        "read": {"see"},
        "list": set(),
        "see": set(),
    }


@pytest.mark.parametrize(
    ("implies", "named"),
    [
        ({"a": {"a"}}, "a"),
        ({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}, "a, b, c"),
        ({**HIERARCHY, "see": {"admin"}}, "admin, read, see, write"),
    ],
)
def test_scopes_that_imply_each_other_are_named(implies: dict[str, set[str]], named: str) -> None:
    with pytest.raises(CircleError, match=f"^{named}$"):
        scopes.closed({scope: frozenset(below) for scope, below in implies.items()})


@pytest.mark.parametrize(
    ("required", "granted", "expected"),
    [
        ({"see", "list"}, {"admin"}, set()),
        ({"see", "list"}, {"read"}, {"list"}),
        ({"write"}, {"read", "list", "see"}, {"write"}),
        ({"see"}, {"readx", "READ"}, {"see"}),
    ],
)
def test_what_a_granted_scope_implies_is_not_missing(required: set[str], granted: set[str], expected: set[str]) -> None:
    assert scopes.missing(required, granted, scopes.closed(HIERARCHY)) == expected
    assert scopes.missing(required, granted) == required


@pytest.mark.parametrize(
    ("required", "fewest"),
    [({"see", "admin", "other"}, {"admin", "other"}), ({"read", "list"}, {"read", "list"}), (set(), set())],
)
def test_the_fewest_scopes_leave_out_what_others_imply(required: set[str], fewest: set[str]) -> None:
    assert scopes.minimal(required, scopes.closed(HIERARCHY)) == fewest
