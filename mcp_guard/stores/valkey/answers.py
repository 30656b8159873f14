"""How the answer of `scripts/run.lua` is read. The script's header has its form."""

import logging
from struct import Struct
from typing import NamedTuple

from mcp_guard.stores.base import Level, Result

logger = logging.getLogger("mcp_guard")


class Failed(NamedTuple):
    """In the place of a result: the operation was refused and changed nothing. `reason` is the class of the error."""

    reason: str


_SIMPLE: dict[bytes, Result] = {b"1": True, b"0": False, b"-": None, b"m": ()}
_LEVEL = Struct("<?qdd")


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
            end = at + int(rest) * _LEVEL.size
            results.append(tuple([Level(*one) for one in _LEVEL.iter_unpack(payload[at:end])]))
            at = end
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


def _members(lengths: bytes, payload: bytes, at: int) -> tuple[tuple[str, ...], int]:
    members = []
    for length in lengths.split(b":"):
        end = at + int(length)
        members.append(payload[at:end].decode("ascii", "backslashreplace"))
        at = end
    return tuple(members), at
