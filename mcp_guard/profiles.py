"""Complete stacks: every layer in its place, each number with its source.

`standard` is what a deployment wants; `mcp_guard.deployment` builds it from the environment's settings. A stack that
differs is written out: the layers are ordinary objects.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

from mcp_guard.affinity import Worker
from mcp_guard.auditlog import AuditLog, DescriptorSink
from mcp_guard.check import Layer
from mcp_guard.clock import Clock, SystemClock
from mcp_guard.facts import Resource
from mcp_guard.failures import ConfigurationError
from mcp_guard.keyring import KeyRing
from mcp_guard.keysources import StaticKeys
from mcp_guard.layers.affinity import Affinity
from mcp_guard.layers.audit import Audit
from mcp_guard.layers.beside import Beside
from mcp_guard.layers.bridge import Bridge
from mcp_guard.layers.certificate import Certificate
from mcp_guard.layers.concurrency import Concurrency
from mcp_guard.layers.dpop import NONCE_PURPOSE, Dpop
from mcp_guard.layers.event_ids import EventIds
from mcp_guard.layers.handles import Handle, Handles
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
    Local,
    RateLimit,
    Shared,
    ToolLimit,
)
from mcp_guard.layers.replay import Replay
from mcp_guard.layers.request_state import RequestState
from mcp_guard.layers.revocation import Revocation
from mcp_guard.layers.route import Route
from mcp_guard.layers.scopes import Scopes
from mcp_guard.layers.session import Session, nowhere
from mcp_guard.layers.shield import Shield
from mcp_guard.layers.streams import PER_PRINCIPAL as STREAMS_PER_PRINCIPAL
from mcp_guard.layers.streams import Streams
from mcp_guard.layers.tasks import Tasks
from mcp_guard.layers.tls import Tls
from mcp_guard.layers.token import Token
from mcp_guard.layers.visibility import Visibility
from mcp_guard.layers.websocket import WebSocket
from mcp_guard.layers.wire import Wire
from mcp_guard.protocol.nonces import DEFAULT_LIFETIME, Nonces
from mcp_guard.protocol.uris import PublicUrl
from mcp_guard.sessions import SessionTerms
from mcp_guard.sockets import SocketTerms
from mcp_guard.stores.base import Store
from mcp_guard.stores.memory import MemoryStore
from mcp_guard.tokens import TrustedIssuer

if TYPE_CHECKING:
    from mcp_guard.oauth import AuthorizationServer

PER_ADDRESS = Limit(600, timedelta(minutes=1))
"""Requests of one address before authentication: ten a second, room for an office behind one address."""


@dataclass(frozen=True)
class Limits:
    """How much of everything one caller may have.

    Each `Limit` is a burst that refills over a period; `tools` are exceptions from `tool` by name, `shared` is what
    callers of one client, tenant or address have in common. `in_flight` is how many requests of one principal a worker
    serves at once, `in_flight_in_all` how many of all; `streams` is how many one principal has open, over all workers.
    While the store is away each worker makes every limit `local_share` times as small: the number of workers, or more.
    """

    address: Limit = PER_ADDRESS
    principal: Limit = PER_PRINCIPAL
    tool: Limit = PER_TOOL
    tools: Mapping[str, ToolLimit] = field(default_factory=dict)
    connections: Limit = CONNECTIONS_PER_PRINCIPAL
    address_connections: Limit = CONNECTIONS_PER_ADDRESS
    shared: Shared = field(default_factory=Shared)
    in_flight: int = 64
    in_flight_in_all: int = 1000
    streams: int = STREAMS_PER_PRINCIPAL
    local_share: int = 4


@dataclass(frozen=True)
class Handling:
    """What becomes of what an app hands to its clients.

    `handles` are kinds of handle that belong to whoever they were given to. `single_use` are the tools whose
    `requestState` (MCP 2026-07-28) is good for one call. `hide` takes out of lists what the caller lacks a scope for.
    """

    handles: tuple[Handle, ...] = ()
    single_use: frozenset[str] = frozenset()
    hide: bool = True


@dataclass(frozen=True)
class Proofs:
    """How proofs of possession (RFC 9449) are judged, where a resource takes tokens that are bound to a key.

    `lifetime` is how long ago a proof may have been made, `leeway` how far ahead the client's clock may be. With
    `nonces` each proof has to carry a nonce of this server, of which a new one begins every `nonce_lifetime`.
    """

    lifetime: timedelta = timedelta(seconds=60)
    leeway: timedelta = timedelta(seconds=10)
    nonces: bool = False
    nonce_lifetime: timedelta = DEFAULT_LIFETIME


DEFAULT_LIMITS = Limits()
DEFAULT_SESSIONS = SessionTerms()
DEFAULT_HANDLING = Handling()
DEFAULT_PROOFS = Proofs()
SYSTEM_CLOCK: Clock = SystemClock()


def standard(  # noqa: PLR0913 - one keyword for each thing a deployment decides
    *,
    resources: Sequence[Resource],
    issuers: Sequence[TrustedIssuer] = (),
    authorization_server: "AuthorizationServer | None" = None,
    store: Store | None = None,
    ring: KeyRing | None = None,
    worker: Worker | None = None,
    route: Route | None = None,
    audit: AuditLog | None = None,
    limits: Limits = DEFAULT_LIMITS,
    sessions: SessionTerms = DEFAULT_SESSIONS,
    handling: Handling = DEFAULT_HANDLING,
    proofs: Proofs = DEFAULT_PROOFS,
    websocket: SocketTerms | None = None,
    trusted_proxies: Sequence[str] = (),
    proxy_certificates: bool = False,
    allowed_origins: Sequence[str] = (),
    clock: Clock = SYSTEM_CLOCK,
) -> tuple[Layer, ...]:
    """The complete stack, outermost first, for the endpoints `resources` of one app.

    All resources are on one origin. Tokens are accepted from `issuers`, and from the embedded `authorization_server`,
    which is then served beside the app. Without a `store` state is in this process's memory; workers that share one
    share a `ring` too. With a `worker`, requests of a session are forwarded to the worker that holds it; `route` has
    the name by which a proxy pins sessions to this one. Tokens that are bound to a key are taken with the proofs that
    `proofs` asks for, unless the `dpop` of all resources is off; those that are bound to a client certificate where the
    `certificates` of a resource are not off. With `proxy_certificates` it is the trusted proxies that say whose
    certificate they saw. WebSockets are opened on the terms of `websocket`, none without it. Without an `audit` the
    records go to standard error.

    Raises:
        ConfigurationError: a setting cannot work; the message names it.
    """
    origin = common_origin(resources)
    state = store if store is not None else MemoryStore(clock=clock)
    keys = _ring_for(state, ring)
    trusted = _trusted(issuers, authorization_server)
    described = tuple(resources)
    by_key = any(resource.dpop != "off" for resource in described)
    by_certificate = any(resource.certificates != "off" for resource in described)
    return (
        Audit(log=audit if audit is not None else AuditLog(DescriptorSink()), clock=clock),
        Wire(),
        Proxy(trusted=tuple(trusted_proxies), client_certificates=proxy_certificates),
        Tls(origin),
        Host(origin),
        Shield(burst=limits.address.burst, period=limits.address.period, clock=clock),
        *([] if authorization_server is None else [Beside(authorization_server, authorization_server.paths)]),
        Origin(origin, allowed=tuple(allowed_origins)),
        Metadata(described, tuple(one.issuer for one in trusted), dpop=by_key, certificates=by_certificate),
        *([] if route is None else [route]),
        Token(described, trusted, clock=clock, dpop=by_key, certificates=by_certificate),
        *([Certificate(clock=clock)] if by_certificate else []),
        *([_dpop(proofs, keys, clock)] if by_key else []),
        *([] if websocket is None else [WebSocket(described, websocket, clock)]),
        Concurrency(principal=limits.in_flight, total=limits.in_flight_in_all),
        Intake(),
        Scopes(),
        *([Visibility()] if handling.hide else []),
        Revocation(store=state, clock=clock),
        _rate_limit(state, limits),
        *([_replay(state, limits, clock)] if by_key else []),
        _session(state, keys, sessions, worker, described, clock),
        Tasks(store=state, ring=keys),
        *([Handles(store=state, ring=keys, handles=handling.handles)] if handling.handles else []),
        Streams(store=state, per_principal=limits.streams, clock=clock),
        EventIds(ring=keys),
        RequestState(ring=keys, single_use=handling.single_use, store=state, clock=clock),
        *([] if worker is None else [Affinity(worker)]),
        Bridge(),
    )


def _trusted(issuers: Sequence[TrustedIssuer], server: "AuthorizationServer | None") -> tuple[TrustedIssuer, ...]:
    """All issuers whose tokens are accepted, that of the embedded server last.

    Raises:
        ConfigurationError: there is none.
    """
    own = () if server is None else (TrustedIssuer(server.issuer, StaticKeys(server.keys.public_set)),)
    if not issuers and not own:
        raise ConfigurationError("issuers: name at least one, or give an authorization_server; nobody could log in")
    return (*issuers, *own)


def _dpop(proofs: Proofs, ring: KeyRing, clock: Clock) -> Dpop:
    nonces = Nonces(ring, NONCE_PURPOSE, proofs.nonce_lifetime) if proofs.nonces else None
    return Dpop(lifetime=proofs.lifetime, leeway=proofs.leeway, nonces=nonces, clock=clock)


def _replay(store: Store, limits: Limits, clock: Clock) -> Replay:
    return Replay(store=store, burst=limits.principal.burst, period=limits.principal.period, clock=clock)


def _session(
    store: Store,
    ring: KeyRing,
    terms: SessionTerms,
    worker: Worker | None,
    resources: Sequence[Resource],
    clock: Clock,
) -> Session:
    return Session(
        store=store,
        ring=ring,
        terms=terms,
        home=nowhere if worker is None else worker.home,
        paths=frozenset(resource.path for resource in resources),
        clock=clock,
    )


def _rate_limit(store: Store, limits: Limits) -> RateLimit:
    return RateLimit(
        store=store,
        principal=limits.principal,
        tool=limits.tool,
        tools=limits.tools,
        connections=limits.connections,
        address_connections=limits.address_connections,
        shared=limits.shared,
        local=Local(share=limits.local_share),
    )


def _ring_for(store: Store, ring: KeyRing | None) -> KeyRing:
    """The ring that is given; a new one for a store of this process alone."""
    if ring is None and not isinstance(store, MemoryStore):
        raise ConfigurationError("ring: workers that share a store share a key ring; give each the same KeyRing")
    return KeyRing.generate() if ring is None else ring


def common_origin(resources: Sequence[Resource]) -> str:
    """The origin that all resources share, as a URL without a path."""
    if not resources:
        raise ConfigurationError("resources: name at least one")
    origins = {PublicUrl.parse(resource.url, setting="resources").origin for resource in resources}
    if len(origins) > 1:
        raise ConfigurationError(f"resources: all must be on one origin, not {len(origins)}; guard each apart")
    return str(origins.pop())
