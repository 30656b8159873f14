"""Area csrf, as far as the guarded endpoint is concerned: pages of other origins, and names that were rebound."""

from collections.abc import Iterator

from tests.guard.attacks.corpus import Shot, attack
from tests.guard.attacks.deployment import Deployment
from tests.guard.attacks.http_attacks import edited
from tests.guard.attacks.raw import Observation, Request


@attack("csrf-01")
def a_form_of_another_site(live: Deployment) -> Iterator[Shot]:
    bare = edited(
        live.call(None), b"Content-Type", ((b"Content-Type", b"text/plain"), (b"Origin", b"https://evil.example"))
    )
    yield Shot("no-token", bare, (401, 403, 415))
    good = edited(
        live.call(live.token()),
        b"Content-Type",
        ((b"Content-Type", b"text/plain"), (b"Origin", b"https://evil.example")),
    )
    yield Shot("with-token", good, (403, 415))


@attack("csrf-02")
def origins_that_are_almost_right(live: Deployment) -> Iterator[Shot]:
    own = live.origin.encode()
    port = str(live.port).encode()
    near = (
        b"null",
        own.replace(b"http:", b"https:"),
        own + b".evil.example",
        own + b"@evil.example",
        own + b"/",
        b"http://127.0.0.1",
        b"http://127.0.0.1.:" + port,
        b"http://evil.127.0.0.1:" + port,
        own + b", https://evil.example",
        b"http://user@127.0.0.1:" + port,
        b"//127.0.0.1:" + port,
        b"127.0.0.1:" + port,
        b"",
        b"file://",
        b"http://",
        b"http://127.0.0.1:0" + port,
        b"http://127.1:" + port,
        b"http://[::ffff:127.0.0.1]:" + port,
        own + b" ",
    )
    for origin in near[:-1]:
        yield Shot(repr(origin), live.call(live.token(), headers=((b"Origin", origin),)), (400, 403))
    twice = ((b"Origin", own), (b"Origin", b"https://evil.example"))
    yield Shot("two", live.call(live.token(), headers=twice), (400, 403))
    for name, fields in (("own", ((b"Origin", own),)), ("none", ())):
        yield Shot(name, live.call(live.token(), headers=fields), (200,), reaches_app=True)


@attack("csrf-03")
def rebound_names(live: Deployment) -> Iterator[Shot]:
    port = str(live.port).encode()
    for host in (
        b"evil.example:" + port,
        b"localhost:" + port + b".evil.example",
        b"localhost:evil",
        b"127.0.0.1.evil.example",
    ):
        yield Shot(repr(host), edited(live.call(live.token()), b"Host", ((b"Host", host),)), (400, 403, 421))
        page = Request(b"GET", b"/authorize", ((b"Host", host),))
        yield Shot(f"page {host!r}", page, (400, 403, 421))


@attack("csrf-04")
def pages_of_other_origins_read_nothing(live: Deployment) -> Iterator[Shot]:
    def closed(seen: Observation) -> None:
        assert seen.value("access-control-allow-origin") in ("", "*")
        assert not seen.value("access-control-allow-credentials")

    foreign = (b"Origin", b"https://evil.example")
    asking = (b"Access-Control-Request-Method", b"POST")
    paths = (b"/mcp", b"/sse", b"/token", b"/register", b"/authorize", b"/.well-known/oauth-protected-resource/mcp")
    for path in paths:
        preflight = Request(b"OPTIONS", path, ((b"Host", live.host), foreign, asking))
        yield Shot(f"preflight {path!r}", preflight, (200, 204, 400, 401, 403, 405), check=closed)
        simple = Request(b"GET", path, ((b"Host", live.host), foreign))
        yield Shot(f"simple {path!r}", simple, (200, 400, 401, 403, 405), check=closed)
