"""Users: who may sign in. The directory is a protocol of one method; a static one is here."""

import os
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import anyio
import anyio.to_thread
from argon2 import PasswordHasher, extract_parameters
from argon2.exceptions import Argon2Error, InvalidHashError
from argon2.profiles import RFC_9106_LOW_MEMORY

from mcp_guard.failures import ConfigurationError, Unavailable
from mcp_guard.protocol import strict_json
from mcp_guard.secret import Secret, mint_token

MAX_PASSWORD = 1024
"""Characters in a password; OWASP asks for at least 64."""
MAX_NAME = 256
HASHES_AT_ONCE = 2
"""Each takes 64 MiB and a core for as long as it runs."""
HASHES_WAITING = 64
"""Sign-ins that may wait for their turn; more are told to come back."""

_OTHERS_MAY_WRITE = 0o022
_OTHERS_MAY_READ = 0o004

HASHER = PasswordHasher.from_parameters(RFC_9106_LOW_MEMORY)
"""Argon2id with 64 MiB, 3 passes, 4 lanes (RFC 9106 §4, second recommended option)."""


@dataclass(frozen=True, slots=True)
class User:
    """A person who may sign in.

    `subject` is what tokens carry as `sub`: stable, never given to anyone else. `name` is what pages show. `tenant`
    goes into tokens when it is set. `scopes` are those the person may grant, None for all that are offered.
    """

    subject: str
    name: str
    tenant: str | None = None
    scopes: frozenset[str] | None = None


class UserDirectory(Protocol):
    """Whoever knows the users."""

    async def authenticate(self, name: str, password: Secret) -> User | None:
        """The user of this name and password, None when there is none.

        An unknown name must take as long as a known one.

        Raises:
            Unavailable: the directory cannot tell now.
        """


def hash_password(password: str, *, hasher: PasswordHasher = HASHER) -> str:
    """The argon2id hash of a password, for a users file.

    Raises:
        ConfigurationError: the password is empty or longer than 1024 characters.
    """
    if not 0 < len(password) <= MAX_PASSWORD:
        raise ConfigurationError(f"a password has 1 to {MAX_PASSWORD} characters")
    return hasher.hash(password)


class StaticUsers:
    """Users known from the start, with argon2id hashes. Verification runs in threads, a few at a time."""

    def __init__(self, users: Mapping[str, tuple[User, str]]) -> None:
        if not users:
            raise ConfigurationError("users must hold at least one user")
        for name, (_, stored) in users.items():
            _check_hash(name, stored)
        subjects = {user.subject for user, _ in users.values()}
        if len(subjects) != len(users):
            raise ConfigurationError("users must have different subjects")
        self._users = dict(users)
        self._hasher = PasswordHasher()
        self._dummy = _dummy([stored for _, stored in users.values()])
        self._turn = anyio.CapacityLimiter(HASHES_AT_ONCE)
        self._pending = 0

    @classmethod
    def from_pairs(cls, pairs: Mapping[str, str | Secret], *, hasher: PasswordHasher = HASHER) -> "StaticUsers":
        """Users by name and plain password, for demonstrations and tests."""
        words = {name: word.reveal() if isinstance(word, Secret) else word for name, word in pairs.items()}
        return cls(
            {name: (User(subject=name, name=name), hash_password(word, hasher=hasher)) for name, word in words.items()}
        )

    @classmethod
    def from_file(cls, path: str | Path) -> "StaticUsers":
        """Read a JSON or TOML file: for each name a hash, or a table of `hash`, `subject`, `name`, `tenant`, `scopes`.

        Raises:
            ConfigurationError: the file is missing, open to others, or an entry cannot be used; names file and user.
        """
        path = Path(path)
        entries = _parse(path, _read(path))
        try:
            return cls({name: _entry(name, entry) for name, entry in entries.items()})
        except ConfigurationError as fault:
            raise ConfigurationError(f"users file {path}: {fault}") from None

    async def authenticate(self, name: str, password: Secret) -> User | None:
        """See the protocol."""
        if len(name) > MAX_NAME or len(password.reveal()) > MAX_PASSWORD:
            return None
        if self._pending >= HASHES_AT_ONCE + HASHES_WAITING:
            raise Unavailable("too many sign-ins are waiting", retry_after_seconds=5)
        user, stored = self._users.get(name, (None, self._dummy))
        self._pending += 1
        try:
            good = await anyio.to_thread.run_sync(self._verify, stored, password.reveal(), limiter=self._turn)
        finally:
            self._pending -= 1
        return user if good else None

    def _verify(self, stored: str, password: str) -> bool:
        try:
            return self._hasher.verify(stored, password)
        except Argon2Error:
            return False

    def __repr__(self) -> str:
        return f"StaticUsers({len(self._users)} users)"


def _dummy(hashes: list[str]) -> str:
    """A hash that no password meets, as costly as the costliest of the others."""
    costliest = max(
        (extract_parameters(stored) for stored in hashes),
        key=lambda parameters: parameters.memory_cost * parameters.time_cost,
    )
    return PasswordHasher.from_parameters(costliest).hash(mint_token())


def _check_hash(name: str, stored: str) -> None:
    try:
        extract_parameters(stored)
    except InvalidHashError:
        raise ConfigurationError(f"the hash of user {name!r} is not an argon2 hash") from None
    if not stored.startswith("$argon2id$"):
        raise ConfigurationError(f"the hash of user {name!r} must be argon2id")
    if not 0 < len(name) <= MAX_NAME:
        raise ConfigurationError(f"the name of user {name!r} must have 1 to {MAX_NAME} characters")


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if mode & (_OTHERS_MAY_WRITE | _OTHERS_MAY_READ):
                raise ConfigurationError(
                    f"users file {path} may be read or changed by others (mode {stat.S_IMODE(mode):04o}); "
                    "it must be 0600 or 0640"
                )
            return file.read().decode("utf-8")
    except OSError as fault:
        raise ConfigurationError(f"users file {path} cannot be read: {fault.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"users file {path} is not UTF-8") from None


def _parse(path: Path, text: str) -> dict[str, Any]:
    try:
        entries = tomllib.loads(text) if path.suffix == ".toml" else strict_json.loads(text.encode())
    except ValueError as fault:
        kind = "TOML" if path.suffix == ".toml" else "JSON"
        raise ConfigurationError(f"users file {path} is not {kind}: {fault}") from None
    if not isinstance(entries, dict):
        raise ConfigurationError(f"users file {path} must be a table of users by name")
    return entries


def _entry(name: str, entry: object) -> tuple[User, str]:
    """One entry of a users file."""
    members: dict[str, Any] = (
        {"hash": entry} if isinstance(entry, str) else dict(entry) if isinstance(entry, dict) else {}
    )
    unknown = set(members) - {"hash", "subject", "name", "tenant", "scopes"}
    if unknown:
        raise ConfigurationError(f"user {name!r} has an unknown member {min(unknown)!r}")
    stored = members.get("hash")
    if not isinstance(stored, str):
        raise ConfigurationError(f"user {name!r} must have a hash")
    for member in ("subject", "name", "tenant"):
        if member in members and (not isinstance(members[member], str) or not members[member]):
            raise ConfigurationError(f"the {member} of user {name!r} must be a string that is not empty")
    scopes = members.get("scopes")
    if scopes is not None and not (isinstance(scopes, list) and all(isinstance(scope, str) for scope in scopes)):
        raise ConfigurationError(f"the scopes of user {name!r} must be a list of strings")
    user = User(
        subject=members.get("subject", name),
        name=members.get("name", name),
        tenant=members.get("tenant"),
        scopes=None if scopes is None else frozenset(scopes),
    )
    return user, stored
