"""Strict readers for what clients send: JSON without ambiguity and forms without repetition."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn
from urllib.parse import parse_qsl

from tests.support.model_server.keys import JSON


class Ambiguous(ValueError):
    """Two readers could see two different things."""


def strict_json(data: bytes) -> Any:
    """The value of a JSON text without repeated members, NaN, Infinity, numbers that are infinite, or lone surrogates.

    Raises:
        ValueError: not JSON, not UTF-8, nested too deeply, or ambiguous.
    """
    try:
        value = json.loads(
            data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite
        )
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    return value


def unique_form(text: str) -> dict[str, str]:
    """Form or query parameters by name; empty values are kept (RFC 6749 §3.1: no parameter more than once).

    Raises:
        Ambiguous: a name occurs twice.
    """
    return _unique(parse_qsl(text, keep_blank_values=True, strict_parsing=False, encoding="utf-8"))


def _unique(pairs: list[tuple[str, Any]]) -> JSON:
    found: JSON = {}
    for name, value in pairs:
        if name in found:
            raise Ambiguous(f"{name[:40]!r} is given twice")
        found[name] = value
    return found


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError("an infinite number")
    return number


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
