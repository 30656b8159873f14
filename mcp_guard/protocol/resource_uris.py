"""The one spelling of a resource's URI in which it can be compared as text (RFC 3986 §6.2.2, RFC 8089).

Servers read the same resource from many spellings: in other case, percent-encoded, with dot segments. A text that
another reader may take for a different URI is not plain, and nothing is decided on it.
"""

import re
from typing import Final

_URI: Final = re.compile(
    r"""(?P<scheme>[a-z][a-z0-9+.-]*):
        (?://(?P<authority>[^/?]*))?
        (?P<path>[^?]*)
        (?:\?.*)?""",
    re.VERBOSE,
)
_CHARACTERS: Final = re.compile(
    r"""(?: [!$&-;=?@A-Z\[\]_a-z~]
        | %(?! [01]                    # controls
             | 2[5DEF]                 # percent sign, hyphen, dot, slash
             | 3[0-9] | 4[1-9A-F] | 5[0-9ACF] | 6[1-9A-F] | 7[0-9AEF]  # unreserved ones, backslash, delete
          ) [0-9A-F]{2} )+""",
    re.VERBOSE,
)
_AUTHORITY: Final = re.compile(r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)*(?::[1-9][0-9]{0,4})?")
_NEEDS_HOST: Final = frozenset({"ftp", "http", "https", "ws", "wss"})
_DEFAULT_PORT: Final = re.compile(r"(?:http|ws)://[^/?]*:80(?:[/?]|$)|(?:https|wss)://[^/?]*:443(?:[/?]|$)")


def is_plain(uri: str) -> bool:
    """Whether `uri` is in the spelling that all readers agree on.

    Scheme and host are in small letters, without a user, an address in brackets or a default port. Only what must be is
    percent-encoded, in capitals; slashes, backslashes and percent signs are not. No segment of the path is empty but
    the last, or a dot segment. There is no fragment. A path that begins with a slash has an authority before it, an
    empty one too; that of `file` is empty.
    """
    found = _URI.fullmatch(uri)
    if found is None or _CHARACTERS.fullmatch(uri) is None or _DEFAULT_PORT.match(uri) is not None:
        return False
    return _is_plain_authority(found["scheme"], found["authority"]) and _is_plain_path(
        found["path"], rooted=found["authority"] is not None
    )


def spellings(uri: str) -> frozenset[str]:
    """The texts under which a plain URI may be named: with its query and without, with a slash at its end and without.

    None when it is not plain.
    """
    if not is_plain(uri):
        return frozenset()
    bare = uri.partition("?")[0].removesuffix("/")
    return frozenset({uri, bare, f"{bare}/"})


def beginning(template: str) -> str | None:
    """What each URI of a template (RFC 6570) begins with; None when that is not plain."""
    fixed = template.partition("{")[0]
    return fixed if not fixed or is_beginning(fixed) else None


def is_beginning(text: str) -> bool:
    """Whether plain URIs begin with `text`, which has the scheme at least."""
    return ":" in text and is_plain(f"{text}x")


def _is_plain_authority(scheme: str, authority: str | None) -> bool:
    if authority is None:
        return scheme != "file" and scheme not in _NEEDS_HOST
    if not authority:
        return scheme not in _NEEDS_HOST
    return scheme != "file" and _AUTHORITY.fullmatch(authority) is not None


def _is_plain_path(path: str, *, rooted: bool) -> bool:
    segments = path.split("/")
    between = segments[1:-1] if rooted else segments[:-1]
    return all(between) and not {".", ".."} & set(segments)
