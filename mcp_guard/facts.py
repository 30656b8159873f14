"""What layers learn and hand inward. Each fact is keyed by its type: `fact(scope, Principal)`."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from ipaddress import IPv4Address, IPv6Address, IPv6Network
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, TypeAlias, TypeVar

from mcp_guard.asgi import Scope

FACTS_KEY = "mcp_guard"
"""Where the facts of an exchange live in its scope."""

Fact = TypeVar("Fact")


def facts_of(scope: Scope) -> dict[type, Any]:
    """The facts of this exchange; empty when no guard layer has seen it."""
    found: dict[type, Any] = scope.get(FACTS_KEY, {})
    return found


def fact(scope: Scope, kind: type[Fact]) -> Fact:
    """The fact of this kind, for use inside the guarded app.

    Raises:
        LookupError: no layer of the stack added it.
    """
    try:
        found: Fact = facts_of(scope)[kind]
    except KeyError:
        raise LookupError(f"no layer added {kind.__name__}; is the layer that adds it in the stack?") from None
    return found


@dataclass(frozen=True, slots=True)
class RequestId:
    """The name of this exchange in the audit: 128 random bits in hexadecimal, never taken from a client."""

    value: str


@dataclass(frozen=True)
class ClientAddress:
    """Where the request comes from after the trusted proxies are discounted; None when the server does not say."""

    ip: IPv4Address | IPv6Address | None

    @cached_property
    def bucket(self) -> str:
        """The key of its limits: one address in IPv4, one /64 in IPv6, where addresses are free to the attacker."""
        if self.ip is None:
            return "unknown"
        if isinstance(self.ip, IPv4Address):
            return str(self.ip)
        if self.ip.ipv4_mapped is not None:
            return str(self.ip.ipv4_mapped)
        return str(IPv6Network((int(self.ip) >> 64 << 64, 64)))

    @cached_property
    def is_local(self) -> bool:
        """Whether the client is on this machine. One without an address came by a socket file or within the process."""
        return self.ip is None or self.ip.is_loopback

    @cached_property
    def text(self) -> str:
        return "unknown" if self.ip is None else str(self.ip)

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Transport:
    """How the request reached us as the client saw it: `scheme` is `http` or `https`; `authority` is the Host field."""

    scheme: str
    authority: str

    @property
    def is_secure(self) -> bool:
        return self.scheme == "https"


Policy: TypeAlias = Literal["off", "allowed", "required"]
"""Whether tokens bound to a key of their sender are refused, welcome, or the only ones that are accepted."""


@dataclass(frozen=True)
class ScopePolicy:
    """The scopes that parts of a resource need, beside those that every request does, each by a pattern.

    A pattern is a name, or the beginning of names with a `*` after it; case counts, and of several that match all do.
    `methods` are JSON-RPC methods, whatever they are about; `tools` and `prompts` go by their names, `uris` are those
    of resources. `implies` is the hierarchy: for a scope, those that it stands for. Nothing else implies anything.
    `mcp_guard.protocol.scope_policy` has the rules.
    """

    methods: Mapping[str, frozenset[str]] = field(default_factory=dict, hash=False)
    tools: Mapping[str, frozenset[str]] = field(default_factory=dict, hash=False)
    prompts: Mapping[str, frozenset[str]] = field(default_factory=dict, hash=False)
    uris: Mapping[str, frozenset[str]] = field(default_factory=dict, hash=False)
    implies: Mapping[str, frozenset[str]] = field(default_factory=dict, hash=False)


NO_POLICY = ScopePolicy()


@dataclass(frozen=True, slots=True)
class Resource:
    """One protected resource: an MCP endpoint with its own metadata document, audience and challenge.

    `url` is the resource identifier (RFC 9728 §1.2), exactly as clients and tokens spell it. `path` is its path.
    `messages` is the path of the POST endpoint of an HTTP+SSE transport (2024-11-05); it belongs to the same resource.
    `aliases` are further audiences that are welcome here; nothing is ever derived from a request.
    `scopes` are needed for every request; `policy` says what else some need. `dpop` is the policy for tokens that are
    bound to a key (RFC 9449), `certificates` for those bound to a client certificate (RFC 8705); what a stack has no
    layer for is off.
    """

    url: str
    path: str
    messages: str | None = None
    aliases: frozenset[str] = frozenset()
    scopes: frozenset[str] = frozenset()
    policy: ScopePolicy = NO_POLICY
    name: str | None = None
    dpop: Policy = "allowed"
    certificates: Policy = "off"

    @property
    def audiences(self) -> frozenset[str]:
        return self.aliases | {self.url}


class Confirmation(NamedTuple):
    """What a token is bound to (RFC 7800 §3.1): the RFC 7638 thumbprint of a key (RFC 9449 §6.1), the SHA-256 of a
    certificate (RFC 8705 §3.1), both in base64url; None for what it is not bound to.
    """

    jkt: str | None = None
    x5t_s256: str | None = None


UNBOUND = Confirmation()
"""That of a bearer token."""


@dataclass(frozen=True, slots=True)
class SenderKey:
    """The key whose possession the sender of the token still has to prove: its thumbprint, None for a bearer token.

    `token_digest` is the SHA-256 of the token, 32 bytes, which a proof has to be about (RFC 9449 §4.3, check 12); empty
    for a bearer token.
    """

    thumbprint: str | None
    token_digest: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Proof:
    """The proof of possession of the request, found good, which must still not have been used before (RFC 9449 §11.1).

    `thumbprint` is that of the key it was made with, None for a bearer token, which needs no proof. `digest` tells it
    from all other proofs (32 bytes). `issued` is when it was made by the client's clock, `expires` the last instant at
    which it is accepted; both in seconds since 1970.
    """

    thumbprint: str | None
    digest: bytes
    issued: float
    expires: float


NO_PROOF = Proof(None, b"", 0.0, 0.0)
"""What stands for the proof of a bearer token."""


@dataclass(frozen=True, slots=True)
class SenderCertificate:
    """The certificate that the sender of the token still has to have: its thumbprint, None for any or none."""

    thumbprint: str | None


VerifiedBy: TypeAlias = Literal["signature", "introspection", "fallback"]
"""How a token was verified: by a key, by asking the issuer, or by a key because the issuer could not be asked."""


@dataclass(frozen=True)
class Principal:
    """Who is asking, from a verified token alone.

    Two requests are of the same principal when issuer, subject, client and tenant agree; the token string is not part
    of it, since it is refreshed. `expires_at` is in seconds since 1970 (RFC 7519 §2 NumericDate). `confirmation` is
    what the token is bound to, `verified_by` how it was verified.
    """

    issuer: str
    subject: str
    client_id: str
    tenant: str | None
    scopes: frozenset[str]
    expires_at: float
    token_fingerprint: str
    claims: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)
    confirmation: Confirmation = UNBOUND
    verified_by: VerifiedBy = field(default="signature", compare=False)

    @property
    def identity(self) -> tuple[str, str, str, str | None]:
        """What sessions, limits and handles are bound to."""
        return (self.issuer, self.subject, self.client_id, self.tenant)

    @cached_property
    def owner(self) -> bytes:
        """The identity as the store keeps it: a JSON array, the same bytes for the same principal."""
        return json.dumps(self.identity, separators=(",", ":")).encode()

    @cached_property
    def key(self) -> str:
        """The identity as a part of a store key: SHA-256 in hexadecimal."""
        return hashlib.sha256(self.owner).hexdigest()


class MessageKind(StrEnum):
    """What a JSON-RPC message is (JSON-RPC 2.0 §4, §5)."""

    REQUEST = "request"
    NOTIFICATION = "notification"
    RESPONSE = "response"


class RpcMessage(NamedTuple):
    """One JSON-RPC message of a body. `name` is the tool, prompt, resource or task that it names, if any."""

    kind: MessageKind
    method: str | None
    id: str | int | None
    name: str | None
    params: Mapping[str, Any] = MappingProxyType({})

    def __repr__(self) -> str:
        return f"RpcMessage({self.kind.name}, {self.method!r}, {self.id!r}, {self.name!r})"


class Call(NamedTuple):
    """What is asked: the parsed body, the only reading of it that any layer decides on.

    `revision` is the MCP revision the request declares, None when it declares none. `modern` is True under the rules
    of 2026-07-28. `messages` is empty for a request without a body (GET, DELETE).
    """

    messages: tuple[RpcMessage, ...]
    revision: str | None
    modern: bool
    batch: bool = False

    @property
    def request_id(self) -> str | int | None:
        """The id to echo in an error: that of the one request, None for a batch or no request."""
        if self.batch or len(self.messages) != 1:
            return None
        return self.messages[0].id


@dataclass(eq=False, slots=True)
class Socket:
    """The WebSocket that an exchange opens, or that its message came on. It can change: it learns how it was closed."""

    code: int | None = None
    reason: str | None = None
    is_recorded: bool = False

    def close(self, code: int, reason: str) -> None:
        """Take note of how it was closed, once."""
        if self.code is None:
            self.code, self.reason = code, reason


@dataclass(frozen=True, slots=True)
class SessionHandle:
    """The session, stream or endpoint that the request claims, after it was found to be the principal's own.

    `home` names the worker that holds it, where that is known: text that the worker itself gave when it was created.
    """

    value: str = field(repr=False)
    fingerprint: str
    home: str | None = None
