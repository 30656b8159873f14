"""Each cell of the table of servers is what happens."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest

from mcp_guard.asgi import Receive, Scope, Send
from tests.guard import servers
from tests.guard.asgi import polled
from tests.guard.attacks.raw import send
from tests.guard.fuzz.views import Views
from tests.guard.wire.rows import PASSES, ROWS, SERVERS, Row


@dataclass
class Outside:
    """Counts what the server asks of the guard."""

    views: Views
    scopes: list[Scope] = field(default_factory=list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            self.scopes.append(scope)
        await self.views.guarded(scope, receive, send)


@dataclass(frozen=True)
class Place:
    """A server that serves, and where."""

    port: int
    outside: Outside


@pytest.fixture(scope="module")
def places() -> Iterator[dict[str, Place]]:
    makers = {**servers.PLAIN, "serve": servers.SERVERS["httptools"]}
    found: dict[str, Place] = {}
    with ExitStack() as until_done:
        for name in SERVERS:
            made: list[Outside] = []

            def build(url: str, made: list[Outside] = made) -> Any:
                made.append(Outside(Views.of(url)))
                return made[0]

            running = until_done.enter_context(makers[name](build))
            found[name] = Place(int(running.url.rpartition(":")[2]), made[0])
        yield found


@pytest.mark.parametrize("name", SERVERS)
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.sent)
def test_what_becomes_of_an_odd_request(row: Row, name: str, places: dict[str, Place]) -> None:
    place, cell = places[name], row.cell(name)
    asked = len(place.outside.scopes)
    # hypercorn answers an upgrade to HTTP/2 with 101, and the request on a stream.
    switches = name == "hypercorn" and row.sent == "an upgrade to HTTP/2"
    seen = send(place.port, row.data.replace(b"HOST", b"127.0.0.1:%d" % place.port))
    polled(lambda: not switches or bool(place.outside.views.app.seen))
    reached = [handed.scope for handed in place.outside.views.app.seen]
    place.outside.views.compare()
    if isinstance(cell, int):
        assert (seen.status, reached) == (cell, [])
        assert len(place.outside.scopes) == asked
    elif cell == PASSES:
        assert (seen.status, len(reached)) == (101 if switches else 200, 1)
        is_handed_on(row, name, reached[0])
    else:
        assert reached == []
        assert json.loads(seen.body)["error"] == cell if seen.body.startswith(b'{"error"') else cell in str(seen)


def is_handed_on(row: Row, name: str, scope: Scope) -> None:
    """What the last column says of the requests that pass."""
    seen = [bytes(value) for key, value in scope["headers"] if key in (b"x-seen", b"x_seen")]
    line = (scope["method"], scope["path"], scope["raw_path"], scope["query_string"])
    method = "POST" if row.data.startswith(b"POST") else "GET"
    assert line == (method, "/mcp", b"/mcp", b"a" if row.sent == "a fragment after the query" else b"")
    assert seen == {
        "blanks around a value": [b"a"],
        "a folded line": [b"a b"],
        "line feeds alone": [b"a"],
        "a trailer section": [b"a"] if name == "httptools" else [],
    }.get(row.sent, [])
