"""Tells a reverse proxy which worker holds a session, in the session id and in the message URL.

Decides: nothing. On the way out the `Mcp-Session-Id` gets the name of the worker in front, `<name>.<id>`, and the URL
in the `endpoint` event of HTTP+SSE the query parameter `mcp_route=<name>`; a proxy sends what carries them back to this
worker. On the way in both are taken away, so that the layers further in and the app see their own id and URL, byte for
byte. What has another name is left as it is, and is then unknown. Refuses: nothing. Must stand after: wire; before:
token and session.

The name is a hint and no credential: whose a session is, is decided further in. Where an affinity layer carries a
request that arrived at the wrong worker, the other workers are named in `others`: what has their names is known here
too, and its response keeps the name that it came with.
"""

import re
from dataclasses import dataclass, field

from mcp_guard.asgi import RawHeaders
from mcp_guard.check import Check
from mcp_guard.failures import ConfigurationError
from mcp_guard.layer import Admission, RequestHead
from mcp_guard.messages import is_event_stream
from mcp_guard.protocol.event_stream import MAX_FIRST_EVENT_BYTES, Blocks, data_of, read_fields

SESSION_FIELD = b"mcp-session-id"
PARAMETER = b"mcp_route="
NAME = re.compile(r"[a-z0-9-]{1,32}")
_DATA = re.compile(rb"(?:\A|(?<=[\r\n]))data:[^\r\n]*")


@dataclass(frozen=True)
class Route(Check):
    """`name` is this worker's, known to the proxy: 1 to 32 of lower case letters, digits and hyphens.

    `others` are the names of workers to which an affinity layer carries.
    """

    name: str
    others: frozenset[str] = frozenset()
    names: frozenset[bytes] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        for setting, name in [("name", self.name), *(("others", other) for other in self.others)]:
            if NAME.fullmatch(name) is None:
                raise ConfigurationError(f"{setting}: {name!r} must be 1 to 32 of a-z, 0-9 and hyphens")
        object.__setattr__(self, "names", frozenset(name.encode() for name in (self.name, *self.others)))

    async def admit(self, request: RequestHead) -> Admission:
        scope: dict[str, object] = {}
        route = self.name.encode()
        if SESSION_FIELD in request.fields:
            name, dot, _ = request.fields[SESSION_FIELD].partition(b".")
            if dot and name in self.names:
                route = name
            scope["headers"] = [self._without(pair) for pair in request.headers]
        query, _, last = request.query.rpartition(b"&")
        if last.startswith(PARAMETER) and last.removeprefix(PARAMETER) in self.names:
            scope["query_string"] = query
        return Admission(scope=scope, rewrite=_Named(route))

    def _without(self, pair: tuple[bytes, bytes]) -> tuple[bytes, bytes]:
        """The field without the name of a worker in it."""
        name, dot, handle = pair[1].partition(b".")
        return (SESSION_FIELD, handle) if pair[0] == SESSION_FIELD and dot and name in self.names else pair


@dataclass(eq=False, slots=True)
class _Named:
    """Names the worker in one response."""

    name: bytes
    wants_body: bool = False
    blocks: Blocks = field(default_factory=Blocks)

    def on_start(self, status: int, headers: RawHeaders) -> RawHeaders:
        self.wants_body = status == 200 and is_event_stream(headers)
        return [
            (name, self.name + b"." + value) if name.lower() == SESSION_FIELD else (name, value)
            for name, value in headers
        ]

    async def on_body(self, chunk: bytes, more: bool) -> bytes:
        """The first event is looked at when it is whole; whatever follows goes out as it is."""
        passed = [self._event(block) for block in self.blocks.feed(chunk)]
        if not self.wants_body or not more or len(self.blocks.pending) > MAX_FIRST_EVENT_BYTES:
            self.wants_body = False
            passed.append(self.blocks.rest())
        return b"".join(passed)

    def _event(self, block: bytes) -> bytes:
        fields = read_fields(block)
        if not self.wants_body or data_of(fields) is None:
            return block
        self.wants_body = False
        if (b"event", b"endpoint") not in fields:
            return block
        return _DATA.sub(lambda found: self._url(found.group()), block, count=1)

    def _url(self, line: bytes) -> bytes:
        """The line of data with the parameter in its URL, at the end of the query."""
        url, hash_mark, fragment = line.rstrip(b" ").partition(b"#")
        separator = b"&" if b"?" in url else b"?"
        return url + separator + PARAMETER + self.name + hash_mark + fragment
