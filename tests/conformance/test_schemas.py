"""The part of JSON Schema that the suites judge results with."""

from __future__ import annotations

from typing import Any

import pytest

from conformance_suites.schemas import references, violations

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "count": {"type": ["integer", "null"]},
        "kind": {"enum": ["a", "b"]},
        "parts": {"type": "array", "items": {"$ref": "#/$defs/part"}},
    },
    "required": ["name"],
    "additionalProperties": False,
    "$defs": {"part": {"type": "object", "properties": {"size": {"type": "number"}}, "required": ["size"]}},
}


@pytest.mark.parametrize(
    "value",
    [
        {"name": "x"},
        {"name": "", "count": None, "kind": "a", "parts": []},
        {"name": "x", "count": 2.0, "parts": [{"size": 1.5, "more": True}]},
    ],
)
def test_a_value_of_the_schema_violates_nothing(value: Any) -> None:
    assert list(violations(value, SCHEMA)) == []


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ([], "$ is no object"),
        ({}, "$.name is missing"),
        ({"name": 7}, "$.name is no string"),
        ({"name": "x", "count": True}, "$.count is no integer or null"),
        ({"name": "x", "count": 1.5}, "$.count is no integer or null"),
        ({"name": "x", "count": float("inf")}, "$.count is no integer or null"),
        ({"name": "x", "kind": "c"}, "$.kind is none of the values"),
        ({"name": "x", "parts": [{"size": 1}, {}]}, "$.parts[1].size is missing"),
        ({"name": "x", "more": 1}, "$.more is not in the schema"),
    ],
)
def test_another_value_is_told_with_its_place(value: Any, said: str) -> None:
    assert list(violations(value, SCHEMA)) == [said]


@pytest.mark.parametrize("schema", [True, {}, {"$ref": "#"}, {"$ref": "https://schemas.example/a"}, {"type": "odd"}])
def test_what_is_not_known_is_taken_for_satisfied(schema: Any) -> None:
    assert list(violations({"any": "thing"}, schema)) == []


def test_references_are_found_at_any_depth() -> None:
    assert list(references({"anyOf": [{"$ref": "#/a"}, {"items": {"$ref": "https://schemas.example/a"}}]})) == [
        "#/a",
        "https://schemas.example/a",
    ]
