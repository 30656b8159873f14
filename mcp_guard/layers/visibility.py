"""Shows each caller the tools, prompts, resources and resource templates that it may use, and no others.

Decides: which entries of a list go out, by the scopes of the caller and the policy of the resource. Refuses with
`guard_fault` (503): a list that cannot be read, of which nothing goes out. Does not: refuse a use (`scopes`); hold a
stream up. Needs the principal, the resource and the call. Must stand after: token and intake.

A list is the answer to `tools/list`, `prompts/list`, `resources/list` or `resources/templates/list`. An answer is known
by the id of its request, and one that answers no request of this exchange, as on the stream of another transport or one
that is resumed, by what it holds. An entry without a name is hidden from whoever lacks any scope of its kind, and a
template when all of its URIs are. Where lists are not the same for everybody, none goes out as one that shared caches
may keep (MCP 2026-07-28 server/utilities/caching).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from mcp_guard import rejections
from mcp_guard.check import Check
from mcp_guard.facts import Call, Principal, Resource
from mcp_guard.layer import ADMITTED, Admission, RequestHead
from mcp_guard.messages import MessageRewrite
from mcp_guard.protocol.scope_policy import LISTS, Listed, Rules, rules_of


@dataclass(frozen=True)
class Visibility(Check):
    """No settings: what may be used is said in the resource. Without a policy there, nothing is looked at."""

    needs = (Principal, Resource, Call)

    async def admit(self, request: RequestHead) -> Admission:
        rules = rules_of(request.fact(Resource))
        if not rules.parts:
            return ADMITTED
        asked = _lists_by_id(request.fact(Call))
        return Admission(rewrite=_Rewrite(rules=rules, granted=request.fact(Principal).scopes, asked=asked))


Known = tuple[type, object]
"""An id with its type: 1, 1.0 and True are equal in Python."""


def _lists_by_id(call: Call) -> dict[Known, frozenset[Listed]]:
    """The lists that each request asks for. Of requests that share an id, all."""
    asked: dict[Known, frozenset[Listed]] = {}
    for message in call.messages:
        known = (type(message.id), message.id)
        lists = frozenset(listed for method, listed in LISTS.items() if method == message.method)
        asked[known] = asked.get(known, frozenset()) | lists
    return asked


@dataclass(eq=False)
class _Rewrite(MessageRewrite):
    """Takes out of lists what the caller may not use; `asked` are the lists by the ids of requests."""

    marks: ClassVar[tuple[bytes, ...]] = tuple(f'"{listed.member}"'.encode() for listed in LISTS.values())

    rules: Rules
    granted: frozenset[str]
    asked: Mapping[Known, frozenset[Listed]]

    async def message(self, message: dict[str, Any]) -> dict[str, Any] | None:
        result = message.get("result")
        if not isinstance(result, dict):
            return None
        lists = self._lists(message.get("id"), result)
        shown: dict[str, object] = {listed.member: self._shown(listed, result[listed.member]) for listed in lists}
        if not shown:
            return None
        if "cacheScope" in result:
            shown["cacheScope"] = "private"
        changed = {**result, **shown}
        return None if changed == result else {**message, "result": changed}

    def _lists(self, known: object, result: Mapping[str, Any]) -> list[Listed]:
        """The lists that a result holds: those that its request asked for, or all when there is no such request."""
        asked = self.asked.get((type(known), known)) if isinstance(known, str | int) else None
        if asked is None:
            return [listed for listed in LISTS.values() if isinstance(result.get(listed.member), list)]
        return [listed for listed in asked if listed.member in result]

    def _shown(self, listed: Listed, entries: object) -> list[object]:
        """The entries that the caller may use.

        Raises:
            Rejection: they are no list.
        """
        if not isinstance(entries, list):
            raise rejections.GUARD_FAULT.because(f"the app answers {listed.member} that are no list")
        return [entry for entry in entries if not self.rules.missing(self.rules.entry(listed, entry), self.granted)]
