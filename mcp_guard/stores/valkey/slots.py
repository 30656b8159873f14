"""Which node of a cluster has which hash slot. The map is learned from any node, and learned anew when it was wrong."""

import asyncio
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from valkey.exceptions import ValkeyError

from mcp_guard.failures import StoreUnavailable
from mcp_guard.stores.valkey.address import Address, Node
from mcp_guard.stores.valkey.encoding import command
from mcp_guard.stores.valkey.link import Unsent, ask, class_of, connected, drop

logger = logging.getLogger("mcp_guard")

SLOTS = 16384
NODE_SECONDS = 0.3
"""How long one node may take to tell the map before the next one is asked."""
REST_SECONDS = 0.1
"""How long after a map was learned the next one is learned at the earliest, unless somebody waits for it."""


@dataclass(eq=False)
class SlotMap:
    """`owners` has a node for each slot, None for a slot that nobody has; it is empty until a map was learned."""

    address: Address
    owners: list[Node | None] = field(default_factory=list)
    _learning: asyncio.Task[None] | None = field(default=None, init=False)

    @property
    def primaries(self) -> list[Node]:
        """The nodes that have slots, each once."""
        return list(dict.fromkeys([node for node in self.owners if node is not None]))

    def owner(self, slot: int) -> Node:
        """Who has the slot.

        Raises:
            Unsent: nobody.
        """
        node = self.owners[slot]
        if node is None:
            raise Unsent("valkey: CLUSTERDOWN")
        return node

    async def known(self) -> None:
        """Return when there is a map.

        Raises:
            Unsent: no node tells one.
        """
        if not self.owners:
            await asyncio.shield(self.learn())
        if not self.owners:
            raise Unsent("valkey: no node of the cluster tells its slots")

    def learn(self) -> asyncio.Task[None]:
        """Learn the map anew, once for all who want it."""
        if self._learning is None:
            self._learning = asyncio.get_running_loop().create_task(
                self._learn(), name="mcp-guard: the slots of Valkey"
            )
        return self._learning

    async def close(self) -> None:
        """Stop learning."""
        if self._learning is not None:
            self._learning.cancel()
            await asyncio.wait([self._learning])

    async def _learn(self) -> None:
        try:
            for node in dict.fromkeys([*self.primaries, *self.address.nodes]):
                try:
                    async with asyncio.timeout(NODE_SECONDS):
                        self.owners = await self._told_by(node)
                    break
                except (ValkeyError, OSError, StoreUnavailable) as error:
                    logger.warning("valkey: %s tells no slots: %s", node, class_of(error))
            await asyncio.sleep(REST_SECONDS if self.owners else 0)
        finally:
            self._learning = None

    async def _told_by(self, node: Node) -> list[Node | None]:
        link = await connected(self.address, node, self.address.credentials)
        try:
            (answer,) = await ask(link, [command(b"CLUSTER", b"SLOTS")])
        finally:
            await drop(link)
        if not isinstance(answer, list) or not answer:
            raise Unsent(f"valkey: {class_of(answer)}" if isinstance(answer, Exception) else "valkey: CLUSTERDOWN")
        owners: list[Node | None] = [None] * SLOTS
        for first, last, owner in _ranges(answer, node):
            owners[first : last + 1] = [owner] * (last + 1 - first)
        return owners


def _ranges(answer: list[Any], told_by: Node) -> Iterator[tuple[int, int, Node]]:
    """The ranges in an answer to CLUSTER SLOTS. A node that does not know its own name has the one it was asked by."""
    for first, last, primary, *_ in answer:
        host = (primary[0] or b"").decode("ascii")
        yield first, last, Node(told_by.host if host in ("", "?") else host, primary[1])
