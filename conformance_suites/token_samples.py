"""How unpredictable a sample of issued secrets looks: the least that can be said from outside (RFC 6749 §10.10)."""

from __future__ import annotations

import math
import string
from collections.abc import Iterable, Iterator, Sequence
from urllib.parse import parse_qs, urlsplit

from pytest_mcp_conformance.browser import is_at
from pytest_mcp_conformance.exchange import Exchange
from pytest_mcp_conformance.forge.jws import read_jws
from pytest_mcp_conformance.grants import REDIRECT_URI

Sample = list[tuple[str, Exchange]]

ENOUGH_BITS = 120.0
"""RFC 6749 §10.10 wants 128. A UUID of version 4 holds 122, and a sample cannot tell such a difference."""
FEWEST = 8
_ALPHABETS = (
    frozenset(string.digits),
    frozenset("0123456789abcdef"),
    frozenset("0123456789ABCDEF"),
    frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"),
    frozenset(string.ascii_lowercase + string.digits),
    frozenset(string.ascii_letters + string.digits),
)


def varying_bits(sample: Sequence[str]) -> float:
    """At most how many bits differ from one text of the sample to the next: the characters that vary, each worth what
    the smallest alphabet that holds them all is worth. `sample` holds `FEWEST` texts or more, without repetition.
    """
    length = min(map(len, sample))
    columns = [{text[at] for text in sample} for at in range(length)]
    varying = [column for column in columns if len(column) > 1]
    letters: set[str] = set().union(*varying)
    alphabet = next((one for one in _ALPHABETS if letters <= one), None)
    return len(varying) * math.log2(64 if alphabet is None else len(alphabet))


def codes(history: Iterable[Exchange]) -> Sample:
    """The authorization codes that came back to the client during a run."""
    return [(code, exchange) for exchange in history for code in _codes_of(exchange)]


def _codes_of(exchange: Exchange) -> Iterator[str]:
    for location in exchange.header_lines("location"):
        if is_at(location, REDIRECT_URI):
            yield from parse_qs(urlsplit(location).query).get("code", ())


def opaque_tokens(history: Iterable[Exchange], endpoint: str, name: str) -> Sample:
    """What stood in the member `name` of a run's token responses, JWTs left out: they are signed, and need no guessing.

    Of several answers to one code or refresh token the first counts, for a server may repeat itself to a client that
    repeats itself; and a refresh token that comes back in answer to itself was not issued anew.
    """
    found: Sample = []
    answered: set[str] = set()
    for exchange in history:
        members = exchange.json() if exchange.request.url == endpoint and exchange.succeeded else None
        token = members.get(name) if isinstance(members, dict) else None
        fields = parse_qs((exchange.request.body or b"").decode("latin-1"))
        spent = [*fields.get("code", ()), *fields.get("refresh_token", ())]
        if isinstance(token, str) and not answered & set(spent) and token not in spent and read_jws(token) is None:
            found.append((token, exchange))
            answered.update(spent)
    return found
