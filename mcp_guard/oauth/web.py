"""Requests and responses of the endpoints: just enough of HTTP, with bounds, over ASGI."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from ipaddress import ip_address

import anyio

from mcp_guard.asgi import Receive, Scope, Send
from mcp_guard.events import Event
from mcp_guard.facts import ClientAddress, facts_of
from mcp_guard.layer import BodyTooLarge, ClientDisconnected
from mcp_guard.rejections import Rejection

BODY_DEADLINE = timedelta(seconds=15)
"""How long a body may take to arrive."""

NO_STORE = (b"cache-control", b"no-store")

HeaderList = Sequence[tuple[bytes, bytes]]


class BodyTooSlow(Exception):
    """The body did not arrive within `BODY_DEADLINE`."""


class Request:
    """A request as the endpoints see it; its header fields are copied before the body is read."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.query: bytes = scope.get("query_string", b"")
        self.headers: list[tuple[bytes, bytes]] = list(scope["headers"])
        self.address = _address(scope)
        self._scope = scope
        self._receive = receive

    def note(self, refusal: Rejection) -> None:
        """Tell the layers further out, the audit above all, why the request was refused."""
        facts_of(self._scope).setdefault(Rejection, refusal)

    def report(self, event: Event) -> None:
        """Tell the audit what was done for whom."""
        facts_of(self._scope)[Event] = event

    def values(self, name: bytes) -> list[bytes]:
        """Every value of the field `name` (lower case), in order."""
        return [value for key, value in self.headers if key == name]

    def media_type(self) -> str:
        """The media type without parameters, in lower case; empty when there is none or more than one."""
        values = self.values(b"content-type")
        return values[0].decode("latin-1").partition(";")[0].strip().lower() if len(values) == 1 else ""

    async def body(self, limit_bytes: int) -> bytes:
        """The whole body.

        Raises:
            BodyTooLarge: as soon as more than `limit_bytes` have arrived.
            BodyTooSlow: it took longer than `BODY_DEADLINE`.
            ClientDisconnected: the client went away.
        """
        chunks: list[bytes] = []
        size = 0
        with anyio.move_on_after(BODY_DEADLINE.total_seconds()):
            while True:
                message = await self._receive()
                if message["type"] == "http.disconnect":
                    raise ClientDisconnected
                chunk: bytes = message.get("body", b"")
                size += len(chunk)
                if size > limit_bytes:
                    raise BodyTooLarge
                chunks.append(chunk)
                if not message.get("more_body", False):
                    return b"".join(chunks)
        raise BodyTooSlow


def _address(scope: Scope) -> ClientAddress:
    """The address a layer further out established, else the peer of the connection."""
    known: ClientAddress | None = facts_of(scope).get(ClientAddress)
    if known is not None:
        return known
    client = scope.get("client")
    try:
        return ClientAddress(ip_address(client[0]) if client else None)
    except ValueError:
        return ClientAddress(None)


@dataclass(frozen=True, slots=True)
class Response:
    """A whole response."""

    status: int
    body: bytes = b""
    headers: tuple[tuple[bytes, bytes], ...] = ()

    def with_headers(self, *headers: tuple[bytes, bytes]) -> "Response":
        """The same response with more header fields."""
        return replace(self, headers=(*self.headers, *headers))

    async def send(self, send: Send, *, head: bool) -> None:
        """Send it; for a HEAD request without its body (RFC 9110 §9.3.2)."""
        length = (b"content-length", str(len(self.body)).encode())
        await send({"type": "http.response.start", "status": self.status, "headers": [*self.headers, length]})
        await send({"type": "http.response.body", "body": b"" if head else self.body})


def json_response(
    members: Mapping[str, object], *, status: int = 200, headers: HeaderList = (), cache: bytes = b"no-store"
) -> Response:
    """A JSON document; not to be stored unless `cache` says otherwise."""
    body = json.dumps(members, ensure_ascii=True, separators=(",", ":")).encode()
    fixed = ((b"content-type", b"application/json"), (b"cache-control", cache))
    return Response(status, body, (*fixed, *headers))


def redirect_response(status: int, location: str) -> Response:
    """A redirect; 303 after a form was posted (RFC 9700 §4.12), 302 otherwise."""
    return Response(status, b"", (NO_STORE, (b"location", location.encode("ascii"))))
