"""One ASGI application: a protected MCP server and the authorization server beside it."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any
from urllib.parse import unquote

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from tests.support.model_server.authorization import AuthorizationEndpoint
from tests.support.model_server.browsers import BrowserRules
from tests.support.model_server.clients import Clients
from tests.support.model_server.deployment import Deployment
from tests.support.model_server.faults import Switches
from tests.support.model_server.grants import Grants
from tests.support.model_server.minting import Minter
from tests.support.model_server.reading import Reader
from tests.support.model_server.resource import ResourceServer, not_found
from tests.support.model_server.resource_metadata import KEYS_PATH, ResourceMetadata
from tests.support.model_server.server_metadata import OAUTH_FORM, OPENID_FORM, ServerMetadata
from tests.support.model_server.strict import strict_json
from tests.support.model_server.token_endpoint import TokenCare, TokenEndpoint
from tests.support.model_server.verification import Crashed

MINT_PATH = "/-/mint"
Handler = Callable[[Request], Awaitable[Response]]


class ModelServer:
    """A sound deployment, but for the faults that are switched on.

    Args:
        base: the public origin, such as `http://127.0.0.1:8000`.
        faults: names out of `FAULTS`.
        minting: also answer POST `/-/mint`, which signs whatever it is asked to. Tests only.
        clock: seconds since the epoch.

    Raises:
        UnknownFault: a name is not in the registry.
    """

    def __init__(
        self,
        base: str,
        faults: Iterable[str] = (),
        *,
        minting: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.deployment = Deployment(base, Switches(faults), clock)
        self.has = self.deployment.has
        self._reader = Reader(self.has)
        clients = Clients(self.deployment)
        self._grants = grants = Grants(self.deployment)
        self._minter = Minter(self.deployment)
        self.mint = self._minter.mint
        self.upstream_token = self._minter.upstream
        self._rules = BrowserRules(self.deployment)
        self._documents = ResourceMetadata(self.deployment)
        self._metadata = ServerMetadata(self.deployment)
        self._resource = ResourceServer(self.deployment, grants, self._documents, self._rules)
        pages = AuthorizationEndpoint(self.deployment, clients, grants)
        care = TokenCare(self.deployment, clients, grants)
        tokens = TokenEndpoint(self.deployment, clients, grants, self._minter)
        self._routes: dict[str, Handler] = {
            "/authorize": pages.authorize,
            "/login": pages.login,
            "/consent": pages.consent,
            "/register": clients.register,
            "/token": tokens.serve,
            "/revoke": care.revoke,
            "/introspect": care.introspect,
            "/jwks": _prompt(lambda request: self._metadata.keys()),
        }
        self._routes = {self.deployment.prefix + path: serve for path, serve in self._routes.items()}
        self._routes[KEYS_PATH] = _prompt(lambda request: self._documents.keys())
        if minting:
            self._routes[MINT_PATH] = self._mint

    def revoke(self, jti: str) -> None:
        """Revoke an access token by its id, as an administrator would."""
        self._grants.revoke_token(jti)

    def pending(self, session_id: str) -> list[str]:
        """The ids of the requests that a session's client has not answered yet."""
        return self._resource.pending(session_id)

    def keys_of_open_streams(self) -> list[str]:
        """The keys that HTTP+SSE clients were told to post with, oldest first."""
        return self._resource.keys_of_open_streams()

    def close(self) -> None:
        """End every open stream; safe to call from another thread."""
        self._resource.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept" if self.has("websocket_unguarded") else "websocket.close"})
        else:
            request = Request(scope, receive)
            request.state.reader = self._reader
            try:
                response = await self._answer(request)
            except Crashed:
                response = JSONResponse({"error": "server_error"}, 500)
            if self.has("path_splits_the_answer"):
                _split(request, response)
            await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        path: str = request.scope["path"]
        if not self._rules.host_allowed(request) and not self._host_excused(path):
            return JSONResponse({"error": "host_not_served"}, 421, headers={"Cache-Control": "no-store"})
        protected = self._resource.path_of(request)
        if protected is not None:
            return await self._resource.serve(request, protected)
        documented = self._documents.path_of(path)
        if documented is not None:
            return self._documents.serve(request, documented)
        if self._metadata.answers(path):
            return self._metadata.serve(request)
        serve = self._routes.get(path)
        return not_found() if serve is None else await serve(request)

    def _host_excused(self, path: str) -> bool:
        if self.has("asm_follows_host") and path.startswith((OAUTH_FORM, OPENID_FORM)):
            return True
        if self.has("endpoint_event_follows_host"):
            return path == "/sse"
        return self.has("prm_follows_host") and path.startswith("/.well-known/oauth-protected-resource")

    async def _mint(self, request: Request) -> Response:
        """POST a JSON object with the keyword arguments of `mint`, or with the `signing_input` of a whole token.

        Answers `{"access_token": …}`.
        """
        try:
            wanted: dict[str, Any] = strict_json(await request.body() or b"{}")
            text = wanted.pop("signing_input", None)
            token = self.mint(**wanted) if text is None else self._minter.signed(text)
        except (ValueError, TypeError, AttributeError) as error:
            return JSONResponse({"error": str(error)}, 400)
        return JSONResponse({"access_token": token}, headers={"Cache-Control": "no-store"})


def _split(request: Request, response: Response) -> None:
    """What follows an encoded line break in the query becomes a header of the answer."""
    _, _, behind = unquote(request.url.query).partition("\r\n")
    name, colon, value = behind.partition(":")
    if name and colon:
        response.headers[name] = value.strip()


def _prompt(handler: Callable[[Request], Response]) -> Handler:
    async def serve(request: Request) -> Response:
        return handler(request)

    return serve


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
