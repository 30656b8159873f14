"""Keys that every worker shares: what one worker signs or seals, each of the others can verify or open.

A ring is an ordered list of secrets of 256 bits. The first one signs and seals; all of them verify and open, so a key
is rotated by putting a new one in front and removing the old one when nothing made with it is in use any more. A key
is never used as it is: each purpose has keys of its own, derived with HKDF-SHA-256 (RFC 5869).
"""

import base64
import binascii
import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from mcp_guard.failures import ConfigurationError
from mcp_guard.secret import Secret

KEY_BYTES = 32
NONCE_BYTES = 12
TAG_BYTES = 16
MAX_KEYS = 8
"""More keys than this are a rotation that was never finished."""


@dataclass(frozen=True, eq=False)
class KeyRing:
    """The secrets, newest first; each 32 bytes.

    Raises:
        ConfigurationError: there is none, or more than eight, or one is of another length or there twice.
    """

    keys: tuple[bytes, ...] = field(repr=False)

    def __post_init__(self) -> None:
        if not 1 <= len(self.keys) <= MAX_KEYS:
            raise ConfigurationError(f"a key ring has 1 to {MAX_KEYS} keys, not {len(self.keys)}")
        if any(len(key) != KEY_BYTES for key in self.keys):
            raise ConfigurationError(f"a key of a key ring has {KEY_BYTES} bytes")
        if len(set(self.keys)) != len(self.keys):
            raise ConfigurationError("a key of a key ring is there twice")

    @classmethod
    def generate(cls) -> "KeyRing":
        """A ring of one new key: for one process, whose sessions and seals end with it."""
        return cls((secrets.token_bytes(KEY_BYTES),))

    @classmethod
    def parse(cls, text: str) -> "KeyRing":
        """A ring from keys in base64url (RFC 4648 §5), separated by commas, blanks or line ends, newest first.

        Raises:
            ConfigurationError: naming the place of the key that cannot be used, and never the key.
        """
        return cls(tuple(_decode(word, place) for place, word in enumerate(text.replace(",", " ").split(), start=1)))

    @classmethod
    def read(cls, path: Path) -> "KeyRing":
        """A ring from a file in the form of `parse`.

        Raises:
            ConfigurationError: it cannot be read, others than its owner may read it, or it holds no ring.
        """
        try:
            if path.stat().st_mode & 0o077:
                raise ConfigurationError(f"{path}: may be read by others; chmod 600 it")
            return cls.parse(path.read_text("ascii"))
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"{path}: {getattr(error, 'strerror', None) or 'is not ASCII'}") from None

    def mac(self, purpose: str, *parts: bytes) -> bytes:
        """The MAC of `parts` (HMAC-SHA-256, 32 bytes): no other parts, and no other purpose, have it."""
        return _mac(self.keys[0], purpose, parts)

    def verifies(self, mac: bytes, purpose: str, *parts: bytes) -> bool:
        """Whether `mac` was made of these parts for this purpose with a key of the ring; in constant time for each."""
        return any(hmac.compare_digest(mac, _mac(key, purpose, parts)) for key in self.keys)

    def seal(self, purpose: str, content: bytes, *context: bytes) -> bytes:
        """`content` encrypted and authenticated together with `context` (AES-256-GCM, NIST SP 800-38D).

        Answers the nonce (12 bytes), the ciphertext and the tag (16 bytes). The nonce is random: a key is to be rotated
        long before it has sealed 2**32 contents of one purpose.
        """
        nonce = secrets.token_bytes(NONCE_BYTES)
        return nonce + _aead(self.keys[0], purpose).encrypt(nonce, content, _joined(context))

    def open(self, purpose: str, sealed: bytes, *context: bytes) -> bytes | None:
        """What `seal` sealed for this purpose with this context and a key of the ring; None for anything else."""
        if len(sealed) < NONCE_BYTES + TAG_BYTES:
            return None
        for key in self.keys:
            try:
                return _aead(key, purpose).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], _joined(context))
            except InvalidTag:
                continue
        return None

    def derive(self, purpose: str, *context: bytes) -> tuple[bytes, ...]:
        """A key of 32 bytes for each key of the ring, newest first, for this purpose and this context alone."""
        return tuple(_derived(key, purpose, _joined(context)) for key in self.keys)


def new_key() -> Secret:
    """A new key in the form that `parse` reads: 43 characters of base64url."""
    return Secret(base64.urlsafe_b64encode(secrets.token_bytes(KEY_BYTES)).decode().rstrip("="))


def _decode(word: str, place: int) -> bytes:
    try:
        key = base64.b64decode(word + "=" * (-len(word) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise ConfigurationError(f"key {place} of the key ring is not base64url") from None
    if len(key) != KEY_BYTES:
        raise ConfigurationError(f"key {place} of the key ring has {len(key)} bytes, not {KEY_BYTES}")
    return key


def _joined(parts: Sequence[bytes]) -> bytes:
    """The parts as one text that no other parts have: each after its length."""
    return b"".join([len(part).to_bytes(8, "big") + part for part in parts])


def _mac(key: bytes, purpose: str, parts: Sequence[bytes]) -> bytes:
    return hmac.digest(_for_purpose(key, f"mac {purpose}"), _joined(parts), sha256)


@lru_cache(64)
def _aead(key: bytes, purpose: str) -> AESGCM:
    return AESGCM(_for_purpose(key, f"seal {purpose}"))


@lru_cache(128)
def _for_purpose(key: bytes, purpose: str) -> bytes:
    return _derived(key, purpose, b"")


def _derived(key: bytes, purpose: str, context: bytes) -> bytes:
    info = _joined((b"mcp-guard", purpose.encode(), context))
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=info).derive(key)
