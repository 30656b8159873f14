"""What a call needs by the policy of its resource (MCP 2026-07-28 basic/authorization §Step-Up Authorization Flow).

A pattern is a name that is compared exactly, or the beginning of names with a `*` after it; `*` alone is every name.
Case counts. Of several patterns that match, everything is needed that any of them asks for. What cannot be told needs
what all patterns of its kind do. URIs are compared in their plain spelling alone; see `resource_uris`.
"""

from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, NamedTuple, Self

from mcp_guard.facts import Call, Resource, RpcMessage
from mcp_guard.failures import ConfigurationError
from mcp_guard.protocol import resource_uris, scopes
from mcp_guard.protocol.scopes import NONE, Hierarchy

ANY: Final = "*"


@dataclass(frozen=True, slots=True)
class Patterns:
    """The scopes that names need: `exact` ones, and those with one of `beginnings`; `everything` is all of it."""

    exact: Mapping[str, frozenset[str]]
    beginnings: tuple[tuple[str, frozenset[str]], ...]
    everything: frozenset[str]

    @classmethod
    def of(
        cls,
        kind: str,
        policy: Mapping[str, frozenset[str]],
        *,
        is_name: Callable[[str], bool] = bool,
        is_beginning: Callable[[str], bool] = bool,
    ) -> Self:
        """The patterns of one kind, which is named in what is raised.

        Raises:
            ConfigurationError: a pattern, or a scope of one, cannot be one.
        """
        for pattern, needed in policy.items():
            text = pattern.removesuffix(ANY)
            fits = is_name(text) if text == pattern else not text or is_beginning(text)
            if ANY in text or not fits:
                raise ConfigurationError(
                    f"{kind}: {pattern!r} must be a name, or the beginning of names with one * after it"
                )
            check_scopes(f"{kind}: {pattern!r}", needed)
        return cls(
            {pattern: needed for pattern, needed in policy.items() if not pattern.endswith(ANY)},
            tuple((pattern[:-1], needed) for pattern, needed in policy.items() if pattern.endswith(ANY)),
            NONE.union(*policy.values()),
        )

    def name(self, name: object) -> frozenset[str]:
        """What a name needs; everything when it is none."""
        return self.any_of((name,)) if isinstance(name, str) else self.everything

    def any_of(self, names: Iterable[str]) -> frozenset[str]:
        """What something needs that goes by each of these names."""
        required = NONE
        for name in names:
            required |= self.exact.get(name, NONE)
            for beginning, needed in self.beginnings:
                if name.startswith(beginning):
                    required |= needed
        return required


class Uris(Patterns):
    """The scopes that the URIs of resources need."""

    __slots__ = ()

    def uri(self, uri: object) -> frozenset[str]:
        """What a URI needs; everything when it is not plain."""
        names = resource_uris.spellings(uri) if isinstance(uri, str) else None
        return self.any_of(names) if names else self.everything

    def template(self, template: object) -> frozenset[str]:
        """What every URI of a template (RFC 6570) needs; everything when they cannot be told."""
        if not isinstance(template, str):
            return self.everything
        if "{" not in template:
            return self.uri(template)
        begins = resource_uris.beginning(template)
        if begins is None:
            return self.everything
        return NONE.union(*(needed for beginning, needed in self.beginnings if begins.startswith(beginning)))

    def reach(self, reference: object) -> frozenset[str]:
        """What any URI of a template needs, all together; of a URI, what it needs."""
        begins = resource_uris.beginning(reference) if isinstance(reference, str) and "{" in reference else None
        if begins is None:
            return self.uri(reference)
        touched = [
            needed
            for name, needed in self.exact.items()
            if any(text.startswith(begins) for text in resource_uris.spellings(name))
        ]
        return self.template(reference).union(
            *touched, *(needed for beginning, needed in self.beginnings if beginning.startswith(begins))
        )


class Listed(NamedTuple):
    """Where a list has its entries, and the method that uses one of them by its `key`."""

    member: str
    key: str
    use: str


LISTS: Final[Mapping[str, Listed]] = {
    "tools/list": Listed("tools", "name", "tools/call"),
    "prompts/list": Listed("prompts", "name", "prompts/get"),
    "resources/list": Listed("resources", "uri", "resources/read"),
    "resources/templates/list": Listed("resourceTemplates", "uriTemplate", "resources/read"),
}


@dataclass(frozen=True, slots=True)
class Rules:
    """The policy of one resource, made for use: what all requests need, what each does, and what implies what.

    `parts` are the scopes that only some requests need.
    """

    always: frozenset[str]
    parts: frozenset[str]
    methods: Patterns
    tools: Patterns
    prompts: Patterns
    uris: Uris
    hierarchy: Hierarchy

    @property
    def everything(self) -> frozenset[str]:
        """All scopes that are spoken of."""
        return self.parts.union(self.always, self.hierarchy)

    def call(self, call: Call) -> frozenset[str]:
        """What a call needs: all of its messages, those without an id too."""
        if not self.parts:
            return self.always
        return self.always.union(*(self.message(one) for one in call.messages if one.method is not None))

    def message(self, message: RpcMessage) -> frozenset[str]:
        """What one request or notification needs, beside what all do."""
        return self.methods.name(message.method) | self._about(message)

    def entry(self, listed: Listed, entry: object) -> frozenset[str]:
        """What the use of an entry of a list needs, beside what all requests do."""
        name = entry.get(listed.key) if isinstance(entry, dict) else None
        return self.methods.name(listed.use) | self._listed(listed.member, name)

    def missing(self, required: Set[str], granted: Set[str]) -> frozenset[str]:
        """What a token that grants `granted` lacks of `required`."""
        return scopes.missing(required, granted, self.hierarchy)

    def _listed(self, member: str, name: object) -> frozenset[str]:
        match member:
            case "tools":
                return self.tools.name(name)
            case "prompts":
                return self.prompts.name(name)
            case "resources":
                return self.uris.uri(name)
        return self.uris.template(name)

    def _about(self, message: RpcMessage) -> frozenset[str]:
        match message.method:
            case "tools/call":
                return self.tools.name(message.name)
            case "prompts/get":
                return self.prompts.name(message.name)
            case "resources/read" | "resources/subscribe" | "resources/unsubscribe":
                return self.uris.uri(message.name)
            case "completion/complete":
                return self._reference(message.params.get("ref"))
            case "subscriptions/listen":
                return self._subscription(message.params.get("notifications"))
        return NONE

    def _reference(self, reference: object) -> frozenset[str]:
        """What completions for a prompt or for a resource need."""
        told = reference if isinstance(reference, dict) and not _is_respelled(reference, _REFERENCE) else {}
        if told.get("type") == "ref/prompt":
            return self.prompts.name(told.get("name"))
        if told.get("type") == "ref/resource":
            return self.uris.reach(told.get("uri"))
        return self.prompts.everything | self.uris.everything

    def _subscription(self, wanted: object) -> frozenset[str]:
        """What the resources need of which a subscription (2026-07-28) wants to hear."""
        if wanted is None:
            return NONE
        if not isinstance(wanted, dict) or _is_respelled(wanted, _SUBSCRIPTION):
            return self.uris.everything
        listed = wanted.get("resourceSubscriptions") or ()
        return NONE.union(*map(self.uris.uri, listed)) if isinstance(listed, list | tuple) else self.uris.everything


_REFERENCE: Final = {"type": "type", "name": "name", "uri": "uri"}
_SUBSCRIPTION: Final = {"resourcesubscriptions": "resourceSubscriptions"}


def _is_respelled(members: Mapping[str, Any], judged: Mapping[str, str]) -> bool:
    """Whether a member is one of `judged` in a spelling that a lenient reader takes for it."""
    return any(judged.get(name.replace("_", "").casefold(), name) != name for name in members)


@lru_cache(256)
def rules_of(resource: Resource) -> Rules:
    """The rules for a resource.

    Raises:
        ConfigurationError: a pattern or scope of its policy cannot be one; scopes imply each other in a circle, or one
            that nothing needs.
    """
    policy = resource.policy
    kinds = (policy.methods, policy.tools, policy.prompts, policy.uris)
    rules = Rules(
        always=resource.scopes,
        parts=NONE.union(*(needed for patterns in kinds for needed in patterns.values())),
        methods=Patterns.of("methods", policy.methods),
        tools=Patterns.of("tools", policy.tools),
        prompts=Patterns.of("prompts", policy.prompts),
        uris=Uris.of("uris", policy.uris, is_name=resource_uris.is_plain, is_beginning=resource_uris.is_beginning),
        hierarchy=_hierarchy(policy.implies),
    )
    known = rules.parts.union(resource.scopes, policy.implies)
    unknown = NONE.union(*policy.implies.values()) - known
    if unknown:
        raise ConfigurationError(f"implies: {', '.join(sorted(unknown))}: nothing needs it, and it implies nothing")
    return rules


def _hierarchy(implies: Hierarchy) -> Hierarchy:
    for scope, implied in implies.items():
        check_scopes("implies", {scope})
        check_scopes(f"implies: {scope!r}", implied)
    try:
        return scopes.closed(implies)
    except scopes.CircleError as fault:
        raise ConfigurationError(f"implies: {fault}: each would imply itself") from None


def check_scopes(where: str, needed: Iterable[str]) -> None:
    """Refuse what cannot be a scope.

    Raises:
        ConfigurationError: naming `where` it stands.
    """
    for scope in needed:
        if not scopes.is_scope_token(scope):
            raise ConfigurationError(f"{where}: {scope!r} is not a scope (RFC 6749 §3.3)")
