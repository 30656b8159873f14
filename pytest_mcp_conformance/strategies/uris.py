"""Neighbours of a URI: strings near enough that a careless comparison takes them for it, none of them equal to it."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import SplitResult, urlsplit

from hypothesis import strategies as st

_SUFFIXES = st.text(st.sampled_from("abz019-_.~/%:@?#"), min_size=1, max_size=8)
_LABELS = st.text(st.sampled_from("abcxyz019-"), min_size=1, max_size=8)
Change = Callable[[SplitResult], str]


def uri_classics(uri: str) -> list[str]:
    """The neighbours that have broken real servers, in a fixed order; none equals `uri`."""
    parts = urlsplit(uri)
    origin, path = f"{parts.scheme}://{parts.netloc}", parts.path
    slash = uri.removesuffix("/") if uri.endswith("/") else f"{uri}/"
    candidates = [
        slash,
        f"{uri}a",
        f"{uri}.evil.example",
        f"{uri}/../other",
        f"{uri}?x=1",
        f"{uri}#x",
        uri[:-1],
        origin,
        f"{origin}/",
        f"{origin}/other",
        _swapped_scheme(uri),
        f"{parts.scheme}://{parts.netloc}.evil.example{path}",
        f"{parts.scheme}://evil.example{path}",
        f"{parts.scheme}://evil.example@{parts.netloc}{path}",
        f"{parts.scheme}://{parts.netloc}@evil.example{path}",
        f"{parts.scheme}://{_other_port(parts)}{path}",
        f"{origin}{path.upper()}" if path.upper() != path else f"{origin}{path}X",
        f"{origin}{_percent_encoded(path)}",
        f"{origin}/{path}",
        f"{origin}/x/..{path}",
        f" {uri}",
        f"{uri} ",
        f"{uri}\x00",
    ]
    return [candidate for candidate in dict.fromkeys(candidates) if candidate != uri]


def uri_neighbours(uri: str) -> st.SearchStrategy[str]:
    """One change, drawn: a suffix, a label before or behind the host, a port, user information, a path, a character."""
    parts = urlsplit(uri)
    rest = parts.path + (f"?{parts.query}" if parts.query else "")
    changed = st.one_of(
        _SUFFIXES.map(lambda suffix: uri + suffix),
        _LABELS.map(lambda label: f"{parts.scheme}://{label}.{parts.netloc}{rest}"),
        _LABELS.map(lambda label: f"{parts.scheme}://{parts.netloc}.{label}{rest}"),
        st.integers(1, 65535).map(lambda port: f"{parts.scheme}://{parts.hostname}:{port}{rest}"),
        _LABELS.map(lambda user: f"{parts.scheme}://{user}@{parts.netloc}{rest}"),
        _SUFFIXES.map(lambda path: f"{parts.scheme}://{parts.netloc}/{path}"),
        st.integers(0, max(len(uri) - 1, 0)).map(lambda at: uri[:at] + uri[at + 1 :]),
        st.integers(0, max(len(uri) - 1, 0)).map(lambda at: uri[:at] + uri[at] + uri[at:]),
    )
    return changed.filter(lambda candidate: candidate not in same_uris(uri))


def same_uris(uri: str) -> frozenset[str]:
    """Spellings that a server may hold for `uri` itself: case of scheme and host, the default port, an empty path."""
    parts = urlsplit(uri)
    rest = parts.path + (f"?{parts.query}" if parts.query else "")
    authorities = {parts.netloc, parts.netloc.lower(), parts.netloc.upper()}
    default = {"http": 80, "https": 443}.get(parts.scheme)
    if parts.port is None:
        authorities |= {f"{authority}:{default}" for authority in list(authorities)}
    elif parts.port == default:
        authorities |= {authority.rpartition(":")[0] for authority in list(authorities)}
    rests = {rest, "/"} if rest in {"", "/"} else {rest}
    if rest in {"", "/"}:
        rests.add("")
    schemes = (parts.scheme, parts.scheme.upper())
    return frozenset(f"{s}://{authority}{r}" for s in schemes for authority in authorities for r in rests)


def _swapped_scheme(uri: str) -> str:
    return (
        uri.replace("https://", "http://", 1) if uri.startswith("https://") else uri.replace("http://", "https://", 1)
    )


def _other_port(parts: SplitResult) -> str:
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{host}:{(parts.port or 443) % 65535 + 1}"


def _percent_encoded(path: str) -> str:
    letter = next((c for c in path if c.isalnum()), "")
    return path.replace(letter, f"%{ord(letter):02x}", 1) if letter else f"{path}%2f"
