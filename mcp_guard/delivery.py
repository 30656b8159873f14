"""The response on its way out, for whoever ends it from outside: a layer that watches over open streams.

It knows nothing of the exchange that it is part of, so that a request that was served is freed at once.
"""

import asyncio
from dataclasses import dataclass
from typing import Any

from mcp_guard.asgi import Message, Send


@dataclass(eq=False, slots=True)
class Delivery:
    """See `mcp_guard.layer.Outgoing`. `task` runs the app, while it runs."""

    outer_send: Send
    task: asyncio.Task[Any] | None = None
    reason: str | None = None
    is_cut: bool = False
    parts: int = 0
    pending: int = 0

    def end(self, reason: str) -> None:
        """End the response as if the app had ended it."""
        self._stop(reason, is_cut=False)

    def cut(self, reason: str) -> None:
        """End the response unfinished."""
        self._stop(reason, is_cut=True)

    def _stop(self, reason: str, *, is_cut: bool) -> None:
        if self.task is not None and self.reason is None:
            self.reason, self.is_cut = reason, is_cut
            self.task.cancel(reason)

    @property
    def stopping(self) -> bool:
        """Whether the response was ended from here, and the app still runs."""
        return self.reason is not None and self.task is not None

    def begin(self) -> None:
        """The app is called, by the task that runs now."""
        self.task = asyncio.current_task()

    def over(self) -> bool:
        """The app is no longer running. Answers True when it was stopped from here, and by nobody else too."""
        task, self.task = self.task, None
        return self.reason is not None and task is not None and task.uncancel() == 0

    async def body(self, message: Message) -> None:
        """Hand a part of the body to the server; `pending` is its number until it is taken."""
        self.parts += 1
        self.pending = self.parts
        await self.outer_send(message)
        self.pending = 0
