"""Keys at hand: a JWK Set in a variable, in a file, or shared by an authorization server in the same process."""

from collections.abc import Callable, Mapping
from math import inf
from pathlib import Path
from typing import Any, Final

from mcp_guard.clock import Clock, SystemClock
from mcp_guard.failures import ConfigurationError, KeySourceUnavailable
from mcp_guard.keysources.base import Found, log_ignored
from mcp_guard.protocol import strict_json
from mcp_guard.protocol.jwk import JwkError, import_set
from mcp_guard.protocol.strict_json import JsonError

MAX_FILE_BYTES: Final = 256 * 1024
LIVE_SECONDS: Final = 1.0
"""How long a key of a live set is used before the set is asked again."""

JwkSet = Mapping[str, Any]


class StaticKeys:
    """A JWK Set at hand: itself, a file that holds it, or a function that answers the set of the moment.

    A file is read once. A function is asked again a second after it was last asked, so that keys it withdraws soon stop
    counting; an embedded authorization server shares its keys that way.
    """

    def __init__(self, source: JwkSet | Path | Callable[[], JwkSet], *, clock: Clock | None = None) -> None:
        """
        Raises:
            ConfigurationError: the file is missing or too large, or there is no usable key.
        """
        self._clock = clock or SystemClock()
        self._read: Callable[[], JwkSet] | None = None
        if isinstance(source, Path):
            self._name, self._document = f"key file {source}", _read_file(source)
        elif callable(source):
            self._name, self._document, self._read = "keys", source(), source
        else:
            self._name, self._document = "keys", source
        try:
            self._keys = import_set(dict(self._document))
        except JwkError as fault:
            raise ConfigurationError(f"{self._name}: {fault.reason}") from None
        self._good_until = inf if self._read is None else self._clock.monotonic() + LIVE_SECONDS
        log_ignored(self._name, self._keys)

    async def find(self, kid: str | None, alg: str) -> Found | None:
        if self._read is not None and self._clock.monotonic() >= self._good_until:
            self._read_again(self._read)
        key = self._keys.find(kid, alg)
        return None if key is None else Found(key, self._good_until)

    def _read_again(self, read: Callable[[], JwkSet]) -> None:
        document = read()
        if document != self._document:
            try:
                self._keys = import_set(dict(document))
            except JwkError as fault:
                raise KeySourceUnavailable(f"{self._name}: {fault.reason}") from None
            self._document = document
            log_ignored(self._name, self._keys)
        self._good_until = self._clock.monotonic() + LIVE_SECONDS

    async def start(self) -> None:
        """Nothing to do: the keys were read when the source was made."""

    async def close(self) -> None:
        """Nothing to let go of."""


def _read_file(path: Path) -> JwkSet:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as fault:
        raise ConfigurationError(f"key file {path} cannot be read: {fault.strerror}") from None
    if len(data) > MAX_FILE_BYTES:
        raise ConfigurationError(f"key file {path} has more than {MAX_FILE_BYTES} bytes")
    try:
        document = strict_json.loads(data)
    except JsonError as fault:
        raise ConfigurationError(f"key file {path} {fault.reason}") from None
    if not isinstance(document, dict):
        raise ConfigurationError(f"key file {path} is not a JWK Set")
    return document
