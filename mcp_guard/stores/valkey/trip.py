"""One round trip: a call of the script for each hash slot that is asked about, and the replies handed to their callers.

A call that the server did nothing of can be sent again: it did not know the script, is a replica now, or forbids a key
of somebody's, who is then asked for alone. Whatever else fails has failed, because it may have happened.
"""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from valkey.exceptions import ResponseError

from mcp_guard.failures import StoreUnavailable
from mcp_guard.stores.base import Result
from mcp_guard.stores.valkey import answers
from mcp_guard.stores.valkey.encoding import Script, Written, call, command
from mcp_guard.stores.valkey.link import Link, Redirected, class_of, refusal, reply

DID_NOTHING = ("NOSCRIPT", "READONLY")
ASKING = command(b"ASKING")
WAIT_SHARE = 0.8
"""The share of the time that is left which replicas get to acknowledge a write."""


@dataclass(eq=False, slots=True)
class Asked:
    """What one caller asks, all of it in one hash slot. `asking` goes to a node that is taking the slot over.

    `single_use` is whether its answer waits for replicas. `deadline` is in seconds of the event loop's clock.
    """

    slot: int
    asking: bool
    operations: Sequence[Written]
    answer: asyncio.Future[list[Result]]
    deadline: float
    single_use: bool = False

    def settle(self, results: list[Result]) -> None:
        if not self.answer.done():
            self.answer.set_result(results)

    def fail(self, fault: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(fault)


Group = list[Asked]


def fail(group: Iterable[Asked], fault: Exception) -> None:
    """Fail those who have no answer yet."""
    for asked in group:
        asked.fail(fault)


def grouped(batch: Iterable[Asked]) -> list[Group]:
    """Those who share a call: the same slot, asked about in the same way."""
    groups: dict[tuple[int, bool], Group] = {}
    for asked in batch:
        groups.setdefault((asked.slot, asked.asking), []).append(asked)
    return list(groups.values())


@dataclass(eq=False, slots=True)
class Trip:
    """The calls for `groups`. `replicas` is how many must have what is of single use, before it is answered."""

    groups: Sequence[Group]
    replicas: int = 0
    undone: list[Group] = field(default_factory=list, init=False)
    answered: bool = field(default=False, init=False)
    moved_on: bool = field(default=False, init=False)
    pending: list[tuple[Asked, list[Result]]] = field(default_factory=list, init=False)

    async def make(self, link: Link, run: Script, *, whole: bool = False) -> None:
        """Send the calls and hand out the replies. `whole` sends the script itself and not its digest.

        Afterwards `undone` are the groups that may be sent again, `moved_on` whether the server is a replica now or
        lacks its replicas, and `answered` whether it carried out a call, or knows who does.

        Raises:
            ValkeyError, OSError: the connection failed; nobody may take another reply from it.
        """
        commands = [self._command(group, run, whole) for group in self.groups]
        waits = any(asked.single_use for group in self.groups for asked in group)
        if waits:
            commands.append(self._wait())
        await link.send_packed_command(commands, check_health=False)
        for group in self.groups:
            if group[0].asking:
                await reply(link)
            self._take(group, await reply(link))
        if waits:
            self._acknowledge(await reply(link))

    def _command(self, group: Group, run: Script, whole: bool) -> bytes:
        operations = [written for asked in group for written in asked.operations]
        sent = call(b"EVAL", run.text, operations) if whole else call(b"EVALSHA", run.digest, operations)
        return ASKING + sent if group[0].asking else sent

    def _wait(self) -> bytes:
        left = self.groups[-1][-1].deadline - asyncio.get_running_loop().time()
        milliseconds = max(1, int(left * WAIT_SHARE * 1000))
        return command(b"WAIT", b"%d" % self.replicas, b"%d" % milliseconds)

    def _take(self, group: Group, answer: object) -> None:
        if isinstance(answer, ResponseError):
            self._refused(group, answer)
            return
        if not isinstance(answer, bytes):
            raise ResponseError("not an answer of run.lua")
        results = answers.read(answer)
        self.answered = True
        at = 0
        for asked in group:
            own, at = results[at : at + len(asked.operations)], at + len(asked.operations)
            self._hand(asked, own)

    def _refused(self, group: Group, error: ResponseError) -> None:
        name = class_of(error)
        if name in DID_NOTHING:
            self.undone.append(group)
            self.moved_on = self.moved_on or name == "READONLY"
        elif name == "NOPERM" and len(group) > 1:
            self.undone.extend([[asked] for asked in group])
        else:
            fault = refusal(error)
            self.answered = self.answered or isinstance(fault, Redirected)
            fail(group, fault)

    def _hand(self, asked: Asked, results: list[Result | answers.Failed]) -> None:
        good: list[Result] = []
        for result in results:
            if isinstance(result, answers.Failed):
                asked.fail(StoreUnavailable(f"valkey: {result.reason}"))
                return
            good.append(result)
        if asked.single_use:
            self.pending.append((asked, good))
        else:
            asked.settle(good)

    def _acknowledge(self, count: object) -> None:
        for asked, results in self.pending:
            if isinstance(count, int) and count >= self.replicas:
                asked.settle(results)
            else:
                self.moved_on = True
                asked.fail(StoreUnavailable("valkey: fewer replicas than required have the write"))
