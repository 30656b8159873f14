"""Suffixes for a path that should name nothing."""

from __future__ import annotations

from hypothesis import strategies as st

PATH_CLASSICS = (
    "/no-such-endpoint",
    "/evil.example",
    "/..%2f..%2fetc/passwd",
    "/%2e%2e/%2e%2e/admin",
    "/../admin",
    "//evil.example/mcp",
    "/https:%2f%2fevil.example",
    "/mcp/%00",
    "/" + "a" * 2000,
)


def path_suffixes() -> st.SearchStrategy[str]:
    """One to three random segments, some percent-encoded, some with dots."""
    segment = st.text(st.sampled_from("abcdefghijklmnopqrstuvwxyz0123456789-_"), min_size=6, max_size=12)
    dotted = st.sampled_from(["..", "%2e%2e", ".", "%2f", "..;"])
    return st.lists(st.one_of(segment, dotted), min_size=1, max_size=3).map(lambda parts: "/" + "/".join(parts))
