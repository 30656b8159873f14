"""Judges the scopes of the principal, for the resource and for all that is asked of it (RFC 6750 §3.1).

Decides: whether the token grants every scope that the resource and all messages of the body need, or one that is
declared to imply it. Refuses with `insufficient_scope` (403); the challenge names every scope that the request needs,
those the token has included, so that one step up is enough even for a client that asks for nothing else. What another
implies is left out of it. Does not: read anything into a scope that is not declared; hide what may not be used
(`visibility`). Needs the principal, the resource and the call. Must stand after: token and intake.
"""

from dataclasses import dataclass

from mcp_guard import rejections
from mcp_guard.challenges import challenges, scheme_of
from mcp_guard.check import Check
from mcp_guard.facts import Call, Principal, Resource
from mcp_guard.layer import ADMITTED, Admission, RequestHead
from mcp_guard.protocol import scopes
from mcp_guard.protocol.scope_policy import rules_of


@dataclass(frozen=True)
class Scopes(Check):
    """No settings: what is needed is said in the resource. What its policy does not name needs nothing of its own."""

    needs = (Principal, Resource, Call)

    async def admit(self, request: RequestHead) -> Admission:
        resource, call = request.fact(Resource), request.fact(Call)
        rules = rules_of(resource)
        required = rules.call(call)
        lacking = rules.missing(required, request.fact(Principal).scopes)
        if not lacking:
            return ADMITTED
        kind = rejections.INSUFFICIENT_SCOPE
        named = scopes.minimal(required, rules.hierarchy)
        raise kind.because(
            f"the token lacks {scopes.render(lacking)}",
            challenges(resource.url, named, [scheme_of(request)], kind),
            request_id=call.request_id,
            data={"scope": scopes.render(named)},
        )
