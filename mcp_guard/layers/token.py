"""Tells who is asking, from an access token of an issuer that is trusted (RFC 6750, RFC 9068, RFC 9449 §7).

Decides: whether the request carries exactly one access token, in its Authorization field, that an issuer signed for the
resource the request is for. Refuses with the `credentials_…` and `token_…` rejections and `scheme_not_supported` (400
and 401), each with a challenge, and with `unavailable` (503) when an issuer's keys or answer cannot be had. Adds the
principal and the resource. Does not: read a body, look up a revocation (`revocation`), judge scopes (`scopes`). Must
stand after: metadata, whose documents need no token; before intake.

A token that is bound to a key or a certificate is let through only where a layer further in asks its sender for the
proof: the stack is not built without it.

No path is exempt: one that no resource has is judged by the rules of the first resource.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from mcp_guard import rejections
from mcp_guard.challenges import challenges
from mcp_guard.check import Check
from mcp_guard.clock import Clock, SystemClock
from mcp_guard.facts import Policy, Principal, Resource, SenderCertificate, SenderKey
from mcp_guard.failures import ConfigurationError
from mcp_guard.layer import Admission, Managed, RequestHead
from mcp_guard.protocol import authorization_header
from mcp_guard.protocol.authorization_header import BEARER, DPOP, CredentialsError, CredentialsFault
from mcp_guard.protocol.jwt import AccessToken, Fault, TokenError
from mcp_guard.rejections import Kind, Rejection
from mcp_guard.secret import fingerprint
from mcp_guard.tokens import Remembered, RememberedTokens, TrustedIssuer, Verification, Verified

CREDENTIAL_FIELDS = frozenset({b"authorization", b"dpop"})
AUTHORIZATION = frozenset({b"authorization"})
NO_KEY = SenderKey(None, b"")
NO_CERTIFICATE = SenderCertificate(None)
CACHED_TOKENS = 10_000

_CREDENTIALS_KINDS: Mapping[CredentialsFault, Kind] = {
    CredentialsFault.MISSING: rejections.CREDENTIALS_MISSING,
    CredentialsFault.MALFORMED: rejections.CREDENTIALS_MALFORMED,
    CredentialsFault.REPEATED: rejections.CREDENTIALS_REPEATED,
    CredentialsFault.SCHEME: rejections.SCHEME_NOT_SUPPORTED,
    CredentialsFault.TOO_LONG: rejections.TOKEN_MALFORMED,
}
_TOKEN_KINDS: Mapping[Fault, Kind] = {
    Fault.MALFORMED: rejections.TOKEN_MALFORMED,
    Fault.TYPE: rejections.TOKEN_TYPE,
    Fault.ALGORITHM: rejections.TOKEN_ALGORITHM,
    Fault.ISSUER: rejections.TOKEN_ISSUER,
    Fault.KEY: rejections.TOKEN_KEY,
    Fault.SIGNATURE: rejections.TOKEN_SIGNATURE,
    Fault.EXPIRED: rejections.TOKEN_EXPIRED,
    Fault.NOT_YET_VALID: rejections.TOKEN_NOT_YET_VALID,
    Fault.LIFETIME: rejections.TOKEN_LIFETIME,
    Fault.AUDIENCE: rejections.TOKEN_AUDIENCE,
    Fault.CLAIMS: rejections.TOKEN_CLAIMS,
    Fault.BOUND: rejections.TOKEN_BOUND,
    Fault.UNBOUND: rejections.TOKEN_UNBOUND,
    Fault.INACTIVE: rejections.TOKEN_INACTIVE,
}


@dataclass(frozen=True, slots=True, eq=False)
class Guarded:
    """A resource, and everything about it that does not depend on the request."""

    resource: Resource
    audiences: frozenset[str]
    suffix: bytes
    dpop: Policy
    certificates: Policy
    schemes: tuple[str, ...]

    @classmethod
    def of(cls, resource: Resource, position: int, dpop: bool, certificates: bool) -> "Guarded":
        """What is guarded when layers further in can, or cannot, judge proofs and certificates.

        Raises:
            ConfigurationError: naming what of the resource cannot be.
        """
        for setting, policy, is_judged in (
            ("dpop", resource.dpop, dpop),
            ("certificates", resource.certificates, certificates),
        ):
            if policy not in ("off", "allowed", "required"):
                raise ConfigurationError(f"resources: {setting} must be off, allowed or required, not {policy!r}")
            if policy == "required" and not is_judged:
                raise ConfigurationError(f"resources: {setting} is required by {resource.url!r}, and off in Token")
        by_key: Policy = resource.dpop if dpop else "off"
        schemes = {"off": (BEARER,), "allowed": (BEARER, DPOP), "required": (DPOP,)}[by_key]
        guarded = cls(
            resource,
            resource.audiences,
            position.to_bytes(2, "big"),
            by_key,
            resource.certificates if certificates else "off",
            schemes,
        )
        try:
            guarded.refuse(rejections.CREDENTIALS_MISSING, "")
        except ValueError as fault:
            raise ConfigurationError(f"resources: {resource.url!r} cannot be put in a challenge: {fault}") from None
        return guarded

    def refuse(self, kind: Kind, reason: str, used: str | None = None) -> Rejection:
        return kind.because(reason, challenges(self.resource.url, self.resource.scopes, self.schemes, kind, used))

    def check_binding(self, token: AccessToken, scheme: str) -> None:
        """Check that the token came by the scheme that is its own, and is bound as the resource wants it to be.

        Raises:
            TokenError: `BOUND` or `UNBOUND`.
        """
        jkt, certificate = token.confirmation
        if jkt is not None and (self.dpop == "off" or scheme != DPOP):
            raise TokenError(Fault.BOUND, "the token is bound to a key, and was sent as a bearer token")
        if jkt is None and (self.dpop == "required" or scheme == DPOP):
            raise TokenError(Fault.UNBOUND, "the token is not bound to a key")
        if certificate is not None and self.certificates == "off":
            raise TokenError(Fault.BOUND, "the token is bound to a certificate, which are not asked for here")
        if certificate is None and self.certificates == "required":
            raise TokenError(Fault.UNBOUND, "the token is not bound to a certificate")


@dataclass(frozen=True)
class Token(Check):
    """`resources` are what is guarded, each with a path of its own; `issuers` those whose tokens are accepted.

    `leeway` is how far clocks may differ, `maximum_lifetime` the longest time from `iat` to `exp`. `cached_tokens` is
    how many verified tokens are remembered, each until it expires or its key has to be looked up again; none with 0.
    `dpop` and `certificates` say that layers further in judge proofs of possession (RFC 9449) and client certificates
    (RFC 8705); without them tokens that are bound so are refused. `insecure_forward_credentials` hands the token on to
    the app.
    """

    adds = (Principal, Resource, SenderKey, SenderCertificate)

    resources: tuple[Resource, ...]
    issuers: tuple[TrustedIssuer, ...]
    clock: Clock = field(default_factory=SystemClock)
    leeway: timedelta = timedelta(seconds=10)
    maximum_lifetime: timedelta = timedelta(hours=24)
    cached_tokens: int = CACHED_TOKENS
    dpop: bool = False
    certificates: bool = False
    insecure_forward_credentials: bool = False

    _by_path: Mapping[str, Guarded] = field(init=False, repr=False, compare=False)
    _first: Guarded = field(init=False, repr=False, compare=False)
    _verification: Verification = field(init=False, repr=False, compare=False)
    _remembered: RememberedTokens = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not timedelta(0) <= self.leeway <= timedelta(minutes=5):
            raise ConfigurationError(f"leeway must be between 0 and 5 minutes, not {self.leeway}")
        if self.maximum_lifetime <= timedelta(0):
            raise ConfigurationError(f"maximum_lifetime must be longer than nothing, not {self.maximum_lifetime}")
        if self.cached_tokens < 0:
            raise ConfigurationError(f"cached_tokens must be at least 0, not {self.cached_tokens}")
        by_path = self._guarded_paths()
        leeway, lifetime = self.leeway.total_seconds(), self.maximum_lifetime.total_seconds()
        object.__setattr__(self, "_by_path", by_path)
        object.__setattr__(self, "_first", by_path[self.resources[0].path])
        object.__setattr__(self, "_verification", Verification(self.issuers, self.clock, leeway, lifetime))
        object.__setattr__(self, "_remembered", RememberedTokens(self.cached_tokens))

    def _guarded_paths(self) -> dict[str, Guarded]:
        if not self.resources:
            raise ConfigurationError("resources: at least one is needed")
        by_path: dict[str, Guarded] = {}
        for position, resource in enumerate(self.resources):
            guarded = Guarded.of(resource, position, self.dpop, self.certificates)
            for path in (resource.path, resource.messages):
                if path is not None and by_path.setdefault(path, guarded) is not guarded:
                    raise ConfigurationError(f"resources: the path {path!r} belongs to more than one")
        return by_path

    @property
    def owes(self) -> Sequence[type[Any]]:
        return [kind for kind, on in ((SenderKey, self.dpop), (SenderCertificate, self.certificates)) if on]

    def managed(self) -> Sequence[Managed]:
        return tuple(source for one in self.issuers for source in one.sources)

    def forget(self) -> None:
        """Verify every token anew from now on. For an operator who withdraws a key at once."""
        self._remembered.clear()

    async def admit(self, request: RequestHead) -> Admission:
        guarded = self._by_path.get(request.routed_path) or self._by_path.get(request.path, self._first)
        values = request.values(b"authorization")
        used = None
        try:
            if request.query or len(values) != 1:
                authorization_header.parse(values, request.query, guarded.schemes)
            key = hashlib.sha256(values[0]).digest() + guarded.suffix
            known = self._known(key)
            if known is not None:
                return known
            used, token = authorization_header.parse(values, schemes=guarded.schemes)
            return await self._verify(used, token, key, guarded)
        except CredentialsError as fault:
            raise guarded.refuse(_CREDENTIALS_KINDS[fault.fault], fault.reason) from None
        except TokenError as fault:
            raise guarded.refuse(_TOKEN_KINDS[fault.fault], fault.reason, used) from None

    def _known(self, key: bytes) -> Admission | None:
        """What was said of these credentials before, if that still holds."""
        known = self._remembered.get(key)
        if known is None or self.clock.monotonic() >= known.good_until:
            return None
        if not known.not_before <= self.clock.wall() < known.expires_at:
            self._remembered.drop(key)
            return None
        return known.admission

    async def _verify(self, scheme: str, token: bytes, key: bytes, guarded: Guarded) -> Admission:
        """Everything about credentials that are not remembered; `key` is what to remember them by."""
        verified = await self._verification.verify(token, guarded.audiences)
        says, good_until, leeway, _ = verified
        guarded.check_binding(says, scheme)
        admission = self._admission(verified, token, guarded.resource)
        if self.cached_tokens:
            self._remembered.put(
                key, Remembered(admission, says.not_before - leeway, says.expires_at + leeway, good_until)
            )
        return admission

    def _admission(self, verified: Verified, token: bytes, resource: Resource) -> Admission:
        says = verified.token
        principal = Principal(
            issuer=says.issuer,
            subject=says.subject,
            client_id=says.client_id,
            tenant=says.tenant,
            scopes=says.scopes,
            expires_at=says.expires_at,
            token_fingerprint=fingerprint(token),
            claims=says.claims,
            confirmation=says.confirmation,
            verified_by=verified.by,
        )
        jkt, x5t = says.confirmation
        key = NO_KEY if jkt is None else SenderKey(jkt, hashlib.sha256(token).digest())
        certificate = NO_CERTIFICATE if x5t is None else SenderCertificate(x5t)
        hide = frozenset[bytes]() if self.insecure_forward_credentials else self._hidden
        return Admission(facts=(principal, resource, key, certificate), hide=hide)

    @property
    def _hidden(self) -> frozenset[bytes]:
        """What is not handed inward; a proof still has to be judged."""
        return AUTHORIZATION if self.dpop else CREDENTIAL_FIELDS
