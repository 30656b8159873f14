"""Tools that only read, and arguments for them made from their schemas."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pytest_mcp_conformance.credentials import Credential
from pytest_mcp_conformance.declarations import Declarations
from pytest_mcp_conformance.target import Target

TEXT = "conformance"
_SAMPLES: Mapping[str, Any] = {
    "string": TEXT,
    "number": 1.5,
    "integer": 1,
    "boolean": True,
    "array": [],
    "object": {},
    "null": None,
}
Schema = Mapping[str, Any]


def reading_tools(target: Target, declared: Declarations, credential: Credential | None) -> list[dict[str, Any]]:
    """The tools that say they only read, or are declared harmless, and whose name is text."""
    return [
        tool
        for tool in target.tools(credential)
        if isinstance(tool.get("name"), str) and (tool["name"] in declared.harmless_tools or _only_reads(tool))
    ]


def _only_reads(tool: Mapping[str, Any]) -> bool:
    annotations = tool.get("annotations")
    return isinstance(annotations, dict) and annotations.get("readOnlyHint") is True


def properties_of(tool: Mapping[str, Any]) -> dict[str, Schema]:
    """The arguments of a tool that have a schema, by name."""
    schema = tool.get("inputSchema")
    members = schema.get("properties") if isinstance(schema, dict) else None
    return {name: one for name, one in members.items() if isinstance(one, dict)} if isinstance(members, dict) else {}


def required_of(tool: Mapping[str, Any]) -> list[str]:
    """The names of the arguments that a tool needs."""
    schema = tool.get("inputSchema")
    names = schema.get("required") if isinstance(schema, dict) else None
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


def sample_arguments(tool: Mapping[str, Any]) -> dict[str, Any] | None:
    """Arguments that the schema allows; None where it asks for more than can be made up here."""
    members = properties_of(tool)
    names = required_of(tool)
    if not all(name in members and sample_of(members[name]) is not ... for name in names):
        return None
    return {name: sample_of(members[name]) for name in names}


def sample_of(schema: Schema) -> Any:
    """A value that a simple schema allows; `...` when it is not simple."""
    for name in ("enum", "examples"):
        if isinstance(schema.get(name), list) and schema[name]:
            return schema[name][0]
    for name in ("const", "default"):
        if name in schema:
            return schema[name]
    kind = schema.get("type")
    return _SAMPLES.get(kind, ...) if isinstance(kind, str) else ...


def text_arguments(tool: Mapping[str, Any]) -> list[str]:
    """The names of the arguments that take any text."""
    return [name for name, one in properties_of(tool).items() if one.get("type") == "string" and "enum" not in one]
