"""The `requestState` of multi round-trip requests, sealed (MCP 2026-07-28 basic/patterns/mrtr).

A client hands the state of an unfinished request back with its retry; until then it is in the hands of whoever may want
to change it, read it, or use it elsewhere. A seal is the base64url text (RFC 4648 §5, no padding) of the state, when it
was sealed, when it expires and a random identifier, encrypted and authenticated under the keys that the workers share.
What it is bound to is authenticated with it and not in it: the principal, the audience, the method, the name, and a
digest of the other params. A seal for anything else cannot be told from a forged one.

Two params are the same when their JSON is, whatever the order of members, the white space and the escapes. Numbers are
the same when they are of one kind and equal: 1.0 and 1e0 are, 1 and 1.0 are not. What changes with a retry is left out:
`_meta`, `inputResponses` and `requestState`.
"""

import hashlib
import json
import secrets
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from mcp_guard.facts import Principal, Resource, RpcMessage
from mcp_guard.keyring import NONCE_BYTES, TAG_BYTES, KeyRing
from mcp_guard.protocol import b64url

METHODS: Final = frozenset({"tools/call", "prompts/get", "resources/read"})
"""The methods that may answer with an unfinished result (basic/patterns/mrtr §Supported Requests)."""
MEMBER: Final = "requestState"
NOT_BOUND: Final = frozenset({MEMBER, "_meta", "inputResponses"})

MAX_STATE_BYTES: Final = 64 * 1024
"""The longest state of an app, in UTF-8."""

_PURPOSE = "request-state"
_HEAD = struct.Struct(">dd16s")
_FOLDED = MEMBER.casefold()
_MAX_SEAL_CHARACTERS = -(-4 * (NONCE_BYTES + _HEAD.size + MAX_STATE_BYTES + TAG_BYTES) // 3)

Binding: TypeAlias = tuple[bytes, ...]
"""What a seal is bound to."""


class StateError(ValueError):
    """A state cannot be sealed or opened. `reason` says why and quotes nothing of it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Opened:
    """A state of the app. `issued` and `expires` are in seconds since 1970; `identifier` is random, of 16 bytes."""

    state: str
    issued: float
    expires: float
    identifier: bytes


def binding(principal: Principal, resource: Resource, message: RpcMessage) -> Binding:
    """What the state of this request is bound to."""
    bound = {name: value for name, value in message.params.items() if name not in NOT_BOUND}
    canonical = json.dumps(bound, sort_keys=True, separators=(",", ":"))
    what = json.dumps([message.method, message.name])
    return (principal.owner, resource.url.encode(), what.encode(), hashlib.sha256(canonical.encode()).digest())


def is_state(name: str) -> bool:
    """Whether a member of params is `requestState`, or a name that a lenient reader takes for it."""
    return name.replace("_", "").casefold() == _FOLDED


def presented(params: Mapping[str, Any]) -> str | None:
    """The seal in the params of a request, None when there is none.

    Raises:
        StateError: it is no text, or it is under a name that a lenient reader takes for `requestState`.
    """
    for name in params:
        if name != MEMBER and is_state(name):
            raise StateError("a member of params is requestState in another spelling")
    if MEMBER not in params:
        return None
    found = params[MEMBER]
    if not isinstance(found, str):
        raise StateError("requestState is no text")
    return found


def seal(ring: KeyRing, state: str, bound: Binding, *, issued: float, expires: float) -> str:
    """The seal of an app's state.

    Raises:
        StateError: the state is longer than `MAX_STATE_BYTES`.
    """
    # A lone surrogate, which JSON can carry, comes back as it was.
    content = state.encode("utf-8", "surrogatepass")
    if len(content) > MAX_STATE_BYTES:
        raise StateError(f"the app's requestState is longer than {MAX_STATE_BYTES} bytes")
    head = _HEAD.pack(issued, expires, secrets.token_bytes(16))
    return b64url.encode(ring.seal(_PURPOSE, head + content, *bound))


def unseal(ring: KeyRing, text: str, bound: Binding, *, now: float) -> Opened:
    """What was sealed with this binding. `now` is in seconds since 1970.

    Raises:
        StateError: `text` is no seal, or one of another key or binding, or it has expired.
    """
    if len(text) > _MAX_SEAL_CHARACTERS:
        raise StateError("requestState is longer than any seal")
    try:
        sealed = b64url.decode(text)
    except b64url.Base64Error:
        raise StateError("requestState is no seal") from None
    content = ring.open(_PURPOSE, sealed, *bound)
    if content is None:
        raise StateError("requestState was sealed by another key, principal or request, or it was changed")
    issued, expires, identifier = _HEAD.unpack_from(content)
    if now >= expires:
        raise StateError(f"requestState expired {now - expires:.0f} s ago")
    return Opened(content[_HEAD.size :].decode("utf-8", "surrogatepass"), issued, expires, identifier)


def splice(body: bytes, text: str, state: str) -> bytes:
    """A request's body with `state` in place of the seal `text`, and otherwise byte for byte as it was.

    Raises:
        StateError: the seal is not there once and as plain text, so that its place cannot be told.
    """
    quoted = f'"{text}"'.encode()
    if body.count(quoted) != 1:
        raise StateError("requestState does not stand in the body once and without escapes")
    spliced = body.replace(quoted, json.dumps(state).encode())
    if json.loads(spliced)["params"].get(MEMBER) != state:
        raise StateError("requestState is written with escapes, and its text stands elsewhere")
    return spliced
