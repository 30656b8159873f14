"""Complete stacks: every layer in its place, each number with its source.

`standard` is what a deployment wants; `from_settings` builds it from the environment's settings. A stack that differs
is written out: the layers are ordinary objects.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from mcp_guard.auditlog import AuditLog, DescriptorSink, FileSink
from mcp_guard.check import Layer
from mcp_guard.clock import Clock, SystemClock
from mcp_guard.config import Settings
from mcp_guard.facts import Resource
from mcp_guard.failures import ConfigurationError
from mcp_guard.keysources import KeySource, RemoteKeys, StaticKeys
from mcp_guard.layers.audit import Audit
from mcp_guard.layers.beside import Beside
from mcp_guard.layers.bridge import Bridge
from mcp_guard.layers.host import Host
from mcp_guard.layers.intake import Intake
from mcp_guard.layers.metadata import Metadata
from mcp_guard.layers.origin import Origin
from mcp_guard.layers.proxy import Proxy
from mcp_guard.layers.rate_limit import (
    CONNECTIONS_PER_ADDRESS,
    CONNECTIONS_PER_PRINCIPAL,
    PER_PRINCIPAL,
    PER_TOOL,
    Limit,
    RateLimit,
)
from mcp_guard.layers.revocation import Revocation
from mcp_guard.layers.scopes import Scopes
from mcp_guard.layers.session import Session
from mcp_guard.layers.shield import Shield
from mcp_guard.layers.tls import Tls
from mcp_guard.layers.token import Token, TrustedIssuer
from mcp_guard.layers.wire import Wire
from mcp_guard.protocol.uris import PublicUrl
from mcp_guard.sessions import DEFAULT_TTL, Terms
from mcp_guard.stores.base import Store
from mcp_guard.stores.memory import MemoryStore

if TYPE_CHECKING:
    from mcp_guard.oauth import AuthorizationServer

PER_ADDRESS = Limit(600, timedelta(minutes=1))
"""Requests of one address before authentication: ten a second, room for an office behind one address."""


@dataclass(frozen=True)
class Limits:
    """How much of everything one caller may have; each a burst that refills over a period."""

    address: Limit = PER_ADDRESS
    principal: Limit = PER_PRINCIPAL
    tool: Limit = PER_TOOL
    connections: Limit = CONNECTIONS_PER_PRINCIPAL
    address_connections: Limit = CONNECTIONS_PER_ADDRESS


DEFAULT_LIMITS = Limits()
SYSTEM_CLOCK: Clock = SystemClock()


def standard(  # noqa: PLR0913 - one keyword for each thing a deployment decides
    *,
    resources: Sequence[Resource],
    issuers: Sequence[TrustedIssuer] = (),
    authorization_server: "AuthorizationServer | None" = None,
    store: Store | None = None,
    audit: AuditLog | None = None,
    limits: Limits = DEFAULT_LIMITS,
    trusted_proxies: Sequence[str] = (),
    allowed_origins: Sequence[str] = (),
    session_ttl: timedelta = DEFAULT_TTL,
    clock: Clock = SYSTEM_CLOCK,
) -> tuple[Layer, ...]:
    """The complete stack, outermost first, for the endpoints `resources` of one app.

    All resources are on one origin. Tokens are accepted from `issuers`, and from the embedded `authorization_server`,
    which is then served beside the app. Without a `store` state is in this process's memory; without an `audit` the
    records go to standard error.

    Raises:
        ConfigurationError: a setting cannot work; the message names it.
    """
    origin = _common_origin(resources)
    state = store if store is not None else MemoryStore(clock=clock)
    log = audit if audit is not None else AuditLog(DescriptorSink())
    trusted = [*issuers]
    beside: list[Layer] = []
    if authorization_server is not None:
        trusted.append(TrustedIssuer(authorization_server.issuer, StaticKeys(authorization_server.keys.public_set)))
        beside.append(Beside(authorization_server, authorization_server.paths))
    if not trusted:
        raise ConfigurationError("issuers: name at least one, or give an authorization_server; nobody could log in")
    described = tuple(resources)
    return (
        Audit(log=log, clock=clock),
        Wire(),
        Proxy(trusted=tuple(trusted_proxies)),
        Tls(origin),
        Host(origin),
        Shield(burst=limits.address.burst, period=limits.address.period, clock=clock),
        *beside,
        Origin(origin, allowed=tuple(allowed_origins)),
        Metadata(described, tuple(one.issuer for one in trusted)),
        Token(described, tuple(trusted), clock=clock),
        Intake(),
        Scopes(),
        Revocation(store=state),
        RateLimit(
            store=state,
            principal=limits.principal,
            tool=limits.tool,
            connections=limits.connections,
            address_connections=limits.address_connections,
        ),
        Session(store=state, terms=Terms(ttl=session_ttl), clock=clock),
        Bridge(),
    )


def from_settings(settings: Settings) -> tuple[Layer, ...]:
    """The complete stack for an external issuer, as the environment's settings describe it.

    Raises:
        ConfigurationError: a setting cannot work; the message names it.
    """
    scopes = frozenset(settings.required_scopes)
    with _naming("MCP_PUBLIC_URL"):
        resources = [Resource(settings.public_url, _path_of(settings.public_url), scopes=scopes)]
    if settings.sse_url is not None:
        with _naming("MCP_SSE_URL"):
            path, messages = _path_of(settings.sse_url), settings.sse_message_path
            resources.append(Resource(settings.sse_url, path, messages=messages, scopes=scopes))
    with _naming("MCP_TRUSTED_PROXIES"):
        Proxy(trusted=settings.trusted_proxies)
    with _naming("MCP_ALLOWED_ORIGINS"):
        Origin(_common_origin(resources), allowed=settings.allowed_origins)
    return standard(
        resources=resources,
        issuers=(TrustedIssuer(settings.oauth_issuer, _keys_of(settings)),),
        audit=None if settings.audit_file is None else AuditLog(FileSink(settings.audit_file)),
        trusted_proxies=settings.trusted_proxies,
        allowed_origins=settings.allowed_origins,
        session_ttl=settings.session_ttl,
    )


def _keys_of(settings: Settings) -> KeySource:
    if settings.oauth_jwks_file is not None:
        with _naming("MCP_OAUTH_JWKS_FILE"):
            return StaticKeys(settings.oauth_jwks_file)
    with _naming("MCP_OAUTH_ISSUER"):
        return RemoteKeys(settings.oauth_issuer)


@contextmanager
def _naming(setting: str) -> Iterator[None]:
    """Say which setting it was that cannot work."""
    try:
        yield
    except ConfigurationError as error:
        raise ConfigurationError(f"{setting}: {error}") from None


def _common_origin(resources: Sequence[Resource]) -> str:
    """The origin that all resources share, as a URL without a path."""
    if not resources:
        raise ConfigurationError("resources: name at least one")
    origins = {PublicUrl.parse(resource.url, setting="resources").origin for resource in resources}
    if len(origins) > 1:
        raise ConfigurationError(f"resources: all must be on one origin, not {len(origins)}; guard each apart")
    return str(origins.pop())


def _path_of(url: str) -> str:
    return PublicUrl.parse(url).path or "/"
