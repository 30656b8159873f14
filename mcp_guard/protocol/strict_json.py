"""JSON with one reading (RFC 8259, RFC 7493): whatever two parsers may read differently is refused.

Refused: anything but UTF-8, a byte order mark, a repeated member name at any level, NaN and Infinity, numbers that
overflow a double, numbers with very many digits, lone surrogates, and nesting beyond a bound that is checked before
anything recurses.
"""

import re
from collections.abc import Callable
from functools import lru_cache
from json import JSONDecodeError, JSONDecoder
from math import isinf
from typing import Any

MAX_DEPTH = 32
MAX_DIGITS = 64
MAX_DEPTH_SETTING = 256
"""The parser recurses once for each level, so no caller may ask for more than this."""

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_BLANKS = " \t\n\r"
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)', re.DOTALL)
_SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F]")
_NOT_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")
_OPENING = ord("[")
_ONE_KIND = bytes.maketrans(b"{}", b"[]")


class JsonError(ValueError):
    """The bytes are not JSON with one reading. `reason` says why and quotes nothing of them."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def loads(data: bytes, *, max_depth: int = MAX_DEPTH, max_digits: int = MAX_DIGITS) -> Any:
    """The value that `data` spells. Bounding the size of `data` is the caller's part.

    `max_depth` is the number of arrays and objects that may be inside each other, at most 256. `max_digits` is the
    number of characters a number may be written with.

    Raises:
        JsonError: `data` has no reading, or more than one.
        ValueError: `max_depth` is out of range.
    """
    if not 0 <= max_depth <= MAX_DEPTH_SETTING:
        raise ValueError(f"max_depth must be between 0 and {MAX_DEPTH_SETTING}, not {max_depth}")
    if data.startswith(_BYTE_ORDER_MARK):
        raise JsonError("begins with a byte order mark")
    if data.count(b"[") + data.count(b"{") > max_depth:
        _check_depth(data, max_depth)
    try:
        text = data.decode("utf-8")
        start = len(text) - len(text.lstrip(_BLANKS))
        value, end = _decoder(max_digits).raw_decode(text, start)
    except UnicodeDecodeError:
        raise JsonError("is not UTF-8") from None
    except JSONDecodeError as fault:
        raise JsonError(f"is not JSON (character {fault.pos})") from None
    if text[end:].strip(_BLANKS):
        raise JsonError(f"is not JSON (character {end})")
    if b"\\" in data and _SURROGATE_ESCAPE.search(data):
        _check_surrogates(value)
    return value


def _check_depth(data: bytes, max_depth: int) -> None:
    """Count brackets outside strings. Linear in `data`, and done at the first bracket that is too deep."""
    depth = 0
    for byte in _STRING.sub(b"", data).translate(_ONE_KIND, _NOT_BRACKETS):
        if byte == _OPENING:
            depth += 1
            if depth > max_depth:
                raise JsonError(f"is nested more than {max_depth} deep")
        else:
            depth -= 1


def _check_surrogates(value: object) -> None:
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, str):
            try:
                item.encode("utf-8")
            except UnicodeEncodeError:
                raise JsonError("has a lone surrogate") from None
        elif isinstance(item, dict):
            pending.extend(item)
            pending.extend(item.values())
        elif isinstance(item, list):
            pending.extend(item)


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise JsonError("repeats a member name")
    return members


def _constant(name: str) -> object:
    raise JsonError(f"has {name}, which is not a number")


def _integer(max_digits: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if len(text) > max_digits:
            raise JsonError(f"has a number of more than {max_digits} characters")
        return int(text)

    return parse


def _fraction(max_digits: int) -> Callable[[str], float]:
    def parse(text: str) -> float:
        if len(text) > max_digits:
            raise JsonError(f"has a number of more than {max_digits} characters")
        value = float(text)
        if isinf(value):
            raise JsonError("has a number that no double holds")
        return value

    return parse


@lru_cache(16)
def _decoder(max_digits: int) -> JSONDecoder:
    return JSONDecoder(
        object_pairs_hook=_members,
        parse_int=_integer(max_digits),
        parse_float=_fraction(max_digits),
        parse_constant=_constant,
    )
