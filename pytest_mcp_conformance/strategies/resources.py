"""Values of the resource parameter that name nothing the authorization server may issue a token for (RFC 8707 §2)."""

from __future__ import annotations

from urllib.parse import urlsplit

from hypothesis import strategies as st

from pytest_mcp_conformance.strategies.uris import same_uris, uri_neighbours

FOREIGN_RESOURCE = "https://resource.example/mcp"
_LABELS = st.text(st.sampled_from("abcdefghijklmnopqrstuvwxyz0123456789"), min_size=1, max_size=8)


def malformed_resources(resource: str) -> list[str]:
    """Values that are no absolute URI, or have a fragment."""
    path = urlsplit(resource).path or "/mcp"
    return [path, "mcp", f"{resource}#fragment", f"//{urlsplit(resource).netloc}{path}", " ", "https://"]


def foreign_resources(resource: str) -> list[str]:
    """URIs of something else than `resource`."""
    parts = urlsplit(resource)
    return [
        FOREIGN_RESOURCE,
        f"{parts.scheme}://{parts.netloc}.evil.example{parts.path}",
        f"{parts.scheme}://{parts.netloc}@evil.example{parts.path}",
        f"{parts.scheme}://user@evil.example{parts.path}",
        "javascript:alert(1)",
        "data:text/plain,mcp",
        f"https://resource.example/{'a' * 3000}",
    ]


def strange_resources(resource: str) -> st.SearchStrategy[str]:
    """Neighbours of `resource`, URIs on other hosts, and texts that are no URI."""
    foreign = st.builds("{}://{}.example/{}".format, st.sampled_from(["https", "http", "ftp"]), _LABELS, _LABELS)
    relative = _LABELS.map("/{}".format)
    drawn = st.one_of(uri_neighbours(resource), foreign, relative, _LABELS)
    return drawn.filter(lambda value: value not in same_uris(resource))


def is_elsewhere(value: str, resource: str) -> bool:
    """Whether `value` cannot be a spelling of `resource`: no absolute URI, with a fragment, or on another host."""
    try:
        ours, theirs = urlsplit(resource), urlsplit(value)
        return (theirs.scheme, theirs.hostname, theirs.port) != (ours.scheme, ours.hostname, ours.port) or "#" in value
    except ValueError:
        return True
