"""Lists of items with parameters, as structured fields write them (RFC 9651 §3.1). Reads; does not write."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

Value = str | int | float | bool | bytes

_STRING = re.compile(r'"((?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*)"')
_NUMBER = re.compile(r"-?(?:[0-9]{1,12}\.[0-9]{1,3}|[0-9]{1,15})")
_TOKEN = re.compile(r"[A-Za-z*][\w!#$%&'*+.^`|~:/-]*", re.ASCII)
_BYTES = re.compile(r":([A-Za-z0-9+/=]*):")
_BOOLEAN = re.compile(r"\?([01])")
_KEY = re.compile(r"[a-z*][a-z0-9_.*-]*")


class Malformed(ValueError):
    """The field is not a list of items; the message says where."""


class Token(str):
    """A word without quotation marks, which is not the string of the same letters."""

    __slots__ = ()


@dataclass(frozen=True)
class Item:
    """One member of a list."""

    value: Value
    parameters: Mapping[str, Value] = field(default_factory=dict)


def read_list(lines: Sequence[str]) -> list[Item]:
    """The items of all lines of a field (RFC 9651 §4.2.1). Inner lists are not read.

    Raises:
        Malformed: it is not a list of items.
    """
    text, at = ", ".join(lines).strip(" "), 0
    items: list[Item] = []
    while at < len(text):
        item, at = _item(text, at)
        items.append(item)
        at = _past_blanks(text, at)
        if at == len(text):
            break
        if text[at] != ",":
            raise Malformed(f"a comma was expected at {at}")
        at = _past_blanks(text, at + 1)
        if at == len(text):
            raise Malformed("it ends with a comma")
    return items


def _item(text: str, at: int) -> tuple[Item, int]:
    value, at = _value(text, at)
    parameters: dict[str, Value] = {}
    while at < len(text) and text[at] == ";":
        at = _past_blanks(text, at + 1)
        key = _KEY.match(text, at)
        if key is None:
            raise Malformed(f"the name of a parameter was expected at {at}")
        at, held = key.end(), True
        parameters[key[0]] = held
        if at < len(text) and text[at] == "=":
            parameters[key[0]], at = _value(text, at + 1)
    return Item(value, parameters), at


def _value(text: str, at: int) -> tuple[Value, int]:
    if match := _STRING.match(text, at):
        return re.sub(r"\\(.)", r"\1", match[1]), match.end()
    if match := _NUMBER.match(text, at):
        return float(match[0]) if "." in match[0] else int(match[0]), match.end()
    if match := _BOOLEAN.match(text, at):
        return match[1] == "1", match.end()
    if match := _BYTES.match(text, at):
        try:
            return base64.b64decode(match[1], validate=True), match.end()
        except binascii.Error:
            raise Malformed(f"there is no base64 at {at}") from None
    if match := _TOKEN.match(text, at):
        return Token(match[0]), match.end()
    raise Malformed(f"a value was expected at {at}")


def _past_blanks(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t":
        at += 1
    return at
