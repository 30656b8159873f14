"""Tells who is asking, from an access token of an issuer that is trusted (RFC 6750, RFC 9068, RFC 9728 §5).

Decides: whether the request carries exactly one bearer token, in its Authorization field, that an issuer signed for the
resource the request is for. Refuses with the `credentials_…` and `token_…` rejections and `scheme_not_supported` (400
and 401), each with a challenge, and with `unavailable` (503) when an issuer's keys cannot be had. Adds the principal
and the resource. Does not: read a body, look up a revocation (`revocation`), judge scopes (`scopes`). Must stand after:
metadata, whose documents need no token; before intake.

No path is exempt: one that no resource has is judged by the rules of the first resource.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from mcp_guard import rejections
from mcp_guard.check import Check
from mcp_guard.clock import Clock, SystemClock
from mcp_guard.facts import Principal, Resource
from mcp_guard.failures import ConfigurationError
from mcp_guard.keysources import KeySource
from mcp_guard.layer import Admission, Managed, RequestHead
from mcp_guard.protocol import authorization_header, jwt
from mcp_guard.protocol.authorization_header import CredentialsError, CredentialsFault, bearer_challenge
from mcp_guard.protocol.jwt import AccessToken, Fault, Rules, TokenError
from mcp_guard.protocol.metadata import well_known_url
from mcp_guard.rejections import Kind, Rejection
from mcp_guard.secret import fingerprint

CREDENTIAL_FIELDS = frozenset({b"authorization", b"dpop"})
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
}


@dataclass(frozen=True)
class TrustedIssuer:
    """An issuer whose tokens are accepted, and its keys, which no other issuer's tokens are verified with.

    `issuer` is compared with `iss` as it stands. `tenant_claim` is the claim that names the tenant, then required.
    `insecure_accept_untyped` also accepts tokens without `typ` or with `JWT`, from issuers that know nothing better:
    what keeps their ID tokens out is then the audience, and claims that only ID tokens have.
    """

    issuer: str
    keys: KeySource
    tenant_claim: str | None = None
    insecure_accept_untyped: bool = False

    def __post_init__(self) -> None:
        if not self.issuer:
            raise ConfigurationError("issuer must not be empty")
        if self.tenant_claim == "":
            raise ConfigurationError("tenant_claim must be the name of a claim")


@dataclass(frozen=True, slots=True, eq=False)
class Guarded:
    """A resource, and everything about it that does not depend on the request."""

    resource: Resource
    audiences: frozenset[str]
    suffix: bytes
    challenges: Mapping[str, bytes]

    def refuse(self, kind: Kind, reason: str) -> Rejection:
        return kind.because(reason, [(b"www-authenticate", self.challenges[kind.slug])])


@dataclass(frozen=True, slots=True, eq=False)
class Verified:
    """What a verified token comes to. `good_until` is by the monotonic clock, the other times by the wall clock."""

    admission: Admission
    not_before: float
    expires_at: float
    good_until: float


@dataclass(eq=False, slots=True)
class VerifiedTokens:
    """Verified tokens, by the digest of the field they came in, in two generations.

    When the young one is full the old one is dropped, at no cost a token.
    """

    capacity: int
    young: dict[bytes, Verified] = field(default_factory=dict)
    old: dict[bytes, Verified] = field(default_factory=dict)

    def get(self, key: bytes) -> Verified | None:
        found = self.young.get(key)
        if found is None and (found := self.old.get(key)) is not None:
            self.put(key, found)
        return found

    def put(self, key: bytes, verified: Verified) -> None:
        if len(self.young) >= (self.capacity + 1) // 2:
            self.young, self.old = {}, self.young
        self.young[key] = verified

    def drop(self, key: bytes) -> None:
        self.young.pop(key, None)
        self.old.pop(key, None)

    def clear(self) -> None:
        self.young, self.old = {}, {}


@dataclass(frozen=True)
class Token(Check):
    """`resources` are what is guarded, each with a path of its own; `issuers` those whose tokens are accepted.

    `leeway` is how far clocks may differ, `maximum_lifetime` the longest time from `iat` to `exp`. `cached_tokens` is
    how many verified tokens are remembered, each until it expires or its key has to be looked up again; none with 0.
    `insecure_forward_credentials` hands the token on to the app.
    """

    adds = (Principal, Resource)

    resources: tuple[Resource, ...]
    issuers: tuple[TrustedIssuer, ...]
    clock: Clock = field(default_factory=SystemClock)
    leeway: timedelta = timedelta(seconds=10)
    maximum_lifetime: timedelta = timedelta(hours=24)
    cached_tokens: int = CACHED_TOKENS
    insecure_forward_credentials: bool = False

    _by_path: Mapping[str, Guarded] = field(init=False, repr=False, compare=False)
    _first: Guarded = field(init=False, repr=False, compare=False)
    _trusted: Mapping[str, tuple[Rules, KeySource]] = field(init=False, repr=False, compare=False)
    _verified: VerifiedTokens = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not timedelta(0) <= self.leeway <= timedelta(minutes=5):
            raise ConfigurationError(f"leeway must be between 0 and 5 minutes, not {self.leeway}")
        if self.maximum_lifetime <= timedelta(0):
            raise ConfigurationError(f"maximum_lifetime must be longer than nothing, not {self.maximum_lifetime}")
        if self.cached_tokens < 0:
            raise ConfigurationError(f"cached_tokens must be at least 0, not {self.cached_tokens}")
        by_path = _by_path(self.resources)
        object.__setattr__(self, "_by_path", by_path)
        object.__setattr__(self, "_first", by_path[self.resources[0].path])
        object.__setattr__(self, "_trusted", self._rules())
        object.__setattr__(self, "_verified", VerifiedTokens(self.cached_tokens))

    def _rules(self) -> dict[str, tuple[Rules, KeySource]]:
        if not self.issuers:
            raise ConfigurationError("issuers: at least one is needed")
        trusted: dict[str, tuple[Rules, KeySource]] = {}
        for one in self.issuers:
            if one.issuer in trusted:
                raise ConfigurationError(f"issuers: {one.issuer!r} is there twice")
            rules = Rules(
                one.issuer,
                self.leeway.total_seconds(),
                self.maximum_lifetime.total_seconds(),
                one.insecure_accept_untyped,
                one.tenant_claim,
            )
            trusted[one.issuer] = (rules, one.keys)
        return trusted

    def managed(self) -> Sequence[Managed]:
        return tuple(one.keys for one in self.issuers)

    def forget(self) -> None:
        """Verify every token anew from now on. For an operator who withdraws a key at once."""
        self._verified.clear()

    async def admit(self, request: RequestHead) -> Admission:
        guarded = self._by_path.get(request.routed_path) or self._by_path.get(request.path, self._first)
        values = request.values(b"authorization")
        try:
            if request.query or len(values) != 1:
                authorization_header.parse(values, request.query)
            key = hashlib.sha256(values[0]).digest() + guarded.suffix
            return self._remembered(key) or await self._verify(values[0], key, guarded)
        except CredentialsError as fault:
            raise guarded.refuse(_CREDENTIALS_KINDS[fault.fault], fault.reason) from None
        except TokenError as fault:
            raise guarded.refuse(_TOKEN_KINDS[fault.fault], fault.reason) from None

    def _remembered(self, key: bytes) -> Admission | None:
        """What was said of these credentials before, if that still holds."""
        known = self._verified.get(key)
        if known is None or self.clock.monotonic() >= known.good_until:
            return None
        if not known.not_before <= self.clock.wall() < known.expires_at:
            self._verified.drop(key)
            return None
        return known.admission

    async def _verify(self, value: bytes, key: bytes, guarded: Guarded) -> Admission:
        """Everything about an Authorization field that is not remembered; `key` is what to remember it by."""
        token = authorization_header.parse((value,)).token
        unverified = jwt.read(token)
        if unverified.issuer not in self._trusted:
            raise TokenError(Fault.ISSUER, "iss is not a trusted issuer")
        rules, keys = self._trusted[unverified.issuer]
        jwt.check_type(unverified, rules)
        header = unverified.jws.header
        found = await keys.find(header.kid, header.alg)
        if found is None:
            raise TokenError(Fault.KEY, "the issuer has no such key for this algorithm")
        if not found.key.verifies(unverified.jws):
            raise TokenError(Fault.SIGNATURE, "the signature is not the key's")
        token_says = jwt.judge(unverified, rules, guarded.audiences, self.clock.wall())
        admission = self._admission(token_says, fingerprint(token), guarded.resource)
        if self.cached_tokens:
            leeway = rules.leeway_seconds
            verified = Verified(
                admission, token_says.not_before - leeway, token_says.expires_at + leeway, found.good_until
            )
            self._verified.put(key, verified)
        return admission

    def _admission(self, token: AccessToken, named: str, resource: Resource) -> Admission:
        principal = Principal(
            issuer=token.issuer,
            subject=token.subject,
            client_id=token.client_id,
            tenant=token.tenant,
            scopes=token.scopes,
            expires_at=token.expires_at,
            token_fingerprint=named,
            claims=token.claims,
        )
        hide = frozenset[bytes]() if self.insecure_forward_credentials else CREDENTIAL_FIELDS
        return Admission(facts=(principal, resource), hide=hide)


def _by_path(resources: tuple[Resource, ...]) -> dict[str, Guarded]:
    if not resources:
        raise ConfigurationError("resources: at least one is needed")
    by_path: dict[str, Guarded] = {}
    for position, resource in enumerate(resources):
        guarded = Guarded(resource, resource.audiences, position.to_bytes(2, "big"), _challenges(resource))
        for path in (resource.path, resource.messages):
            if path is not None and by_path.setdefault(path, guarded) is not guarded:
                raise ConfigurationError(f"resources: the path {path!r} belongs to more than one")
    return by_path


def _challenges(resource: Resource) -> dict[str, bytes]:
    """The challenge of every refusal of this layer, by slug."""
    metadata = well_known_url(resource.url)
    kinds = {*_CREDENTIALS_KINDS.values(), *_TOKEN_KINDS.values()}
    try:
        return {
            kind.slug: bearer_challenge(
                metadata, resource.scopes, error=kind.error, error_description=kind.description if kind.error else ""
            )
            for kind in kinds
        }
    except ValueError as fault:
        raise ConfigurationError(f"resources: {resource.url!r} cannot be put in a challenge: {fault}") from None
