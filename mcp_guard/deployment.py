"""A deployment as the environment describes it: the stack, and the app that each worker of `mcp-guard serve` serves."""

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from mcp_guard.affinity import Worker
from mcp_guard.asgi import ASGIApp
from mcp_guard.auditlog import AuditLog, FileSink
from mcp_guard.auditslots import SlotSink
from mcp_guard.check import Layer
from mcp_guard.config import PREFIX, Settings, load, naming
from mcp_guard.encryption import Encryption
from mcp_guard.facts import Resource, ScopePolicy
from mcp_guard.failures import ConfigurationError
from mcp_guard.issuer_settings import trusted_issuer
from mcp_guard.layers.origin import Origin
from mcp_guard.layers.proxy import Proxy
from mcp_guard.layers.route import Route
from mcp_guard.layers.websocket import WebSocket
from mcp_guard.profiles import Handling, Limits, Proofs, common_origin, standard
from mcp_guard.protocol.scope_policy import rules_of
from mcp_guard.protocol.uris import PublicUrl
from mcp_guard.sockets import SocketTerms
from mcp_guard.stack import Guard, guard

POLICY_SETTINGS: Final = {
    "methods": "method_scopes",
    "tools": "tool_scopes",
    "prompts": "prompt_scopes",
    "uris": "uri_scopes",
    "implies": "scope_hierarchy",
}
"""The settings that the parts of a scope policy come from."""

APP_VARIABLE: Final = "MCP_GUARD_APP"
"""How a worker is told which app to import; set by `mcp-guard serve` for its own workers."""


def from_settings(settings: Settings) -> tuple[Layer, ...]:
    """The complete stack for an external issuer, as the environment's settings describe it.

    Raises:
        ConfigurationError: a setting cannot work; the message names it.
    """
    store, ring = settings.store, settings.ring
    worker = None
    if settings.affinity is not None:
        with naming("MCP_AFFINITY"):
            worker = Worker(listen=settings.affinity, ring=ring, store=store, advertise=settings.affinity_advertise)
    with naming("MCP_AFFINITY_ROUTE"):
        route = None if settings.affinity_route is None else _route(settings.affinity_route, settings)
    resources = _resources(settings)
    with naming("MCP_TRUSTED_PROXIES"):
        Proxy(trusted=settings.trusted_proxies)
    with naming("MCP_PROXY_CLIENT_CERT"):
        Proxy(trusted=settings.trusted_proxies, client_certificates=settings.proxy_client_cert)
    with naming("MCP_ALLOWED_ORIGINS"):
        Origin(common_origin(resources), allowed=settings.allowed_origins)
    return standard(
        resources=resources,
        issuers=(trusted_issuer(settings),),
        store=store,
        ring=ring,
        worker=worker,
        route=route,
        audit=_audit_of(settings),
        limits=Limits(streams=settings.streams_per_principal, local_share=max(4, settings.workers)),
        sessions=settings.session_terms,
        handling=Handling(single_use=frozenset(settings.single_use_tools), hide=settings.hide_forbidden),
        proofs=Proofs(nonces=settings.dpop_nonce),
        websocket=_sockets_of(settings, resources),
        trusted_proxies=settings.trusted_proxies,
        proxy_certificates=settings.proxy_client_cert,
        allowed_origins=settings.allowed_origins,
    )


def application() -> Guard:
    """The app that the environment names, behind the stack that it describes; each worker makes its own.

    Raises:
        ConfigurationError: naming what cannot work.
    """
    place = os.environ.get(APP_VARIABLE)
    if place is None:
        raise ConfigurationError(f"{APP_VARIABLE} is not set; it is set by mcp-guard serve")
    return guard(import_app(place), *from_settings(load()))


def encryption_of(settings: Settings) -> Encryption | None:
    """How the web server is to encrypt; None where it serves http.

    Raises:
        ConfigurationError: naming the file that does not work.
    """
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    with naming("MCP_TLS_…"):
        made = Encryption(settings.tls_cert, settings.tls_key, settings.tls_client_ca, settings.tls_client_auth)
        made.load()
    return made


def import_app(place: str) -> ASGIApp:
    """The ASGI app at MODULE:APP, importable from the current folder too.

    Raises:
        ConfigurationError: there is no such module or attribute.
    """
    module, _, attribute = place.partition(":")
    if not module or not attribute:
        raise ConfigurationError(f"{place!r} must be MODULE:APP, such as server:app")
    sys.path.insert(0, str(Path.cwd()))
    try:
        found: Any = getattr(import_module(module), attribute)
    except ModuleNotFoundError as error:
        raise ConfigurationError(f"{place}: {error}") from error
    except AttributeError:
        raise ConfigurationError(f"{place}: the module {module} has no {attribute}") from None
    if not callable(found):
        raise ConfigurationError(f"{place} is not an ASGI app: a {type(found).__name__} cannot be called")
    app: ASGIApp = found
    return app


def _sockets_of(settings: Settings, resources: Sequence[Resource]) -> SocketTerms | None:
    if settings.websocket == "off":
        return None
    terms = SocketTerms(hello=settings.websocket == "hello")
    with naming("MCP_WEBSOCKET"):
        WebSocket(tuple(resources), terms)
    return terms


def _route(name: str, settings: Settings) -> Route:
    return Route(name, frozenset(settings.affinity_other_routes))


def _resources(settings: Settings) -> list[Resource]:
    scopes = frozenset(settings.required_scopes)
    with naming("MCP_PUBLIC_URL"):
        path, dpop = _path_of(settings.public_url), settings.dpop
        resources = [Resource(settings.public_url, path, scopes=scopes, dpop=dpop)]
    if settings.sse_url is not None:
        with naming("MCP_SSE_URL"):
            path, messages = _path_of(settings.sse_url), settings.sse_message_path
            resources.append(Resource(settings.sse_url, path, messages=messages, scopes=scopes, dpop=dpop))
    policy, aliases = _policy(settings), frozenset(settings.oauth_audiences)
    certificates = settings.certificates
    return [replace(one, policy=policy, certificates=certificates, aliases=aliases) for one in resources]


def _policy(settings: Settings) -> ScopePolicy:
    """What the parts of the deployment need. Read part by part, the hierarchy last, so that what is wrong is named."""
    parts: dict[str, Any] = {}
    scopes = frozenset(settings.required_scopes)
    for part, setting in POLICY_SETTINGS.items():
        parts[part] = dict(getattr(settings, setting))
        with naming(f"{PREFIX}{setting.upper()}"):
            rules_of(Resource(settings.public_url, "/", scopes=scopes, policy=ScopePolicy(**parts)))
    return ScopePolicy(**parts)


def _audit_of(settings: Settings) -> AuditLog | None:
    """The log of this worker: the file that is named, or one beside it for each of several workers."""
    if settings.audit_file is None:
        return None
    if settings.workers > 1:
        return AuditLog(SlotSink(settings.audit_file, settings.workers))
    return AuditLog(FileSink(settings.audit_file))


def _path_of(url: str) -> str:
    return PublicUrl.parse(url).path or "/"
