"""Server-sent events with their ids, and the response that carries them."""

from __future__ import annotations

import json
import secrets
from collections import deque
from collections.abc import AsyncIterator, Callable

import anyio
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from tests.support.model_server.keys import JSON

TICK_SECONDS = 0.1
HELD_MESSAGES = 100


class Stream:
    """One open event stream. `id` begins the ids of all its events, so an event id tells its stream."""

    def __init__(self, stream_id: str | None = None) -> None:
        self.id = stream_id or secrets.token_hex(16)
        self.open = True
        self._frames: deque[str] = deque(maxlen=HELD_MESSAGES)
        self._arrived = anyio.Event()

    def put(self, frame: str) -> None:
        self._frames.append(frame)
        self._arrived.set()

    async def frames(self, alive: Callable[[], bool]) -> AsyncIterator[str]:
        """Frames as they arrive, until the stream is no longer `alive`."""
        try:
            while alive():
                while self._frames:
                    yield self._frames.popleft()
                self._arrived = anyio.Event()
                with anyio.move_on_after(TICK_SECONDS):
                    await self._arrived.wait()
        finally:
            self.open = False


def frame(message: JSON | None, event_id: str | None = None, event: str | None = None, data: str | None = None) -> str:
    """One event of the `text/event-stream` format."""
    lines = [f"id: {event_id}"] if event_id is not None else []
    lines += [f"event: {event}"] if event is not None else []
    text = data if data is not None else ("" if message is None else json.dumps(message, separators=(",", ":")))
    return "\n".join([*lines, f"data: {text}", "", ""])


class EventStream(Response):
    """Sends frames until they end or the client goes away."""

    media_type = "text/event-stream"

    def __init__(self, frames: AsyncIterator[str]) -> None:
        super().__init__(headers={"X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._source = frames

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        async with anyio.create_task_group() as tasks:

            async def watch() -> None:
                while (await receive())["type"] != "http.disconnect":
                    pass
                tasks.cancel_scope.cancel()

            tasks.start_soon(watch)
            async for one in self._source:
                await send({"type": "http.response.body", "body": one.encode("utf-8"), "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            tasks.cancel_scope.cancel()
