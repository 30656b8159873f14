"""How many random bits identifiers hold, as far as a sample of them can tell."""

from __future__ import annotations

import math
import string
from collections.abc import Sequence

ENOUGH_BITS = 120
"""Rather than 128: a random UUID has 122, and the transport page names it as an example."""

_ALPHABETS = (
    string.digits,
    string.hexdigits.lower(),
    string.hexdigits.upper(),
    "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567",
    string.ascii_lowercase + string.digits,
    string.ascii_letters + string.digits + "+/-_=",
)


def random_bits(sample: Sequence[str]) -> float:
    """An upper estimate: the bits of every position that varies as a random one of its alphabet would.

    A position with fewer different characters than half of what chance would bring counts for those only, so that a
    counter, a time or a name adds little. Identifiers of different length are compared by their ends.
    """
    length = min(map(len, sample), default=0)
    columns = [{text[-at] for text in sample} for at in range(1, length + 1)]
    varying = [column for column in columns if len(column) > 1]
    alphabet = _alphabet(set().union(*varying)) if varying else 1
    expected = alphabet * (1 - (1 - 1 / alphabet) ** len(sample))
    return sum(math.log2(alphabet if len(column) >= expected / 2 else len(column)) for column in varying)


def _alphabet(characters: set[str]) -> int:
    """The size of the smallest usual alphabet that holds the characters."""
    sizes = [len(set(known)) for known in _ALPHABETS if characters <= set(known)]
    return min([*sizes, 94])
