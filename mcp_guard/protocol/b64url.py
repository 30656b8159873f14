"""Base64url without padding (RFC 7515 §2, RFC 4648 §5): one spelling for each byte string, everything else refused."""

import binascii

_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
_STANDARD = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_REFUSED = b"!"

# Every byte outside the alphabet, "+", "/" and "=" included, becomes one that the strict decoder refuses.
_TO_STANDARD = bytes(_STANDARD[_ALPHABET.index(byte)] if byte in _ALPHABET else _REFUSED[0] for byte in range(256))
_TO_URL = bytes.maketrans(b"+/", b"-_")

# The last character carries 4 or 2 unused bits, which must be zero (RFC 4648 §3.5). Keyed by length modulo 4.
_LAST = {0: frozenset(_ALPHABET), 2: frozenset(_ALPHABET[::16]), 3: frozenset(_ALPHABET[::4])}
_PADDING = {0: b"", 2: b"==", 3: b"="}
_SHA256_BYTES = 32


class Base64Error(ValueError):
    """The text is not the canonical base64url form of anything."""


def encode(data: bytes) -> str:
    """The canonical form: no padding, no line breaks."""
    return binascii.b2a_base64(data, newline=False).translate(_TO_URL, b"=").decode("ascii")


def decode(text: str | bytes) -> bytes:
    """The bytes whose canonical form `text` is.

    Raises:
        Base64Error: padding, white space, a character outside the alphabet, an impossible length, or unused bits set.
    """
    try:
        data = text.encode("ascii") if isinstance(text, str) else text
    except UnicodeEncodeError:
        raise Base64Error("a character is outside the base64url alphabet") from None
    if not data:
        return b""
    rest = len(data) % 4
    if rest == 1:
        raise Base64Error("no base64url text has this length")
    if data[-1] not in _LAST[rest]:
        raise Base64Error("the last character is not canonical")
    try:
        return binascii.a2b_base64(data.translate(_TO_STANDARD) + _PADDING[rest], strict_mode=True)
    except binascii.Error:
        raise Base64Error("a character is outside the base64url alphabet") from None


def is_sha256(text: str) -> bool:
    """Whether `text` is the form of a SHA-256 digest, 43 characters."""
    try:
        return len(decode(text)) == _SHA256_BYTES
    except Base64Error:
        return False
