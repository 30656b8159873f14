"""A batch in the terms of `mcp_run` (migrations/0002_operations.sql), and its rows in the terms of the contract.

A batch is one call. The names of what it writes are locked in one order before anything is read, so that batches cannot
wait for each other in a circle. Sessions are text: a value under `mcp:session:` is UTF-8 without NUL.
"""

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from mcp_guard.stores.base import (
    Announce,
    Claim,
    Delete,
    Enter,
    Get,
    Leave,
    Level,
    Members,
    Operation,
    Put,
    Renew,
    Result,
    Spend,
    Stay,
    Take,
)

CHANNEL = "mcp_announcements"
"""Where announcements are notified: the topic, a blank, the message in base64."""

SESSION_PREFIX = "mcp:session:"

STATEMENT = "SELECT truth, value, more FROM mcp_run(%b::jsonb, %b::bytea[], %b::text[], %b)"

SOFT = (Get, Members, Renew, Spend, Stay, Enter, Leave)
"""Operations that a crash of the server may undo for no more than a refill, a renewal or a time to live.

A batch of these alone does not wait for the disk.
"""

Row = tuple[bool | None, bytes | None, Any]


class Batch(NamedTuple):
    """The arguments of `mcp_run`; see there."""

    operations: str
    blobs: list[bytes]
    locks: list[str]
    lasting: bool


def encode(operations: Sequence[Operation]) -> Batch:
    """The call that carries out a batch.

    Raises:
        TypeError: something is no operation of a store, or a value of a session is not text.
    """
    blobs: list[bytes] = []
    locks: list[str] = []
    said: list[dict[str, Any]] = []
    for operation in operations:
        try:
            way = _WAYS[type(operation)]
        except KeyError:
            raise TypeError(f"{operation!r} is no operation of a store") from None
        said.append({"do": way.name, **way.fields(operation, blobs)})
        locks += way.locks(operation)
    lasting = not all(isinstance(operation, SOFT) for operation in operations)
    return Batch(json.dumps(said, separators=(",", ":")), blobs, locks, lasting)


def decode(operations: Sequence[Operation], rows: Sequence[Row]) -> list[Result]:
    """The results of a batch, from its rows."""
    return [_result(operation, *row) for operation, row in zip(operations, rows, strict=True)]


def heard(payload: str) -> tuple[str, bytes]:
    """The topic and the message of a notification.

    Raises:
        ValueError: it is not of `Announce`.
    """
    topic, _, message = payload.rpartition(" ")
    return topic, base64.b64decode(message, validate=True)


def _result(operation: Operation, truth: bool | None, value: bytes | None, more: Any) -> Result:
    if isinstance(operation, Get | Take | Renew):
        return value
    if isinstance(operation, Spend):
        return tuple([Level(allowed, int(left), float(wait), float(reset)) for allowed, left, wait, reset in more])
    if isinstance(operation, Members):
        return tuple(more)
    return truth


def _kept(blobs: list[bytes], value: bytes) -> int:
    """Puts a value beside the batch. Answers its number, from 1."""
    blobs.append(value)
    return len(blobs)


def _key(operation: Any, blobs: list[bytes]) -> dict[str, Any]:
    return {"key": operation.key}


def _put(operation: Put, blobs: list[bytes]) -> dict[str, Any]:
    if operation.key.startswith(SESSION_PREFIX):
        _check_text(operation.value)
    equal = operation.only_if_equal
    return {
        "key": operation.key,
        "ttl": operation.ttl.total_seconds(),
        "value": _kept(blobs, operation.value),
        "absent": operation.only_if_absent,
        "equal": None if equal is None else _kept(blobs, equal),
    }


def _check_text(value: bytes) -> None:
    try:
        text = value.decode()
    except UnicodeDecodeError:
        raise TypeError("the value of a session must be UTF-8") from None
    if "\0" in text:
        raise TypeError("the value of a session must not contain NUL")


def _renew(operation: Renew, blobs: list[bytes]) -> dict[str, Any]:
    return {
        "key": operation.key,
        "ttl": operation.ttl.total_seconds(),
        "prefix": _kept(blobs, operation.prefix),
    }


def _spend(operation: Spend, blobs: list[bytes]) -> dict[str, Any]:
    return {
        "buckets": [
            {"key": one.key, "burst": one.burst, "period": one.period.total_seconds(), "cost": one.cost}
            for one in operation.buckets
        ]
    }


def _member(operation: Any, blobs: list[bytes]) -> dict[str, Any]:
    return {"key": operation.key, "member": operation.member}


def _stay(operation: Stay, blobs: list[bytes]) -> dict[str, Any]:
    return {**_member(operation, blobs), "ttl": operation.ttl.total_seconds()}


def _enter(operation: Enter, blobs: list[bytes]) -> dict[str, Any]:
    return {**_member(operation, blobs), "ttl": operation.ttl.total_seconds(), "limit": operation.limit}


def _claim(operation: Claim, blobs: list[bytes]) -> dict[str, Any]:
    return {"key": operation.key, "ttl": operation.ttl.total_seconds(), "issued": operation.issued}


def _announce(operation: Announce, blobs: list[bytes]) -> dict[str, Any]:
    return {"payload": f"{operation.topic} {base64.b64encode(operation.message).decode()}"}


class _Way(NamedTuple):
    """How one operation is said: its name, its fields, and the names that it locks."""

    name: str
    fields: Callable[[Any, list[bytes]], dict[str, Any]]
    locks: Callable[[Any], list[str]]


def _locks_nothing(operation: Any) -> list[str]:
    return []


def _locks_in(space: str) -> Callable[[Any], list[str]]:
    return lambda operation: [f"{space} {operation.key}"]


_VALUE, _SET, _USE = _locks_in("value"), _locks_in("set"), _locks_in("claim")

_WAYS: Mapping[type[Operation], _Way] = {
    Get: _Way("get", _key, _locks_nothing),
    Put: _Way("put", _put, _VALUE),
    Take: _Way("take", _key, _VALUE),
    Delete: _Way("delete", _key, _VALUE),
    Renew: _Way("renew", _renew, _VALUE),
    Spend: _Way("spend", _spend, lambda operation: [f"bucket {one.key}" for one in operation.buckets]),
    Enter: _Way("enter", _enter, _SET),
    Stay: _Way("stay", _stay, _SET),
    Leave: _Way("leave", _member, _SET),
    Members: _Way("members", _key, _locks_nothing),
    Claim: _Way("claim", _claim, _USE),
    Announce: _Way("announce", _announce, _locks_nothing),
}
