"""Scopes: sets of tokens, compared exactly (RFC 6749 §3.3), and what is declared of one scope standing for others.

What a scope implies is what it is declared to imply, never what its spelling suggests. A hierarchy that is `closed`
says of each scope everything that it implies, at whatever distance.
"""

import re
from collections.abc import Iterable, Mapping, Set
from functools import lru_cache
from graphlib import CycleError, TopologicalSorter
from types import MappingProxyType
from typing import Final, TypeAlias

_TOKEN: Final = re.compile(r"[!#-\[\]-~]+")
_LIST: Final = re.compile(r"[!#-\[\]-~]+(?: [!#-\[\]-~]+)*")

NONE: Final[frozenset[str]] = frozenset()

Hierarchy: TypeAlias = Mapping[str, frozenset[str]]

FLAT: Final[Hierarchy] = MappingProxyType({})
"""Nothing implies anything."""


class ScopeError(ValueError):
    """The text is not a list of scopes. The message quotes nothing of it."""


class CircleError(ValueError):
    """Scopes that imply each other; the message names them."""


def is_scope_token(text: str) -> bool:
    """Whether `text` is one scope: visible ASCII without the double quote and the backslash (RFC 6749 §3.3)."""
    return _TOKEN.fullmatch(text) is not None


@lru_cache(1024)
def parse(text: str) -> frozenset[str]:
    """The scopes that `text` lists, each after a single space; none for the empty text.

    Raises:
        ScopeError: any other white space, an empty element, or a character that no scope has.
    """
    if not text:
        return NONE
    if _LIST.fullmatch(text) is None:
        raise ScopeError("is not a list of scopes separated by single spaces")
    return frozenset(text.split(" "))


def closed(implies: Hierarchy) -> Hierarchy:
    """The hierarchy in which each scope also implies what those do that it implies.

    Raises:
        CircleError: a scope would imply itself.
    """
    try:
        order = tuple(TopologicalSorter(implies).static_order())
    except CycleError as fault:
        raise CircleError(", ".join(sorted(set(fault.args[1])))) from None
    full: dict[str, frozenset[str]] = {}
    for scope in order:
        below = implies.get(scope, NONE)
        full[scope] = below.union(*(full[one] for one in below))
    return full


def missing(required: Set[str], granted: Set[str], hierarchy: Hierarchy = FLAT) -> frozenset[str]:
    """Those of `required` that are neither among `granted` nor implied by one of them; `hierarchy` is closed."""
    lacking = frozenset(required - granted)
    return lacking.difference(*(hierarchy.get(one, NONE) for one in granted)) if lacking else lacking


def minimal(required: Set[str], hierarchy: Hierarchy) -> frozenset[str]:
    """The fewest of `required` that imply all of it; `hierarchy` is closed."""
    return frozenset(required).difference(*(hierarchy.get(one, NONE) for one in required))


def render(scopes: Iterable[str]) -> str:
    """The scopes as one text, sorted, so that the same set is always spelled the same.

    Raises:
        ScopeError: an element is not a scope.
    """
    ordered = sorted(set(scopes))
    for scope in ordered:
        if not is_scope_token(scope):
            raise ScopeError("an element is not a scope")
    return " ".join(ordered)
