"""What is no DPoP proof (RFC 9449 §4.2)."""

from __future__ import annotations

import string
from typing import Any
from urllib.parse import urlsplit

from hypothesis import strategies as st

_TYPED = ("jti", "htm", "htu", "ath")
_PRINTABLE = string.ascii_letters + string.digits + "-_.~+/="


def no_proofs() -> st.SearchStrategy[str]:
    """Texts that no reader can take for a compact JWS of two JSON objects."""
    return st.text(_PRINTABLE, min_size=1, max_size=40)


def bent_claims() -> st.SearchStrategy[tuple[str, str, Any]]:
    """`(part, member, value)`: a member of a proof with a value of a type that it must not have."""
    others: st.SearchStrategy[object] = st.one_of(
        st.booleans(), st.integers(-9, 9), st.lists(st.integers(0, 9), max_size=2), st.just({})
    )
    moments: st.SearchStrategy[object] = st.one_of(
        st.booleans(), st.text(string.digits, max_size=3), st.just([]), st.just({})
    )
    return st.one_of(
        st.tuples(st.just("claims"), st.sampled_from(_TYPED), others),
        st.tuples(st.just("claims"), st.just("iat"), moments),
        st.tuples(st.just("header"), st.just("typ"), others),
    )


def other_addresses(url: str) -> list[str]:
    """Addresses that are not `url`: of another host, port, path or scheme, or only beginning like it."""
    scheme, _, rest = url.partition("://")
    authority, _, path = rest.partition("/")
    name = urlsplit(url).hostname or ""
    host = f"[{name}]" if ":" in name else name
    other = "http" if scheme == "https" else "https"
    return [
        f"{scheme}://another-server.example/{path}",
        f"{other}://{rest}",
        f"{scheme}://{host}:9/{path}",
        f"{scheme}://{authority}.example/{path}",
        f"{scheme}://{authority}@another-server.example/{path}",
        f"{scheme}://{authority}/",
        f"{url}x",
        f"{url}/more",
        f"{scheme}://another-server.example/?{url}",
        f"/{path}",
        "",
    ]


def same_addresses(url: str) -> list[str]:
    """Other spellings of `url` (RFC 3986 §6.2.2, §6.2.3), and the same with the parts that do not count."""
    scheme, _, rest = url.partition("://")
    authority, _, path = rest.partition("/")
    found = [f"{scheme.upper()}://{rest}", f"{url}?conformance=1", f"{url}#conformance"]
    if authority.upper() != authority:
        found.append(f"{scheme}://{authority.upper()}/{path}")
    if ":" not in authority.rpartition("]")[2]:
        found.append(f"{scheme}://{authority}:{443 if scheme == 'https' else 80}/{path}")
    if path and path[0] in string.ascii_letters:
        found.append(f"{scheme}://{authority}/%{ord(path[0]):02x}{path[1:]}")
    return found
