"""Protected resource metadata: where it is and what it says."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_guard.failures import ConfigurationError
from mcp_guard.protocol.metadata import (
    WELL_KNOWN,
    canonical_resource,
    document,
    root_well_known,
    well_known_path,
    well_known_url,
)

PLACES = [
    ("https://resource.example.com", "https://resource.example.com/.well-known/oauth-protected-resource"),
    ("https://resource.example.com/", "https://resource.example.com/.well-known/oauth-protected-resource"),
    (
        "https://resource.example.com/resource1",
        "https://resource.example.com/.well-known/oauth-protected-resource/resource1",
    ),
    ("https://h.example/a/mcp/", "https://h.example/.well-known/oauth-protected-resource/a/mcp/"),
    ("http://127.0.0.1:8765/mcp", "http://127.0.0.1:8765/.well-known/oauth-protected-resource/mcp"),
    ("http://[::1]:8765/caf%C3%A9", "http://[::1]:8765/.well-known/oauth-protected-resource/caf%C3%A9"),
]


@pytest.mark.parametrize(("resource", "url"), PLACES)
def test_the_well_known_segment_stands_between_host_and_path(resource: str, url: str) -> None:
    assert well_known_url(resource) == url
    assert url.endswith(well_known_path(resource))


def test_the_root_document_has_no_path() -> None:
    assert root_well_known("https://h.example/a/mcp") == "https://h.example/.well-known/oauth-protected-resource"


segments = st.text("abcdefghijklmnopqrstuvwxyz0123456789-_~", min_size=1, max_size=8)


@given(st.lists(segments, max_size=4), st.booleans())
def test_taking_the_segment_out_gives_the_resource_again(parts: list[str], slash: bool) -> None:
    resource = "https://h.example" + "".join(f"/{part}" for part in parts) + ("/" if slash and parts else "")
    assert well_known_url(resource).replace(WELL_KNOWN, "", 1) == resource


@pytest.mark.parametrize("place", [well_known_url, well_known_path, root_well_known])
def test_what_cannot_be_a_resource_has_no_place(place: object) -> None:
    assert callable(place)
    with pytest.raises(ConfigurationError, match="resource: "):
        place("https://h.example/mcp?tenant=1")


def test_a_document_says_what_is_known_and_nothing_empty() -> None:
    assert document("https://h.example/mcp", ["https://as.example"]) == {
        "resource": "https://h.example/mcp",
        "authorization_servers": ["https://as.example"],
        "bearer_methods_supported": ["header"],
    }


def test_a_document_lists_scopes_once_and_in_order_but_never_offline_access() -> None:
    members = document(
        "https://h.example/mcp",
        ["https://as.example/", "https://other.example"],
        scopes_supported=["mcp:write", "offline_access", "mcp:read", "mcp:read"],
        resource_name="Files",
        resource_documentation="https://h.example/docs",
    )
    assert members["scopes_supported"] == ["mcp:read", "mcp:write"]
    assert members["authorization_servers"] == ["https://as.example/", "https://other.example"]
    assert members["resource_name"] == "Files"
    assert members["resource_documentation"] == "https://h.example/docs"


def test_offline_access_alone_leaves_no_empty_list() -> None:
    assert "scopes_supported" not in document("https://h", ["https://as"], scopes_supported=["offline_access"])


@pytest.mark.parametrize(
    ("spelled", "canonical"),
    [
        ("https://mcp.example/mcp", "https://mcp.example/mcp"),
        ("HTTPS://MCP.Example/mcp", "https://mcp.example/mcp"),
        ("HTTPS://MCP.Example:8443", "https://mcp.example:8443"),
        ("https://MCP.example/MCP?A#B", "https://mcp.example/MCP?A#B"),
        ("https://MCP.example?A", "https://mcp.example?A"),
        ("https://mcp.example/mcp/", "https://mcp.example/mcp/"),
        ("https://[2001:DB8::1]/x", "https://[2001:db8::1]/x"),
        ("https://to\u212aens.example/", "https://to\u212aens.example/"),
        ("no-url", "no-url"),
        ("", ""),
    ],
)
def test_a_resource_identifier_keeps_everything_but_the_case_of_scheme_and_host(spelled: str, canonical: str) -> None:
    assert canonical_resource(spelled) == canonical
