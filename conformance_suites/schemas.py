"""As much of JSON Schema as tells a value of the wrong shape. What is not known here is taken for satisfied."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
    "null": (type(None),),
}


def violations(value: Any, schema: Any, root: Any = None, where: str = "$") -> Iterator[str]:
    """How a value differs from a schema; each as a path and a few words."""
    root = schema if root is None else root
    schema = _resolved(schema, root)
    if not isinstance(schema, dict):
        return
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if kinds and not any(_is_a(value, kind) for kind in kinds):
        yield f"{where} is no {' or '.join(map(str, kinds))}"
        return
    if isinstance(schema.get("enum"), list) and value not in schema["enum"]:
        yield f"{where} is none of the values"
    if isinstance(value, dict):
        yield from _of_object(value, schema, root, where)
    if isinstance(value, list) and isinstance(schema.get("items"), dict):
        for number, item in enumerate(value):
            yield from violations(item, schema["items"], root, f"{where}[{number}]")


def _of_object(value: dict[str, Any], schema: dict[str, Any], root: Any, where: str) -> Iterator[str]:
    members = schema.get("properties")
    members = members if isinstance(members, dict) else {}
    for name in schema.get("required", []):
        if name not in value:
            yield f"{where}.{name} is missing"
    for name, item in value.items():
        if name in members:
            yield from violations(item, members[name], root, f"{where}.{name}")
        elif schema.get("additionalProperties") is False and "patternProperties" not in schema:
            yield f"{where}.{name} is not in the schema"


def _is_a(value: Any, kind: object) -> bool:
    if kind in {"number", "integer"}:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return is_number and (kind == "number" or isinstance(value, int) or value.is_integer())
    known = _TYPES.get(str(kind))
    return known is None or isinstance(value, known)


def _resolved(schema: Any, root: Any) -> Any:
    reference = schema.get("$ref") if isinstance(schema, dict) else None
    if not isinstance(reference, str):
        return schema
    found = root
    for step in reference.removeprefix("#").strip("/").split("/"):
        found = found.get(step.replace("~1", "/").replace("~0", "~")) if isinstance(found, dict) else None
    return None if found is schema else found


def references(schema: Any) -> Iterator[str]:
    """Every $ref in a schema."""
    if isinstance(schema, dict):
        if isinstance(schema.get("$ref"), str):
            yield schema["$ref"]
        for value in schema.values():
            yield from references(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from references(value)
