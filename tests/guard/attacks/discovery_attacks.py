"""Area discovery: metadata that follows the request, and public paths that lead to the protected app."""

import json
from collections.abc import Iterator

from tests.guard.attacks.corpus import Shot, attack
from tests.guard.attacks.deployment import Deployment
from tests.guard.attacks.raw import Observation, Request

RESOURCE = b"/.well-known/oauth-protected-resource/mcp"
SERVER = b"/.well-known/oauth-authorization-server"
SPOOFED = (
    (b"X-Forwarded-Host", b"evil.example"),
    (b"X-Forwarded-Proto", b"https"),
    (b"Forwarded", b"host=evil.example;proto=https"),
    (b"X-Forwarded-Prefix", b"/evil"),
    (b"X-Original-Host", b"evil.example"),
    (b"X-Host", b"evil.example"),
)


@attack("disc-01")
def metadata_for_another_host(live: Deployment) -> Iterator[Shot]:
    for path in (RESOURCE, SERVER):
        plain = live.send(Request(b"GET", path, ((b"Host", live.host),)))

        def same(seen: Observation, plain: Observation = plain) -> None:
            assert seen.body == plain.body

        for field in SPOOFED:
            yield Shot(f"{path!r} {field!r}", Request(b"GET", path, ((b"Host", live.host), field)), (200,), check=same)
        yield Shot(f"{path!r} host", Request(b"GET", path, ((b"Host", b"evil.example"),)), (400, 421))


@attack("disc-02")
def challenges_for_another_host(live: Deployment) -> Iterator[Shot]:
    def configured(seen: Observation) -> None:
        challenge = seen.value("www-authenticate")
        assert f'resource_metadata="{live.origin}{RESOURCE.decode()}"' in challenge, challenge
        assert "evil" not in challenge

    for field in SPOOFED:
        yield Shot(repr(field), live.call(None, headers=(field,)), (401,), check=configured)


@attack("disc-04")
def metadata_of_resources_that_are_not(live: Deployment) -> Iterator[Shot]:
    paths = (
        b"/.well-known/oauth-protected-resource/other",
        RESOURCE + b"/",
        RESOURCE + b"x",
        RESOURCE + b"/x",
        b"/.well-known/oauth-protected-resource/..%2fmcp",
        b"/.well-known//oauth-protected-resource",
        b"/.well-known/oauth-protected-resource//mcp",
        b"/.well-known/oauth-protected-resource/MCP",
        b"/.well-known/oauth-protected-resource/",
        b"/.well-known/OAUTH-protected-resource/mcp",
        b"/.well-known/oauth-protected-resource%2fmcp",
        b"/mcp/.well-known/oauth-protected-resource",
    )

    def nothing(seen: Observation) -> None:
        assert b'"resource"' not in seen.body

    for path in paths:
        yield Shot(repr(path), Request(b"GET", path, ((b"Host", live.host),)), (400, 401, 404), check=nothing)


@attack("disc-05")
def public_paths_that_lead_inside(live: Deployment) -> Iterator[Shot]:
    paths = (
        b"/.well-known/../mcp",
        b"/.well-known/%2e%2e/mcp",
        b"/.well-known/..;/mcp",
        b"/.well-known/x/../../mcp",
        RESOURCE + b"/../../../mcp",
        RESOURCE + b"%2f..%2f..%2fmcp",
        b"/token/../mcp",
        b"/jwks/../mcp",
        b"/register/..%2fmcp",
        b"/authorize;/../mcp",
        b"/.well-known\\..\\mcp",
        b"/jwks%00/mcp",
        b"/jwks#/../mcp",
        b"/jwks?/../mcp",
    )
    for path in paths:
        yield Shot(repr(path), live.call(None, target=path), (400, 401, 404, 405))


@attack("disc-06")
def methods_of_metadata(live: Deployment) -> Iterator[Shot]:
    for path in (RESOURCE, SERVER, b"/.well-known/oauth-protected-resource", b"/jwks"):
        for method in (b"POST", b"PUT", b"DELETE", b"PATCH", b"TRACE", b"get"):
            request = Request(method, path, ((b"Host", live.host),))
            # hypercorn has written methods in upper case before it asks anybody.
            is_get = method == b"get" and live.server == "hypercorn"
            yield Shot(f"{method!r} {path!r}", request, (200, 404) if is_get else (400, 404, 405, 501))

        def empty(seen: Observation) -> None:
            assert seen.body == b""

        yield Shot(f"HEAD {path!r}", Request(b"HEAD", path, ((b"Host", live.host),)), (200,), check=empty)


@attack("disc-07")
def published_keys(live: Deployment) -> Iterator[Shot]:
    def public(seen: Observation) -> None:
        keys = json.loads(seen.body)["keys"]
        assert len({key["kid"] for key in keys}) == len(keys)
        for key in keys:
            assert not key.keys() & {"d", "p", "q", "dp", "dq", "qi", "oth", "k"}
            assert key["alg"]
            assert key["use"] == "sig"
        ages = [part for part in seen.value("cache-control").split(",") if "max-age=" in part]
        assert int(ages[0].partition("=")[2]) <= 600

    yield Shot("jwks", Request(b"GET", b"/jwks", ((b"Host", live.host),)), (200,), check=public)


@attack("disc-09")
def the_issuer_in_its_own_metadata(live: Deployment) -> Iterator[Shot]:
    def own(seen: Observation) -> None:
        if seen.status == 200:
            assert json.loads(seen.body)["issuer"] == live.origin

    for path in (SERVER, b"/.well-known/openid-configuration", SERVER + b"/mcp", SERVER + b"/"):
        yield Shot(repr(path), Request(b"GET", path, ((b"Host", live.host),)), (200, 404), check=own)
