"""What a source of keys promises."""

import logging
from typing import NamedTuple, Protocol

from mcp_guard.protocol.jwk import KeySet, VerificationKey

logger = logging.getLogger("mcp_guard")


class Found(NamedTuple):
    """A key, and until when (`Clock.monotonic`) what it verified may be believed without asking the source again."""

    key: VerificationKey
    good_until: float


class KeySource(Protocol):
    """The keys of one issuer."""

    async def find(self, kid: str | None, alg: str) -> Found | None:
        """The key for a token with this `kid` and `alg`; None when the issuer has no such key.

        Raises:
            KeySourceUnavailable: that cannot be told now.
        """

    async def start(self) -> None:
        """Have keys at hand.

        Raises:
            ConfigurationError: there can be none.
            KeySourceUnavailable: there are none now.
        """

    async def close(self) -> None:
        """Let go. Safe to call on a source that never started."""


def log_ignored(name: str, keys: KeySet) -> None:
    """Say once, when a set is taken into use, which members are not used and why."""
    if keys.ignored:
        logger.warning("%s: ignored %s", name, "; ".join(keys.ignored))
