"""Bindings: the record in the store that says whose a handle is.

A record is a JSON object that begins with its owner and ends with a MAC over its key and all that stands before it:
`{"owner":[issuer,subject,client,tenant],…,"mac":"…"}`. Whoever else can write into the store can destroy a record, and
cannot make one, change one or move one to another key. A record that nobody with the key ring made counts as absent.
"""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from mcp_guard.facts import Principal
from mcp_guard.keyring import KeyRing

PURPOSE = "binding"
MAC_CHARACTERS = 43
"""32 bytes in base64url, without padding."""

_END = b',"mac":"'
_CLOSE = b'"}'
_TAIL = len(_END) + MAC_CHARACTERS + len(_CLOSE)
REMEMBERED = 4096
KEPT_BYTES = 2048
"""Records that are longer are read each time, so that what is kept stays small whoever writes into the store."""


@dataclass(frozen=True, slots=True)
class Binding:
    """A record that was made here. `owner` is the owner's `Principal.owner`; `members` is the whole record."""

    owner: bytes
    members: Mapping[str, Any]

    def belongs_to(self, principal: Principal) -> bool:
        """Whether `principal` is the owner."""
        return self.owner == principal.owner


def owner_prefix(principal: Principal) -> bytes:
    """What every record of this owner begins with, and no record of anybody else."""
    return b'{"owner":' + principal.owner + b","


def bind(ring: KeyRing, key: str, principal: Principal, **members: str | int | float | None) -> bytes:
    """The record that binds the handle behind the store key `key` to `principal`, with these further members."""
    further = "".join(f"{json.dumps(name)}:{json.dumps(value)}," for name, value in members.items())
    signed = (owner_prefix(principal) + further.encode()).removesuffix(b",")
    mac = base64.urlsafe_b64encode(ring.mac(PURPOSE, key.encode(), signed)).rstrip(b"=")
    return signed + _END + mac + _CLOSE


def read(ring: KeyRing, key: str, record: bytes) -> Binding | None:
    """The binding that a record found at `key` holds; None when nobody with a key of the ring made it for that key."""
    return kept_read(ring, key, record) if len(record) <= KEPT_BYTES else _read(ring, key, record)


def _read(ring: KeyRing, key: str, record: bytes) -> Binding | None:
    signed, tail = record[:-_TAIL], record[-_TAIL:]
    if not (tail.startswith(_END) and tail.endswith(_CLOSE)):
        return None
    try:
        mac = base64.b64decode(tail[len(_END) : -len(_CLOSE)] + b"=", altchars=b"-_", validate=True)
    except ValueError:
        return None
    if not ring.verifies(mac, PURPOSE, key.encode(), signed):
        return None
    members: dict[str, Any] = json.loads(record)
    return Binding(json.dumps(members["owner"], separators=(",", ":")).encode(), members)


kept_read = lru_cache(REMEMBERED)(_read)
