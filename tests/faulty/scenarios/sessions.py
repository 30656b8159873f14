"""Inside sessions, one's own and other people's, on both session transports (SESS)."""

from __future__ import annotations

import json
import re

import anyio

from tests.faulty.scenarios.actor import ACCEPT, BASE, LEGACY, Actor, Seen, bearer, shape
from tests.support.asgi_client import Answer
from tests.support.model_server import ModelServer
from tests.support.model_server.sessions import SESSIONS_PER_PRINCIPAL

INITIALIZE = {
    "protocolVersion": LEGACY,
    "capabilities": {"elicitation": {}},
    "clientInfo": {"name": "x", "version": "1"},
}
ADD = {"name": "add", "arguments": {"a": 1, "b": 1}}


async def observe(server: ModelServer) -> Seen:
    return await Actor(server).at_once(
        credentials,
        theft,
        binding,
        handles,
        streams,
        elicitation,
        over_sse,
    )


async def observe_crowd(server: ModelServer) -> Seen:
    return await Actor(server).follow(crowd)


async def opened(actor: Actor, token: tuple[str, str], *headers: tuple[str, str]) -> tuple[str, str]:
    answer = await actor.rpc("initialize", INITIALIZE, token, *headers)
    return ("Mcp-Session-Id", answer.header("mcp-session-id"))


async def credentials(actor: Actor) -> None:
    session = await opened(actor, actor.token())
    for name, sent in (("no", []), ("a bad", [bearer("a.b.c")])):
        actor.note(f"POST with {name} token", (await actor.rpc("tools/list", None, session, *sent)).status)
        for method in ("GET", "DELETE"):
            actor.note(f"{method} with {name} token", (await actor.send(method, "/mcp", ACCEPT, session, *sent)).status)
    broad = actor.token(scope="mcp:tools mcp:admin mcp:audit")
    session = await opened(actor, broad)
    call = {"name": "admin_reset", "arguments": {}}
    actor.note("scopes of earlier tokens", (await actor.rpc("tools/call", call, session, actor.token())).status)


async def theft(actor: Actor) -> None:
    alice, bob = actor.token(), actor.token("bob")
    session = await opened(actor, alice)
    actor.note("bob lists", (await actor.rpc("tools/list", None, session, bob)).status)
    actor.note("bob notifies", (await actor.rpc("notifications/x", None, session, bob, request_id=None)).status)
    for method in ("GET", "DELETE"):
        actor.note(f"bob's {method}", (await actor.send(method, "/mcp", ACCEPT, session, bob)).status)
    actor.note("alice goes on", (await actor.rpc("tools/list", None, session, alice)).status)


async def binding(actor: Actor) -> None:
    session = await opened(actor, actor.token())
    actor.note("a fresh token", (await actor.rpc("tools/list", None, session, actor.token())).status)
    session = await opened(actor, actor.token())
    actor.note("another client", (await actor.rpc("tools/list", None, session, actor.token(client_id="other"))).status)
    actor.note("another user", (await actor.rpc("tools/list", None, session, actor.token("bob"))).status)


async def handles(actor: Actor) -> None:
    alice = actor.token()
    first, second = [(await opened(actor, alice))[1] for _ in range(2)]
    actor.note("ids", (shape(first), first[:20] == second[:20]))
    chosen = ("Mcp-Session-Id", "chosen-by-me-0123456789")
    actor.note("a chosen id", await opened(actor, alice, chosen) == chosen)
    legacy = ("MCP-Protocol-Version", LEGACY)
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": ADD}).encode()
    kind = ("Content-Type", "application/json")
    actor.note("no id", (await actor.send("POST", "/mcp", ACCEPT, kind, legacy, alice, body=body)).status)
    actor.note("no id on DELETE", (await actor.send("DELETE", "/mcp", ACCEPT, legacy, alice)).status)
    unknown = ("Mcp-Session-Id", "unheard-of")
    actor.note("an unknown id", (await actor.rpc("tools/list", None, unknown, alice)).status)
    await actor.send("DELETE", "/mcp", ("Mcp-Session-Id", first), alice)
    actor.note("an ended id", (await actor.rpc("tools/list", None, ("Mcp-Session-Id", first), alice)).status)


def events(answer: Answer) -> list[tuple[str, str]]:
    """(id, kind of data) of each event."""
    found = re.findall(r"id: (\S+)\ndata: (.*)\n", answer.text)
    return [(one, "message" if data.strip() else "priming") for one, data in found]


def kinds(answer: Answer) -> list[str]:
    return [kind for _, kind in events(answer)]


async def streams(actor: Actor) -> None:
    alice, bob = actor.token(), actor.token("bob")
    session = await opened(actor, alice)
    await actor.rpc("tools/call", ADD, session, alice)
    stream = await actor.send("GET", "/mcp", ACCEPT, session, alice)
    actor.note("the token in a log message", alice[1].split()[1] in stream.text)
    seen = events(stream)
    actor.note("events", kinds(stream))
    await actor.rpc("tools/call", ADD, session, alice)
    other = await actor.send("GET", "/mcp", ACCEPT, session, alice)
    actor.note("events of a second stream", kinds(other))
    resume = ("Last-Event-ID", seen[0][0])
    actor.note("resumed", kinds(await actor.send("GET", "/mcp", ACCEPT, session, alice, resume)))
    theirs = await opened(actor, bob)
    actor.note("resumed by bob", kinds(await actor.send("GET", "/mcp", ACCEPT, theirs, bob, resume)))
    await two_streams(actor)
    await revoked_stream(actor)


async def two_streams(actor: Actor) -> None:
    alice = actor.token()
    session = await opened(actor, alice)
    found: list[int] = []

    async def listen() -> None:
        found.append(
            sum(kind == "message" for _, kind in events(await actor.send("GET", "/mcp", ACCEPT, session, alice)))
        )

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(listen)
        tasks.start_soon(listen)
        await anyio.sleep(0.01)
        await actor.rpc("tools/call", ADD, session, alice)
    actor.note("copies of a message", sum(found))


async def revoked_stream(actor: Actor) -> None:
    token = bearer(actor.server.mint(claims={"jti": "revoked soon"}))
    session = await opened(actor, token)
    read: list[Answer] = []

    async def listen() -> None:
        read.append(await actor.send("GET", "/mcp", ACCEPT, session, token, silence=0.4))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(listen)
        await anyio.sleep(0.01)
        actor.server.revoke("revoked soon")
    actor.note("a stream ends with its token", read[0].ended)


async def elicitation(actor: Actor) -> None:
    """Bob answers or cancels what Alice was asked, in her session and in his."""
    alice, bob = actor.token(), actor.token("bob")
    for name, in_hers, answers in (("in hers", True, True), ("in his", False, True), ("cancelling", False, False)):
        session, his = await opened(actor, alice), await opened(actor, bob)
        read: list[Answer] = []

        async def ask(session: tuple[str, str] = session, read: list[Answer] = read) -> None:
            read.append(await actor.rpc("tools/call", {"name": "ask"}, session, alice, request_id=77, silence=0.15))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            await anyio.sleep(0.01)
            ask_id = next(iter(actor.server.pending(session[1])))
            reply = {"jsonrpc": "2.0", "id": ask_id, "result": {"action": "accept", "content": {"colour": "black"}}}
            if not answers:
                reply = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 77}}
            await actor.send(
                "POST",
                "/mcp",
                ACCEPT,
                ("Content-Type", "application/json"),
                session if in_hers else his,
                bob,
                body=json.dumps(reply).encode(),
            )
        actor.note(f"bob answers {name}", (read[0].ended, "black" in read[0].text))


async def over_sse(actor: Actor) -> None:
    def token(subject: str) -> tuple[str, str]:
        return actor.token(subject, claims={"aud": f"{BASE}/sse"})

    read: list[Answer] = []

    async def listen() -> None:
        read.append(await actor.send("GET", "/sse", ACCEPT, token("alice"), silence=0.2))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(listen)
        await anyio.sleep(0.01)
        key = actor.server.keys_of_open_streams()[0]
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": ADD}).encode()
        for name, sent in (("nobody", []), ("bob", [token("bob")]), ("alice", [token("alice")])):
            answer = await actor.send("POST", f"/messages/?session_id={key}", *sent, body=body)
            actor.note(f"{name} posts", answer.status)
    actor.note("the endpoint event", shape(read[0].text.partition("\n\n")[0]))
    actor.note("a call before initialize", "structuredContent" in read[0].text)
    forged = await actor.send("GET", "/sse", ("Host", "evil.example"), token("alice"))
    actor.note("the endpoint event for a forged host", (forged.status, "evil" in forged.text))
    foreign = await actor.send("GET", "/sse", ("Origin", "https://evil.example"), token("alice"))
    actor.note("a foreign origin on the stream", foreign.status)


async def crowd(actor: Actor) -> None:
    alice = actor.token()
    statuses = [(await actor.rpc("initialize", INITIALIZE, alice)).status for _ in range(SESSIONS_PER_PRINCIPAL + 1)]
    actor.note("the last of many sessions", statuses[-1])
    actor.note("another user's session then", (await actor.rpc("initialize", INITIALIZE, actor.token("bob"))).status)
