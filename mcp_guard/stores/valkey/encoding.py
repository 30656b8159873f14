"""How operations are written for `scripts/run.lua`, whose header has the form.

What does not change from request to request is kept as it goes out: the times of buckets and of records.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from hashlib import sha1
from importlib.resources import files
from typing import Any, NamedTuple
from zlib import crc32

from mcp_guard.stores.base import (
    Announce,
    Bucket,
    Claim,
    Delete,
    Enter,
    Get,
    Leave,
    Members,
    Operation,
    Put,
    Renew,
    Spend,
    Stay,
    Take,
)


class Script(NamedTuple):
    """A script: its text, and the digest that names it (not a matter of security; the protocol has it so)."""

    text: bytes
    digest: bytes


def script(name: str) -> Script:
    """The script in the file `scripts/<name>.lua`."""
    text = files("mcp_guard.stores").joinpath("scripts", f"{name}.lua").read_bytes()
    return Script(text, sha1(text, usedforsecurity=False).hexdigest().encode())


class Written(NamedTuple):
    """An operation as it goes out. `keys` and `arguments` are RESP bulk strings, of which there are as many as said."""

    slot_key: bytes | None
    key_count: int
    keys: bytes
    argument_count: int
    arguments: bytes
    single_use: bool = False


@dataclass(frozen=True, slots=True)
class Unspend:
    """Give back what a `Spend` took; only a store whose buckets are on several nodes needs it. Answers True."""

    buckets: tuple[Bucket, ...]


@dataclass(frozen=True)
class Names:
    """The keys that the server sees.

    A value has the name that its operation gives it, after `prefix`. Buckets, sets and claims carry a suffix that is
    not ASCII, which no name contains. With `partitions`, as on a cluster, claims are spread over that many epochs, and
    the claims of one epoch share its hash slot.
    """

    prefix: str = ""
    partitions: int = 1

    def value(self, key: str) -> bytes:
        return (self.prefix + key).encode("ascii")

    def bucket(self, key: str) -> bytes:
        return (self.prefix + key).encode("ascii") + b"\xc2\xb7b"

    def set(self, key: str) -> bytes:
        return self.value(key) + b"\xc2\xb7s"

    def claim(self, key: str) -> tuple[bytes, bytes]:
        """The epoch that counts for a claim, and the claim."""
        plain = self.value(key) + b"\xc2\xb7c"
        if self.partitions == 1:
            return self.epoch(0), plain
        partition = crc32(plain) % self.partitions
        return self.epoch(partition), b"%bmcp:claim:{%d}:%b" % (self.prefix.encode(), partition, plain)

    def epoch(self, partition: int) -> bytes:
        return b"%bmcp:epoch:{%d}\xc2\xb7e" % (self.prefix.encode(), partition)

    def write(self, operation: Operation | Unspend) -> Written:
        """An operation as it goes out.

        Raises:
            TypeError: it is no operation of a store.
        """
        try:
            write = _HOW[type(operation)]
        except KeyError:
            raise TypeError(f"{operation!r} is no operation of a store") from None
        return write(self, operation)


def bulk(data: bytes) -> bytes:
    """A bulk string of the protocol (RESP)."""
    return b"$%d\r\n%b\r\n" % (len(data), data)


def command(*words: bytes) -> bytes:
    """A command of the protocol (RESP)."""
    return b"*%d\r\n%b" % (len(words), b"".join([bulk(word) for word in words]))


def call(verb: bytes, script: bytes, operations: Iterable[Written]) -> bytes:
    """One call of a script that carries out `operations`: `EVALSHA` with its digest or `EVAL` with its text."""
    keys, arguments, key_count, argument_count = [], [], 0, 0
    for written in operations:
        key_count += written.key_count
        argument_count += written.argument_count
        keys.append(written.keys)
        arguments.append(written.arguments)
    words = b"".join([bulk(verb), bulk(script), bulk(b"%d" % key_count), *keys, *arguments])
    return b"*%d\r\n%b" % (3 + key_count + argument_count, words)


@lru_cache(256)
def _milliseconds(ttl: timedelta) -> bytes:
    """A time to live as an argument: whole milliseconds, rounded up, at least 1."""
    return bulk(b"%d" % max(1, math.ceil(ttl / timedelta(milliseconds=1))))


@lru_cache(64)
def _count(letter: bytes, count: int) -> bytes:
    return bulk(letter) + bulk(b"%d" % count)


@lru_cache(1024)
def _limit(burst: int, period: timedelta, cost: int) -> bytes:
    microseconds = period // timedelta(microseconds=1)
    return bulk(b"%d" % burst) + bulk(b"%d" % microseconds) + bulk(b"%d" % cost)


_GET, _TAKE, _DELETE, _MEMBERS = bulk(b"G"), bulk(b"T"), bulk(b"D"), bulk(b"M")
_PUT_ALWAYS = bulk(b"P") + bulk(b"a")
_PUT_IF_ABSENT = bulk(b"P") + bulk(b"n")
_PUT_IF_EQUAL = bulk(b"P") + bulk(b"e")
_NOTHING = bulk(b"")


def _get(names: Names, operation: Get) -> Written:
    key = names.value(operation.key)
    return Written(key, 1, bulk(key), 1, _GET)


def _put(names: Names, operation: Put) -> Written:
    key, expected = names.value(operation.key), operation.only_if_equal
    how = _PUT_IF_ABSENT if operation.only_if_absent else _PUT_ALWAYS if expected is None else _PUT_IF_EQUAL
    compared = _NOTHING if expected is None else bulk(expected)
    arguments = how + _milliseconds(operation.ttl) + bulk(operation.value) + compared
    return Written(key, 1, bulk(key), 5, arguments, how is not _PUT_ALWAYS)


def _take(names: Names, operation: Take) -> Written:
    key = names.value(operation.key)
    return Written(key, 1, bulk(key), 1, _TAKE, single_use=True)


def _delete(names: Names, operation: Delete) -> Written:
    key = names.value(operation.key)
    return Written(key, 1, bulk(key), 1, _DELETE)


def _renew(names: Names, operation: Renew) -> Written:
    key = names.value(operation.key)
    return Written(key, 1, bulk(key), 3, bulk(b"R") + bulk(operation.prefix) + _milliseconds(operation.ttl))


def _spend(names: Names, operation: Spend | Unspend) -> Written:
    buckets = operation.buckets
    keys = [names.bucket(bucket.key) for bucket in buckets]
    limits = [_limit(bucket.burst, bucket.period, bucket.cost) for bucket in buckets]
    head = _count(b"S" if isinstance(operation, Spend) else b"U", len(keys))
    slot_key = keys[0] if keys else None
    return Written(slot_key, len(keys), b"".join(map(bulk, keys)), 2 + 3 * len(keys), head + b"".join(limits))


def _enter(names: Names, operation: Enter) -> Written:
    key, limit = names.set(operation.key), bulk(b"%d" % operation.limit)
    member = bulk(operation.member.encode("ascii"))
    return Written(key, 1, bulk(key), 4, bulk(b"E") + member + _milliseconds(operation.ttl) + limit)


def _stay(names: Names, operation: Stay) -> Written:
    key, member = names.set(operation.key), bulk(operation.member.encode("ascii"))
    return Written(key, 1, bulk(key), 3, bulk(b"Y") + member + _milliseconds(operation.ttl))


def _leave(names: Names, operation: Leave) -> Written:
    key, member = names.set(operation.key), bulk(operation.member.encode("ascii"))
    return Written(key, 1, bulk(key), 2, bulk(b"L") + member)


def _members(names: Names, operation: Members) -> Written:
    key = names.set(operation.key)
    return Written(key, 1, bulk(key), 1, _MEMBERS)


def _claim(names: Names, operation: Claim) -> Written:
    epoch, key = names.claim(operation.key)
    arguments = bulk(b"C") + _milliseconds(operation.ttl) + bulk(b"%d" % math.floor(operation.issued * 1e6))
    return Written(epoch, 2, bulk(epoch) + bulk(key), 3, arguments, single_use=True)


def _announce(names: Names, operation: Announce) -> Written:
    topic = names.value(operation.topic)
    return Written(None, 0, b"", 3, bulk(b"A") + bulk(topic) + bulk(operation.message))


_HOW: Mapping[type, Callable[[Names, Any], Written]] = {
    Get: _get,
    Put: _put,
    Take: _take,
    Delete: _delete,
    Renew: _renew,
    Spend: _spend,
    Unspend: _spend,
    Enter: _enter,
    Stay: _stay,
    Leave: _leave,
    Members: _members,
    Claim: _claim,
    Announce: _announce,
}
