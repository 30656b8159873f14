"""Area http: request lines, header fields and bodies that two readers read differently."""

import json
import time
from collections.abc import Iterator

from tests.guard.attacks.corpus import Shot, attack
from tests.guard.attacks.deployment import MODERN, Deployment
from tests.guard.attacks.raw import Observation, Request

NOT_SERVED = (400, 401, 404, 405)
REFUSED = (400, 401, 403, 404, 405, 411, 413, 415, 421, 431, 499)


def edited(request: Request, drop: bytes = b"", add: tuple[tuple[bytes, bytes], ...] = ()) -> Request:
    """The request without the field `drop`, and with more fields at its end."""
    kept = tuple(pair for pair in request.headers if pair[0].lower() != drop.lower())
    return Request(request.method, request.target, (*kept, *add), request.body)


@attack("http-01")
def spellings_of_the_path(live: Deployment) -> Iterator[Shot]:
    spellings = (
        b"//mcp",
        b"/mcp/",
        b"/./mcp",
        b"/x/../mcp",
        b"/mcp/../mcp",
        b"/mc%70",
        b"/%6dcp",
        b"/%6Dcp",
        b"/%2fmcp",
        b"/mcp%2f",
        b"/mcp%00",
        b"/mcp;x=1",
        b"/mcp%20",
        b"/MCP",
        b"/mcp\\",
        b"/mcp%3Fx",
        b"/mcp#x",
        b"/mcp/.",
        b"/mcp%252f",
        b"/%2e/mcp",
        b"/mcp%5c",
        b"/mcp%c0%af",
        b"/mcp/%2e%2e/mcp",
        b"\\mcp",
        b"/mcp%",
    )
    for spelling in spellings:
        yield Shot(f"no-token {spelling!r}", live.call(None, target=spelling), NOT_SERVED)


@attack("http-02")
def other_forms_of_the_target(live: Deployment) -> Iterator[Shot]:
    for target in (b"http://evil.example/mcp", b"http://evil.example", b"evil.example:443", b"mcp", b"?/mcp"):
        yield Shot(repr(target), live.call(None, target=target), (*NOT_SERVED, 421))
    star = Request(b"OPTIONS", b"*", live.common())
    yield Shot("asterisk", star, (*NOT_SERVED, 421))


@attack("http-04")
def fields_of_health_checks_and_rewriters(live: Deployment) -> Iterator[Shot]:
    fields = (
        (b"User-Agent", b"kube-probe/1.29"),
        (b"User-Agent", b"GoogleHC/1.0"),
        (b"User-Agent", b"ELB-HealthChecker/2.0"),
        (b"X-Internal", b"1"),
        (b"X-Original-URL", b"/healthz"),
        (b"X-Rewrite-URL", b"/healthz"),
        (b"X-Forwarded-Uri", b"/healthz"),
        (b"X-Original-Method", b"GET"),
    )
    for name, value in fields:
        yield Shot(f"{name!r}={value!r}", live.call(None, headers=((name, value),)), (401,))


@attack("http-05")
def magic_fields(live: Deployment) -> Iterator[Shot]:
    names = (
        "mcp-init-host router-key x-envoy-internal x-user x-auth-request-user remote-user x-mcp-subject x-api-key "
        "x-forwarded-user x-authenticated-user x-consumer-id x-kong-consumer x-credential-identifier x-jwt-claims "
        "x-goog-authenticated-user-email x-ms-client-principal x-amzn-oidc-identity cf-access-jwt-assertion "
        "tailscale-user-login x-webauth-user x-debug x-bypass x-guard-disable x-mcp-guard mcp-guard x-token "
        "proxy-authorization x-authorization authentication x-access-token"
    )
    for name in names.split():
        yield Shot(name, live.call(None, headers=((name.encode(), live.token().encode()),)), (401,))


@attack("http-06")
def identity_in_the_clients_own_fields(live: Deployment) -> Iterator[Shot]:
    mine = ((b"X-MCP-Subject", b"admin"), (b"X-MCP-Scope", b"mcp:admin"), (b"X-Forwarded-User", b"admin"))
    twice = (*mine, (b"x_mcp_subject", b"admin"), (b"X-MCP-SUBJECT", b"root"), (b"Remote_User", b"root"))

    def as_alice(seen: Observation) -> None:
        assert b"alice" in seen.body
        assert b"admin" not in seen.body
        assert b"root" not in seen.body

    yield Shot("fields", live.call(live.token(), headers=twice), (200,), reaches_app=True, check=as_alice)
    shown = {name for name, _ in live.downstream.seen[-2]["headers"]}
    assert not {name for name in shown if b"_" in name or b"subject" in name or b"forwarded" in name}


@attack("http-07")
def trailers_that_become_fields(live: Deployment) -> Iterator[Shot]:
    """In one segment with its body, so that a server that merges trailers has done so before the guard is asked."""
    good, bare = live.call(live.token()), live.call(None)
    token = f"Bearer {live.token()}".encode()
    for name, value in (
        (b"X-MCP-Subject", b"admin"),
        (b"Authorization", b"Bearer x"),
        (b"Mcp-Session-Id", b"victim"),
        (b"X-Forwarded-For", b"203.0.113.9"),
        (b"X-Seen-In-Trailer", b"1"),
    ):
        request = Request(good.method, good.target, good.headers, good.body, chunked=True, trailers=((name, value),))
        yield Shot(f"good-token {name!r}", request, (200, 400), reaches_app=True)
        shown = live.downstream.seen[-2]["headers"]
        assert not [field for field, _ in shown if field == name.lower()], f"the app was shown {name!r}"
    smuggled = Request(
        bare.method, bare.target, bare.headers, bare.body, chunked=True, trailers=((b"Authorization", token),)
    )
    yield Shot("token-in-trailer", smuggled, (401,))


@attack("http-09")
def fields_sent_twice(live: Deployment) -> Iterator[Shot]:
    good = live.call(live.token())
    pairs = {
        b"Host": (live.host, b"evil.example"),
        b"Origin": (live.origin.encode(), b"https://evil.example"),
        b"Content-Type": (b"application/json", b"text/plain"),
        b"DPoP": (b"a.b.c", b"d.e.f"),
        b"MCP-Protocol-Version": (MODERN.encode(), b"2025-11-25"),
        b"Mcp-Method": (b"tools/call", b"tools/list"),
        b"Mcp-Name": (b"whoami", b"add"),
    }
    for name, (first, second) in pairs.items():
        for order, values in (("good-bad", (first, second)), ("bad-good", (second, first)), ("same", (first, first))):
            request = edited(good, drop=name, add=tuple((name, value) for value in values))
            yield Shot(f"{name.decode()} {order}", request, (400, 403))


@attack("http-10")
def ambiguous_framing(live: Deployment) -> Iterator[Shot]:
    """Whatever the server below makes of it, no second request is executed."""
    good = live.call(live.token()).encoded()
    line, _, rest = good.partition(b"\r\n")
    both = line + b"\r\nTransfer-Encoding: chunked\r\n" + rest
    # A body of broken chunks ends the exchange: the guard has nobody left to answer, for which granian says 500 itself.
    broken = (*REFUSED, 500) if live.server == "granian" else REFUSED
    yield Shot("both-lengths", both, broken)
    folded = good.replace(b"Accept: application/json,", b"Accept: application/json,\r\n ")
    yield Shot("folded", folded, (200, *REFUSED), reaches_app=True)
    assert not [value for _, value in live.downstream.seen[-2]["headers"] if b"\n" in value]
    yield Shot("two-lengths", line + b"\r\nContent-Length: 5\r\n" + rest, REFUSED)
    chunked = live.call(live.token())
    fields = b"".join(b"%s: %s\r\n" % pair for pair in chunked.headers)
    body = b"0x%x\r\n%s\r\n0\r\n\r\n" % (len(chunked.body), chunked.body)
    head = b"POST /mcp HTTP/1.1\r\n" + fields + b"Transfer-Encoding: chunked\r\n\r\n"
    yield Shot("hex-prefix", head + body, broken)
    yield Shot("terminator", head + b"%x\r\n%sXX0\r\n\r\n" % (len(chunked.body), chunked.body), broken)
    codings = head.replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n")
    yield Shot("codings", codings + body.removeprefix(b"0x"), (*REFUSED, 501))
    old = (head + body.removeprefix(b"0x")).replace(b"HTTP/1.1", b"HTTP/1.0", 1)
    yield Shot("chunks in 1.0", old, REFUSED)
    line_feeds = good.replace(b"\r\n", b"\n")
    yield Shot("line-feeds", line_feeds, (200, *REFUSED), reaches_app=True)
    nine = good.replace(b"HTTP/1.1", b"HTTP/0.9", 1)
    yield Shot("0.9", nine, REFUSED)


@attack("http-11")
def bodies_without_end(live: Deployment) -> Iterator[Shot]:
    limit = 4 * 1024 * 1024
    good = live.call(live.token())
    over = Request(good.method, good.target, good.headers, b" " * (limit + 1), chunked=True)
    yield Shot("chunked", over, (413, 499))
    declared = edited(good, add=((b"Content-Length", str(limit + 1).encode()),))
    yield Shot("declared", Request(declared.method, declared.target, declared.headers, b"", with_length=False), (413,))
    for length in (b"1_0", b"+10", b"-1", b"0x10", b"1 0"):
        odd = edited(good, add=((b"Content-Length", length),))
        yield Shot(
            f"length {length!r}", Request(odd.method, odd.target, odd.headers, good.body, with_length=False), REFUSED
        )


@attack("http-13")
def bodies_of_all_sizes(live: Deployment) -> Iterator[Shot]:
    for size in (0, 1, 65_536, 1_000_000):
        params = {"name": "whoami", "arguments": {}, "pad": "x" * size}
        for chunked in (False, True):
            good = live.call(live.token(), params=params)
            request = Request(good.method, good.target, good.headers, good.body, chunked=chunked)
            yield Shot(f"{size} chunked={chunked}", request, (200,), reaches_app=True)
            assert live.downstream.seen[-2]["body"] == good.body, f"{size}: the app was shown another body"


@attack("http-14")
def bodies_that_are_not_read_before_the_token(live: Deployment) -> Iterator[Shot]:
    bare = live.call(None)
    fields = (*bare.headers, (b"Content-Length", b"4194304"))
    silent = Request(b"POST", b"/mcp", fields, b"", with_length=False)
    began = time.monotonic()
    yield Shot("nothing-sent", silent, (401,), time_bound_seconds=1.0)
    assert time.monotonic() - began < 3
    waiting = Request(b"POST", b"/mcp", (*fields, (b"Expect", b"100-continue")), b"", with_length=False)
    yield Shot("expect", waiting, (401,), time_bound_seconds=1.0)


@attack("http-15")
def media_types(live: Deployment) -> Iterator[Shot]:
    good = live.call(live.token())
    types = (
        b"text/plain",
        b"application/x-www-form-urlencoded",
        b"multipart/form-data; boundary=x",
        b"application/jsonp",
        b"application/json, text/plain",
        b"application/json;charset=utf-16",
        b"application/json; charset=utf-8; x=1",
        b"text/plain; application/json",
        b"application/json-rpc",
        b"application",
        b"",
    )
    for media_type in types:
        yield Shot(repr(media_type), edited(good, b"Content-Type", ((b"Content-Type", media_type),)), (400, 415))
    yield Shot("absent", edited(good, b"Content-Type"), (400, 415))
    for media_type in (b"application/json; charset=utf-8", b"Application/JSON", b"application/json;charset=UTF-8"):
        request = edited(good, b"Content-Type", ((b"Content-Type", media_type),))
        yield Shot(repr(media_type), request, (200, 400), reaches_app=True)


@attack("http-16")
def members_said_twice(live: Deployment) -> Iterator[Shot]:
    good = live.call(live.token())
    text = good.body.decode()
    for name, value in (("method", '"tools/list"'), ("params", "{}"), ("id", "8"), ("jsonrpc", '"2.0"')):
        for place, body in (
            ("first", f'{{"{name}": {value}, {text[1:]}'),
            ("last", f'{text[:-1]}, "{name}": {value}}}'),
        ):
            yield Shot(f"{name} {place}", Request(b"POST", b"/mcp", good.headers, body.encode()), (400,))
    inner = text.replace('"name": "whoami"', '"name": "add", "name": "whoami"')
    assert inner != text
    yield Shot("inner", Request(b"POST", b"/mcp", good.headers, inner.encode()), (400,))
    escaped = text.replace('"method"', '"metho\\u0064": "tools/list", "method"')
    yield Shot("escaped", Request(b"POST", b"/mcp", good.headers, escaped.encode()), (400,))


@attack("http-18")
def batches(live: Deployment) -> Iterator[Shot]:
    token = live.token()
    allowed = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "whoami", "arguments": {}}}
    forbidden = {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "add", "arguments": {}}}
    ping = {"jsonrpc": "2.0", "id": 3, "method": "ping"}
    hostile: dict[str, object] = {
        "mixed": [allowed, forbidden],
        "many": [ping] * 10_000,
        "empty": [],
        "nested": [[ping]],
    }
    for version in ("2025-06-18", "2025-11-25"):
        for name, batch in {**hostile, "one": [ping]}.items():
            yield Shot(f"{version} {name}", live.legacy(token, batch, version=version), (400,))
    for name, batch in hostile.items():
        yield Shot(f"2025-03-26 {name}", live.legacy(token, batch, version="2025-03-26"), (400, 403))


@attack("http-19")
def bodies_that_are_no_json(live: Deployment) -> Iterator[Shot]:
    good = live.call(live.token())
    bodies = {
        "nested": b"[" * 100_000 + b"]" * 100_000,
        "digits": b'{"jsonrpc":"2.0","id":' + b"9" * 100_000 + b',"method":"ping"}',
        "nan": b'{"jsonrpc":"2.0","id":NaN,"method":"ping"}',
        "infinity": b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"a":Infinity}}',
        "surrogate": b'{"jsonrpc":"2.0","id":"\\ud800","method":"ping"}',
        "utf-8": b'{"jsonrpc":"2.0","id":"\xff\xfe","method":"ping"}',
        "overlong": b'{"jsonrpc":"2.0","id":"\xc0\xaf","method":"ping"}',
        "bom": b"\xef\xbb\xbf" + good.body,
        "trailing": good.body + b"x",
        "two": good.body + good.body,
        "utf-16": good.body.decode().encode("utf-16"),
        "empty": b"",
        "string": b'"x"',
        "nul": good.body + b"\x00",
    }
    for name, body in bodies.items():
        yield Shot(name, Request(b"POST", b"/mcp", good.headers, body), (400,))


@attack("http-21")
def methods(live: Deployment) -> Iterator[Shot]:
    for method in (b"PUT", b"PATCH", b"TRACE", b"FOO", b"post", b"PROPFIND", b"HEAD", b"CONNECT", b"Get"):
        request = live.call(None)
        yield Shot(method.decode(), Request(method, b"/mcp", request.headers, request.body), (400, 401, 404, 405, 501))
    overriding = ((b"X-HTTP-Method-Override", b"DELETE"), (b"X-Method-Override", b"DELETE"))
    yield Shot("override", live.call(None, headers=overriding), (401,))
    yield Shot("query", live.call(None, target=b"/mcp?_method=delete"), (401,))


@attack("http-22")
def preflights_with_a_body(live: Deployment) -> Iterator[Shot]:
    body = live.call(None).body
    asking = (b"Access-Control-Request-Method", b"POST")
    for name, fields in {
        "plain": (),
        "foreign": ((b"Origin", b"https://evil.example"), asking),
        "own": ((b"Origin", live.origin.encode()), asking),
    }.items():

        def check(seen: Observation, name: str = name) -> None:
            allowed = seen.value("access-control-allow-origin")
            assert allowed in ("", live.origin), allowed
            assert name == "own" or not allowed
            assert not seen.value("access-control-allow-credentials")

        request = Request(b"OPTIONS", b"/mcp", (*live.common(), *fields), body)
        yield Shot(name, request, (200, 204, 401, 403, 405), check=check)


@attack("http-23")
def hosts(live: Deployment) -> Iterator[Shot]:
    good = live.call(live.token())
    port = str(live.port).encode()
    hosts = (
        b"a/b?c=",
        b"evil.example",
        b"",
        b"x@" + live.host,
        b"127.0.0.1:99999",
        live.host + b", evil",
        b"[::2]:" + port,
        b"127.0.0.1",
        b"127.0.0.1.:" + port,
        b"127.0.0.1:" + port + b".evil.example",
        b"localhost:evil",
        b"localhost:" + port + b".evil.example",
        b"127.0.0.1:" + port + b"@evil.example",
        b"127.1:" + port,
        b"0:" + port,
    )
    for host in hosts:
        yield Shot(repr(host), edited(good, b"Host", ((b"Host", host),)), (400, 421))
    missing = edited(good, b"Host")
    yield Shot("missing", Request(b"POST", b"/mcp", missing.headers, good.body, version=b"HTTP/1.0"), (400, 421))


@attack("http-25")
def upgrades(live: Deployment) -> Iterator[Shot]:
    bare = live.call(None)
    h2c = ((b"Connection", b"Upgrade, HTTP2-Settings"), (b"Upgrade", b"h2c"), (b"HTTP2-Settings", b"AAMAAABkAAQAAP__"))
    yield Shot("h2c", edited(bare, add=h2c), (400, 401))
    websocket = (
        (b"Connection", b"Upgrade"),
        (b"Upgrade", b"websocket"),
        (b"Sec-WebSocket-Version", b"13"),
        (b"Sec-WebSocket-Key", b"dGhlIHNhbXBsZSBub25jZQ=="),
    )
    yield Shot("websocket-post", edited(bare, add=websocket), (400, 401, 403, 499))
    get = Request(b"GET", b"/mcp", (*live.common(), *websocket))
    yield Shot("websocket-get", get, (400, 401, 403, 404))


@attack("http-28")
def large_requests(live: Deployment) -> Iterator[Shot]:
    token = live.token()
    yield Shot("field", live.call(token, headers=((b"X-Large", b"x" * 17_000),)), (400, 431))
    many = tuple((f"X-{number}".encode(), b"1") for number in range(150))
    yield Shot("fields", live.call(token, headers=many), (400, 431))
    yield Shot("target", live.call(token, target=b"/mcp?" + b"x" * 9_000), (400, 414))


@attack("http-32")
def compressed_bodies(live: Deployment) -> Iterator[Shot]:
    good = live.call(live.token())
    for coding in (b"gzip", b"br", b"deflate", b"gzip, gzip", b"identity, gzip", b"x"):
        yield Shot(coding.decode(), edited(good, add=((b"Content-Encoding", coding),)), (400, 415))
    for path in (b"/token", b"/register"):
        fields = (*live.common(), (b"Content-Encoding", b"gzip"))
        yield Shot(path.decode(), Request(b"POST", path, fields, b"\x1f\x8b" + b"\x00" * 100), (400, 415))


@attack("http-33")
def ranges(live: Deployment) -> Iterator[Shot]:
    many = b"bytes=" + b",".join(b"%d-" % number for number in range(2_000))
    for path in (b"/.well-known/oauth-protected-resource/mcp", b"/.well-known/oauth-authorization-server", b"/jwks"):

        def whole(seen: Observation) -> None:
            if seen.status == 200:
                assert json.loads(seen.body)

        request = Request(b"GET", path, ((b"Host", live.host), (b"Range", many)))
        yield Shot(path.decode(), request, (200, 416, 431), check=whole)
