"""Binds the event ids of a stream to its owner (MCP 2025-11-25 basic/transports §Resumability and Redelivery).

Decides: whether the event that a client resumes from was sent to it. Refuses with `event_not_found` (404): an event of
another principal or session is answered like one that never was. Does not: replay anything, nor know which events there
are; that is the app's part. Needs the principal, the resource and the call. Must stand after: token, intake and
session; before: whatever hands the request on.

Each `id` of an event stream goes out as `<the app's id>.<MAC>`, where the MAC is over the principal, the resource, the
session and the app's id. Otherwise the stream passes byte for byte, but for what follows the last complete event, which
is no event, and a byte order mark. A `Last-Event-ID` with the right MAC is handed on as the app's own id. No store is
asked: workers share the keys. A refusal ends the session, since 404 tells the client to begin another.

A client sends the id back in a header field, so an id that no field carries (visible ASCII, 1 to 1024 characters) is
taken out of its event: the client resumes from the one before. An empty id, which resets what the client remembers, is
left alone. Where there is no session, as in HTTP+SSE (2024-11-05), ids are bound to the principal and the resource.
Requests of 2026-07-28, which has no resumption, are not concerned.
"""

import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from mcp_guard import rejections
from mcp_guard.asgi import RawHeaders
from mcp_guard.check import Check
from mcp_guard.facts import Call, Principal, Resource, SessionHandle
from mcp_guard.keyring import KeyRing
from mcp_guard.layer import ADMITTED, Admission, RequestHead
from mcp_guard.messages import check_size, is_event_stream, readable
from mcp_guard.protocol import b64url
from mcp_guard.protocol.event_stream import Blocks

EVENT_FIELD = b"last-event-id"
SESSION_FIELD = b"mcp-session-id"
MAC_BYTES = 16
"""128 bits: nobody guesses one, and a guess costs a request."""
PURPOSE = "event-id"

_ID = re.compile(rb"(?:\A|(?<=[\r\n]))(id:[ ]?+)([^\r\n]+)")
_CARRIED = re.compile(rb"[\x21-\x7e]{1,1024}")
_BOUND = re.compile(rb"([\x21-\x7e]{1,1024})\.([A-Za-z0-9_-]{22})")


@dataclass(frozen=True, kw_only=True)
class EventIds(Check):
    """`ring` is shared by all workers."""

    needs = (Principal, Resource, Call)

    ring: KeyRing

    async def admit(self, request: RequestHead) -> Admission:
        if request.fact(Call).modern:
            return ADMITTED
        session = request.get(SessionHandle)
        binding = _Binding(self, request.fact(Principal).owner, request.fact(Resource).url.encode())
        known = b"" if session is None else session.value.encode("utf-8", "surrogatepass")
        rewrite = _Marking(binding, known)
        if EVENT_FIELD not in request.fields:
            return Admission(rewrite=rewrite)
        identifier = _opened(request.values(EVENT_FIELD), binding.keys(known))
        shown = [(name, identifier if name == EVENT_FIELD else value) for name, value in request.headers]
        return Admission(scope={"headers": shown}, rewrite=rewrite)


class _Binding(NamedTuple):
    """Whose events they are, but for the session, which the response may be the first to name."""

    layer: EventIds
    owner: bytes
    resource: bytes

    def keys(self, session: bytes) -> tuple[bytes, ...]:
        """The keys of the MACs of the events of one session, newest first."""
        return self.layer.ring.derive(PURPOSE, self.owner, self.resource, session)


def _mac(key: bytes, identifier: bytes) -> bytes:
    return hmac.digest(key, identifier, "sha256")[:MAC_BYTES]


def _opened(values: Sequence[bytes], keys: Sequence[bytes]) -> bytes:
    """The app's id that a client resumes from.

    Raises:
        Rejection: it is none of the client's own.
    """
    found = _BOUND.fullmatch(values[0]) if len(values) == 1 else None
    if found is None:
        raise rejections.EVENT_NOT_FOUND.because("the event id has no MAC")
    identifier, mac = found[1], found[2]
    if not any(hmac.compare_digest(mac, b64url.encode(_mac(key, identifier)).encode()) for key in keys):
        raise rejections.EVENT_NOT_FOUND.because("the event id is of another principal, session or key, or of nobody")
    return identifier


@dataclass(slots=True)
class _Marking:
    """A `Rewrite` that puts the MAC after each id of an event stream."""

    binding: _Binding
    session: bytes
    wants_body: bool = False
    key: bytes = b""
    blocks: Blocks = field(init=False)

    def on_start(self, status: int, headers: RawHeaders) -> RawHeaders:
        if not is_event_stream(headers):
            return headers
        kept = readable(headers)
        minted = [value for name, value in headers if name.lower() == SESSION_FIELD]
        self.key = self.binding.keys(self.session or b"".join(minted))[0]
        self.blocks, self.wants_body = Blocks(), True
        return kept

    async def on_body(self, chunk: bytes, more: bool) -> bytes:
        blocks = self.blocks.feed(chunk)
        check_size(len(self.blocks.pending))
        # What is left at the end is no event, so it has no id.
        return b"".join([_ID.sub(self._marked, block) for block in blocks])

    def _marked(self, line: re.Match[bytes]) -> bytes:
        name, identifier = line[1], line[2]
        if _CARRIED.fullmatch(identifier) is None:
            # A comment, because without the line the ends around it could become one.
            return b":"
        return name + identifier + b"." + b64url.encode(_mac(self.key, identifier)).encode()
