"""The embedded authorization server: an ASGI app of one endpoint a file.

It stands on its own under any ASGI server, or beside a guarded app, which hands it exactly the requests for `paths`.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from mcp_guard import rejections
from mcp_guard.asgi import Receive, Scope, Send
from mcp_guard.clock import Clock, SystemClock
from mcp_guard.facts import Resource
from mcp_guard.failures import ConfigurationError, Unavailable
from mcp_guard.layer import BodyTooLarge, ClientDisconnected
from mcp_guard.oauth import errors, negotiation
from mcp_guard.oauth.authorize import authorize
from mcp_guard.oauth.consent import consent
from mcp_guard.oauth.deployment import Deployment
from mcp_guard.oauth.errors import OAuthError, PageError
from mcp_guard.oauth.jwks import jwks
from mcp_guard.oauth.login import login
from mcp_guard.oauth.metadata import metadata
from mcp_guard.oauth.pages import error_page
from mcp_guard.oauth.register import register
from mcp_guard.oauth.settings import Lifetimes, Limits, ProofTerms
from mcp_guard.oauth.signing import SigningKeys
from mcp_guard.oauth.token import token
from mcp_guard.oauth.users import UserDirectory
from mcp_guard.oauth.web import BodyTooSlow, Request, Response, json_response
from mcp_guard.protocol.authorization_metadata import Issuer
from mcp_guard.protocol.registration import is_displayable
from mcp_guard.protocol.scopes import is_scope_token
from mcp_guard.protocol.uris import PublicUrl
from mcp_guard.rejections import Kind, Rejection
from mcp_guard.stores.base import Store

logger = logging.getLogger("mcp_guard.oauth")

Handler: TypeAlias = Callable[[Deployment, Request], Awaitable[Response]]

_READ = ("GET", "HEAD")
_FORM = ("GET", "HEAD", "POST")
_POST = ("POST",)

_ALWAYS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
)
_NO_CONTENT = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")
_HSTS = (b"strict-transport-security", b"max-age=31536000")


@dataclass(frozen=True, slots=True)
class _Endpoint:
    """An endpoint. `for_people` is True when its errors are pages."""

    handler: Handler
    methods: tuple[str, ...]
    for_people: bool = False


class AuthorizationServer:
    """An OAuth 2.1 authorization server for MCP servers.

    Args:
        issuer: the issuer identifier, byte for byte what clients compare; https, or http on a loopback host.
        store: where clients, codes, grants and sessions are kept. Share it with the guard, which asks it for revoked
            grants.
        users: who may sign in.
        resources: the protected resources that tokens can be for, or their identifiers; the first is meant when a
            client names none.
        scopes: each scope that is offered, with what it means for a person.
        keys: what signs access tokens. New keys by default: then tokens end with the process.
        clock: the source of time.
        lifetimes: how long things live.
        limits: how often things may be done.
        proofs: whether tokens are bound to keys of clients (RFC 9449); to those that prove one, by default.
        name: what pages call the service; the issuer's host by default.

    Raises:
        ConfigurationError: a setting cannot work.
    """

    def __init__(  # noqa: PLR0913 - one keyword for each collaborator
        self,
        *,
        issuer: str,
        store: Store,
        users: UserDirectory,
        resources: Sequence[Resource | str],
        scopes: Mapping[str, str],
        keys: SigningKeys | None = None,
        clock: Clock | None = None,
        lifetimes: Lifetimes | None = None,
        limits: Limits | None = None,
        proofs: ProofTerms | None = None,
        name: str | None = None,
    ) -> None:
        parsed = Issuer.parse(issuer)
        self._deployment = Deployment(
            issuer=parsed,
            store=store,
            users=users,
            resources=_resources(resources),
            scopes=_scopes(scopes),
            keys=keys or SigningKeys.generate(),
            clock=clock or SystemClock(),
            lifetimes=lifetimes or Lifetimes(),
            limits=limits or Limits(),
            proofs=proofs or ProofTerms(),
            name=name or parsed.url.authority,
        )
        negotiation.check_server_metadata(self.metadata)
        self._endpoints = _endpoints(parsed)

    @property
    def issuer(self) -> str:
        """The issuer identifier."""
        return self._deployment.issuer.identifier

    @property
    def paths(self) -> frozenset[str]:
        """The exact paths that are served; every other path is 404."""
        return frozenset(self._endpoints)

    @property
    def metadata(self) -> dict[str, object]:
        """The metadata document (RFC 8414)."""
        return self._deployment.metadata

    @property
    def keys(self) -> SigningKeys:
        """The signing keys; their public half verifies tokens without a request to this server."""
        return self._deployment.keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            request = Request(scope, receive)
            response = await self._respond(request, scope.get("raw_path"))
            if response is not None:
                await self._finished(response).send(send, head=request.method == "HEAD")
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008})
        else:
            raise RuntimeError(f"the authorization server does not serve the ASGI scope type {scope['type']!r}")

    async def _respond(self, request: Request, raw_path: bytes | None) -> Response | None:
        """The response; None when the client has gone."""
        endpoint = self._endpoints.get(request.path)
        if endpoint is None or raw_path not in {None, request.path.encode()}:
            request.note(errors.for_audit(404, "not_found", "the authorization server has no such path"))
            return json_response({"error": "not_found"}, status=404)
        if request.method not in endpoint.methods:
            allow = (b"allow", ", ".join(endpoint.methods).encode())
            request.note(errors.for_audit(405, "method_not_allowed", "the endpoint does not take this method"))
            return json_response({"error": "method_not_allowed"}, status=405, headers=[allow])
        try:
            response, refusal = await _guarded(endpoint, self._deployment, request)
        except ClientDisconnected:
            return None
        if refusal is not None:
            request.note(refusal)
        return response

    def _finished(self, response: Response) -> Response:
        """The response with the fields that every response has."""
        present = {name for name, _ in response.headers}
        more = [*_ALWAYS, _HSTS] if self._deployment.issuer.is_secure else [*_ALWAYS]
        if _NO_CONTENT[0] not in present:
            more.append(_NO_CONTENT)
        return response.with_headers(*more)

    async def _live(self, receive: Receive, send: Send) -> None:
        """The lifespan of an app that stands on its own: the store is started and closed with it."""
        await receive()
        try:
            await self._deployment.store.start()
        except (ConfigurationError, Unavailable) as fault:
            await send({"type": "lifespan.startup.failed", "message": str(fault)})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._deployment.store.close()
        await send({"type": "lifespan.shutdown.complete"})


async def _guarded(endpoint: _Endpoint, deployment: Deployment, request: Request) -> tuple[Response, Rejection | None]:
    """Run an endpoint; everything foreseen becomes a response of its own kind, and a refusal for the audit."""
    try:
        return await endpoint.handler(deployment, request), None
    except PageError as fault:
        page = error_page(fault.status, fault.title, fault.message).with_headers(*fault.headers)
        return page, errors.for_audit(fault.status, "page", fault.message)
    except OAuthError as fault:
        members = {"error": fault.error, "error_description": fault.description}
        response = json_response(members, status=fault.status, headers=fault.headers)
        return response, errors.for_audit(fault.status, fault.error, fault.reason)
    except BodyTooLarge:
        return _refusal(endpoint, rejections.BODY_TOO_LARGE)
    except BodyTooSlow:
        return _refusal(endpoint, rejections.BODY_TIMEOUT)
    except Unavailable as fault:
        logger.error("%s: %s", type(fault).__name__, fault.reason)
        response, refusal = _refusal(endpoint, rejections.UNAVAILABLE)
        return response.with_headers((b"retry-after", str(fault.retry_after_seconds).encode())), refusal


def _refusal(endpoint: _Endpoint, kind: Kind) -> tuple[Response, Rejection]:
    rejection = kind.because(kind.description)
    if endpoint.for_people:
        return error_page(kind.status, kind.description, "Try again in a moment."), rejection
    error = errors.TEMPORARILY_UNAVAILABLE if kind is rejections.UNAVAILABLE else errors.INVALID_REQUEST
    return json_response({"error": error, "error_description": kind.description}, status=kind.status), rejection


def _endpoints(issuer: Issuer) -> dict[str, _Endpoint]:
    return {
        issuer.well_known_path: _Endpoint(metadata, _READ),
        f"{issuer.path}/jwks": _Endpoint(jwks, _READ),
        f"{issuer.path}/authorize": _Endpoint(authorize, _READ, for_people=True),
        f"{issuer.path}/login": _Endpoint(login, _FORM, for_people=True),
        f"{issuer.path}/consent": _Endpoint(consent, _FORM, for_people=True),
        f"{issuer.path}/token": _Endpoint(token, _POST),
        f"{issuer.path}/register": _Endpoint(register, _POST),
    }


def _resources(resources: Sequence[Resource | str]) -> tuple[str, ...]:
    urls = tuple(resource if isinstance(resource, str) else resource.url for resource in resources)
    if not urls:
        raise ConfigurationError("resources must hold at least one resource")
    if len(set(urls)) != len(urls):
        raise ConfigurationError("resources must differ from each other")
    for url in urls:
        PublicUrl.parse(url, setting="resources")
    return urls


def _scopes(scopes: Mapping[str, str]) -> dict[str, str]:
    for scope, meaning in scopes.items():
        if not is_scope_token(scope):
            raise ConfigurationError(f"scopes: {scope!r} is not a scope (RFC 6749 §3.3)")
        if not meaning or not is_displayable(meaning):
            raise ConfigurationError(f"scopes: {scope!r} must say what it means for a person")
    return dict(scopes)
