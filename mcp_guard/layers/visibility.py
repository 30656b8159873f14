"""Shows each caller the tools, prompts, resources and resource templates that it may use, and no others.

Decides: which entries of a list go out, by the scopes of the caller and the policy of the resource. Refuses with
`guard_fault` (503): a list that cannot be read, of which nothing goes out. Does not: refuse a use (`scopes`); hold a
stream up. Needs the principal and the resource. Must stand after: token.

A list is what a result has in the place where the answer to `tools/list`, `prompts/list`, `resources/list` or
`resources/templates/list` has it. The id of the result does not matter: an answer may go out on the stream of another
request, as over HTTP+SSE, when a stream is resumed, or where a client uses an id twice. An entry without a name is
hidden from whoever lacks any scope of its kind, and a template when all of its URIs are. Where lists are not the same
for everybody, none goes out as one that shared caches may keep (MCP 2026-07-28 server/utilities/caching).
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from mcp_guard.check import Check
from mcp_guard.facts import Principal, Resource
from mcp_guard.layer import ADMITTED, Admission, RequestHead
from mcp_guard.messages import MessageRewrite
from mcp_guard.protocol.scope_policy import LISTS, Rules, rules_of


@dataclass(frozen=True)
class Visibility(Check):
    """No settings: what may be used is said in the resource. Without a policy there, nothing is looked at."""

    needs = (Principal, Resource)

    async def admit(self, request: RequestHead) -> Admission:
        rules = rules_of(request.fact(Resource))
        if not rules.parts:
            return ADMITTED
        return Admission(rewrite=_Rewrite(rules=rules, granted=request.fact(Principal).scopes))


@dataclass(eq=False)
class _Rewrite(MessageRewrite):
    """Takes out of lists what a caller with the scopes `granted` may not use."""

    marks: ClassVar[tuple[bytes, ...]] = tuple(f'"{listed.member}"'.encode() for listed in LISTS.values())

    rules: Rules
    granted: frozenset[str]

    async def message(self, message: dict[str, Any]) -> dict[str, Any] | None:
        result = message.get("result")
        if not isinstance(result, dict):
            return None
        shown: dict[str, object] = {}
        for listed in LISTS.values():
            entries = result.get(listed.member)
            if isinstance(entries, list):
                lacking = [self.rules.missing(self.rules.entry(listed, entry), self.granted) for entry in entries]
                shown[listed.member] = [entry for entry, lacks in zip(entries, lacking, strict=True) if not lacks]
        if shown and "cacheScope" in result:
            shown["cacheScope"] = "private"
        changed = {**result, **shown}
        return None if changed == result else {**message, "result": changed}
