"""Binds the handles that an app gives out in results of its tools to the principal that they were given to.

Decides: whether every declared handle in the arguments of a tool is the caller's own. Refuses with `handle_not_found`:
another's handle is answered exactly like one that never existed, by a JSON-RPC error in a response with status 200,
which tells no client that its session has ended; only the audit tells them apart. Does not: find handles that are not
declared, authenticate (a handle is never a credential), nor make handles hard to guess. Needs the principal, the
resource and the call. Must stand after: token, intake; beside the other layers that share a store call.

A handle is a string or an integer; 7 and "7" are the same handle, because apps convert them. It is bound before the
client can see it, in the result that answers the call in the same exchange; it is used with the tools declared. A
handle that is given out again to its owner lives on; a result with one that is bound to somebody else does not go out.
Where an argument is absent or null, nothing is used. A string where the path goes on is read as JSON, as servers read
it; one that is no JSON is refused.

Not seen are results on another stream than that of the call's own exchange (HTTP+SSE, a stream that is resumed), and
results that come through a task: a handle that was given out there is unknown when it is used.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, ClassVar, NamedTuple, TypeAlias

from mcp_guard import rejections
from mcp_guard.bindings import owner_prefix
from mcp_guard.check import StatefulCheck
from mcp_guard.facts import Call, MessageKind, Principal, Resource, RpcMessage
from mcp_guard.failures import ConfigurationError
from mcp_guard.keyring import KeyRing
from mcp_guard.layer import ADMITTED, Admission, RequestHead
from mcp_guard.messages import MessageRewrite
from mcp_guard.ownership import Ownership, Standing
from mcp_guard.protocol.json_path import JsonPath, PathError
from mcp_guard.protocol.strict_json import JsonError, loads
from mcp_guard.secret import digest, fingerprint
from mcp_guard.stores.base import Operation, Renew, Result

MAX_HANDLE_CHARACTERS = 1024
MAX_USED = 100
"""The most handles that one request may use."""
MAX_MINTED = 1000
"""The most handles that one result may give out."""
DEFAULT_TTL = timedelta(days=1)

Paths: TypeAlias = str | tuple[str, ...]
_KIND = re.compile(r"[a-z0-9_-]{1,64}")


class Place(NamedTuple):
    """Where a handle of one kind stands."""

    kind: str
    path: JsonPath


class Used(NamedTuple):
    """One handle that a request uses: its store key, and how it is named in the audit."""

    key: str
    name: str


@dataclass(frozen=True, kw_only=True)
class Handle:
    """One kind of handle: by tool, the JSON paths (RFC 9535) of where it is given out and where it is used.

    A path in `minted` begins at the result's `structuredContent` or, without one, at the JSON in its first text; a text
    that is no JSON is a string. A path in `used` begins at the arguments. `kind` is a name of up to 64 small letters,
    digits, hyphens and underscores.
    """

    kind: str
    minted: Mapping[str, Paths]
    used: Mapping[str, Paths]

    def __post_init__(self) -> None:
        if _KIND.fullmatch(self.kind) is None:
            raise ConfigurationError(f"kind must be small letters, digits, hyphens and underscores, not {self.kind!r}")
        if not self.minted or not self.used:
            raise ConfigurationError(f"handle {self.kind}: needs a tool in minted and one in used")

    def places(self, side: str) -> Iterator[tuple[str, Place]]:
        """The places in `minted` or `used`, each with its tool.

        Raises:
            ConfigurationError: a path cannot be read.
        """
        for tool, paths in getattr(self, side).items():
            for path in (paths,) if isinstance(paths, str) else paths:
                try:
                    yield tool, Place(self.kind, JsonPath.parse(path))
                except PathError as fault:
                    raise ConfigurationError(f"handle {self.kind}: {side}[{tool!r}] {path!r}: {fault}") from None


@dataclass(frozen=True, kw_only=True)
class Handles(StatefulCheck):
    """`handles` are the kinds of handle; `ttl` is how long one is remembered without being used.

    `ring` signs the records.
    """

    needs = (Principal, Resource, Call)

    ring: KeyRing
    handles: tuple[Handle, ...]
    ttl: timedelta = DEFAULT_TTL

    minted: Mapping[str, tuple[Place, ...]] = field(init=False, repr=False, compare=False)
    used: Mapping[str, tuple[Place, ...]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.ttl < timedelta(seconds=1):
            raise ConfigurationError(f"ttl must be at least one second, not {self.ttl}")
        kinds = [handle.kind for handle in self.handles]
        if not kinds or len(set(kinds)) != len(kinds):
            raise ConfigurationError("handles: name at least one kind, and each once")
        object.__setattr__(self, "minted", _by_tool(self.handles, "minted"))
        object.__setattr__(self, "used", _by_tool(self.handles, "used"))

    def ask(self, request: RequestHead) -> Sequence[Operation]:
        used = self._used(request)
        if not used:
            return ()
        prefix = owner_prefix(request.fact(Principal))
        return [Renew(one.key, prefix, self.ttl) for one in used]

    def answer(self, request: RequestHead, results: Sequence[Result]) -> Admission:
        if results:
            ownership = self.ownership(request.facts)
            for one, record in zip(self._used(request), results, strict=True):
                standing = ownership.standing(one.key, record)
                if standing is not Standing.OWN:
                    raise rejections.HANDLE_NOT_FOUND.because(f"{one.name} {standing}")
        calls: dict[str | int, tuple[Place, ...]] = {}
        for message in _tool_calls(request.fact(Call), self.minted):
            if message.kind is MessageKind.REQUEST and message.id is not None:
                calls[message.id] = (*calls.get(message.id, ()), *self.minted[message.name or ""])
        if not calls:
            return ADMITTED
        return Admission(rewrite=_Rewrite(self, request.facts, calls))

    def ownership(self, facts: Mapping[type, Any]) -> Ownership:
        """The caller before the records of the store."""
        return Ownership(self.store, self.ring, facts[Principal])

    def _used(self, request: RequestHead) -> list[Used]:
        """The handles that the request uses, each once.

        Raises:
            Rejection: there are too many, or one cannot be a handle.
        """
        used: dict[Used, None] = {}
        for message in _tool_calls(request.fact(Call), self.used):
            for kind, path in self.used[message.name or ""]:
                for value in path.select(message.params.get("arguments"), _inside):
                    if value is not None:
                        used[_use(request.fact(Resource), kind, value)] = None
        if len(used) > MAX_USED:
            raise rejections.HANDLE_NOT_FOUND.because(f"the request uses more than {MAX_USED} handles")
        return list(used)


def _by_tool(handles: Sequence[Handle], side: str) -> dict[str, tuple[Place, ...]]:
    places: dict[str, tuple[Place, ...]] = {}
    for handle in handles:
        for tool, place in handle.places(side):
            places[tool] = (*places.get(tool, ()), place)
    return places


def _tool_calls(call: Call, tools: Mapping[str, Any]) -> list[RpcMessage]:
    """The calls of these tools."""
    return [message for message in call.messages if message.method == "tools/call" and message.name in tools]


def key_of(resource: Resource, kind: str, handle: str) -> str:
    """The store key of a handle: the same handle at two resources, or of two kinds, is two handles."""
    return f"mcp:handle:{kind}:" + digest(f"{resource.url}\n{handle}")


def text_of(value: object) -> str | None:
    """A handle as text; None when the value cannot be one."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) and len(value) <= MAX_HANDLE_CHARACTERS else None


def _use(resource: Resource, kind: str, value: object) -> Used:
    text = text_of(value)
    if text is None:
        raise rejections.HANDLE_NOT_FOUND.because(f"{kind}: an argument is no handle, or too long")
    return Used(key_of(resource, kind, text), f"{kind} {fingerprint(text)}")


def _inside(text: str) -> object:
    """What a string holds that stands where an object or array is expected."""
    try:
        return loads(text.encode("utf-8", "surrogatepass"))
    except JsonError as fault:
        raise rejections.HANDLE_NOT_FOUND.because(f"a string in the way of a path {fault.reason}") from None


@dataclass(eq=False)
class _Rewrite(MessageRewrite):
    """Binds the handles in the results of calls; `calls` are their places, by the id of the request."""

    marks: ClassVar[tuple[bytes, ...]] = (b'"result"',)

    layer: Handles
    facts: Mapping[type, Any]
    calls: Mapping[str | int, tuple[Place, ...]]

    async def message(self, message: dict[str, Any]) -> dict[str, Any] | None:
        result, known = message.get("result"), message.get("id")
        if isinstance(result, dict) and isinstance(known, str | int) and known in self.calls:
            await self._bind(result, self.calls[known])
        return None

    async def _bind(self, result: Mapping[str, Any], places: Sequence[Place]) -> None:
        """Bind the handles of a result.

        Raises:
            Rejection: one is bound to another principal, or there are too many, or one is too long.
        """
        if result.get("isError") is True:
            return
        content = _content(result)
        values = [(kind, value) for kind, path in places for value in path.select(content)]
        if any(isinstance(value, str) and len(value) > MAX_HANDLE_CHARACTERS for _, value in values):
            raise rejections.GUARD_FAULT.because(f"a handle is longer than {MAX_HANDLE_CHARACTERS} characters")
        found = [(kind, text_of(value)) for kind, value in values]
        resource: Resource = self.facts[Resource]
        terms = {key_of(resource, kind, text): self.layer.ttl for kind, text in found if text is not None}
        if len(terms) > MAX_MINTED:
            raise rejections.GUARD_FAULT.because(f"a result gives out more than {MAX_MINTED} handles")
        if terms and await self.layer.ownership(self.facts).bind(terms, self.layer.ttl):
            raise rejections.GUARD_FAULT.because("the app gave out a handle that is bound to another principal")


def _content(result: Mapping[str, Any]) -> object:
    """What the paths into a result begin at."""
    structured = result.get("structuredContent")
    if structured is not None:
        return structured
    parts = result.get("content")
    for part in parts if isinstance(parts, list) else ():
        if isinstance(part, dict) and part.get("type") == "text":
            return _read(part.get("text"))
    return None


def _read(text: object) -> object:
    if not isinstance(text, str):
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
