"""Talks to an ASGI application without a socket, event streams included: a stream is read until it falls silent."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import anyio

SILENCE_SECONDS = 0.03
ANSWER_SECONDS = 5.0
Message = MutableMapping[str, Any]
App = Callable[[Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]


@dataclass
class Answer:
    """A response as far as it was read. `ended` is False for a stream that was left open."""

    status: int = 0
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    ended: bool = False

    def header(self, name: str) -> str:
        """The value of a header (all of them, joined); empty when absent."""
        return ", ".join(value for key, value in self.headers if key == name.lower())

    @property
    def text(self) -> str:
        return self.body.decode("utf-8", "replace")

    def json(self) -> Any:
        """The JSON body, or None."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None


async def send(
    app: App,
    method: str,
    target: str,
    headers: list[tuple[str, str]] | None = None,
    body: bytes = b"",
    peer: int = 50000,
    silence: float = SILENCE_SECONDS,
) -> Answer:
    """One request. `target` is path and query, the path percent-encoded; `peer` is the client's port, which tells
    connections apart; `silence` is how many seconds a stream may say nothing before it is left."""
    path, _, query = target.partition("?")
    scope: Message = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "scheme": "http",
        "method": method,
        "path": unquote(path),
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in headers or []],
        "client": ("127.0.0.1", peer),
        "server": ("127.0.0.1", 80),
    }
    answer, heard, gone = Answer(), anyio.Event(), anyio.Event()
    sent = False

    async def receive() -> Message:
        nonlocal sent
        if not sent:
            sent = True
            return {"type": "http.request", "body": body, "more_body": False}
        await gone.wait()
        return {"type": "http.disconnect"}

    async def collect(message: Message) -> None:
        nonlocal heard
        if message["type"] == "http.response.start":
            answer.status = message["status"]
            answer.headers = [(name.decode(), value.decode("latin-1")) for name, value in message["headers"]]
        else:
            answer.body += message.get("body", b"")
            answer.ended = not message.get("more_body", False)
        heard.set()

    async def serve() -> None:
        await app(scope, receive, collect)
        answer.ended = True
        heard.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(serve)
        while not answer.ended:
            patience = silence if "event-stream" in answer.header("content-type") else ANSWER_SECONDS
            with anyio.move_on_after(patience) as waiting:
                await heard.wait()
            heard = anyio.Event()
            if waiting.cancelled_caught:
                break
        gone.set()
        tasks.cancel_scope.cancel()
    return answer
