"""The deployments that are compared: bare, behind the guard, behind the SDK's own authentication with PyJWT, and after
three questions to Valkey.
"""

import json
import time
from pathlib import Path
from typing import Any

import jwt
import valkey.asyncio
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from fastmcp.server.auth.providers.jwt import JWTVerifier
from mcp.server.auth.middleware.auth_context import AuthContextMiddleware
from mcp.server.auth.middleware.bearer_auth import BearerAuthBackend, RequireAuthMiddleware
from mcp.server.auth.provider import AccessToken, TokenVerifier
from pydantic import AnyHttpUrl
from starlette.middleware.authentication import AuthenticationMiddleware

from mcp_guard.asgi import ASGIApp, Message, Receive, Scope, Send
from mcp_guard.auditlog import AuditLog, FileSink
from mcp_guard.demo import DEMO_LIMITS
from mcp_guard.facts import Resource
from mcp_guard.keyring import KeyRing
from mcp_guard.keysources import StaticKeys
from mcp_guard.layers.rate_limit import Limit
from mcp_guard.profiles import Limits, standard
from mcp_guard.stack import Guard, guard
from mcp_guard.stores.base import Store
from mcp_guard.stores.memory import MemoryStore
from mcp_guard.tokens import TrustedIssuer

ISSUER = "https://as.example.com"
MODERN = "2026-07-28"
KID = "bench"
PLENTY = Limit(10_000_000, DEMO_LIMITS.principal.period)
PLENTY_OF_ALL = Limits(address=PLENTY, principal=PLENTY, tool=PLENTY, connections=PLENTY, address_connections=PLENTY)


class Keys:
    """One issuer's key and the tokens it signs."""

    def __init__(self) -> None:
        self.private = ec.generate_private_key(ec.SECP256R1())

    def token(self, audience: str, **claims: Any) -> str:
        """A good token for `audience`, an hour long."""
        now = int(time.time())
        payload = {
            "iss": ISSUER,
            "sub": "alice",
            "aud": audience,
            "client_id": "c1",
            "scope": "mcp:tools",
            "iat": now,
            "exp": now + 3600,
            **claims,
        }
        return jwt.encode(payload, self.private, algorithm="ES256", headers={"typ": "at+jwt", "kid": KID})

    def jwks(self) -> dict[str, Any]:
        """The public half as a JWK set."""
        member = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(self.private.public_key()))
        return {"keys": [{**member, "kid": KID, "use": "sig", "alg": "ES256"}]}


def guarded(app: ASGIApp, url: str, keys: Keys, audit: Path, store: Store | None = None) -> Guard:
    """`app` behind the whole default stack, audit to a file; state in memory unless there is a `store`."""
    layers = standard(
        resources=(Resource(url, "/mcp", scopes=frozenset({"mcp:tools"})),),
        issuers=(TrustedIssuer(ISSUER, StaticKeys(keys.jwks())),),
        store=MemoryStore() if store is None else store,
        ring=KeyRing.generate(),
        audit=AuditLog(FileSink(audit)),
        limits=PLENTY_OF_ALL,
    )
    return guard(app, *layers)


class PyJwtVerifier:
    """A token verifier as the SDK's users write it, on PyJWT."""

    def __init__(self, keys: Keys, audience: str) -> None:
        self._key = keys.private.public_key()
        self._audience = audience

    async def verify_token(self, token: str) -> AccessToken | None:
        try:
            claims = jwt.decode(
                token,
                self._key,
                algorithms=["ES256"],
                audience=self._audience,
                issuer=ISSUER,
                options={"require": ["exp", "aud", "iss", "sub"]},
            )
        except jwt.InvalidTokenError:
            return None
        return AccessToken(
            token=token,
            client_id=claims["client_id"],
            scopes=claims["scope"].split(),
            expires_at=claims["exp"],
            resource=self._audience,
            subject=claims["sub"],
            claims=claims,
        )


def fastmcp_verifier(keys: Keys, audience: str) -> JWTVerifier:
    """FastMCP's verifier, with the key at hand."""
    public = keys.private.public_key()
    written = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return JWTVerifier(public_key=written, issuer=ISSUER, audience=audience, algorithm="ES256")


def sdk_auth(app: ASGIApp, url: str, keys: Keys, verifier: TokenVerifier | None = None) -> ASGIApp:
    """`app` behind the three middlewares that the SDK puts in front of a protected server, FastMCP's included."""
    required = RequireAuthMiddleware(app, ["mcp:tools"], AnyHttpUrl(f"{url}/metadata"))
    # What FastMCP's verifier answers names no resource; its own servers ask for none.
    resource = AnyHttpUrl(url) if verifier is None else None
    backend = BearerAuthBackend(verifier or PyJwtVerifier(keys, url), resource_server_url=resource)
    protected: Any = AuthenticationMiddleware(AuthContextMiddleware(required), backend=backend)

    async def outer(scope: Scope, receive: Receive, send: Send) -> None:
        # The SDK puts these around its routes, which see no lifespan.
        await (app if scope["type"] == "lifespan" else protected)(scope, receive, send)

    return outer


def after_three_trips(app: ASGIApp, store: str) -> ASGIApp:
    """`app` as it is when Valkey is asked for three things one after the other, each through the pool of valkey-py."""
    client = valkey.asyncio.Valkey.from_url(store)

    async def asking(scope: Scope, receive: Receive, send: Send) -> None:
        for key in ("revoked", "limit", "session"):
            await client.get(key)
        await app(scope, receive, send)

    return asking


BODY = json.dumps(
    {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": {
            "name": "add",
            "arguments": {"a": 1, "b": 2},
            "_meta": {
                "io.modelcontextprotocol/protocolVersion": MODERN,
                "io.modelcontextprotocol/clientInfo": {"name": "bench", "version": "1"},
                "io.modelcontextprotocol/clientCapabilities": {},
                "padding": "x" * 700,
            },
        },
    }
).encode()
"""A call of about 1 KiB."""


def headers(authority: str, token: str | None) -> list[tuple[bytes, bytes]]:
    """The header fields of the call."""
    fields = [
        (b"host", authority.encode()),
        (b"content-type", b"application/json"),
        (b"accept", b"application/json, text/event-stream"),
        (b"content-length", str(len(BODY)).encode()),
        (b"mcp-protocol-version", MODERN.encode()),
        (b"mcp-method", b"tools/call"),
        (b"mcp-name", b"add"),
    ]
    if token is not None:
        fields.append((b"authorization", b"Bearer " + token.encode()))
    return fields


LEGACY = "2025-06-18"
INITIALIZE = json.dumps(
    {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "initialize",
        "params": {"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": {"name": "bench", "version": "1"}},
    }
).encode()
LEGACY_CALL = json.dumps(
    {
        "jsonrpc": "2.0",
        "id": 2,
        "method": "tools/call",
        "params": {"name": "add", "arguments": {"a": 1, "b": 2}, "padding": "x" * 700},
    }
).encode()


def legacy_headers(authority: str, token: str, body: bytes, session: str | None = None) -> list[tuple[bytes, bytes]]:
    """The header fields of a request of 2025-06-18, in a session or before it."""
    fields = [
        (b"host", authority.encode()),
        (b"content-type", b"application/json"),
        (b"accept", b"application/json, text/event-stream"),
        (b"content-length", str(len(body)).encode()),
        (b"mcp-protocol-version", LEGACY.encode()),
        (b"authorization", b"Bearer " + token.encode()),
    ]
    return fields if session is None else [*fields, (b"mcp-session-id", session.encode())]


async def bare(scope: Scope, receive: Receive, send: Send) -> None:
    """An app that reads its body and says OK."""
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": b"{}"})


class Minting:
    """An app that answers as `bare` does, and opens a session for each `initialize`; `opened` are their ids."""

    def __init__(self) -> None:
        self.opened: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        fields = [(b"content-type", b"application/json")]
        if b'"initialize"' in (await receive())["body"]:
            self.opened.append(f"{len(self.opened):032x}")
            fields.append((b"mcp-session-id", self.opened[-1].encode()))
        await send({"type": "http.response.start", "status": 200, "headers": fields})
        await send({"type": "http.response.body", "body": b"{}"})


class Exchange:
    """One request to an app in process, again and again."""

    def __init__(self, app: ASGIApp, fields: list[tuple[bytes, bytes]], expected: int, body: bytes = BODY) -> None:
        self._app, self._fields, self._expected, self._body = app, fields, expected, body

    async def __call__(self) -> None:
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": "/mcp",
            "raw_path": b"/mcp",
            "query_string": b"",
            "root_path": "",
            "headers": list(self._fields),
            "client": ("127.0.0.1", 50000),
            "server": ("127.0.0.1", 8000),
        }
        status = 0

        async def receive() -> Message:
            return {"type": "http.request", "body": self._body, "more_body": False}

        async def send(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)

        await self._app(scope, receive, send)
        if status != self._expected:
            raise RuntimeError(f"answered {status}, not {self._expected}")
