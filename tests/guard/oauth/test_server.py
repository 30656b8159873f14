"""The app as a whole: paths, methods, headers, faults, and the ways it is served."""

import re
from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from mcp_guard.asgi import Message, Scope
from mcp_guard.clock import ManualClock
from mcp_guard.facts import FACTS_KEY, ClientAddress, Resource
from mcp_guard.failures import ConfigurationError, StoreUnavailable, Unavailable
from mcp_guard.oauth import AuthorizationServer, Limits, Rate, SigningKeys, User
from mcp_guard.rejections import Rejection
from mcp_guard.secret import Secret
from mcp_guard.stores.base import Operation, Put, Result, Spend
from mcp_guard.stores.memory import MemoryStore
from tests.guard.oauth.flow import ISSUER, KEYS, RESOURCE, SCOPES, USERS, VERIFIER, World, recording, request_of

PATHS = {
    "/.well-known/oauth-authorization-server",
    "/jwks",
    "/authorize",
    "/login",
    "/consent",
    "/token",
    "/register",
}
LEGAL = re.compile(r"[\x20-\x21\x23-\x5b\x5d-\x7e]*")


def server(**changes: Any) -> AuthorizationServer:
    settings: dict[str, Any] = {
        "issuer": ISSUER,
        "store": MemoryStore(),
        "users": USERS,
        "resources": [Resource(RESOURCE, "/mcp")],
        "scopes": SCOPES,
        **changes,
    }
    return AuthorizationServer(**settings)


async def call(app: Any, scope: Scope, messages: Sequence[Message] = ()) -> list[Message]:
    """One raw ASGI call; the messages it sent."""
    ahead = list(messages)
    sent: list[Message] = []

    async def receive() -> Message:
        return ahead.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent


def test_exactly_the_paths_of_the_endpoints_are_served() -> None:
    assert server().paths == PATHS
    assert server(issuer="https://as.example/").paths == PATHS


def test_an_issuer_with_a_path_has_its_endpoints_below_it() -> None:
    """disc-09."""
    made = server(issuer="https://as.example/tenant/a")
    well_known = "/.well-known/oauth-authorization-server/tenant/a"
    assert made.paths == {well_known, *(f"/tenant/a{path}" for path in PATHS if "well-known" not in path)}
    assert made.issuer == made.metadata["issuer"] == "https://as.example/tenant/a"


async def test_a_whole_flow_works_below_a_path() -> None:
    world = World(issuer="https://as.example/tenant")
    http = world.http()
    metadata = (await http.get("https://as.example/.well-known/oauth-authorization-server/tenant")).json()
    told = (await http.post(metadata["registration_endpoint"], json={"redirect_uris": ["https://a.example/"]})).json()
    assert metadata["authorization_endpoint"] == "https://as.example/tenant/authorize"
    response = await http.get(
        metadata["authorization_endpoint"],
        params={"client_id": told["client_id"], "redirect_uri": "https://a.example/"},
    )
    assert response.headers["location"].startswith("https://as.example/tenant/login?")
    assert (await http.get(response.headers["location"])).status_code == 200


async def test_the_metadata_is_the_same_whatever_the_request_says(world: World) -> None:
    """disc-01, ASM-016."""
    forged = {
        "host": "evil.example",
        "x-forwarded-host": "evil.example",
        "x-forwarded-proto": "http",
        "forwarded": "host=evil.example;proto=http",
    }
    plain = await world.http().get("/.well-known/oauth-authorization-server")
    spoofed = await world.http().get("/.well-known/oauth-authorization-server", headers=forged)
    assert plain.status_code == 200
    assert plain.headers["content-type"] == "application/json"
    assert plain.content == spoofed.content
    assert plain.json()["issuer"] == ISSUER
    location = (await world.http().get("/authorize", params=request_of(await world.register()), headers=forged)).headers
    assert location["location"].startswith(f"{ISSUER}/login?")


async def test_every_endpoint_the_metadata_names_is_served(world: World) -> None:
    metadata = (await world.http().get("/.well-known/oauth-authorization-server")).json()
    named = {value for name, value in metadata.items() if name.endswith("_endpoint") or name == "jwks_uri"}
    assert {value.removeprefix(ISSUER) for value in named} <= world.server.paths
    assert len(named) == 4


async def test_the_key_set_has_public_members_only() -> None:
    """disc-07, ASM-013."""
    keys = [SigningKeys.generate()._keys[0].private_key for _ in range(2)]
    signing = SigningKeys([key for key in keys if key is not None])
    response = await World().http(app=server(keys=signing)).get("/jwks")
    assert response.headers["cache-control"] == "public, max-age=600"
    members = response.json()["keys"]
    assert [set(member) for member in members] == [{"kty", "crv", "x", "y", "kid", "use", "alg"}] * 2
    assert len({member["kid"] for member in members}) == 2
    assert {(member["alg"], member["use"], member["crv"]) for member in members} == {("ES256", "sig", "P-256")}


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/.well-known/oauth-authorization-server", "GET, HEAD"),
        ("/jwks", "GET, HEAD"),
        ("/authorize", "GET, HEAD"),
        ("/login", "GET, HEAD, POST"),
        ("/consent", "GET, HEAD, POST"),
        ("/token", "POST"),
        ("/register", "POST"),
    ],
)
async def test_other_methods_are_405(world: World, path: str, allowed: str) -> None:
    """disc-06, tok-04."""
    for method in ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "get"]:
        if method in allowed.split(", "):
            continue
        sent = await call(world.server, scope_of(path, method=method))
        assert sent[0]["status"] == 405
        assert (b"allow", allowed.encode()) in sent[0]["headers"]


def scope_of(path: str, **changes: Any) -> Scope:
    return {"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": [], **changes}


@pytest.mark.parametrize("path", ["/.well-known/oauth-authorization-server", "/jwks"])
async def test_head_is_get_without_a_body(world: World, path: str) -> None:
    got, head = await world.http().get(path), await world.http().head(path)
    assert head.status_code == 200
    assert head.content == b""
    assert head.headers == got.headers


@pytest.mark.parametrize(
    ("path", "raw_path"),
    [
        ("/", None),
        ("/Token", None),
        ("/token/", None),
        ("//token", None),
        ("/token", b"/tok%65n"),
        ("/.well-known/oauth-authorization-server/", None),
        ("/.well-known/oauth-authorization-server/x", None),
        ("/.well-known/openid-configuration", None),
        ("/introspect", None),
        ("/revoke", None),
    ],
)
async def test_every_other_path_is_404(world: World, path: str, raw_path: bytes | None) -> None:
    """disc-04."""
    changes = {} if raw_path is None else {"raw_path": raw_path}
    sent = await call(world.server, scope_of(path, method="POST", **changes))
    assert sent[0]["status"] == 404


@pytest.mark.parametrize("path", sorted(PATHS | {"/other"}))
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
async def test_every_response_has_the_security_headers_and_no_cors(world: World, path: str, method: str) -> None:
    """csrf-04, tok-09, ASM-015, HSTS-003."""
    headers = {"origin": "https://evil.example", "access-control-request-method": "POST"}
    response = await world.http().request(method, path, headers=headers)
    assert response.status_code < 500
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["x-frame-options"] == "DENY"
    assert response.headers["referrer-policy"] == "no-referrer"
    assert response.headers["strict-transport-security"] == "max-age=31536000"
    assert "frame-ancestors 'none'" in response.headers["content-security-policy"]
    assert not [name for name in response.headers if name.startswith("access-control-")]
    assert "cache-control" in response.headers


@pytest.mark.parametrize(
    "content_type", ["application/json", "text/plain", "multipart/form-data; boundary=x", "", "a, b"]
)
async def test_the_token_endpoint_takes_forms_alone(world: World, content_type: str) -> None:
    """tok-04, CLI-009."""
    headers = {"content-type": content_type} if content_type else {}
    response = await world.http().post("/token", content=b"grant_type=refresh_token&client_id=x", headers=headers)
    assert response.status_code == 400
    assert response.json()["error"] == "invalid_request"
    assert response.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"a=%zz", 400), (b"a=%ff", 400), (b"a=b&" * 65, 400), (b"a=" + b"x" * 70_000, 413), (b"", 401)],
)
async def test_a_malformed_token_request_is_a_clean_error(world: World, body: bytes, status: int) -> None:
    """CLI-009, tok-09."""
    headers = {"content-type": "application/x-www-form-urlencoded"}
    response = await world.http().post("/token", content=body, headers=headers)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/json"
    assert response.headers["cache-control"] == "no-store"
    assert LEGAL.fullmatch(response.json()["error_description"])


class FailingStore(MemoryStore):
    """A memory store that is down for the operations that `fails` names."""

    down: bool = False
    fails: tuple[type, ...] = ()

    async def run(self, operations: Sequence[Operation]) -> list[Result]:
        if self.down or any(isinstance(operation, self.fails) for operation in operations):
            raise StoreUnavailable("the store is down", retry_after_seconds=3)
        return await super().run(operations)


@pytest.mark.parametrize("path", ["/authorize", "/login", "/consent", "/token", "/register"])
async def test_a_store_that_is_down_is_503_and_never_a_success(path: str) -> None:
    """tok-07's rule: trouble is 503 with Retry-After, and it passes."""
    store = FailingStore(clock=ManualClock())
    world = World(given_store=store)
    client = await world.register()
    code = (await world.browser().approve(client))["code"]
    http = world.http()
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": client.redirect_uri,
        "code_verifier": VERIFIER,
        "client_id": client.client_id,
    }
    requests = {
        "/authorize": http.build_request("GET", "/authorize", params=request_of(client)),
        "/login": http.build_request("GET", "/login", params=request_of(client)),
        "/consent": http.build_request("GET", "/consent", params={"transaction": "x"}),
        "/token": http.build_request("POST", "/token", data=form),
        "/register": http.build_request("POST", "/register", json={"redirect_uris": [client.redirect_uri]}),
    }
    store.down = True
    response = await http.send(requests[path])
    assert response.status_code == 503
    assert response.headers["retry-after"] == "3"
    assert response.headers["cache-control"] == "no-store"
    assert "store" not in response.text
    if path in {"/token", "/register"}:
        assert response.json()["error"] == "temporarily_unavailable"
    else:
        assert response.headers["content-type"].startswith("text/html")
        assert response.headers["x-frame-options"] == "DENY"
    store.down = False
    assert (await world.redeem(client, code)).status_code == 200


@pytest.mark.parametrize("operation", [Put, Spend])
async def test_a_store_that_cannot_write_issues_nothing(operation: type) -> None:
    store = FailingStore(clock=ManualClock())
    world = World(given_store=store)
    client = await world.register()
    browser = world.browser()
    page = await browser.start(client)
    code = (await world.browser().approve(client))["code"]
    store.fails = (operation,)
    registration = await world.http().post("/register", json={"redirect_uris": [client.redirect_uri]})
    assert registration.status_code == 503
    assert (await browser.open(client)).status_code == 503
    fresh = world.browser()
    assert (await fresh.sign_in(await fresh.follow(await fresh.open(client)))).status_code == 503
    if operation is Put:
        assert (await browser.decide(page)).status_code == 503
        assert (await world.redeem(client, code)).status_code == 503


async def test_a_full_store_refuses_and_evicts_nothing() -> None:
    world = World(given_store=MemoryStore(clock=ManualClock(), max_entries=8))
    client = await world.register()
    statuses = set()
    for _ in range(10):
        statuses.add((await world.http().post("/register", json={"redirect_uris": ["https://a.example/"]})).status_code)
    assert statuses == {201, 503}
    assert (await world.browser().open(client)).status_code == 302


async def test_users_who_cannot_be_asked_are_503() -> None:
    class Down:
        async def authenticate(self, name: str, password: Secret) -> User | None:
            raise Unavailable("the directory is down", retry_after_seconds=7)

    world = World(users=Down())
    browser = world.browser()
    response = await browser.sign_in(await browser.follow(await browser.open(await world.register())))
    assert response.status_code == 503
    assert response.headers["retry-after"] == "7"


async def test_no_secret_is_logged(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """tok-09: in a whole flow with every kind of failure in it."""
    caplog.set_level("DEBUG")
    client = await world.register(token_endpoint_auth_method="client_secret_basic")
    browser = world.browser()
    page = await browser.follow(await browser.open(client))
    await browser.sign_in(page, password="a-wrong-password")
    code = (await world.browser().approve(client))["code"]
    tokens = (await world.redeem(client, code)).json()
    await world.redeem(client, code)
    await world.refresh(client, tokens["refresh_token"])
    secrets = [code, client.secret, tokens["access_token"], tokens["refresh_token"], VERIFIER, "a-wrong-password"]
    own = "\n".join(record.getMessage() for record in caplog.records if record.name.startswith("mcp_guard"))
    assert [secret for secret in secrets if secret is None or secret in own] == []


async def test_the_audit_learns_that_a_code_or_a_refresh_token_was_reused(world: World) -> None:
    """rt-01."""
    scopes: list[Scope] = []
    app = recording(world.server, scopes, change=lambda scope: {**scope, FACTS_KEY: {}})
    client = await world.register()
    code = (await world.browser().approve(client))["code"]
    await world.redeem(client, code)
    fields = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": client.redirect_uri,
        "code_verifier": VERIFIER,
        "client_id": client.client_id,
    }
    response = await world.http(app=app).post("/token", data=fields)
    refusal = scopes[-1][FACTS_KEY][Rejection]
    assert refusal.kind.slug == "oauth_invalid_grant"
    assert refusal.reason == "the code was used before: its grant was revoked"
    assert "used before" not in response.text
    tokens = await world.tokens(client)
    await world.refresh(client, tokens["refresh_token"])
    fields = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"], "client_id": client.client_id}
    response = await world.http(app=app).post("/token", data=fields)
    assert scopes[-1][FACTS_KEY][Rejection].reason == "the refresh token was used before: its grant was revoked"
    assert "used before" not in response.text


async def test_the_address_is_the_one_a_layer_further_out_found() -> None:
    from ipaddress import ip_address

    world = World(limits=Limits(registrations_per_address=Rate(1, timedelta(hours=1))))
    document = {"redirect_uris": ["https://a.example/"]}
    for address, status in [("192.0.2.1", 201), ("192.0.2.1", 429), ("192.0.2.2", 201)]:
        facts = {ClientAddress: ClientAddress(ip_address(address))}
        app = recording(world.server, [], change=partial(dict, **{FACTS_KEY: facts}))
        response = await world.http(address="203.0.113.9", app=app).post("/register", json=document)
        assert response.status_code == status


@pytest.mark.parametrize("client", [None, ("testclient", 1), ("unix:", 0)])
async def test_a_connection_without_an_address_is_served(world: World, client: object) -> None:
    sent = await call(world.server, scope_of("/jwks", client=client))
    assert sent[0]["status"] == 200


async def test_a_body_in_many_pieces_is_read_and_a_client_that_leaves_gets_nothing(world: World) -> None:
    headers = [(b"content-type", b"application/json")]
    pieces = [b'{"redirect_uris":', b'["https://a.example/"]', b"}"]
    messages: list[Message] = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
    sent = await call(
        world.server, scope_of("/register", method="POST", headers=headers), [*messages, {"type": "http.request"}]
    )
    assert sent[0]["status"] == 201
    gone: list[Message] = [messages[0], {"type": "http.disconnect"}]
    assert await call(world.server, scope_of("/register", method="POST", headers=headers), gone) == []


async def test_a_body_that_does_not_arrive_is_408(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    import anyio

    from mcp_guard.oauth import web

    monkeypatch.setattr(web, "BODY_DEADLINE", timedelta(milliseconds=20))
    sent: list[Message] = []

    async def receive() -> Message:
        await anyio.sleep_forever()
        raise AssertionError

    async def send(message: Message) -> None:
        sent.append(message)

    headers = [(b"content-type", b"application/json")]
    await world.server(scope_of("/register", method="POST", headers=headers), receive, send)
    assert sent[0]["status"] == 408


async def test_it_can_be_mounted_in_starlette() -> None:
    world = World()

    def home(request: object) -> PlainTextResponse:
        return PlainTextResponse("home")

    app = Starlette(routes=[Route("/home", home), Mount("/", app=world.server)])
    http = httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url=ISSUER)
    assert (await http.get("/home")).text == "home"
    assert (await http.get("/.well-known/oauth-authorization-server")).json()["issuer"] == ISSUER
    below = World(issuer="https://as.example/auth")
    app = Starlette(
        routes=[
            Mount("/auth", app=below.server),
            Mount("/.well-known/oauth-authorization-server", app=below.server),
        ]
    )
    http = httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url=ISSUER)
    assert (await http.get("/auth/jwks")).status_code == 200
    assert (await http.get("/.well-known/oauth-authorization-server/auth")).status_code == 200


class LifespanStore(MemoryStore):
    """A store that tells when it is started and closed."""

    fault: Exception | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.told: list[str] = []

    async def start(self) -> None:
        if self.fault is not None:
            raise self.fault
        self.told.append("start")

    async def close(self) -> None:
        self.told.append("close")


async def test_on_its_own_it_starts_and_closes_its_store() -> None:
    store = LifespanStore()
    messages: list[Message] = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
    sent = await call(server(store=store), {"type": "lifespan"}, messages)
    assert [message["type"] for message in sent] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert store.told == ["start", "close"]


@pytest.mark.parametrize("fault", [StoreUnavailable("no connection"), ConfigurationError("an evicting store")])
async def test_a_store_that_does_not_start_fails_the_start(fault: Exception) -> None:
    store = LifespanStore()
    store.fault = fault
    sent = await call(server(store=store), {"type": "lifespan"}, [{"type": "lifespan.startup"}])
    assert sent == [{"type": "lifespan.startup.failed", "message": str(fault)}]


async def test_a_websocket_is_refused_before_it_is_accepted() -> None:
    sent = await call(server(), {"type": "websocket", "path": "/token"}, [{"type": "websocket.connect"}])
    assert sent == [{"type": "websocket.close", "code": 1008}]


async def test_another_kind_of_connection_is_a_defect_of_the_server_below() -> None:
    with pytest.raises(RuntimeError, match="scope type"):
        await call(server(), {"type": "webtransport", "path": "/token"})


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"issuer": "http://as.example"}, "issuer"),
        ({"issuer": "https://as.example?x"}, "issuer"),
        ({"issuer": "https://as.example/%61"}, "issuer"),
        ({"resources": []}, "resources"),
        ({"resources": [RESOURCE, Resource(RESOURCE, "/mcp")]}, "resources"),
        ({"resources": ["mcp"]}, "resources"),
        ({"resources": [RESOURCE + "#f"]}, "resources"),
        ({"scopes": {"a b": "two"}}, "scopes"),
        ({"scopes": {"": "none"}}, "scopes"),
        ({"scopes": {"a": ""}}, "scopes"),
        ({"scopes": {"a": "x\u202ey"}}, "scopes"),
    ],
)
def test_a_setting_that_cannot_work_is_named(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        server(**changes)


def test_the_keys_are_generated_when_none_are_given_and_do_not_show_themselves() -> None:
    one, two = server(), server()
    assert one.keys.ids != two.keys.ids
    assert server(keys=KEYS).keys is KEYS
    assert "d=" not in repr(one.keys)
    assert one.keys.ids[0] in repr(one.keys)


def test_the_public_names_are_where_they_are_promised() -> None:
    from mcp_guard import oauth

    assert all(getattr(oauth, name) is not None for name in oauth.__all__)
    with pytest.raises(AttributeError, match="nothing"):
        oauth.nothing  # noqa: B018
