"""What the authorization server keeps in the store: JSON with a version, under keys that are digests.

No code, token, secret, verifier or cookie is in a key or a value; a record that cannot be read counts as absent.
"""

import json
import logging
import types
from collections.abc import Callable
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any, TypeVar, get_type_hints

from mcp_guard.protocol import strict_json
from mcp_guard.secret import digest

logger = logging.getLogger("mcp_guard.oauth")

VERSION = 1
PREFIX = "mcp:oauth:"


def client_key(client_id: str) -> str:
    return f"{PREFIX}client:{digest(client_id)}"


def browser_key(cookie: str) -> str:
    return f"{PREFIX}browser:{digest(cookie)}"


def transaction_key(transaction_id: str) -> str:
    return f"{PREFIX}transaction:{digest(transaction_id)}"


def code_key(code: str) -> str:
    return f"{PREFIX}code:{digest(code)}"


def family_key(family_secret: str) -> str:
    return f"{PREFIX}family:{digest(family_secret)}"


def proof_key(digest: bytes) -> str:
    return f"{PREFIX}proof:{digest.hex()}"


@dataclass(frozen=True, slots=True)
class Client:
    """A registered client. `secret_digest` is None for public clients.

    `scopes` are those that it gets when it asks for none, None for all that are offered.
    `dpop_bound` when it asked for bound access tokens alone (RFC 9449 §5.2).
    """

    client_id: str
    auth_method: str
    secret_digest: str | None
    redirect_uris: tuple[str, ...]
    grant_types: tuple[str, ...]
    scopes: tuple[str, ...] | None
    name: str | None
    issued_at: int
    dpop_bound: bool = False

    @property
    def is_public(self) -> bool:
        return self.auth_method == "none"


@dataclass(frozen=True, slots=True)
class BrowserSession:
    """A person who signed in with this browser. `scopes` are those the person may grant, None for all."""

    subject: str
    name: str
    tenant: str | None
    scopes: tuple[str, ...] | None
    expires_at: float


@dataclass(frozen=True, slots=True)
class Transaction:
    """An authorization request that waits for an answer; `browser` is the digest of the cookie it belongs to.

    `jkt` is the thumbprint of the key that the code is to be bound to (RFC 9449 §10), None for none.
    """

    browser: str
    client_id: str
    redirect_uri: str
    state: str | None
    scopes: tuple[str, ...]
    resource: str
    challenge: str
    query: str
    expires_at: float
    jkt: str | None = None


@dataclass(frozen=True, slots=True)
class Code:
    """What a code stands for. `grant` names everything that will be issued from it; `used` once it was redeemed.

    `jkt` is the thumbprint of the key that redeems it (RFC 9449 §10), None when any does.
    """

    client_id: str
    redirect_uri: str
    challenge: str
    resource: str
    scopes: tuple[str, ...]
    subject: str
    tenant: str | None
    grant: str
    expires_at: float
    used: bool
    jkt: str | None = None


@dataclass(frozen=True, slots=True)
class Family:
    """The refresh tokens of one grant: `head` is the digest of the varying part of the only one that is good.

    `jkt` is the thumbprint of the key that they are bound to (RFC 9449 §5), None when they are not.
    """

    client_id: str
    resource: str
    scopes: tuple[str, ...]
    subject: str
    tenant: str | None
    grant: str
    head: str
    expires_at: float
    jkt: str | None = None


Record = TypeVar("Record", Client, BrowserSession, Transaction, Code, Family)


def encode(record: Client | BrowserSession | Transaction | Code | Family) -> bytes:
    """The record as it is kept; equal records have equal bytes, so that they can be compared and set.

    A member that has its default is left out: so records from before it was there are equal too.
    """
    values = asdict(record)
    told = {field.name: values[field.name] for field in fields(record) if values[field.name] != field.default}
    members = {"v": VERSION, "kind": type(record).__name__, **told}
    return json.dumps(members, ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode()


def decode(kind: type[Record], data: object) -> Record | None:
    """The record of this kind, or None when there is none or it cannot be one of ours."""
    if not isinstance(data, bytes):
        return None
    try:
        members = strict_json.loads(data, max_depth=2)
        if members.pop("v") != VERSION or members.pop("kind") != kind.__name__:
            raise ValueError("another version or kind")
        readers = _READERS[kind]
        if not _REQUIRED[kind] <= members.keys() <= readers.keys():
            raise ValueError("other members")
        return kind(**{name: readers[name](value) for name, value in members.items()})
    except (ValueError, TypeError, KeyError, AttributeError):
        logger.error("a stored %s record cannot be read and counts as absent", kind.__name__)
        return None


def _exactly(*wanted: type) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        if type(value) not in wanted:
            raise TypeError("another type")
        return value

    return read


def _strings(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(type(item) is str for item in value):
        raise TypeError("not a list of strings")
    return tuple(value)


def _strings_or_none(value: Any) -> tuple[str, ...] | None:
    return None if value is None else _strings(value)


_READ: dict[Any, Callable[[Any], Any]] = {
    str: _exactly(str),
    str | None: _exactly(str, types.NoneType),
    int: _exactly(int),
    float: _exactly(float, int),
    bool: _exactly(bool),
    tuple[str, ...]: _strings,
    tuple[str, ...] | None: _strings_or_none,
}

_KINDS: tuple[type[Any], ...] = (Client, BrowserSession, Transaction, Code, Family)

_READERS: dict[type[Any], dict[str, Callable[[Any], Any]]] = {
    kind: {field.name: _READ[get_type_hints(kind)[field.name]] for field in fields(kind)} for kind in _KINDS
}
"""What reads each member of a kind of record, from the types of its fields."""

_REQUIRED: dict[type[Any], frozenset[str]] = {
    kind: frozenset(field.name for field in fields(kind) if field.default is MISSING) for kind in _KINDS
}
"""The members that each record of a kind has."""
