"""The requirements as data: what is judged, by which source, how gravely, and what it takes to judge it.

One TOML file per area in `requirements/`, read and validated once by `load`. Needs the standard library alone.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from types import MappingProxyType
from typing import Any

from pytest_mcp_conformance.references import source_url
from pytest_mcp_conformance.vocabulary import AREAS, REVISIONS, Condition, Level, Needs, Requirement, Role, Severity

__all__ = [
    "AREAS",
    "REVISIONS",
    "CatalogueError",
    "Condition",
    "Level",
    "Needs",
    "Requirement",
    "Role",
    "Severity",
    "load",
    "read",
    "source_url",
]


class CatalogueError(ValueError):
    """The requirement data is not as it must be. `file`, `requirement` (its id) and `field` say where."""

    def __init__(self, problem: str, *, file: str, requirement: str = "", field: str = "") -> None:
        self.file, self.requirement, self.field = file, requirement, field
        super().__init__(": ".join(part for part in (file, requirement, field, problem) if part))


@cache
def load() -> Mapping[str, Requirement]:
    """Every requirement by its id, areas in the order of `AREAS`, ids in that of their file. Read once a process.

    Raises:
        CatalogueError: the data is not as it must be, or the file of an area is missing or empty.
    """
    folder = files("pytest_mcp_conformance") / "requirements"
    found: dict[str, Requirement] = {}
    for area in AREAS:
        found.update((requirement.id, requirement) for requirement in _read_area(folder, f"{area.lower()}.toml"))
    return MappingProxyType(found)


def _read_area(folder: Traversable, file: str) -> tuple[Requirement, ...]:
    try:
        text = (folder / file).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise CatalogueError("there is no such file", file=file) from None
    found = read(text, file)
    if not found:
        raise CatalogueError("holds no requirement", file=file)
    return found


def read(text: str, file: str) -> tuple[Requirement, ...]:
    """The requirements in the TOML `text`; `file` is its name, `prm.toml` for the area PRM.

    Raises:
        CatalogueError: the text is no TOML, or one of its entries has a member that is unknown, missing or malformed,
            an id of another area, or an id that came before.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise CatalogueError(f"no valid TOML: {error}", file=file) from None
    entries = document.pop("requirement", [])
    if document:
        raise CatalogueError(f"unknown member, only [[requirement]] may stand here: {_named(document)}", file=file)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise CatalogueError("must be an array of tables, written [[requirement]]", file=file, field="requirement")
    found: dict[str, Requirement] = {}
    for entry in entries:
        requirement = _requirement(entry, file)
        if requirement.id in found:
            raise CatalogueError("occurs twice", file=file, requirement=requirement.id, field="id")
        found[requirement.id] = requirement
    return tuple(found.values())


def _requirement(entry: Mapping[str, Any], file: str) -> Requirement:
    name = str(entry.get("id", ""))
    if unknown := entry.keys() - _READERS.keys():
        raise CatalogueError("unknown member", file=file, requirement=name, field=_named(unknown))
    if missing := _READERS.keys() - entry.keys() - _OPTIONAL:
        raise CatalogueError("missing", file=file, requirement=name, field=_named(missing))
    values: dict[str, Any] = {}
    for field, value in entry.items():
        try:
            values[_ATTRIBUTES.get(field, field)] = _READERS[field](value)
        except ValueError as error:
            raise CatalogueError(str(error), file=file, requirement=name, field=field) from None
    requirement = Requirement(**values)
    if f"{requirement.area.lower()}.toml" != file:
        raise CatalogueError("belongs into the file of its area", file=file, requirement=name, field="id")
    if requirement.property_based != bool(requirement.input_space):
        problem = "must be given exactly when property is true"
        raise CatalogueError(problem, file=file, requirement=name, field="input_space")
    return requirement


def _named(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"must be text, not {value!r}")
    if value != " ".join(value.split()):
        raise ValueError("must be one line without stray blanks")
    return value


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not value:
        raise ValueError(f"must be a list with at least one text, not {value!r}")
    texts = tuple(_text(item) for item in value)
    if len(set(texts)) < len(texts):
        raise ValueError("names something twice")
    return texts


def _id(value: object) -> str:
    text = _text(value)
    if not re.fullmatch(r"[A-Z]+-\d{3}", text) or text.partition("-")[0] not in AREAS:
        raise ValueError(f"must be the prefix of an area and three digits, not {text!r}")
    return text


def _revisions(value: object) -> tuple[str, ...]:
    texts = _texts(value)
    if texts == ("all",):
        return REVISIONS
    for text in texts:
        if text not in REVISIONS:
            raise ValueError(f"there is no revision {text!r}; known are {_named(REVISIONS)}, and all by itself")
    return tuple(sorted(texts))


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"must be true or false, not {value!r}")
    return value


def _one_of(words: type[StrEnum]) -> Callable[[object], StrEnum]:
    known: dict[object, StrEnum] = {word.value: word for word in words}

    def read_word(value: object) -> StrEnum:
        word = known.get(value) if isinstance(value, str) else None
        if word is None:
            raise ValueError(f"must be one of {', '.join(words)}, not {value!r}")
        return word

    return read_word


_READERS: Mapping[str, Callable[[object], object]] = {
    "id": _id,
    "title": _text,
    "level": _one_of(Level),
    "severity": _one_of(Severity),
    "role": _one_of(Role),
    "revisions": _revisions,
    "sources": _texts,
    "needs": _one_of(Needs),
    "applies_when": _one_of(Condition),
    "statement": _text,
    "remedy": _text,
    "property": _flag,
    "input_space": _text,
    "fixtures": _text,
    "note": _text,
}
_OPTIONAL = frozenset({"input_space", "fixtures", "note"})
_ATTRIBUTES = {"property": "property_based"}  # `property` is taken inside a class
