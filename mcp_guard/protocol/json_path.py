"""The part of JSONPath (RFC 9535) that says where in a JSON value a handle stands.

A path is `$` and steps: `.name` or `['name']` for the member of an object, `[2]` for an element of an array (negative
from its end), `.*` or `[*]` for every child. Filters, slices, unions, descendants and blanks are not part of it.
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

EVERY: Final = None
"""The step to every child (RFC 9535 §2.3.2)."""

Step: TypeAlias = str | int | None
"""A member's name, an element's index, or `EVERY`."""

MAX_CHARACTERS: Final = 1024

# RFC 9535 §2.5.1.1 member-name-shorthand; §2.3.1.1 string-literal; §2.3.3.1 index-selector.
_NAME = re.compile(r"\.([A-Za-z_\u0080-\ud7ff\ue000-\U0010ffff][0-9A-Za-z_\u0080-\ud7ff\ue000-\U0010ffff]*)")
_QUOTED = re.compile(
    r"\[(?:'((?:[^'\\\x00-\x1f]|\\['/\\bfnrt]|\\u[0-9A-Fa-f]{4})*)'"
    r'|"((?:[^"\\\x00-\x1f]|\\["/\\bfnrt]|\\u[0-9A-Fa-f]{4})*)")\]'
)
_INDEX = re.compile(r"\[(0|-?[1-9][0-9]{0,15})\]")
_EVERY = re.compile(r"\.\*|\[\*\]")


class PathError(ValueError):
    """A text is no path, or one of a kind that is not read here. `reason` names the character, counted from 1."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class JsonPath:
    """A parsed path; `text` is how it was written."""

    text: str
    steps: tuple[Step, ...]

    @classmethod
    def parse(cls, text: str) -> "JsonPath":
        """The path that `text` spells.

        Raises:
            PathError: it spells none.
        """
        if not text.startswith("$"):
            raise PathError("character 1: a path begins with $")
        if len(text) > MAX_CHARACTERS:
            raise PathError(f"character {MAX_CHARACTERS + 1}: a path has at most {MAX_CHARACTERS}")
        steps: list[Step] = []
        place = 1
        while place < len(text):
            step, place = _step(text, place)
            steps.append(step)
        return cls(text, tuple(steps))

    def select(self, value: object, inside: Callable[[str], object] | None = None) -> list[object]:
        """The values at the end of the path, in order; none where the path leads nowhere (RFC 9535 §2.1.2).

        A string has no children; where one stands in the way, the path goes on in what `inside` makes of it.
        """
        nodes = [value]
        for step in self.steps:
            if inside is not None:
                nodes = [inside(node) if isinstance(node, str) else node for node in nodes]
            nodes = [child for node in nodes for child in _children(node, step)]
        return nodes


def _children(node: object, step: Step) -> Sequence[object]:
    if isinstance(node, dict):
        if step is EVERY:
            return list(node.values())
        return [node[step]] if isinstance(step, str) and step in node else ()
    if isinstance(node, list):
        if step is EVERY:
            return node
        return [node[step]] if isinstance(step, int) and -len(node) <= step < len(node) else ()
    return ()


def _step(text: str, place: int) -> tuple[Step, int]:
    """The step at `place`, and the place after it.

    Raises:
        PathError: there is none.
    """
    if (found := _EVERY.match(text, place)) is not None:
        return EVERY, found.end()
    if (found := _NAME.match(text, place)) is not None:
        return found[1], found.end()
    if (found := _INDEX.match(text, place)) is not None:
        return int(found[1]), found.end()
    if (found := _QUOTED.match(text, place)) is not None:
        return _unquoted(found, place), found.end()
    raise PathError(f"character {place + 1}: neither .name, ['name'], [index], .* nor [*]")


def _unquoted(found: re.Match[str], place: int) -> str:
    single, double = found.groups()
    inner = double if single is None else single.replace('"', '\\"').replace("\\'", "'")
    name: str = json.loads(f'"{inner}"')
    if any("\ud800" <= character <= "\udfff" for character in name):
        raise PathError(f"character {place + 1}: the name has a lone surrogate")
    return name
