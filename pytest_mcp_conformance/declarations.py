"""What only the operator knows about the target: which tools may be called, and what they do."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from pytest_mcp_conformance.options import PREFIX

MOST_CALLS = 50


@dataclass(frozen=True)
class ObjectTools:
    """A tool that makes an object of its caller's own, and one that reads it.

    `create` is called with `arguments` and answers with the object's name in the member `identifier` of its structured
    content; `read` takes that name in `argument`.
    """

    create: str
    identifier: str
    read: str
    argument: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class LimitedTool:
    """A tool, called without arguments, that one user may call `calls` times (1 to 50) in `seconds` and no more."""

    name: str
    calls: int
    seconds: float


@dataclass(frozen=True)
class Declarations:
    """One file. Everything is optional: a check that needs what was not declared is not run.

    Attributes:
        harmless_tools: tools that may be called without arguments, by any user, as often as a check likes.
        scoped_tool: a tool, called without arguments, that needs two scopes or more which user A's token lacks.
        asking_tool: a tool, called without arguments, that asks its caller a question (elicitation) and waits.
        implied_scopes: the narrower scopes that a scope includes.
        object_tools: how to make an object of a user's own, and to read it.
        outbound_tool: a tool that requests a URL it is given; `outbound_argument` is the argument's name.
        revocation_seconds: how long a revoked token may go on working.
        limited_tool: a harmless tool with a small limit, which checks of limits may use up.
    """

    harmless_tools: tuple[str, ...] = ()
    scoped_tool: str = ""
    asking_tool: str = ""
    implied_scopes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    object_tools: ObjectTools | None = None
    outbound_tool: str = ""
    outbound_argument: str = ""
    revocation_seconds: float | None = None
    limited_tool: LimitedTool | None = None


def read_declarations(path: Path | None) -> Declarations:
    """The declarations of a TOML file; none when there is no file.

    Raises:
        pytest.UsageError: the file is not TOML, or a member is unknown or of the wrong type.
    """
    if path is None:
        return Declarations()
    where = f"{PREFIX}-declarations: {path}"
    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise pytest.UsageError(f"{where} is not TOML: {error}") from None
    try:
        return _read(table)
    except (TypeError, ValueError) as error:
        raise pytest.UsageError(f"{where}: {error}") from None


def _read(table: dict[str, Any]) -> Declarations:
    unknown = table.keys() - Declarations.__dataclass_fields__.keys()
    if unknown:
        raise ValueError(f"there is no member {', '.join(sorted(unknown))}")
    values: dict[str, Any] = {name: _text(name, table[name]) for name in _TEXTS & table.keys()}
    if "harmless_tools" in table:
        values["harmless_tools"] = _texts("harmless_tools", table["harmless_tools"])
    if "implied_scopes" in table:
        implied = _table("implied_scopes", table["implied_scopes"])
        values["implied_scopes"] = {scope: _texts(scope, narrower) for scope, narrower in implied.items()}
    if "object_tools" in table:
        values["object_tools"] = _object_tools(_table("object_tools", table["object_tools"]))
    if "revocation_seconds" in table:
        values["revocation_seconds"] = _seconds("revocation_seconds", table["revocation_seconds"])
    if "limited_tool" in table:
        values["limited_tool"] = _limited_tool(_table("limited_tool", table["limited_tool"]))
    if bool(values.get("outbound_tool")) != bool(values.get("outbound_argument")):
        raise ValueError("outbound_tool and outbound_argument go together")
    return Declarations(**values)


_TEXTS = frozenset({"scoped_tool", "asking_tool", "outbound_tool", "outbound_argument"})


def _object_tools(table: dict[str, Any]) -> ObjectTools:
    needed = ("create", "identifier", "read", "argument")
    if not set(needed) <= table.keys() <= {*needed, "arguments"}:
        raise ValueError(f"object_tools has the members {', '.join(needed)}, and arguments if need be")
    texts = {name: _text(name, table[name]) for name in needed}
    return ObjectTools(**texts, arguments=_table("arguments", table.get("arguments", {})))


def _limited_tool(table: dict[str, Any]) -> LimitedTool:
    if table.keys() != {"name", "calls", "seconds"}:
        raise ValueError("limited_tool has the members name, calls and seconds")
    calls = table["calls"]
    if isinstance(calls, bool) or not isinstance(calls, int) or not 1 <= calls <= MOST_CALLS:
        raise ValueError(f"limited_tool.calls must be a number from 1 to {MOST_CALLS}")
    seconds = _seconds("limited_tool.seconds", table["seconds"])
    if not seconds:
        raise ValueError("limited_tool.seconds must be more than 0")
    return LimitedTool(_text("limited_tool.name", table["name"]), calls, seconds)


def _text(name: str, value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"{name} must be text")
    return value


def _seconds(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
        raise ValueError(f"{name} must be a number of seconds")
    return float(value)


def _texts(name: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise ValueError(f"{name} must be a list of texts")
    return tuple(_text(name, one) for one in value)


def _table(name: str, value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{name} must be a table")
    return value
