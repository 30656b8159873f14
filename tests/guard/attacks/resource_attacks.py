"""Area resource: tokens for somewhere else, and what the app is shown."""

from collections.abc import Iterator

from tests.guard.attacks.corpus import Shot, attack
from tests.guard.attacks.deployment import Deployment
from tests.guard.attacks.jwt_attacks import refused


@attack("res-01")
def a_token_for_another_server(live: Deployment) -> Iterator[Shot]:
    yield refused(live, "foreign", live.token(aud="https://other.example/mcp"))
    yield refused(live, "sibling", live.token(aud=f"{live.origin}/sse"))


@attack("res-02")
def audiences_of_the_wrong_kind(live: Deployment) -> Iterator[Shot]:
    odd: list[object] = [None, [], "", 1, {live.mcp: 1}, [1, live.mcp], [[live.mcp]], True, [None, live.mcp]]
    for number, audience in enumerate(odd):
        yield refused(live, f"aud-{number}", live.token(aud=audience))
    claims = live.claims()
    del claims["aud"]
    yield refused(live, "missing", live.token(aud=None))


@attack("res-03")
def audiences_that_are_almost_right(live: Deployment) -> Iterator[Shot]:
    mcp = live.mcp
    near = {
        "suffix": f"{mcp}2",
        "prefix": mcp[:-1],
        "dots": f"{mcp}/../x",
        "below": f"{mcp}/sub",
        "slash": f"{mcp}/",
        "query": f"{mcp}?x=1",
        "fragment": f"{mcp}#f",
        "origin": live.origin,
        "origin-slash": f"{live.origin}/",
        "escaped": mcp.replace("/mcp", "/%6dcp"),
        "case": mcp.replace("/mcp", "/MCP"),
        "userinfo": mcp.replace("://", "://x@"),
        "scheme": mcp.replace("http:", "https:"),
        "host": mcp.replace("127.0.0.1", "127.0.0.1.evil.example"),
        "localhost": mcp.replace("127.0.0.1", "localhost"),
        "blank": f" {mcp}",
        "list-of-near": [f"{mcp}2", f"{mcp}/"],
    }
    for name, audience in near.items():
        yield refused(live, name, live.token(aud=audience))


@attack("res-04")
def one_audience_of_several(live: Deployment) -> Iterator[Shot]:
    token = live.token(aud=["https://other.example/mcp", live.mcp])
    yield Shot("list", live.call(token), (200,), reaches_app=True)


@attack("res-11")
def the_token_is_not_handed_on(live: Deployment) -> Iterator[Shot]:
    yield Shot("call", live.call(live.token(), headers=((b"X-MCP-Subject", b"admin"),)), (200,), reaches_app=True)
    shown = {name for name, _ in live.downstream.seen[-2]["headers"]}
    assert not shown & {b"authorization", b"dpop", b"x-mcp-subject"}


@attack("res-12")
def other_credentials_in_place_of_a_token(live: Deployment) -> Iterator[Shot]:
    for name, value in (("refresh", "r" * 43), ("code", "c" * 43), ("secret", "s" * 43)):
        yield refused(live, name, value)
