"""Judges the scopes of the principal, for the resource and for each tool that is called (RFC 6750 §3.1).

Decides: whether the token grants every scope that the resource and all calls of the body need. Refuses with
`insufficient_scope` (403); the challenge names every scope that the request needs, those the token has included, so
that one step up is enough even for a client that asks for nothing else. Does not: read anything into a scope; one never
implies another. Needs the principal, the resource and the call. Must stand after: token and intake.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from mcp_guard import rejections
from mcp_guard.check import Check
from mcp_guard.facts import Call, Principal, Resource
from mcp_guard.layer import ADMITTED, Admission, RequestHead
from mcp_guard.protocol import scopes
from mcp_guard.protocol.authorization_header import bearer_challenge
from mcp_guard.protocol.metadata import well_known_url

TOOL_CALL = "tools/call"


@dataclass(frozen=True)
class Scopes(Check):
    """No settings: what is needed is said in the resource. A tool that it does not name needs nothing of its own."""

    needs = (Principal, Resource, Call)

    async def admit(self, request: RequestHead) -> Admission:
        resource = request.fact(Resource)
        call = request.fact(Call)
        required = needed(resource, call)
        granted = request.fact(Principal).scopes
        if required <= granted:
            return ADMITTED
        raise rejections.INSUFFICIENT_SCOPE.because(
            f"the token lacks {scopes.render(scopes.missing(required, granted))}",
            [(b"www-authenticate", _challenge(resource.url, required))],
            request_id=call.request_id,
            data={"scope": scopes.render(required)},
        )


def needed(resource: Resource, call: Call) -> frozenset[str]:
    """The scopes that a request needs. A tool call that names no tool needs what every tool does: it cannot be told."""
    if not resource.tool_scopes:
        return resource.scopes
    required = resource.scopes
    for message in call.messages:
        if message.method == TOOL_CALL:
            required |= _of_tool(resource.tool_scopes, message.name)
    return required


def _of_tool(tool_scopes: Mapping[str, frozenset[str]], name: str | None) -> frozenset[str]:
    if name is None:
        return frozenset().union(*tool_scopes.values())
    return tool_scopes.get(name, frozenset())


@lru_cache(1024)
def _challenge(url: str, required: frozenset[str]) -> bytes:
    kind = rejections.INSUFFICIENT_SCOPE
    return bearer_challenge(well_known_url(url), required, error=kind.error, error_description=kind.description)
