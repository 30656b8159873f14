"""Nonces of a server for DPoP proofs (RFC 9449 §8, §9), which it can check without having kept them.

A nonce is the MAC of the period it was made in, under the keys that the workers share, so what one worker hands out is
good at all of them. Each purpose has nonces of its own: that of an authorization server is none of a resource server.
Everybody gets the same one; it tells when a proof was made, and is no secret.
"""

from dataclasses import dataclass
from datetime import timedelta

from mcp_guard.failures import ConfigurationError
from mcp_guard.keyring import KeyRing
from mcp_guard.protocol import b64url
from mcp_guard.protocol.b64url import Base64Error

DEFAULT_LIFETIME = timedelta(seconds=120)


@dataclass(frozen=True, slots=True)
class Nonces:
    """Nonces for one `purpose`. A new one begins every `lifetime`; the one before it is good as long again.

    Raises:
        ConfigurationError: `lifetime` is not from one second to one hour.
    """

    ring: KeyRing
    purpose: str
    lifetime: timedelta = DEFAULT_LIFETIME

    def __post_init__(self) -> None:
        if not timedelta(seconds=1) <= self.lifetime <= timedelta(hours=1):
            raise ConfigurationError(
                f"the lifetime of a nonce must be from one second to one hour, not {self.lifetime}"
            )

    def current(self, now: float) -> str:
        """The nonce to hand out at `now`, in seconds since 1970: 43 characters of base64url."""
        return b64url.encode(self.ring.mac(self.purpose, _bytes(self._period(now))))

    def accepts(self, nonce: str, now: float) -> bool:
        """Whether `nonce` is the current one, the one before, or the next, which a worker with another clock made."""
        try:
            mac = b64url.decode(nonce)
        except Base64Error:
            return False
        period = self._period(now)
        return any(self.ring.verifies(mac, self.purpose, _bytes(one)) for one in (period, period - 1, period + 1))

    def _period(self, now: float) -> int:
        return int(now // self.lifetime.total_seconds())


def _bytes(period: int) -> bytes:
    return period.to_bytes(8, "big", signed=True)
