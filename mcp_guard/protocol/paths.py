"""The one reading of a request path (RFC 3986 §3.3, §6.2).

A server, a proxy, a guard and a router each decode and normalise a path their own way; where they can differ, a request
is let in under one name and carried out under another. So a path that has more than one reading is refused, and what is
left is compared by plain equality everywhere.
"""

import re
from unicodedata import category

_SEGMENT = r"[A-Za-z0-9\-._~!$&'()*+,=:@]+"
_PLAIN = re.compile(rf"(?:/(?!\.{{1,2}}(?:/|\Z)){_SEGMENT})*/?")
"""Segments of unreserved characters, sub-delims other than ";", ":" and "@": nothing that any decoder would change."""

_ENCODED_SEGMENT = rb"(?:[A-Za-z0-9\-._~!$&'()*+,=:@]|%[0-9A-Fa-f]{2})+"
_ENCODED = re.compile(rb"(?:/(?!\.{1,2}(?:/|\Z))" + _ENCODED_SEGMENT + rb")*/?")

_UNRESERVED = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"
_NEVER_ENCODED = frozenset(_UNRESERVED) | frozenset(b"/\\%;?#\x7f") | frozenset(range(0x20))
"""Bytes whose percent-encoding is refused: unreserved ones have a shorter spelling (§2.3), the others a second meaning
once they are decoded."""

_TRIPLET = re.compile(rb"%([0-9A-Fa-f]{2})")


class PathError(ValueError):
    """The path has more than one reading, or none. The message says why and quotes nothing of it."""


def canonical(path: str, raw_path: bytes | None, root_path: str = "") -> str:
    """The path, once it is sure that it has one reading.

    `path` is the decoded path of the ASGI scope, `raw_path` what was on the request line, None when the server does not
    say. `root_path` is where the app is mounted; a server may have put it in front of `path` alone.

    Accepted: a single leading slash; segments that are neither empty (the last may be: "/mcp/") nor "." nor ".."; the
    characters of RFC 3986 §3.3 without ";", which some servers take for the start of a parameter; percent-encoded UTF-8
    of characters that need it. The decoded `raw_path` must be `path`.

    Raises:
        PathError: the path is anything else, for instance an absolute or asterisk form (RFC 9112 §3.2).
    """
    if not path.startswith("/"):
        raise PathError("does not begin with a slash")
    if raw_path is None:
        if _PLAIN.fullmatch(path) is None:
            raise PathError("needs decoding, and the server did not say what was on the request line")
        return path
    if not raw_path.startswith(b"/"):
        raise PathError("is in absolute or asterisk form")
    if _PLAIN.fullmatch(path) is not None:
        spelled = path.encode("ascii")
        if raw_path == spelled or root_path.encode("utf-8", "surrogatepass") + raw_path == spelled:
            return path
    decoded = _decode(raw_path)
    if path not in (decoded, root_path + decoded):
        raise PathError("is not what was on the request line")
    return path


def _decode(raw_path: bytes) -> str:
    """What a raw path spells.

    Raises:
        PathError: it has more than one reading.
    """
    if _ENCODED.fullmatch(raw_path) is None:
        raise PathError("has an empty or dot segment, or a character that paths do not have")
    octets = [int(digits, 16) for digits in _TRIPLET.findall(raw_path)]
    if not _NEVER_ENCODED.isdisjoint(octets):
        raise PathError("has the percent-encoding of a character that changes its meaning")
    try:
        decoded = _TRIPLET.sub(lambda found: bytes((int(found[1], 16),)), raw_path).decode("utf-8")
    except UnicodeDecodeError:
        raise PathError("is not UTF-8 once decoded") from None
    if any(category(character) == "Cc" for character in decoded):
        raise PathError("has a control character")
    return decoded
