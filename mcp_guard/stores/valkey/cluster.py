"""A cluster: each batch is one parallel wave, one call for each hash slot that it touches.

The operations of one slot are carried out in their order; of different slots, in no order. An operation has its keys in
one slot, but for a `Spend` over buckets of several: that is one for each slot, and when one of them is exhausted, the
others are given back. In between, for the length of one round trip, they hold less than they should, and never more.
"""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

from valkey.crc import key_slot

from mcp_guard.failures import StoreUnavailable
from mcp_guard.stores.base import Bucket, Level, Operation, Result, Spend, levels_of
from mcp_guard.stores.valkey.address import Address, Node
from mcp_guard.stores.valkey.batcher import Batcher
from mcp_guard.stores.valkey.encoding import Names, Unspend, Written
from mcp_guard.stores.valkey.link import Link, Redirected, connected, drop, greeted
from mcp_guard.stores.valkey.slots import SlotMap

logger = logging.getLogger("mcp_guard")


@dataclass(eq=False, slots=True)
class Piece:
    """An operation of a batch in one slot: the one in `place`, or the part of a `Spend` for the buckets in `parts`."""

    place: int
    written: Written
    parts: tuple[int, ...] = ()


Wave = dict[int, list[Piece]]
"""What is asked at once, by slot."""


@dataclass(eq=False)
class Cluster:
    """`deadline` is in seconds. A node is connected to when something is first asked of it."""

    address: Address
    names: Names
    deadline: float
    replicas: int
    slots: SlotMap = field(init=False)
    _batchers: dict[Node, Batcher] = field(default_factory=dict, init=False)
    _listened: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.slots = SlotMap(self.address)

    async def run(self, operations: Sequence[Operation]) -> list[Result]:
        """See the contract."""
        deadline = asyncio.get_running_loop().time() + self.deadline
        wave: Wave = {}
        for place, operation in enumerate(operations):
            self._lay_out(wave, place, operation)
        try:
            async with asyncio.timeout_at(deadline):
                await self.slots.known()
                answers = await self._ask(wave)
                results = _assembled(operations, wave, answers)
                await self._give_back(operations, wave, results)
        except TimeoutError:
            raise StoreUnavailable("valkey: no answer within the deadline") from None
        return results

    def _lay_out(self, wave: Wave, place: int, operation: Operation) -> None:
        if isinstance(operation, Spend) and len(operation.buckets) > 1:
            by_slot: dict[int, list[int]] = {}
            for part, bucket in enumerate(operation.buckets):
                by_slot.setdefault(key_slot(self.names.bucket(bucket.key)), []).append(part)
            if len(by_slot) > 1:
                for slot, parts in by_slot.items():
                    written = self.names.write(Spend(tuple([operation.buckets[part] for part in parts])))
                    wave.setdefault(slot, []).append(Piece(place, written, tuple(parts)))
                return
        written = self.names.write(operation)
        slot = key_slot(written.slot_key) if written.slot_key is not None else next(iter(wave), 0)
        wave.setdefault(slot, []).append(Piece(place, written))

    async def _ask(self, wave: Wave) -> dict[int, list[Result]]:
        """The results of a wave, by slot. What a node sends elsewhere is asked there, once.

        Raises:
            StoreUnavailable: a part may not have been carried out.
        """
        asked = {slot: self._asked(slot, pieces) for slot, pieces in wave.items()}
        outcomes = dict(zip(asked, await asyncio.gather(*asked.values(), return_exceptions=True), strict=True))
        elsewhere = {
            slot: self._asked(slot, wave[slot], outcome)
            for slot, outcome in outcomes.items()
            if isinstance(outcome, Redirected)
        }
        if elsewhere:
            followed = await asyncio.gather(*elsewhere.values(), return_exceptions=True)
            outcomes |= dict(zip(elsewhere, followed, strict=True))
        answers: dict[int, list[Result]] = {}
        for slot, outcome in outcomes.items():
            if isinstance(outcome, BaseException):
                self.slots.learn()
                raise outcome
            answers[slot] = outcome
        return answers

    def _asked(
        self, slot: int, pieces: Sequence[Piece], redirected: Redirected | None = None
    ) -> asyncio.Future[list[Result]]:
        try:
            owner = self.slots.owner(slot)
            if redirected is not None:
                owner = Node(redirected.node.host or owner.host, redirected.node.port)
            if redirected is not None and not redirected.once:
                self.slots.owners[slot] = owner
                self.slots.learn()
            asking = redirected is not None and redirected.once
            return self._batcher(owner).ask([piece.written for piece in pieces], slot, asking=asking)
        except StoreUnavailable as fault:
            failed: asyncio.Future[list[Result]] = asyncio.get_running_loop().create_future()
            failed.set_exception(fault)
            return failed

    async def _give_back(self, operations: Sequence[Operation], wave: Wave, results: Sequence[Result]) -> None:
        """Give back what parts of a `Spend` took when another part was exhausted."""
        back: Wave = {}
        for slot, pieces in wave.items():
            for piece in pieces:
                if not piece.parts:
                    continue
                levels = levels_of(results[piece.place])
                refused = not all(level.allowed for level in levels)
                if refused and all(levels[part].allowed for part in piece.parts):
                    unspend = Unspend(_buckets(operations[piece.place], piece.parts))
                    back.setdefault(slot, []).append(Piece(piece.place, self.names.write(unspend)))
        if back:
            try:
                await self._ask(back)
            except StoreUnavailable as fault:
                logger.warning("a bucket stays emptier than it should: %s", fault.reason)

    def _batcher(self, node: Node) -> Batcher:
        batcher = self._batchers.get(node)
        if batcher is None:

            async def connect() -> Link:
                return await greeted(self.address, node, self.names)

            batcher = self._batchers[node] = Batcher(connect, self.deadline, self.replicas)
        return batcher

    async def connect_all(self) -> list[Link]:
        """A connection to each primary."""
        await self.slots.known()
        links: list[Link] = []
        try:
            for node in self.slots.primaries:
                links.append(await greeted(self.address, node, self.names))  # noqa: PERF401 - kept when one fails
        except BaseException:
            for link in links:
                await drop(link)
            raise
        return links

    async def connect_to_hear(self) -> Link:
        """A connection that nothing was asked on, to one node after the other: each hears what any announces."""
        await self.slots.known()
        nodes = self.slots.primaries
        self._listened += 1
        return await connected(self.address, nodes[self._listened % len(nodes)], self.address.credentials)

    async def close(self) -> None:
        """Let go of the connections."""
        await self.slots.close()
        batchers, self._batchers = list(self._batchers.values()), {}
        for batcher in batchers:
            await batcher.close()


def _buckets(operation: Operation, parts: Sequence[int]) -> tuple[Bucket, ...]:
    return tuple([operation.buckets[part] for part in parts]) if isinstance(operation, Spend) else ()


def _assembled(operations: Sequence[Operation], wave: Wave, answers: dict[int, list[Result]]) -> list[Result]:
    """The results of a batch in its order, and the levels of each `Spend` in the order of its buckets."""
    results: list[Result] = [None] * len(operations)
    levels: dict[int, dict[int, Level]] = {}
    for slot, pieces in wave.items():
        for piece, result in zip(pieces, answers[slot], strict=True):
            if piece.parts:
                levels.setdefault(piece.place, {}).update(zip(piece.parts, levels_of(result), strict=True))
            else:
                results[piece.place] = result
    for place, by_part in levels.items():
        results[place] = tuple([by_part[part] for part in sorted(by_part)])
    return results
