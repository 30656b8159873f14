"""Asks the sender of a bound token for the client certificate that the token is bound to (RFC 8705 §3).

Decides: whether a request whose token is bound to a certificate came over a connection on which the client proved to
have that very certificate, and whether the certificate is in force at this moment. Refuses with the `certificate_…`
rejections (401), each with a challenge. Does not: ask whose certificate it is, nor who signed it; that is for whoever
ends TLS. Needs the resource, the certificate that the token names, and that of the connection. Must stand after: proxy,
which knows whether a proxy ends TLS and may say whose certificate it saw; token.

A request with a token that is bound to none needs no certificate, and one that it has makes no difference. A connection
outlives a certificate: its time is looked at with each request.
"""

from dataclasses import dataclass, field

from mcp_guard import rejections
from mcp_guard.challenges import challenges, scheme_of
from mcp_guard.check import Check
from mcp_guard.clock import Clock, SystemClock
from mcp_guard.facts import Resource, SenderCertificate
from mcp_guard.layer import ADMITTED, Admission, RequestHead
from mcp_guard.protocol.client_certificate import ClientCertificate
from mcp_guard.rejections import Kind, Rejection
from mcp_guard.secret import constant_time_equals


@dataclass(frozen=True)
class Certificate(Check):
    """`clock` says whether a certificate is in force; the times in it are taken as they are, without leeway."""

    needs = (Resource, SenderCertificate, ClientCertificate)

    clock: Clock = field(default_factory=SystemClock)

    async def admit(self, request: RequestHead) -> Admission:
        wanted = request.fact(SenderCertificate).thumbprint
        if wanted is None:
            return ADMITTED
        shown, not_before, not_after = request.fact(ClientCertificate)
        if shown is None:
            raise refusal(request, rejections.CERTIFICATE_MISSING, "the connection has no client certificate")
        if not constant_time_equals(shown, wanted):
            raise refusal(request, rejections.CERTIFICATE_BINDING, "the token is bound to another certificate")
        if not not_before <= self.clock.wall() <= not_after:
            raise refusal(request, rejections.CERTIFICATE_TIME, "the client certificate is not in force")
        return ADMITTED


def refusal(request: RequestHead, kind: Kind, reason: str) -> Rejection:
    """The refusal, with the challenge of the scheme that the token came by."""
    resource = request.fact(Resource)
    return kind.because(reason, challenges(resource.url, resource.scopes, (scheme_of(request),), kind))
