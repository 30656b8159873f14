"""Proof Key for Code Exchange (RFC 7636), S256 alone.

A challenge is exactly the base64url form of 32 bytes. The grammar of RFC 7636 §4.2 would allow up to 128 characters,
but no S256 challenge has another length, so whatever else arrives can never be met by a verifier.
"""

import hashlib
import re

from mcp_guard.protocol import b64url
from mcp_guard.secret import constant_time_equals

METHOD = "S256"
"""The only method that is spoken (RFC 9700 §2.1.1)."""

# code-verifier = 43*128unreserved (RFC 7636 §4.1)
_VERIFIER = re.compile(r"[A-Za-z0-9\-._~]{43,128}")


def is_verifier(text: str) -> bool:
    """Whether `text` is 43 to 128 unreserved characters (RFC 7636 §4.1)."""
    return _VERIFIER.fullmatch(text) is not None


def is_challenge(text: str) -> bool:
    """Whether `text` is the base64url form of a SHA-256 digest, 43 characters (RFC 7636 §4.2)."""
    return b64url.is_sha256(text)


def challenge_of(verifier: str) -> str:
    """BASE64URL-ENCODE(SHA256(ASCII(verifier))) (RFC 7636 §4.2).

    Raises:
        ValueError: `verifier` is not a verifier.
    """
    if not is_verifier(verifier):
        raise ValueError("a verifier is 43 to 128 unreserved characters")
    return b64url.encode(hashlib.sha256(verifier.encode("ascii")).digest())


def verifies(verifier: str, challenge: str) -> bool:
    """Whether `verifier` answers `challenge` (RFC 7636 §4.6). False for anything that is not a verifier."""
    return is_verifier(verifier) and constant_time_equals(challenge_of(verifier), challenge)
