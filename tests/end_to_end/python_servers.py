"""Servers of others, protected by their own means: the official SDK's and FastMCP's authentication.

Their tokens come from an authorization server on another port. The servers are used as their documentation says, with
every check that they offer switched on.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import jwt
from fastmcp import FastMCP
from fastmcp.server.auth import RemoteAuthProvider
from fastmcp.server.auth.providers.jwt import JWTVerifier
from fastmcp.server.dependencies import get_access_token as fastmcp_token
from mcp.server.auth.middleware.auth_context import get_access_token
from mcp.server.auth.provider import AccessToken
from mcp.server.auth.settings import AuthSettings
from mcp.server.mcpserver import MCPServer
from pydantic import AnyHttpUrl

from mcp_guard.facts import Resource
from mcp_guard.oauth import AuthorizationServer, StaticUsers
from mcp_guard.stores.memory import MemoryStore
from tests.support.serving import Application, serving

USERS = {"alice": "alice-of-the-peers", "bob": "bob-of-the-peers"}
SCOPE = "mcp:tools"


class Verifier:
    """A token verifier on PyJWT that checks what PyJWT can check."""

    def __init__(self, issuer: str, audience: str, key: Any) -> None:
        self._issuer, self._audience, self._key = issuer, audience, key

    async def verify_token(self, token: str) -> AccessToken | None:
        required: Any = {"require": ["exp", "iat", "aud", "iss", "sub"]}
        try:
            if jwt.get_unverified_header(token).get("typ") != "at+jwt":
                return None
            claims = jwt.decode(
                token, self._key, algorithms=["ES256"], audience=self._audience, issuer=self._issuer, options=required
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


@contextmanager
def behind_an_issuer(build: Callable[[str, AuthorizationServer], Application]) -> Iterator[str]:
    """An MCP server and its authorization server, each on a port of its own; answers the MCP endpoint's URL."""
    with ExitStack() as until_closed:

        def with_issuer(origin: str) -> Application:
            url = f"{origin}/mcp"
            issuer = until_closed.enter_context(serving(lambda at: issuer_for(url, at)))
            server: Any = issuer.app
            return build(url, server)

        yield f"{until_closed.enter_context(serving(with_issuer)).url}/mcp"


def issuer_for(url: str, at: str) -> AuthorizationServer:
    """An issuer with a path: one without is given a final slash by pydantic's URLs, and is then another."""
    return AuthorizationServer(
        issuer=f"{at}/issuer",
        store=MemoryStore(),
        users=StaticUsers.from_pairs(USERS),
        resources=(Resource(url, "/mcp"),),
        scopes={SCOPE: "Call the tools"},
    )


def sdk_server(url: str, server: AuthorizationServer) -> Application:
    """The official SDK with its own bearer authentication."""
    key = jwt.PyJWKSet.from_dict(server.keys.public_set()).keys[0]
    mcp = MCPServer(
        "peer",
        log_level="CRITICAL",
        token_verifier=Verifier(server.issuer, url, key),
        auth=AuthSettings(
            issuer_url=AnyHttpUrl(server.issuer),
            resource_server_url=AnyHttpUrl(url),
            required_scopes=[SCOPE],
            validate_token_resource=True,
        ),
    )

    @mcp.tool()
    def whoami() -> str:
        """Say who is asking."""
        token = get_access_token()
        return "nobody" if token is None else str(token.subject)

    app: Application = mcp.streamable_http_app()
    return app


def fastmcp_server(url: str, server: AuthorizationServer) -> Application:
    """FastMCP with its JWT verifier."""
    verifier = JWTVerifier(
        jwks_uri=f"{server.issuer}/jwks", issuer=server.issuer, audience=url, algorithm="ES256", required_scopes=[SCOPE]
    )
    mcp = FastMCP(
        "peer",
        auth=RemoteAuthProvider(
            token_verifier=verifier,
            authorization_servers=[AnyHttpUrl(server.issuer)],
            base_url=url.removesuffix("/mcp"),
        ),
    )

    @mcp.tool
    def whoami() -> str:
        """Say who is asking."""
        token = fastmcp_token()
        return "nobody" if token is None else str(token.claims.get("sub"))

    app: Application = mcp.http_app()
    return app
