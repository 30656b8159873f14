"""How the answer of `scripts/run.lua` is read. The script's header has its form."""

import logging
from collections.abc import Sequence
from typing import NamedTuple

from mcp_guard.stores.base import Level, Result

logger = logging.getLogger("mcp_guard")


class Failed(NamedTuple):
    """In the place of a result: the operation was refused and changed nothing. `reason` is the class of the error."""

    reason: str


_SIMPLE: dict[bytes, Result] = {b"1": True, b"0": False, b"-": None, b"l": (), b"m": ()}


def read(answer: bytes) -> list[Result | Failed]:
    """The results in an answer of the script.

    Raises:
        ValueError: it is no answer of the script.
    """
    head, _, payload = answer.partition(b"\n")
    results: list[Result | Failed] = []
    at = 0
    for token in head.split(b" ") if head else ():
        if token in _SIMPLE:
            results.append(_SIMPLE[token])
            continue
        kind, rest = token[:1], token[1:]
        if kind == b"v":
            end = at + int(rest)
            results.append(payload[at:end])
            at = end
        elif kind == b"l":
            results.append(tuple([_level(one) for one in rest.split(b";")]))
        elif kind == b"m":
            members, at = _members(rest, payload, at)
            results.append(members)
        else:
            results.append(_exceptional(kind, rest))
    return results


def _exceptional(kind: bytes, rest: bytes) -> Failed | None:
    if kind == b"x":
        logger.warning("valkey: a key of ours holds a record that is none of ours; it counts as absent")
        return None
    if kind == b"e":
        return Failed(rest.decode("ascii"))
    raise ValueError(f"{kind!r} is no result of run.lua")


def _level(text: bytes) -> Level:
    allowed, remaining, retry_after, reset = text.split(b":")
    return Level(allowed == b"1", int(remaining), int(retry_after) / 1e6, int(reset) / 1e6)


def _members(lengths: bytes, payload: bytes, at: int) -> tuple[tuple[str, ...], int]:
    members = []
    for length in lengths.split(b":"):
        end = at + int(length)
        members.append(payload[at:end].decode("ascii"))
        at = end
    return tuple(members), at


def failures_of(results: Sequence[Result | Failed]) -> list[str]:
    """The classes of the errors among the results of one batch."""
    return [result.reason for result in results if isinstance(result, Failed)]
