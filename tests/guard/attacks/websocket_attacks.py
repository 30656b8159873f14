"""Area ws: handshakes of WebSockets that must not be accepted, where the deployment opens WebSockets."""

import time
from collections.abc import Iterator

from tests.guard.attacks.corpus import Shot, attack
from tests.guard.attacks.deployment import Deployment
from tests.guard.attacks.raw import Request

UPGRADE = (
    (b"Connection", b"Upgrade"),
    (b"Upgrade", b"websocket"),
    (b"Sec-WebSocket-Version", b"13"),
    (b"Sec-WebSocket-Key", b"dGhlIHNhbXBsZSBub25jZQ=="),
)


def handshake(
    live: Deployment,
    token: str | None,
    *fields: tuple[bytes, bytes],
    target: bytes = b"/mcp",
    host: bytes | None = None,
) -> Request:
    """A handshake with this token in its field."""
    authorization = () if token is None else ((b"Authorization", b"Bearer " + token.encode()),)
    return Request(b"GET", target, ((b"Host", host or live.host), *UPGRADE, *authorization, *fields))


@attack("ws-01")
def handshakes_without_a_good_token(live: Deployment) -> Iterator[Shot]:
    now = int(time.time())
    yield Shot("missing", handshake(live, None), (401, 403))
    yield Shot("expired", handshake(live, live.token(iat=now - 600, exp=now - 300)), (401, 403))
    for target in (b"//mcp", b"/mcp/", b"/mcp/.", b"/%6dcp", b"/MCP", b"/other"):
        yield Shot(target.decode(), handshake(live, live.token(), target=target), (400, 403, 404))


@attack("ws-02")
def handshakes_of_other_pages_and_for_other_hosts(live: Deployment) -> Iterator[Shot]:
    for origin in (b"https://evil.example", b"null", b"http://127.0.0.1.evil.example", b""):
        yield Shot(f"origin {origin!r}", handshake(live, live.token(), (b"Origin", origin)), (403,))
    yield Shot("host", handshake(live, live.token(), host=b"evil.example"), (403, 421))


@attack("ws-03")
def tokens_elsewhere_in_a_handshake(live: Deployment) -> Iterator[Shot]:
    token = live.token().encode()
    yield Shot("subprotocol", handshake(live, None, (b"Sec-WebSocket-Protocol", b"mcp, " + token)), (401, 403))
    yield Shot("query", handshake(live, None, target=b"/mcp?access_token=" + token), (401, 403))
    yield Shot("cookie", handshake(live, None, (b"Cookie", b"access_token=" + token)), (401, 403))
