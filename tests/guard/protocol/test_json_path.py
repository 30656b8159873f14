"""Paths into JSON values: the part of RFC 9535 that is read, and what is not."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_guard.protocol.json_path import EVERY, MAX_CHARACTERS, JsonPath, PathError

# RFC 9535 §1.5, figure 1.
STORE = {
    "store": {
        "book": [{"title": "Sayings", "price": 8.95}, {"title": "Sword", "price": 12.99}],
        "bicycle": {"color": "red", "price": 399},
    }
}


@pytest.mark.parametrize(
    ("path", "steps"),
    [
        ("$", ()),
        ("$.a", ("a",)),
        ("$._", ("_",)),
        ("$.a1", ("a1",)),
        ("$.ключ", ("ключ",)),
        ("$.💥", ("💥",)),
        ("$['a']", ("a",)),
        ('$["a"]', ("a",)),
        ("$['']", ("",)),
        ("$['it\\'s']", ("it's",)),
        ("$['say \"x\"']", ('say "x"',)),
        ('$["it\'s"]', ("it's",)),
        ('$["\\""]', ('"',)),
        (r"$['\\']", ("\\",)),
        (r"$['\\\'']", ("\\'",)),
        (r"$['\b\f\n\r\t\/']", ("\b\f\n\r\t/",)),
        (r"$['\u00e9\ud83d\udca5']", ("é💥",)),
        ("$['a.b[0]']", ("a.b[0]",)),
        ("$[0]", (0,)),
        ("$[-1]", (-1,)),
        ("$[12]", (12,)),
        ("$.*", (EVERY,)),
        ("$[*]", (EVERY,)),
        ("$['*']", ("*",)),
        ("$['0']", ("0",)),
        ("$.store.book[*].title", ("store", "book", EVERY, "title")),
    ],
)
def test_a_path_is_read_into_its_steps(path: str, steps: tuple[Any, ...]) -> None:
    assert JsonPath.parse(path) == JsonPath(path, steps)


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("", 1),
        ("a", 1),
        ("@.a", 1),
        (" $", 1),
        ("$ ", 2),
        ("$.", 2),
        ("$a", 2),
        ("$.a ", 4),
        ("$. a", 2),
        ("$.1", 2),
        ("$.a-b", 4),
        ("$..a", 2),
        ("$[", 2),
        ("$[]", 2),
        ("$[ 0]", 2),
        ("$[01]", 2),
        ("$[-0]", 2),
        ("$[+1]", 2),
        ("$[1.0]", 2),
        ("$[12345678901234567]", 2),
        ("$[0:1]", 2),
        ("$[0,1]", 2),
        ("$['a','b']", 2),
        ("$[?@.a]", 2),
        ("$[a]", 2),
        ("$['a]", 2),
        ("$['a\"]", 2),
        ("$['it's']", 2),
        (r"$['\"']", 2),
        (r'$["\'"]', 2),
        (r"$['\x41']", 2),
        (r"$['\u12']", 2),
        ("$['\n']", 2),
        (r"$.a['\ud800']", 4),
        ("$.a['\ud800']", 4),
        ("$.\ud800", 2),
        ("$.a.b[", 6),
        ("$" + ".a" * MAX_CHARACTERS, MAX_CHARACTERS + 1),
    ],
)
def test_what_is_no_path_is_refused_at_its_place(path: str, place: int) -> None:
    with pytest.raises(PathError, match=rf"^character {place}: ") as refused:
        JsonPath.parse(path)
    assert str(refused.value) == refused.value.reason


@pytest.mark.parametrize(
    ("path", "values"),
    [
        ("$", [STORE]),
        ("$.store.book[*].title", ["Sayings", "Sword"]),
        ("$['store']['bicycle']['color']", ["red"]),
        ("$.store.book[0].price", [8.95]),
        ("$.store.book[-1].title", ["Sword"]),
        ("$.store.book[-2].title", ["Sayings"]),
        ("$.store.book[2]", []),
        ("$.store.book[-3]", []),
        ("$.store.*.color", ["red"]),
        ("$.store.bicycle.*", ["red", 399]),
        ("$.store.nothing.at.all", []),
        ("$.store[0]", []),
        ("$.store.book.title", []),
        ("$.store.bicycle.color[0]", []),
        ("$.store.bicycle.color.*", []),
        ("$.store.bicycle.price.*", []),
    ],
)
def test_a_path_selects_what_stands_at_its_end(path: str, values: list[Any]) -> None:
    assert JsonPath.parse(path).select(STORE) == values


def test_null_is_a_value_and_nothing_is_none() -> None:
    assert JsonPath.parse("$.a").select({"a": None}) == [None]
    assert JsonPath.parse("$.a").select({}) == []


def test_a_string_in_the_way_is_gone_into_only_where_that_is_asked_for() -> None:
    path = JsonPath.parse("$.a[*].b")
    value = {"a": '[{"b":1},"{\\"b\\":2}"]'}
    assert path.select(value) == []
    assert path.select(value, json.loads) == [1, 2]
    assert JsonPath.parse("$.a").select(value, json.loads) == [value["a"]], "at the end a string is a value"


values = st.recursive(
    st.none() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=10,
)


@given(values, st.data())
def test_every_value_is_found_by_the_path_that_leads_to_it(value: Any, data: st.DataObject) -> None:
    text, node = "$", value
    while isinstance(node, dict | list) and node and data.draw(st.booleans()):
        if isinstance(node, dict):
            name = data.draw(st.sampled_from(sorted(node)))
            text, node = f"{text}[{json.dumps(name)}]", node[name]
        else:
            index = data.draw(st.integers(-len(node), len(node) - 1))
            text, node = f"{text}[{index}]", node[index]
    assert JsonPath.parse(text).select(value) == [node]


@given(st.text(alphabet="$.[]*'\"\\ab01-u \ud800é", max_size=12))
def test_any_text_is_a_path_or_is_refused(text: str) -> None:
    try:
        path = JsonPath.parse(text)
    except PathError:
        return
    assert path.text == text
    assert path.select({}) in ([], [{}])
