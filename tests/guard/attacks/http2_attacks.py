"""Area http over HTTP/2: what pseudo-header fields and trailers say twice. uvicorn answers none of it."""

from collections.abc import Iterator

from tests.guard.attacks.corpus import Shot, attack
from tests.guard.attacks.deployment import Deployment
from tests.guard.attacks.http2 import Http2Request

SPOKEN_BY = frozenset({"granian", "hypercorn"})
REFUSED = (400, 401, 404, 421, 499)


@attack("http-24")
def confusion_of_pseudo_fields(live: Deployment) -> Iterator[Shot]:
    bare, good = Http2Request.like(live.call(None)), Http2Request.like(live.call(live.token()))
    authorization = (b"authorization", f"Bearer {live.token()}".encode())
    yield Shot("no token", bare, REFUSED)
    yield Shot("token in trailers", Http2Request(bare.fields, bare.body, (authorization,)), REFUSED)
    for host in (b"evil.example", b"a/b?c=", b""):
        yield Shot(f"authority and host {host!r}", good.also((b"host", host)), REFUSED)
        yield Shot(f"authority {host!r}", good.saying(b":authority", host), REFUSED)
        yield Shot(f"host alone {host!r}", good.without(b":authority").also((b"host", host)), REFUSED)
        yield Shot(
            f"no token, other authority {host!r}", bare.saying(b":authority", host).also((b"host", live.host)), REFUSED
        )
    twice = good.without(b":authority").also((b"host", live.host), (b"host", b"evil.example"))
    yield Shot("two hosts", twice, REFUSED)
    yield Shot("no host", good.without(b":authority"), REFUSED)
    yield Shot("two paths", good.also((b":path", b"/sse")), REFUSED)
    yield Shot("upper case", good.also((b"X-Upper", b"1")), REFUSED)
    yield Shot("line break", good.also((b"x", b"1\nhost: evil.example")), REFUSED)
    yield Shot("control", good.also((b"x", b"1\x01")), REFUSED)
    yield Shot("coding", good.also((b"transfer-encoding", b"chunked")), REFUSED)
    yield Shot("length", good.also((b"content-length", b"5")), REFUSED)
    for path in (
        b"mcp",
        b"",
        b"*",
        b"http://evil.example/mcp",
        b"//mcp",
        b"/mc%70",
        b"/mcp;x",
        b"/x/../mcp",
        b"/mcp\xc3\xa9",
    ):
        yield Shot(f"path {path!r}", good.saying(b":path", path), REFUSED)
    if live.server in SPOKEN_BY:
        yield Shot("a good one", good, (200,), reaches_app=True)
        trailing = Http2Request(good.fields, good.body, ((b"x-mcp-subject", b"admin"), (b"mcp-session-id", b"victim")))
        yield Shot("a good one with trailers", trailing, (200,), reaches_app=True)
        shown = {name for name, _ in live.downstream.seen[-2]["headers"]}
        assert shown.isdisjoint({b"x-mcp-subject", b"mcp-session-id"})
