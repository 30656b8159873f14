"""Scopes: sets of tokens, compared exactly (RFC 6749 §3.3)."""

import re
from collections.abc import Iterable, Set
from functools import lru_cache
from typing import Final

_TOKEN: Final = re.compile(r"[!#-\[\]-~]+")
_LIST: Final = re.compile(r"[!#-\[\]-~]+(?: [!#-\[\]-~]+)*")

NONE: Final[frozenset[str]] = frozenset()


class ScopeError(ValueError):
    """The text is not a list of scopes. The message quotes nothing of it."""


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


def missing(required: Set[str], granted: Set[str]) -> frozenset[str]:
    """Those of `required` that are not among `granted`. Nothing implies anything else."""
    return frozenset(required - granted)


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
