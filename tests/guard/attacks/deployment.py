"""A live deployment to attack: a real MCP server of the SDK behind the complete stack, on any server, on loopback.

The downstream app counts its calls and keeps what it was shown. Every secret that is handed out is remembered, so that
logs and audit can be searched for it.
"""

import base64
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils

from mcp_guard.asgi import ASGIApp, Message, Receive, Scope, Send
from mcp_guard.auditlog import AuditLog, MemorySink
from mcp_guard.demo_server import demo_server
from mcp_guard.facts import Resource, ScopePolicy
from mcp_guard.keyring import KeyRing
from mcp_guard.layers.rate_limit import Limit
from mcp_guard.oauth import AuthorizationServer, SigningKeys, StaticUsers
from mcp_guard.oauth.settings import Limits as LoginLimits
from mcp_guard.oauth.settings import Rate
from mcp_guard.profiles import Limits, standard
from mcp_guard.sockets import SocketTerms
from mcp_guard.stack import guard
from mcp_guard.stores.base import Store
from mcp_guard.stores.memory import MemoryStore
from tests.guard.attacks import http2
from tests.guard.attacks.http2 import Http2Request
from tests.guard.attacks.raw import Observation, Request, send
from tests.guard.servers import SERVERS
from tests.support.serving import serving

MODERN = "2026-07-28"
PLENTY = Limit(1_000_000, timedelta(minutes=1))
UNLIMITED = Limits(address=PLENTY, principal=PLENTY, tool=PLENTY, connections=PLENTY, address_connections=PLENTY)
"""The corpus shoots fast from one address; limits have attacks of their own."""
OPENED = SocketTerms()
_OFTEN = Rate(100_000, timedelta(minutes=15))
OFTEN = LoginLimits(
    logins_per_user=_OFTEN,
    logins_per_user_and_address=_OFTEN,
    logins_per_address=_OFTEN,
    registrations_per_address=_OFTEN,
    client_failures_per_address=_OFTEN,
    transactions_per_user=_OFTEN,
)
"""The same for logins, which have attacks of their own too."""
USERS = {"alice": "correct horse battery", "bob": "staple for bob only"}
ADMINISTERED = ScopePolicy(tools={"ad*": frozenset({"mcp:admin"})})
"""Of the demo's tools, `add` needs a scope of its own."""


@dataclass
class Downstream:
    """The guarded app, with a counter in front of it."""

    app: ASGIApp
    calls: int = 0
    seen: list[dict[str, Any]] = field(default_factory=list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        self.calls += 1
        shown: dict[str, Any] = {"path": scope["path"], "headers": list(scope["headers"]), "body": b""}
        shown["client"] = scope["client"][0]
        self.seen.append(shown)

        async def receive_and_keep() -> Message:
            message = await receive()
            if message["type"] == "http.request":
                shown["body"] += message.get("body", b"")
            return message

        await self.app(scope, receive_and_keep, send)


@dataclass
class Deployment:
    """What an attack is given: where to shoot, tokens of all kinds, and what came of it.

    `port` is that of `origin`, unless it stands behind a proxy. `searched` are the audit lines that hold no secret.
    """

    origin: str
    downstream: Downstream
    audit: MemorySink
    key: ec.EllipticCurvePrivateKey
    kid: str
    server: str = ""
    port: int = 0
    secrets: set[str] = field(default_factory=set)
    until_closed: ExitStack = field(default_factory=ExitStack)
    searched: int = 0

    def __post_init__(self) -> None:
        if not self.port:
            self.port = int(self.origin.rpartition(":")[2])

    @property
    def host(self) -> bytes:
        return self.origin.partition("://")[2].encode()

    @property
    def mcp(self) -> str:
        return f"{self.origin}/mcp"

    def send(self, request: Request | Http2Request | bytes) -> Observation:
        """One request on a connection of its own."""
        if isinstance(request, Http2Request):
            return http2.send(self.port, request)
        return send(self.port, request if isinstance(request, bytes) else request.encoded())

    def claims(self, user: str = "alice", **overrides: Any) -> dict[str, Any]:
        """The claims of a good token of `user`; an override of None removes the claim."""
        now = int(time.time())
        claims = {
            "iss": self.origin,
            "sub": user,
            "aud": self.mcp,
            "client_id": "c1",
            "scope": "mcp:tools",
            "iat": now,
            "exp": now + 300,
            "jti": base64.urlsafe_b64encode(now.to_bytes(8)).decode() + user,
        }
        claims.update(overrides)
        return {name: value for name, value in claims.items() if value is not None}

    def token(self, user: str = "alice", *, header: Mapping[str, Any] | None = None, **overrides: Any) -> str:
        """A token signed by the authorization server's own key."""
        payload = json.dumps(self.claims(user, **overrides)).encode()
        return self.sign({"alg": "ES256", "typ": "at+jwt", "kid": self.kid, **(header or {})}, payload)

    def sign(self, header: Mapping[str, Any], payload: bytes) -> str:
        """Any header and payload, signed ES256 by the authorization server's own key."""
        head = json.dumps({name: value for name, value in header.items() if value is not None}).encode()
        signing_input = b64(head) + "." + b64(payload)
        token = signing_input + "." + b64(sign_es256(self.key, signing_input.encode()))
        self.secrets.add(token)
        return token

    def call(
        self,
        token: str | None,
        method: str = "tools/call",
        params: Mapping[str, Any] | None = None,
        *,
        headers: tuple[tuple[bytes, bytes], ...] = (),
        target: bytes = b"/mcp",
    ) -> Request:
        """A call in the era of 2026-07-28: of `whoami` unless said otherwise."""
        meta = {
            "io.modelcontextprotocol/protocolVersion": MODERN,
            "io.modelcontextprotocol/clientInfo": {"name": "attack", "version": "1"},
            "io.modelcontextprotocol/clientCapabilities": {},
        }
        if params is None:
            params = {"name": "whoami", "arguments": {}} if method == "tools/call" else {}
        body = {"jsonrpc": "2.0", "id": 7, "method": method, "params": {**params, "_meta": meta}}
        routing = [(b"MCP-Protocol-Version", MODERN.encode()), (b"Mcp-Method", method.encode())]
        if "name" in params:
            routing.append((b"Mcp-Name", str(params["name"]).encode()))
        authorization = () if token is None else ((b"Authorization", b"Bearer " + token.encode()),)
        fields = (*self.common(), *authorization, *routing, *headers)
        return Request(b"POST", target, fields, json.dumps(body).encode())

    def common(self) -> tuple[tuple[bytes, bytes], ...]:
        """The header fields every MCP request has, with what a proxy adds where there is one."""
        said = ((b"X-Forwarded-Proto", b"https"),) if self.origin.startswith("https:") else ()
        return (
            (b"Host", self.host),
            (b"Content-Type", b"application/json"),
            (b"Accept", b"application/json, text/event-stream"),
            *said,
        )

    def legacy(
        self,
        token: str | None,
        body: object,
        *,
        session: str | None = None,
        method: bytes = b"POST",
        target: bytes = b"/mcp",
        version: str = "2025-11-25",
    ) -> Request:
        """A request in the era of sessions."""
        fields = [*self.common(), (b"MCP-Protocol-Version", version.encode())]
        if token is not None:
            fields.append((b"Authorization", b"Bearer " + token.encode()))
        if session is not None:
            fields.append((b"Mcp-Session-Id", session.encode("latin-1")))
        return Request(method, target, tuple(fields), b"" if body is None else json.dumps(body).encode())

    def open_session(self, token: str) -> str:
        """A session of the token's principal; answers its id."""
        params = {
            "protocolVersion": "2025-11-25",
            "capabilities": {},
            "clientInfo": {"name": "attack", "version": "1"},
        }
        opened = self.send(self.legacy(token, {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params}))
        if opened.status != 200:
            raise RuntimeError(f"no session was opened: {opened}")
        session = opened.value("mcp-session-id")
        self.secrets.add(session)
        self.send(self.legacy(token, {"jsonrpc": "2.0", "method": "notifications/initialized"}, session=session))
        return session


def sign_es256(key: ec.EllipticCurvePrivateKey, data: bytes) -> bytes:
    """An ES256 signature as a JWS has it: r and s of 32 bytes each (RFC 7518 §3.4)."""
    r, s = utils.decode_dss_signature(key.sign(data, ec.ECDSA(hashes.SHA256())))
    return r.to_bytes(32) + s.to_bytes(32)


def b64(data: bytes) -> str:
    """base64url without padding (RFC 7515 §2)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Capture(logging.Handler):
    """Every log line of every logger, whatever its level, but those of others: the app logs the session ids that it
    mints, and the tests' own HTTP clients what they send."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []
        self.searched = 0

    def emit(self, record: logging.LogRecord) -> None:
        if not record.name.startswith(("mcp.", "sse_starlette.", "httpx", "httpcore", "hpack")):
            self.lines.append(f"{record.name}: {self.format(record)}")


@contextmanager
def deployed(
    store: Callable[[], Store] = MemoryStore,
    *,
    limits: Limits = UNLIMITED,
    server: str = "",
    app: Callable[[], ASGIApp] = demo_server,
    public: str = "",
    websocket: SocketTerms | None = OPENED,
    **uvicorn_settings: Any,
) -> Iterator[Deployment]:
    """A deployment that lives as long as the block, with its state in what `store` makes.

    It is served by `server`, one of `SERVERS`; without one by uvicorn as it comes, with `uvicorn_settings`. With the
    origin `public`, it stands behind proxies on this machine. It opens WebSockets on the terms of `websocket`.
    """
    made: list[Deployment] = []

    def build(url: str) -> ASGIApp:
        origin, port = public or url, int(url.rpartition(":")[2])
        state, audit = store(), MemorySink()
        key = ec.generate_private_key(ec.SECP256R1())
        keys = SigningKeys([key])
        mcp, sse = f"{origin}/mcp", f"{origin}/sse"
        resources = (
            Resource(mcp, "/mcp", scopes=frozenset({"mcp:tools"}), policy=ADMINISTERED),
            Resource(sse, "/sse", messages="/messages/", aliases=frozenset({mcp}), scopes=frozenset({"mcp:tools"})),
        )
        logins = AuthorizationServer(
            issuer=origin,
            store=state,
            users=StaticUsers.from_pairs(USERS),
            resources=resources,
            scopes={"mcp:tools": "Call tools", "mcp:admin": "Call tools that change things"},
            keys=keys,
            limits=OFTEN,
        )
        downstream = Downstream(app())
        layers = standard(
            resources=resources,
            authorization_server=logins,
            store=state,
            ring=KeyRing.generate(),
            audit=AuditLog(audit),
            limits=limits,
            websocket=websocket,
            trusted_proxies=("127.0.0.1/32",) if public else (),
        )
        made.append(Deployment(origin, downstream, audit, key, keys.ids[0], server, port, set(USERS.values())))
        return guard(downstream, *layers)

    running = SERVERS[server](build) if server else serving(build, **uvicorn_settings)
    with running, ExitStack() as until_closed:
        made[0].until_closed = until_closed
        yield made[0]
