"""The watches and rewrites of one exchange: what the response of the app passes on its way out.

The response passes those of the innermost layer first. What a watch asks of a store is done before the message that
made it ask goes on.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from mcp_guard.asgi import RawHeaders
from mcp_guard.layer import Rewrite, Watch
from mcp_guard.stores.base import Operation, Store

logger = logging.getLogger("mcp_guard")


class Link(NamedTuple):
    """What one admission says of the response: a watch, a rewrite, or both, and the store of the check."""

    watch: Watch | None
    rewrite: Rewrite | None
    store: Store | None


@dataclass(eq=False, slots=True)
class Watches:
    """The links, outermost first."""

    links: list[Link] = field(default_factory=list)

    def add(self, watch: Watch | None, rewrite: Rewrite | None, store: Store | None) -> None:
        """Take in what the next layer inward says."""
        self.links.append(Link(watch, rewrite, store))

    @property
    def want_body(self) -> bool:
        """Whether the rest of the body still matters to anyone."""
        return any(
            (watch is not None and watch.wants_body) or (rewrite is not None and rewrite.wants_body)
            for watch, rewrite, _ in self.links
        )

    async def on_start(self, status: int, headers: RawHeaders) -> RawHeaders:
        """Show the start of the response to all. Answers the fields that go out.

        Raises:
            Exception: whatever a link raises; it and those further in have then been let go of.
        """
        for position in range(len(self.links) - 1, -1, -1):
            watch, rewrite, store = self.links[position]
            try:
                if watch is not None:
                    operations = watch.on_start(status, headers)
                    if operations:
                        await _settle(watch, operations, store)
                if rewrite is not None:
                    headers = rewrite.on_start(status, headers)
            except Exception:
                self.end(position)
                raise
        return headers

    async def on_body(self, chunk: bytes, more: bool) -> bytes:
        """Show a part of the body to all who want it. Answers what goes out in its place.

        Raises:
            Exception: whatever a link raises.
        """
        for watch, rewrite, store in reversed(self.links):
            if watch is not None and watch.wants_body:
                operations = watch.on_body(chunk)
                if operations:
                    await _settle(watch, operations, store)
            if rewrite is not None and rewrite.wants_body:
                chunk = await rewrite.on_body(chunk, more)
        return chunk

    def end(self, position: int = 0) -> None:
        """Let the links from `position` inwards go, innermost first."""
        for watch, _, _ in reversed(self.links[position:]):
            if watch is not None:
                try:
                    watch.on_end()
                except Exception:
                    logger.exception("%s failed to let go", type(watch).__name__)
        del self.links[position:]


async def _settle(watch: Watch, operations: Sequence[Operation], store: Store | None) -> None:
    """Run what a watch asks for and let it judge the results.

    Raises:
        Rejection: the watch refuses the response.
        Unavailable: the watch or the store cannot judge it now.
        RuntimeError: its check has no store to ask.
    """
    if store is None:
        raise RuntimeError(f"{type(watch).__name__} asks for store operations but its check has no store")
    watch.settle(await store.run(operations))
