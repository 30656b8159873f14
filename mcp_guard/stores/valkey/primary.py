"""A deployment with one primary: a single server, or the one that sentinels name."""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

from valkey.exceptions import ValkeyError

from mcp_guard.stores.base import Operation, Result
from mcp_guard.stores.valkey.address import Address, Node
from mcp_guard.stores.valkey.batcher import Batcher
from mcp_guard.stores.valkey.encoding import Names, command
from mcp_guard.stores.valkey.link import Link, Unsent, ask, class_of, connected, drop, greeted

logger = logging.getLogger("mcp_guard")

SENTINEL_SECONDS = 0.3
"""How long one sentinel may take to answer before the next one is asked."""


@dataclass(eq=False)
class Primary:
    """Runs each batch as one call on the primary. `deadline` is in seconds."""

    address: Address
    names: Names
    deadline: float
    replicas: int
    _batcher: Batcher = field(init=False)

    def __post_init__(self) -> None:
        self._batcher = Batcher(self.connect, self.deadline, self.replicas)

    async def run(self, operations: Sequence[Operation]) -> list[Result]:
        """See the contract."""
        write = self.names.write
        return await self._batcher.ask([write(operation) for operation in operations])

    async def connect(self) -> Link:
        """A connection to the primary, ready for use."""
        return await greeted(self.address, await self.find(), self.names)

    async def connect_all(self) -> list[Link]:
        """A connection to each server that keeps state."""
        return [await self.connect()]

    async def connect_to_hear(self) -> Link:
        """A connection that nothing was asked on."""
        return await connected(self.address, await self.find(), self.address.credentials, self.address.db)

    async def close(self) -> None:
        """Let go of the connection."""
        await self._batcher.close()

    async def find(self) -> Node:
        """Where the primary is.

        Raises:
            Unsent: no sentinel knows.
        """
        if self.address.kind == "single":
            return self.address.nodes[0]
        why = "no sentinel"
        for sentinel in self.address.nodes:
            try:
                async with asyncio.timeout(SENTINEL_SECONDS):
                    answer = await self._ask_sentinel(sentinel)
            except (ValkeyError, OSError) as error:
                why = class_of(error)
                continue
            if isinstance(answer, list):
                return Node(answer[0].decode("ascii"), int(answer[1]))
            why = class_of(answer) if isinstance(answer, Exception) else "unknown primary"
        raise Unsent(f"valkey: the sentinels name no primary: {why}")

    async def _ask_sentinel(self, sentinel: Node) -> object:
        link = await connected(self.address, sentinel, self.address.sentinel_credentials)
        try:
            name = self.address.primary.encode()
            (answer,) = await ask(link, [command(b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", name)])
        finally:
            await drop(link)
        return answer
