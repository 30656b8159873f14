"""Lets WebSockets through to the app, which nothing else does.

Decides: whether a principal may use a socket at all. Refuses with `token_bound` (401) tokens that are bound to a key
(RFC 9449): a proof is for one request, and no message on a socket can carry one. Does not: judge handshakes and
messages, which pass every layer of the stack, a handshake as the GET that it is and each message as a POST. Needs the
principal and the resource. Must stand after: token; before: intake, so that nothing else is asked for such a token.

Only the paths of `resources` open sockets. A stack opens none without this layer; a resource that takes bound tokens
alone cannot have any.
"""

from dataclasses import dataclass, field

from mcp_guard import rejections
from mcp_guard.challenges import challenges
from mcp_guard.check import Opening
from mcp_guard.clock import Clock, SystemClock
from mcp_guard.facts import Principal, Resource, Socket
from mcp_guard.failures import ConfigurationError
from mcp_guard.handshake import Handshakes
from mcp_guard.layer import ADMITTED, Admission, RequestHead
from mcp_guard.pipeline import Pipeline
from mcp_guard.protocol.authorization_header import BEARER
from mcp_guard.sockets import SocketTerms


@dataclass(frozen=True)
class WebSocket(Opening):
    """`resources` are those of the token layer; `terms` say how sockets are opened and what is taken on them."""

    needs = (Principal, Resource)

    resources: tuple[Resource, ...]
    terms: SocketTerms = field(default_factory=SocketTerms)
    clock: Clock = field(default_factory=SystemClock)

    def __post_init__(self) -> None:
        if not self.resources:
            raise ConfigurationError("resources: name at least one")
        for resource in self.resources:
            if resource.dpop == "required":
                raise ConfigurationError(
                    f"resources: dpop is required by {resource.url!r}, and messages on a WebSocket carry no proofs"
                )

    def handshakes(self, outer: Pipeline, inner: Pipeline) -> Handshakes:
        return Handshakes(self.terms, frozenset(one.path for one in self.resources), self.clock, outer, inner)

    async def admit(self, request: RequestHead) -> Admission:
        if request.get(Socket) is None or request.fact(Principal).confirmation.jkt is None:
            return ADMITTED
        resource, kind = request.fact(Resource), rejections.TOKEN_BOUND
        fields = challenges(resource.url, resource.scopes, [BEARER], kind)
        raise kind.because("a token that is bound to a key came for a WebSocket", fields)
