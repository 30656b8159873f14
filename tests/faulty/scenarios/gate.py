"""At the gate: requests with no, bad, odd and good credentials (AUTHZ, and TOK as far as tokens are carried)."""

from __future__ import annotations

import json
import time
from typing import Any
from urllib.parse import urlencode

from tests.faulty.scenarios.actor import ACCEPT, BASE, Actor, Seen, bearer
from tests.support.asgi_client import Answer
from tests.support.model_server import ModelServer
from tests.support.serving import serving

ODD = (
    "",
    "Bearer",
    "Bearer ",
    "Bearer a b",
    "Bearer \xff",
    "Bear\xe9r x",
    "Basic dTpw",
    "Bearer a.b.c.d.e",
    "Bearer " + "a" * 9000,
)
INITIALIZE = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}}


async def observe(server: ModelServer) -> Seen:
    return await Actor(server).follow(
        without_token,
        with_bad_tokens,
        with_too_few_scopes,
        with_many_credentials,
        with_odd_carriers,
        about_oneself,
        elsewhere,
        kept,
    )


def brief(answer: Answer) -> tuple[int, str]:
    return answer.status, answer.header("www-authenticate")


async def observe_outbound(server: ModelServer) -> Seen:
    return await Actor(server).follow(with_outbound_calls)


async def without_token(actor: Actor) -> None:
    for method in ("tools/list", "server/discover", "subscriptions/listen", "no/such"):
        actor.note(f"{method} without a token", brief(await actor.rpc(method)))
    actor.note("initialize without a token", brief(await actor.rpc("initialize", INITIALIZE)))
    actor.note("a notification without a token", brief(await actor.rpc("notifications/x", None, request_id=None)))
    actor.note("no JSON without a token", brief(await actor.send("POST", "/mcp", ACCEPT, body=b"{")))
    for method, path in (("GET", "/mcp"), ("DELETE", "/mcp"), ("GET", "/sse"), ("POST", "/messages/?session_id=x")):
        actor.note(f"{method} {path} without a token", brief(await actor.send(method, path, ACCEPT)))


async def with_bad_tokens(actor: Actor) -> None:
    for name, token in (("bad", "a.b.c"), ("foreign", actor.server.mint(trusted_key=False)), ("canary", 'c-A-n-"\\')):
        answer = await actor.rpc("tools/list", None, bearer(token))
        actor.note(f"{name} token", (*brief(answer), "a.b.c" in answer.text))
    for value in ODD:
        answer = await actor.rpc("tools/list", None, ("Authorization", value))
        actor.note(f"Authorization: {value[:20]!r}", answer.status)


async def with_too_few_scopes(actor: Actor) -> None:
    call = {"name": "admin_reset", "arguments": {}}
    for turn in (1, 2):
        answer = await actor.rpc("tools/call", call, actor.token())
        actor.note(f"admin_reset, time {turn}", (*brief(answer), "error" in (answer.json() or {})))
    actor.note("a broader scope", (await actor.rpc("tools/list", None, actor.token(scope="mcp:admin"))).status)
    actor.note("a hidden tool", (await actor.rpc("tools/call", {"name": "audit_log"}, actor.token())).status)
    answer = await actor.rpc("tools/call", {"name": "remember", "arguments": {"text": "mine"}}, actor.token())
    note = answer.json()["result"]["structuredContent"]["note"]
    answer = await actor.rpc("tools/call", {"name": "recall", "arguments": {"note": note}}, actor.token("bob"))
    actor.note("another user's note", answer.json()["result"]["isError"])


async def with_many_credentials(actor: Actor) -> None:
    good, bad = actor.token(), bearer("a.b.c")
    actor.note("good, then bad", (await actor.rpc("tools/list", None, good, bad)).status)
    actor.note("bad, then good", (await actor.rpc("tools/list", None, bad, good)).status)
    joined = ("Authorization", f"{bad[1]}, {good[1]}")
    actor.note("joined", (await actor.rpc("tools/list", None, joined)).status)
    actor.note("good, on a connection", (await actor.rpc("tools/list", None, good, peer=7)).status)
    actor.note("none, on the same connection", (await actor.rpc("tools/list", None, peer=7)).status)


async def with_outbound_calls(actor: Actor) -> None:
    heard: list[str] = []

    async def recorder(scope: Any, receive: Any, send: Any) -> None:
        heard.extend(value.decode() for name, value in scope["headers"] if name == b"authorization")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body"})

    with serving(lambda url: recorder, lifespan="off") as upstream:
        call = {"name": "fetch", "arguments": {"url": upstream.url}}
        answer = await actor.rpc("tools/call", call, actor.token())
    actor.note("a call out", (answer.status, answer.json()["result"]["isError"], len(heard)))


async def with_odd_carriers(actor: Actor) -> None:
    token = actor.server.mint()
    for name in ("access_token", "token"):
        actor.note(f"?{name}=", (await actor.rpc("tools/list", target=f"/mcp?{urlencode({name: token})}")).status)
    actor.note("a cookie", (await actor.rpc("tools/list", None, ("Cookie", f"access_token={token}"))).status)
    form = urlencode({"access_token": token}).encode()
    kind = ("Content-Type", "application/x-www-form-urlencoded")
    actor.note("a form", (await actor.send("POST", "/mcp", ACCEPT, kind, body=form)).status)
    for scheme in ("bearer", "BEARER", "Bearerx", "Basic"):
        header = ("Authorization", f"{scheme} {token}")
        actor.note(f"scheme {scheme}", (await actor.rpc("tools/list", None, header)).status)
    started = time.monotonic()
    await actor.rpc("tools/list", None, bearer(actor.server.mint(header={"kid": "unheard"})))
    actor.note("an unknown key is fetched", time.monotonic() - started > 0.2)


async def about_oneself(actor: Actor) -> None:
    call = {"name": "admin_reset", "arguments": {}}
    meta = {"clientInfo": {"name": "admin", "version": "1"}}
    actor.note("a client named admin", (await actor.rpc("tools/call", call, actor.token(), meta=meta)).status)
    actor.note("X-User: admin", (await actor.rpc("tools/call", call, actor.token(), ("X-User", "admin"))).status)
    await actor.rpc("tools/call", {"name": "add", "arguments": {"a": 1, "b": 1}}, actor.token(), peer=8)
    listed = (await actor.rpc("tools/list", None, actor.token(), peer=8)).json()
    actor.note("tools after a call", [tool["name"] for tool in listed["result"]["tools"]])


async def elsewhere(actor: Actor) -> None:
    for target in ("//mcp", "/mcp/", "/MCP", "/mc%70"):
        actor.note(target, (await actor.rpc("tools/list", target=target)).status)
    origin = ("Origin", BASE)
    answer = await actor.rpc("tools/list", None, origin)
    actor.note("exposed to browsers", answer.header("access-control-expose-headers"))
    preflight = await actor.send("OPTIONS", "/mcp", origin, ("Access-Control-Request-Method", "POST"))
    actor.note("preflight", preflight.status)
    sent: list[str] = []

    async def receive() -> dict[str, str]:
        return {"type": "websocket.connect"}

    async def collect(message: object) -> None:
        sent.append(json.loads(json.dumps(message))["type"])

    await actor.server({"type": "websocket", "path": "/mcp", "headers": []}, receive, collect)
    actor.note("a WebSocket", sent)


async def kept(actor: Actor) -> None:
    actor.note("cached", (await actor.rpc("tools/list", None, actor.token())).header("cache-control"))
