"""WWW-Authenticate fields, read by the grammar of RFC 9110 §11.2, §11.3 and §11.6.1."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

# RFC 9110 §5.6.2 token, §11.2 token68, §5.6.4 quoted-string; OWS of §5.6.3.
_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"  # noqa: S105
_SCHEME = re.compile(_TOKEN)
_TOKEN68 = re.compile(r"[A-Za-z0-9\-._~+/]+=*(?=[ \t]*(?:,|$))")
_PARAM = re.compile(
    rf'({_TOKEN})[ \t]*=[ \t]*(?:({_TOKEN})|"((?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t\x20-\x7e\x80-\xff])*)")'
)
_SPACES = re.compile(r" +")
_COMMA = re.compile(r"[ \t]*(?:,[ \t]*)+|[ \t]*$")
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)


class MalformedChallenge(ValueError):
    """A WWW-Authenticate field that the grammar of RFC 9110 §11.6.1 does not produce."""


@dataclass(frozen=True)
class Challenge:
    """One challenge: `scheme` as sent, `parameters` by lower-case name, or `token68`."""

    scheme: str
    parameters: Mapping[str, str] = field(default_factory=dict)
    token68: str = ""

    def is_bearer(self) -> bool:
        return self.scheme.lower() == "bearer"


def parse_challenges(fields: Sequence[str]) -> list[Challenge]:
    """All challenges of all field lines, in order.

    Raises:
        MalformedChallenge: the text is not in the grammar, or a parameter name is repeated in one challenge (§11.2).
    """
    found: list[Challenge] = []
    for text in fields:
        _parse_field(text, found)
    return found


def _parse_field(text: str, found: list[Challenge]) -> None:
    position = _skip(_COMMA, text, 0) if text.lstrip(" \t").startswith(",") else len(text) - len(text.lstrip(" \t"))
    if position >= len(text):
        raise MalformedChallenge("an empty WWW-Authenticate field")
    while position < len(text):
        scheme = _SCHEME.match(text, position)
        if scheme is None:
            raise MalformedChallenge(f"no authentication scheme at character {position} of {text!r}")
        challenge, position = _parse_one(text, scheme[0], scheme.end())
        found.append(challenge)


def _parse_one(text: str, scheme: str, position: int) -> tuple[Challenge, int]:
    spaces = _SPACES.match(text, position)
    if spaces is None:
        return Challenge(scheme), _separator(text, position)
    position = spaces.end()
    token68 = _TOKEN68.match(text, position)
    if token68 is not None and _PARAM.match(text, position) is None and _has_more_than_a_scheme(text, token68.end()):
        return Challenge(scheme, token68=token68[0]), _separator(text, token68.end())
    parameters: dict[str, str] = {}
    while (match := _PARAM.match(text, position)) is not None:
        name = match[1].lower()
        if name in parameters:
            raise MalformedChallenge(f"the parameter {name!r} is repeated in one challenge")
        parameters[name] = match[2] if match[3] is None else _ESCAPE.sub(r"\1", match[3])
        position = _separator(text, match.end())
    if not parameters and position < len(text):
        position = _separator(text, position)
    return Challenge(scheme, parameters), position


def _has_more_than_a_scheme(text: str, end: int) -> bool:
    return _COMMA.match(text, end) is not None


def _separator(text: str, position: int) -> int:
    return _skip(_COMMA, text, position)


def _skip(pattern: re.Pattern[str], text: str, position: int) -> int:
    match = pattern.match(text, position)
    if match is None:
        raise MalformedChallenge(f"unexpected text at character {position} of {text!r}")
    return match.end()
