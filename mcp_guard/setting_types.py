"""How lists and pairs are spelled in one environment variable."""

from typing import Annotated, TypeAlias

from pydantic import BeforeValidator
from pydantic_settings import NoDecode


def _split(value: object) -> object:
    if not isinstance(value, str):
        return value
    return tuple(part.strip() for part in value.split(",") if part.strip())


def _paired(value: object) -> object:
    """`NAME=SCOPE SCOPE,NAME=SCOPE` as pairs. The last equals sign of an entry counts: a URI may have others."""
    if not isinstance(value, str):
        return value
    pairs: dict[str, frozenset[str]] = {}
    for entry in (part.strip() for part in value.split(",") if part.strip()):
        name, _, scopes = entry.rpartition("=")
        if not name.strip() or not scopes.strip():
            raise ValueError(f"{entry!r} must be NAME=SCOPE or NAME=SCOPE SCOPE")
        if name.strip() in pairs:
            raise ValueError(f"{name.strip()!r} appears twice")
        pairs[name.strip()] = frozenset(scopes.split())
    return tuple(pairs.items())


List: TypeAlias = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
Entries: TypeAlias = Annotated[tuple[tuple[str, frozenset[str]], ...], NoDecode, BeforeValidator(_paired)]
