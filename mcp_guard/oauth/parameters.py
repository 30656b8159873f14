"""Parameters of the endpoints: parsed once, strictly (RFC 6749 §3.1 and §3.2, appendix B).

A parameter must not be repeated; one without a value counts as omitted; unknown ones are ignored. Text that does not
decode, in its percent-encoding or as UTF-8, is refused: two parsers would read it differently.
"""

import re
from collections.abc import Sequence
from urllib.parse import unquote_to_bytes, urlencode

MAX_PARAMETERS = 64

_ENCODED = re.compile(rb"(?:[^%]|%[0-9A-Fa-f]{2})*")


class ParameterError(ValueError):
    """The text is not a form, or a parameter is not what it must be. The message quotes no value."""


Pairs = tuple[tuple[str, str], ...]


def parse_form(data: bytes) -> Pairs:
    """The pairs of an application/x-www-form-urlencoded text, in order.

    Raises:
        ParameterError: a broken percent-encoding, text that is not UTF-8, or more than 64 parameters.
    """
    if not data:
        return ()
    parts = data.split(b"&")
    if len(parts) > MAX_PARAMETERS:
        raise ParameterError(f"there are more than {MAX_PARAMETERS} parameters")
    return tuple(_pair(part) for part in parts if part)


def _pair(part: bytes) -> tuple[str, str]:
    name, _, value = part.partition(b"=")
    return _decode(name), _decode(value)


def _decode(text: bytes) -> str:
    if _ENCODED.fullmatch(text) is None:
        raise ParameterError("a percent-encoding is broken")
    try:
        return unquote_to_bytes(text.replace(b"+", b" ")).decode("utf-8")
    except UnicodeDecodeError:
        raise ParameterError("a parameter is not UTF-8") from None


def encode_form(pairs: Sequence[tuple[str, str]]) -> str:
    """The pairs as a query in one spelling, all of it URL-safe ASCII."""
    return urlencode(pairs)


class Parameters:
    """The parameters of one request."""

    def __init__(self, pairs: Pairs) -> None:
        self.pairs = pairs

    def one(self, name: str) -> str | None:
        """The value of `name`; None when it is omitted or empty.

        Raises:
            ParameterError: it is repeated.
        """
        values = [value for key, value in self.pairs if key == name]
        if len(values) > 1:
            raise ParameterError(f"{name} is repeated")
        return values[0] or None if values else None

    def repeated(self) -> str | None:
        """The name of a parameter that is repeated, None when there is none."""
        seen: set[str] = set()
        for name, _ in self.pairs:
            if name in seen:
                return name
            seen.add(name)
        return None

    def has(self, name: str) -> bool:
        """Whether `name` is there at all, even without a value."""
        return any(key == name for key, _ in self.pairs)

    def one_or_none(self, name: str) -> str | None:
        """Like `one`, but None when `name` is repeated."""
        try:
            return self.one(name)
        except ParameterError:
            return None
