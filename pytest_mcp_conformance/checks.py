"""How a check names the requirement it judges. Imported by every suite, so nothing heavy here."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeVar

import pytest

MARK = "mcp_requirement"
LAST = "mcp_last"
_ID = re.compile(r"[A-Z]+-\d{3}")
_Check = TypeVar("_Check", bound=Callable[..., None])


def requirement(requirement_id: str) -> Callable[[_Check], _Check]:
    """Mark a test function as a check of one catalogue requirement, such as `PRM-001`.

    Raises:
        ValueError: the id is not an area and three digits.
    """
    if not _ID.fullmatch(requirement_id):
        raise ValueError(f"a requirement id is an area and three digits such as PRM-001, not {requirement_id!r}")

    def mark(check: _Check) -> _Check:
        marked: _Check = getattr(pytest.mark, MARK)(requirement_id)(check)
        return marked

    return mark


def last(check: _Check) -> _Check:
    """Mark a check that wants all others to run before it: it judges what the whole run brought to light."""
    marked: _Check = getattr(pytest.mark, LAST)(check)
    return marked


def requirement_of(item: pytest.Item) -> str:
    """The id a collected item judges; empty when it is no check."""
    marker = item.get_closest_marker(MARK)
    return str(marker.args[0]) if marker is not None else ""


def comes_last(item: pytest.Item) -> bool:
    """Whether a collected check wants all others to run before it."""
    return item.get_closest_marker(LAST) is not None
