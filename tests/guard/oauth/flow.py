"""One authorization server in memory, and the people and clients who use it, over real ASGI calls."""

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import anyio
import anyio.lowlevel
import httpx
from argon2 import PasswordHasher

from mcp_guard.asgi import ASGIApp, Receive, Scope, Send
from mcp_guard.clock import ManualClock
from mcp_guard.oauth import (
    AuthorizationServer,
    Lifetimes,
    Limits,
    ProofTerms,
    Rate,
    SigningKeys,
    StaticUsers,
    User,
    hash_password,
)
from mcp_guard.oauth.users import UserDirectory
from mcp_guard.protocol import b64url, pkce
from mcp_guard.stores.base import Operation, Result, Store
from mcp_guard.stores.memory import MemoryStore

ISSUER = "https://as.example"
RESOURCE = "https://mcp.example/mcp"
OTHER_RESOURCE = "https://mcp.example/sse"
REDIRECT = "https://app.example/cb"
VERIFIER = "correct-horse-battery-staple-correct-horse-battery"
SCOPES = {"mcp:read": "Read your things", "mcp:write": "Change your things"}

FAST = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
KEYS = SigningKeys.generate()
PASSWORDS = {"alice": "alice's password", "bob": "bob's password", "carol": "carol's password"}
USERS = StaticUsers(
    {
        "alice": (User("u-alice", "Alice"), hash_password(PASSWORDS["alice"], hasher=FAST)),
        "bob": (User("u-bob", "Bob", tenant="acme"), hash_password(PASSWORDS["bob"], hasher=FAST)),
        "carol": (
            User("u-carol", "Carol", scopes=frozenset({"mcp:read"})),
            hash_password(PASSWORDS["carol"], hasher=FAST),
        ),
    }
)
UNLIMITED = Limits(
    *[Rate(1_000_000, Limits().registrations.period)] * 7,
)


class YieldingStore(MemoryStore):
    """A memory store that lets others go first, as one behind a network does: simultaneous requests interleave."""

    async def run(self, operations: Sequence[Operation]) -> list[Result]:
        await anyio.lowlevel.checkpoint()
        return await super().run(operations)


def query_of(location: str) -> dict[str, str]:
    """The parameters of a redirect; each must be there once."""
    pairs = parse_qsl(urlsplit(location).query, keep_blank_values=True, strict_parsing=True)
    assert len(dict(pairs)) == len(pairs), location
    return dict(pairs)


def claims_of(token: str) -> dict[str, Any]:
    """The claims of an access token, unverified."""
    claims: dict[str, Any] = json.loads(b64url.decode(token.split(".")[1]))
    return claims


def basic(client_id: str, secret: str) -> dict[str, str]:
    """The header of client_secret_basic."""
    pair = f"{quote(client_id, safe='')}:{quote(secret, safe='')}"
    return {"authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}


class Form(HTMLParser):
    """The form of a page: where it goes and its hidden fields."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.action = ""
        self.fields: dict[str, str] = {}
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.action = values["action"]
        elif tag == "input" and values.get("type") == "hidden":
            self.fields[values["name"]] = values["value"]


@dataclass(frozen=True)
class Client:
    """A registered client, as it knows itself."""

    client_id: str
    secret: str | None = None
    redirect_uri: str = REDIRECT

    @property
    def headers(self) -> dict[str, str]:
        return {} if self.secret is None else basic(self.client_id, self.secret)

    @property
    def fields(self) -> dict[str, str]:
        return {"client_id": self.client_id} if self.secret is None else {}


@dataclass
class World:
    """A server, its clock and its store."""

    issuer: str = ISSUER
    clock: ManualClock = field(default_factory=ManualClock)
    given_store: Store | None = None
    users: UserDirectory = field(default_factory=lambda: USERS)
    limits: Limits = UNLIMITED
    lifetimes: Lifetimes = field(default_factory=Lifetimes)
    scopes: Mapping[str, str] = field(default_factory=lambda: SCOPES)
    proofs: ProofTerms = field(default_factory=ProofTerms)
    client_address: str = "192.0.2.7"

    def __post_init__(self) -> None:
        self.store: Store = self.given_store or MemoryStore(clock=self.clock)
        self.server = AuthorizationServer(
            issuer=self.issuer,
            store=self.store,
            users=self.users,
            resources=[RESOURCE, OTHER_RESOURCE],
            scopes=self.scopes,
            keys=KEYS,
            clock=self.clock,
            lifetimes=self.lifetimes,
            limits=self.limits,
            proofs=self.proofs,
            name="Example Tools",
        )

    @property
    def entries(self) -> dict[str, bytes]:
        """Everything the memory store holds."""
        assert isinstance(self.store, MemoryStore)
        return {key: entry.value for key, entry in self.store._values.items()}

    def http(self, *, address: str | None = None, app: ASGIApp | None = None) -> httpx.AsyncClient:
        """An HTTP client with its own cookies."""
        transport = httpx.ASGITransport(app=app or self.server, client=(address or self.client_address, 1))
        return httpx.AsyncClient(transport=transport, base_url=self.issuer)

    def browser(self, user: str = "alice") -> "Browser":
        return Browser(self, self.http(), user)

    async def register(self, **members: Any) -> Client:
        """A public client with refresh tokens, unless `members` say otherwise."""
        wanted = {
            "redirect_uris": [REDIRECT],
            "token_endpoint_auth_method": "none",
            "grant_types": ["authorization_code", "refresh_token"],
            "client_name": "Test app",
            **members,
        }
        response = await self.http().post("/register", json=wanted)
        assert response.status_code == 201, response.text
        told = response.json()
        return Client(told["client_id"], told.get("client_secret"), told["redirect_uris"][0])

    async def tokens(self, client: Client, *, user: str = "alice", **changes: str) -> dict[str, Any]:
        """A whole flow, up to the token response."""
        code = (await self.browser(user).approve(client, **changes))["code"]
        response = await self.redeem(client, code)
        assert response.status_code == 200, response.text
        told: dict[str, Any] = response.json()
        return told

    async def redeem(
        self, client: Client, code: str, /, *, proofs: Sequence[str] = (), **changes: str | None
    ) -> httpx.Response:
        """Redeem a code. A change to None leaves the parameter out; `proofs` are the DPoP fields."""
        fields = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": client.redirect_uri,
            "code_verifier": VERIFIER,
            **client.fields,
            **changes,
        }
        return await self.token(client, fields, proofs)

    async def refresh(
        self, client: Client, refresh_token: str, /, *, proofs: Sequence[str] = (), **changes: str | None
    ) -> httpx.Response:
        """Use a refresh token."""
        fields = {"grant_type": "refresh_token", "refresh_token": refresh_token, **client.fields, **changes}
        return await self.token(client, fields, proofs)

    async def token(
        self, client: Client, fields: Mapping[str, str | None], proofs: Sequence[str] = ()
    ) -> httpx.Response:
        present = {name: value for name, value in fields.items() if value is not None}
        headers = [*client.headers.items(), *(("dpop", proof) for proof in proofs)]
        return await self.http().post("/token", data=present, headers=headers)

    async def is_revoked(self, access_token: str) -> bool:
        """Whether the guard would learn that the grant of this token is revoked."""
        from mcp_guard.revocation import ask_revoked, is_revoked

        (result,) = await self.store.run([ask_revoked(claims_of(access_token)["grant"])])
        return is_revoked(result)


def request_of(client: Client, **changes: str | None) -> dict[str, str]:
    """The parameters of a good authorization request. A change to None leaves the parameter out."""
    fields: dict[str, str | None] = {
        "response_type": "code",
        "client_id": client.client_id,
        "redirect_uri": client.redirect_uri,
        "code_challenge": pkce.challenge_of(VERIFIER),
        "code_challenge_method": "S256",
        "state": "a state",
        "scope": "mcp:read",
        "resource": RESOURCE,
        **changes,
    }
    return {name: value for name, value in fields.items() if value is not None}


@dataclass
class Browser:
    """A person at a browser: keeps cookies, and follows redirects within the server only."""

    world: World
    http: httpx.AsyncClient
    user: str = "alice"

    async def open(self, client: Client, **changes: str | None) -> httpx.Response:
        """The authorization URL of a request."""
        return await self.http.get(f"/authorize?{urlencode(request_of(client, **changes))}")

    async def follow(self, response: httpx.Response) -> httpx.Response:
        """Where redirects of the server lead, up to a page or a redirect to elsewhere."""
        while response.is_redirect and response.headers["location"].startswith(self.world.issuer):
            response = await self.http.get(response.headers["location"])
        return response

    async def sign_in(self, page: httpx.Response, **changes: str) -> httpx.Response:
        """Send the login form of `page`."""
        form = Form(page.text)
        fields = {**form.fields, "username": self.user, "password": PASSWORDS[self.user], **changes}
        return await self.http.post(form.action, data=fields)

    async def start(self, client: Client, **changes: str | None) -> httpx.Response:
        """Open the URL and sign in where asked; the page or redirect after that."""
        response = await self.follow(await self.open(client, **changes))
        if "/login" in str(response.url):
            response = await self.follow(await self.sign_in(response))
        return response

    async def decide(self, page: httpx.Response, decision: str = "approve", **changes: str) -> httpx.Response:
        """Send the consent form of `page`."""
        form = Form(page.text)
        return await self.http.post(form.action, data={**form.fields, "decision": decision, **changes})

    async def approve(self, client: Client, **changes: str | None) -> dict[str, str]:
        """The whole way to the authorization response."""
        response = await self.decide(await self.start(client, **changes))
        assert response.status_code == 303, response.text
        return query_of(response.headers["location"])


def recording(app: ASGIApp, scopes: list[Scope], *, change: Callable[[Scope], Scope] | None = None) -> ASGIApp:
    """`app`, with every scope it is given kept, after `change`."""

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        changed = change(scope) if change else scope
        scopes.append(changed)
        await app(changed, receive, send)

    return call
