"""Asks the sender of a bound token for the proof that it has the key (RFC 9449 §4.3, §7).

Decides: whether a request whose token is bound to a key carries exactly one proof, made with that key for this method,
this URL, this token and this moment. Refuses with the `proof_…` rejections (401), each with a DPoP challenge. Adds the
proof. Does not: know whether the proof was used before; that is `replay`, without which no stack is built. Needs the
resource and the key of the sender. Must stand after: token; before intake, so that nobody's body is read unproved.

The URL that a proof is for is the public URL of the resource, as it was configured. For another path, such as where
HTTP+SSE takes messages, it is that path at the same place. The Host field, and what a proxy says of it, count for
nothing. Both sides are normalised (RFC 3986 §6.2.2, §6.2.3), the query and the fragment left out.

With `nonces`, each proof has to carry one of this server's (§9). A client learns it from the refusal, `proof_nonce`
with a `DPoP-Nonce` field, and from each response to a request whose nonce was not the current one (§8.2). Its own clock
still has to be right.

A request with a bearer token needs no proof; one that it brings along is not handed on, as no proof is.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import lru_cache
from typing import Any
from urllib.parse import quote

from mcp_guard import rejections
from mcp_guard.asgi import RawHeaders
from mcp_guard.challenges import challenges
from mcp_guard.check import Check
from mcp_guard.clock import Clock, SystemClock
from mcp_guard.facts import NO_PROOF, Proof, Resource, SenderKey
from mcp_guard.failures import ConfigurationError
from mcp_guard.layer import Admission, RequestHead
from mcp_guard.protocol import dpop, uris
from mcp_guard.protocol.authorization_header import DPOP
from mcp_guard.protocol.dpop import Fault, ProofError, Target, Window
from mcp_guard.protocol.nonces import Nonces
from mcp_guard.protocol.uris import PublicUrl
from mcp_guard.rejections import Kind, Rejection

PROOF_FIELD = b"dpop"
NONCE_FIELD = b"dpop-nonce"
NONCE_PURPOSE = "dpop-nonce of a resource"
HIDDEN = frozenset({PROOF_FIELD})
BEARER = Admission(facts=(NO_PROOF,), hide=HIDDEN)
PATH_CHARACTERS = "/!$&'()*+,;=:@"
"""What RFC 3986 §3.3 allows in a path beside unreserved characters."""

_KINDS: Mapping[Fault, Kind] = {
    Fault.FIELD: rejections.PROOF_REPEATED,
    Fault.MALFORMED: rejections.PROOF_MALFORMED,
    Fault.CLAIMS: rejections.PROOF_CLAIMS,
    Fault.TYPE: rejections.PROOF_TYPE,
    Fault.ALGORITHM: rejections.PROOF_ALGORITHM,
    Fault.SIGNATURE: rejections.PROOF_SIGNATURE,
    Fault.KEY: rejections.PROOF_KEY,
    Fault.METHOD: rejections.PROOF_METHOD,
    Fault.URL: rejections.PROOF_URL,
    Fault.NONCE: rejections.PROOF_NONCE,
    Fault.TIME: rejections.PROOF_TIME,
    Fault.ATH: rejections.PROOF_TOKEN,
    Fault.BINDING: rejections.PROOF_BINDING,
}


@dataclass(frozen=True)
class Dpop(Check):
    """`lifetime` is how long ago a proof may have been made, `leeway` how far ahead the client's clock may be.

    `nonces` are asked for when there are any; workers make them with the key ring they share, for `NONCE_PURPOSE`.
    """

    needs = (Resource, SenderKey)
    adds = (Proof,)

    lifetime: timedelta = timedelta(seconds=60)
    leeway: timedelta = timedelta(seconds=10)
    nonces: Nonces | None = None
    clock: Clock = field(default_factory=SystemClock)

    _window: Window = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not timedelta(seconds=1) <= self.lifetime <= timedelta(minutes=10):
            raise ConfigurationError(f"lifetime must be from one second to 10 minutes, not {self.lifetime}")
        if not timedelta(0) <= self.leeway <= timedelta(minutes=5):
            raise ConfigurationError(f"leeway must be between 0 and 5 minutes, not {self.leeway}")
        object.__setattr__(self, "_window", Window(self.lifetime.total_seconds(), self.leeway.total_seconds()))

    @property
    def owes(self) -> Sequence[type[Any]]:
        return (Proof,)

    async def admit(self, request: RequestHead) -> Admission:
        sender = request.fact(SenderKey)
        if sender.thumbprint is None:
            return BEARER
        now = self.clock.wall()
        values = request.values(PROOF_FIELD)
        if not values:
            raise self._refusal(request, rejections.PROOF_MISSING, "no DPoP field was sent", now)
        try:
            proof = dpop.parse(values)
            target = Target(request.method, public_url(request), sender.token_digest, sender.thumbprint)
            dpop.check(proof, target, now, self._window, self._judging(now))
        except ProofError as fault:
            raise self._refusal(request, _KINDS[fault.fault], fault.reason, now) from None
        expires = proof.issued_at + self._window.lifetime_seconds
        found = Proof(proof.thumbprint, proof.digest, proof.issued_at, expires)
        return Admission(facts=(found,), hide=HIDDEN, response_headers=self._renewed(proof.nonce, now))

    def _judging(self, now: float) -> Callable[[str], bool] | None:
        nonces = self.nonces
        return None if nonces is None else lambda nonce: nonces.accepts(nonce, now)

    def _renewed(self, nonce: str | None, now: float) -> RawHeaders:
        """The field that hands out the current nonce, when it is not the one that was presented."""
        if self.nonces is None:
            return []
        current = self.nonces.current(now)
        return [] if nonce == current else [(NONCE_FIELD, current.encode())]

    def _refusal(self, request: RequestHead, kind: Kind, reason: str, now: float) -> Rejection:
        resource = request.fact(Resource)
        headers = challenges(resource.url, resource.scopes, (DPOP,), kind)
        if kind is rejections.PROOF_NONCE:
            headers = [*headers, *self._renewed(None, now)]
        return kind.because(reason, headers)


def public_url(request: RequestHead) -> str:
    """The URL under which clients know what the request is for, in the form of `uris.normalised`."""
    resource = request.fact(Resource)
    known, place = _places(resource.url, resource.path)
    if resource.path in (request.routed_path, request.path):
        return known
    return uris.normalised(f"{place}{quote(request.routed_path, safe=PATH_CHARACTERS)}")


@lru_cache(256)
def _places(url: str, path: str) -> tuple[str, str]:
    """The URL of a resource, and where the paths beside it are found: below what a proxy takes off, if it does."""
    public = PublicUrl.parse(url, setting="resources")
    return uris.normalised(url), f"{public.origin}{public.path.removesuffix(path)}"
