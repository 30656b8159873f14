"""The app behind the guard: it keeps sessions in its process, holds streams open, and asks before it pays.

It is a plain one, so that what is measured is the guard and the store. Each payment is a line of a file that all
workers append to: what was paid twice stands there twice. It measures its process too, and appends that to a file.
"""

import asyncio
import contextlib
import json
import os
import secrets
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mcp_guard.asgi import Message, Receive, Scope, Send
from mcp_guard.facts import Principal, fact
from tests.guard.asgi import read_all

TICK_SECONDS = 0.02
WRITE_EVERY = 10
"""Ticks between two lines of measurements."""


@dataclass(eq=False)
class Shop:
    """`folder` is where payments and measurements go."""

    folder: Path
    sessions: dict[str, str] = field(default_factory=dict)
    gauge: "asyncio.Task[None] | None" = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.gauge is None:
            self.gauge = asyncio.create_task(self.measure())
        if scope["type"] == "lifespan":
            await self.live(receive, send)
            return
        subject = fact(scope, Principal).subject
        session = next((v.decode() for k, v in scope["headers"] if k == b"mcp-session-id"), None)
        if session is not None and self.sessions.get(session) != subject:
            await answer(send, 404, {"error": "no such session"})
        elif scope["method"] == "GET":
            await stream(receive, send)
        elif scope["method"] == "DELETE":
            self.sessions.pop(session or "", None)
            await answer(send, 200, {})
        else:
            await self.post(subject, json.loads(await read_all(receive)), send)

    async def live(self, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})

    async def post(self, subject: str, body: dict[str, Any], send: Send) -> None:
        if body["method"] == "initialize":
            session = secrets.token_hex(16)
            self.sessions[session] = subject
            await answer(send, 200, result(body, {"protocolVersion": "2025-11-25"}), session)
        elif body.get("params", {}).get("name") == "pay":
            await answer(send, 200, result(body, self.pay(body["params"])))
        else:
            await answer(send, 200, result(body, {"content": [], "structuredContent": {"subject": subject}}))

    def pay(self, params: dict[str, Any]) -> dict[str, Any]:
        """Ask first; pay when the question was answered."""
        number = params["arguments"]["number"]
        if params.get("requestState") is None:
            question = {"method": "elicitation/create", "params": {"message": "Pay?", "requestedSchema": {}}}
            return {"resultType": "input_required", "inputRequests": {"sure": question}, "requestState": number}
        assert params["requestState"] == number
        append(self.folder / "paid", number)
        return {"content": [], "structuredContent": {"paid": number}}

    async def measure(self) -> None:
        """Every so often, how late the event loop was at most, how many tasks there are, and the memory in use."""
        file = self.folder / f"gauge-{os.getpid()}"
        while True:
            latest = 0.0
            for _ in range(WRITE_EVERY):
                began = time.monotonic()
                await asyncio.sleep(TICK_SECONDS)
                latest = max(latest, time.monotonic() - began - TICK_SECONDS)
            append(file, json.dumps([time.monotonic(), latest * 1000, len(asyncio.all_tasks()), memory_kib()]))


def append(file: Path, line: str) -> None:
    """Add a line, whole, whoever else does."""
    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, line.encode() + b"\n")
    finally:
        os.close(descriptor)


def memory_kib(pid: int | str = "self") -> int:
    """What a process has in memory (VmRSS); 0 when it has ended."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text("ascii").splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
    return 0


def result(body: dict[str, Any], members: dict[str, Any]) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": body.get("id"), "result": members}


async def answer(send: Send, status: int, members: dict[str, Any], session: str | None = None) -> None:
    data = json.dumps(members).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(data)).encode())]
    if session is not None:
        headers.append((b"mcp-session-id", session.encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": data})


async def stream(receive: Receive, send: Send) -> None:
    """A stream without events, open until its client leaves or it is ended."""
    headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b": open\n\n", "more_body": True})
    message: Message = {"type": ""}
    while message["type"] != "http.disconnect":
        message = await receive()
