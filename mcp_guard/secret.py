"""Secrets: values that are compared in constant time, minted with enough entropy and never printed."""

import hashlib
import hmac
import secrets
from dataclasses import dataclass, field

TOKEN_BYTES = 32
"""Entropy of every identifier that the product mints: 256 bits."""

FINGERPRINT_HEX_DIGITS = 16
"""Length of a fingerprint in hexadecimal digits: enough to correlate audit records, too little to be a credential."""


@dataclass(frozen=True, slots=True)
class Secret:
    """A string that does not show itself in a repr, a log line or a traceback's locals."""

    _value: str = field(repr=False)

    def reveal(self) -> str:
        """The secret itself. Every call is a place to review."""
        return self._value

    def equals(self, presented: str) -> bool:
        """Whether `presented` is this secret, in a time that depends on the lengths alone."""
        return constant_time_equals(self._value, presented)

    def __repr__(self) -> str:
        return "Secret(…)"

    def __str__(self) -> str:
        return "…"


def mint_token() -> str:
    """A new URL-safe identifier of 43 characters with 256 bits from the operating system."""
    return secrets.token_urlsafe(TOKEN_BYTES)


def generated_password() -> Secret:
    """A password of 12 characters with 72 bits from the operating system, for a user made for the occasion."""
    return Secret(secrets.token_urlsafe(9))


def constant_time_equals(left: str, right: str) -> bool:
    """Whether two strings are equal, without telling where they differ."""
    return hmac.compare_digest(_bytes(left), _bytes(right))


def fingerprint(value: str | bytes) -> str:
    """The first 64 bits of SHA-256 in hexadecimal: names a secret in a log without giving it away."""
    data = _bytes(value) if isinstance(value, str) else value
    return hashlib.sha256(data).hexdigest()[:FINGERPRINT_HEX_DIGITS]


def digest(value: str) -> str:
    """SHA-256 of a high-entropy secret in hexadecimal: the form in which codes and tokens are kept in a store."""
    return hashlib.sha256(_bytes(value)).hexdigest()


def _bytes(text: str) -> bytes:
    # A lone surrogate, which JSON and header fields can carry, has a digest like any other text.
    return text.encode("utf-8", "surrogatepass")
