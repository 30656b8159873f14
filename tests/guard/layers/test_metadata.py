"""Metadata: each resource's document at its own URL, and nothing else below /.well-known/."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_guard.facts import Policy, Resource, ScopePolicy
from mcp_guard.failures import ConfigurationError
from mcp_guard.layers.metadata import Metadata
from mcp_guard.layers.wire import Wire
from mcp_guard.stack import guard
from tests.guard.asgi import CountingApp, Outcome, drive, http_scope

WELL_KNOWN = "/.well-known/oauth-protected-resource"
ISSUER = "https://as.example.com"
MCP = Resource(
    "https://mcp.example.com/mcp",
    "/mcp",
    scopes=frozenset({"mcp:read", "offline_access"}),
    policy=ScopePolicy(tools={"delete_*": frozenset({"mcp:write"})}, implies={"mcp:files": frozenset({"mcp:write"})}),
    name="Files",
)
PROOF_ALGORITHMS = ["ES256", "ES384", "Ed25519", "EdDSA", "PS256", "PS384", "PS512"]
SSE = Resource("https://mcp.example.com/sse", "/sse")
LAYER = Metadata((MCP, SSE), (ISSUER,), scopes_supported=frozenset({"mcp:tools"}))
DOCUMENT = {
    "resource": "https://mcp.example.com/mcp",
    "authorization_servers": [ISSUER],
    "scopes_supported": ["mcp:files", "mcp:read", "mcp:tools", "mcp:write"],
    "bearer_methods_supported": ["header"],
    "resource_name": "Files",
}


async def fetched(path: str, layer: Metadata = LAYER, method: str = "GET", **request: Any) -> Outcome:
    app = CountingApp()
    outcome = await drive(layer.wrap(app), http_scope(method=method, path=path, **request))
    assert app.calls == 0
    return outcome


# PRM-001, PRM-002, PRM-006, PRM-011, PRM-012, PRM-013
async def test_each_resource_has_its_own_document_at_the_url_with_its_path() -> None:
    outcome = await fetched(f"{WELL_KNOWN}/mcp")
    assert outcome.status == 200
    assert outcome.value(b"content-type") == b"application/json"
    assert outcome.value(b"cache-control") == b"public, max-age=300"
    assert outcome.json() == DOCUMENT
    assert (await fetched(f"{WELL_KNOWN}/sse")).json()["resource"] == "https://mcp.example.com/sse"


@pytest.mark.parametrize(
    ("policy", "judged", "says"),
    [
        ("allowed", False, {}),
        ("required", False, {}),
        ("off", True, {}),
        ("allowed", True, {"dpop_signing_alg_values_supported": PROOF_ALGORITHMS}),
        (
            "required",
            True,
            {"dpop_signing_alg_values_supported": PROOF_ALGORITHMS, "dpop_bound_access_tokens_required": True},
        ),
    ],
)
async def test_a_document_says_what_becomes_of_bound_tokens(policy: Policy, judged: bool, says: dict[str, Any]) -> None:
    layer = Metadata((replace(MCP, dpop=policy),), (ISSUER,), dpop=judged)
    document = (await fetched(f"{WELL_KNOWN}/mcp", layer)).json()
    assert {name: value for name, value in document.items() if name.startswith("dpop")} == says


@pytest.mark.parametrize(
    ("policy", "judged", "says"),
    [("required", False, None), ("off", True, None), ("allowed", True, True), ("required", True, True)],
)
async def test_a_document_says_whether_tokens_are_bound_to_certificates(
    policy: Policy, judged: bool, says: bool | None
) -> None:
    layer = Metadata((replace(MCP, certificates=policy),), (ISSUER,), certificates=judged)
    document = (await fetched(f"{WELL_KNOWN}/mcp", layer)).json()
    assert document.get("tls_client_certificate_bound_access_tokens") is says


async def test_the_url_without_a_path_has_the_first_resource() -> None:
    assert (await fetched(WELL_KNOWN)).json() == DOCUMENT


async def test_the_url_without_a_path_is_the_origin_s_own_where_that_is_a_resource() -> None:
    layer = Metadata((MCP, Resource("https://mcp.example.com/", "/")), (ISSUER,))
    assert (await fetched(WELL_KNOWN, layer)).json()["resource"] == "https://mcp.example.com/"
    assert (await fetched(f"{WELL_KNOWN}/mcp", layer)).json()["resource"] == MCP.url


# PRM-015
@pytest.mark.parametrize("credential", [b"Bearer nonsense", b"", b"Basic x"])
async def test_a_document_is_read_without_a_credential_and_with_any(credential: bytes) -> None:
    outcome = await fetched(f"{WELL_KNOWN}/mcp", headers=[(b"authorization", credential)])
    assert outcome.json() == DOCUMENT


# disc-01, PRM-018
names = st.sampled_from(
    [b"host", b"x-forwarded-host", b"x-forwarded-proto", b"forwarded", b"x-forwarded-prefix", b"origin"]
)


@given(st.lists(st.tuples(names, st.binary(max_size=30)), max_size=6), st.binary(max_size=10))
async def test_disc_01_nothing_of_a_request_goes_into_a_document(
    headers: list[tuple[bytes, bytes]], query: bytes
) -> None:
    outcome = await fetched(
        f"{WELL_KNOWN}/mcp", headers=headers, query=query, scheme="http", server=("evil.example", 1)
    )
    assert outcome.json() == DOCUMENT


# disc-04, PRM-017
UNKNOWN = ["/other", "/mcp/", "/mcp/x", "/MCP", "//mcp", "/", "/sse/", "/mcp\n", "/../mcp", "x", "/mcp.json"]


@pytest.mark.parametrize("suffix", UNKNOWN)
async def test_disc_04_a_path_that_is_no_resource_s_has_no_document(suffix: str) -> None:
    assert (await fetched(f"{WELL_KNOWN}{suffix}")).status == 404


@pytest.mark.parametrize(
    "path",
    [
        "/.well-known/",
        "/.well-known/openid-configuration",
        "/.well-known/oauth-authorization-server",
        "/.well-known/mcp",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_nothing_else_below_well_known_reaches_the_app(path: str, method: str) -> None:
    outcome = await fetched(path, method=method)
    assert outcome.status == 404
    assert outcome.json()["error"] == "not_found"


@given(st.text(max_size=20))
async def test_a_suffix_never_names_a_resource_by_accident(suffix: str) -> None:
    outcome = await drive(LAYER.wrap(CountingApp()), http_scope(method="GET", path=WELL_KNOWN + suffix, raw_path=None))
    assert outcome.status == (200 if suffix in ("", "/mcp", "/sse") else 404)


# disc-05
@pytest.mark.parametrize("path", ["/.well-known/../mcp", "/.well-known/..;/mcp", "/.well-known/x/../../mcp"])
async def test_disc_05_the_public_prefix_leads_nowhere_else(path: str) -> None:
    app = CountingApp()
    outcome = await drive(guard(app, Wire(), LAYER), http_scope(path=path))
    assert (outcome.status, app.calls) == (400, 0)


@pytest.mark.parametrize(
    "path", ["/mcp", "/", "/.well-known", "/x/.well-known/oauth-protected-resource", "/.well-knownx/y"]
)
async def test_other_paths_are_for_the_layers_further_in(path: str) -> None:
    app = CountingApp()
    assert (await drive(LAYER.wrap(app), http_scope(path=path))).status == 200
    assert app.calls == 1


# disc-06
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "TRACE", "OPTIONS", "get", ""])
async def test_disc_06_a_document_is_only_read(method: str) -> None:
    outcome = await fetched(f"{WELL_KNOWN}/mcp", method=method)
    assert outcome.status == 405
    assert outcome.value(b"allow") == b"GET, HEAD"


async def test_disc_06_head_is_get_without_the_body() -> None:
    full, head = await fetched(f"{WELL_KNOWN}/mcp"), await fetched(f"{WELL_KNOWN}/mcp", method="HEAD")
    assert head.status == 200
    assert sorted(head.headers) == sorted(full.headers)
    assert head.value(b"content-length") == str(len(full.body)).encode()
    assert head.body == b""


# PRM-019, csrf-04
async def test_pages_read_documents_only_where_that_is_wanted_and_never_with_cookies() -> None:
    assert (await fetched(WELL_KNOWN)).value(b"access-control-allow-origin") is None
    layer = Metadata((MCP,), (ISSUER,), browser_clients=True)
    for outcome in (await fetched(WELL_KNOWN, layer), await fetched(WELL_KNOWN, layer, "OPTIONS")):
        assert outcome.status in (200, 204)
        assert outcome.value(b"access-control-allow-origin") == b"*"
        assert outcome.value(b"access-control-allow-credentials") is None
    assert (await fetched(WELL_KNOWN, layer, "POST")).value(b"allow") == b"GET, HEAD, OPTIONS"
    assert (await fetched(f"{WELL_KNOWN}/none", layer)).value(b"access-control-allow-origin") is None


async def test_a_server_told_its_prefix_still_serves_the_documents() -> None:
    layer = Metadata((Resource("https://h.example/api/mcp", "/api/mcp"),), (ISSUER,))
    outcome = await fetched(f"/api{WELL_KNOWN}/api/mcp", layer, root_path="/api")
    assert outcome.json()["resource"] == "https://h.example/api/mcp"
    assert (await fetched(f"{WELL_KNOWN}/api/mcp", layer)).status == 200
    assert (await fetched(f"/api{WELL_KNOWN}/mcp", layer, root_path="/api")).status == 404


async def test_an_issuer_stands_as_it_is_spelled() -> None:
    layer = Metadata(
        (SSE,), ("https://AS.example.com/tenant/", "http://127.0.0.1:9000"), documentation="https://d.example/x"
    )
    members = json.loads((await fetched(WELL_KNOWN, layer)).body)
    assert members["authorization_servers"] == ["https://AS.example.com/tenant/", "http://127.0.0.1:9000"]
    assert members["resource_documentation"] == "https://d.example/x"
    assert "scopes_supported" not in members


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"resources": ()}, "resources"),
        ({"resources": (MCP, MCP)}, "resources"),
        ({"resources": (Resource("https://h", "/"), Resource("https://h/", "/"))}, "resources"),
        ({"resources": (Resource("http://mcp.example.com/mcp", "/mcp"),)}, "resource"),
        ({"authorization_servers": ()}, "authorization_servers"),
        ({"authorization_servers": ("http://as.example.com",)}, "authorization_servers"),
        ({"authorization_servers": ("https://as.example.com?x",)}, "authorization_servers"),
        ({"authorization_servers": ISSUER}, "authorization_servers"),
        ({"documentation": "docs"}, "documentation"),
    ],
)
def test_a_setting_that_cannot_work_is_named(settings: dict[str, Any], name: str) -> None:
    with pytest.raises(ConfigurationError, match=name):
        Metadata(**{"resources": (MCP,), "authorization_servers": (ISSUER,), **settings})
