"""Watches over open streams: what was decided when a stream was opened is decided again for as long as it is open.

A stream ends, as if the app had ended it, when its token expires, is revoked, or its session is gone; when the store
has not said otherwise for longer than is tolerated; and when its principal has more streams than it may. It is cut when
its client does not read. Two tasks do this for all streams of a layer: one that only looks at the clock, so that no
store holds it up, and one that asks the store.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Hashable, Iterable, Iterator, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import islice
from typing import Any, Final, TypeVar

from mcp_guard.clock import Clock
from mcp_guard.facts import Principal
from mcp_guard.failures import Unavailable
from mcp_guard.layer import Outgoing
from mcp_guard.revocation import GRANT_PREFIX, PREFIX, questions, refused
from mcp_guard.stores.base import Enter, Get, Leave, Store

logger = logging.getLogger("mcp_guard")

Item = TypeVar("Item")
Key = TypeVar("Key", bound=Hashable)

TICK_SECONDS: Final = 0.5
"""How often each task looks whether something is due; an announced revocation does not wait for it."""

GAP_SECONDS: Final = 0.05
"""The least time between two rounds, so that a flood of announcements does not keep the loop busy."""

PAUSE_SECONDS: Final = 0.001
"""How long a look at all streams lets others run now and then."""

LEASE: Final = timedelta(seconds=60)
"""How long a place among a principal's streams is kept when the worker that holds it says nothing more."""

REVOCATIONS: Final = (PREFIX, GRANT_PREFIX)
"""What the keys of revocations begin with; others that are announced are of sessions."""

SHUTTING_DOWN: Final = "the server shuts down"
"""Why a stream ends for which nothing else speaks."""

AT_ONCE: Final = 256
"""Streams that are looked at without letting others run, and the most that one batch asks the store about."""


@dataclass(eq=False, slots=True)
class OpenStream:
    """A stream: how to end it, whose it is, and the last instant of the monotonic clock at which it may be open.

    `session` is the store key of the session it belongs to. `place` takes its place among the streams of the principal;
    None for one that is not counted. `stuck` is the part of the body that waited at `stuck_since` to be read.
    """

    outgoing: Outgoing
    principal: Principal
    deadline: float
    session: str | None
    place: Enter | None
    stuck: int = 0
    stuck_since: float = 0.0


@dataclass(eq=False, kw_only=True)
class Keeper:
    """Watches over the streams of one layer, from `start` to `close` (`Managed`), by the layer's settings."""

    store: Store
    clock: Clock
    recheck: timedelta
    stall: timedelta
    leeway: timedelta
    outage_grace: timedelta

    streams: set[OpenStream] = field(default_factory=set, init=False)
    left: dict[Leave, float] = field(default_factory=dict, init=False)
    draining: bool = field(default=False, init=False)
    _tasks: tuple[asyncio.Task[None], ...] = field(default=(), init=False)
    _woken: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    _heard: set[str] = field(default_factory=set, init=False)
    _next_recheck: float = field(default=0.0, init=False)
    _next_renewal: float = field(default=0.0, init=False)
    _unanswered_since: float | None = field(default=None, init=False)

    async def start(self) -> None:
        """Begin to watch, once."""
        if self._tasks:
            return
        self.draining, self._woken = False, asyncio.Event()
        self._tasks = (
            asyncio.create_task(self._again_and_again(self.look, asyncio.Event())),
            asyncio.create_task(self._again_and_again(self.ask, self._woken)),
        )

    async def close(self) -> None:
        """Watch no longer; the places of streams that have ended are given back."""
        tasks, self._tasks = self._tasks, ()
        if not tasks:
            return
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        try:
            await self._give_back()
        except Unavailable as fault:
            logger.warning("places of streams are not given back before their lease ends: %s", fault)

    def opened(self, outgoing: Outgoing, principal: Principal, session: str | None, place: Enter | None) -> OpenStream:
        """A stream begins."""
        left = principal.expires_at + self.leeway.total_seconds() - self.clock.wall()
        stream = OpenStream(outgoing, principal, self.clock.monotonic() + left, session, place)
        self.streams.add(stream)
        if self.draining and place is not None:
            outgoing.end(SHUTTING_DOWN)
        return stream

    def ended(self, stream: OpenStream) -> None:
        """A stream is over, however it ended."""
        self.streams.discard(stream)
        if stream.place is not None:
            self.leave(stream.place)

    def leave(self, place: Enter) -> None:
        """Give a place back, as soon as the store takes it; its lease ends in any case."""
        self.left[Leave(place.key, place.member)] = self.clock.monotonic() + LEASE.total_seconds()
        self._woken.set()

    def hear(self, message: bytes) -> None:
        """A key was written or removed: ask now about the streams that it concerns, and about no other."""
        self._heard.add(message.decode("ascii", "replace"))
        self._woken.set()

    def drain(self) -> None:
        """End the streams that wait for nothing in particular; those that answer a call are left to end with it."""
        self.draining = True
        for stream in tuple(self.streams):
            if stream.place is not None:
                stream.outgoing.end(SHUTTING_DOWN)

    async def look(self) -> None:
        """End what the clock alone decides on."""
        silence = self._unanswered_since
        for some in _batches(self.streams):
            now, wall = self.clock.monotonic(), self.clock.wall()
            silent = silence is not None and now - silence >= self.outage_grace.total_seconds()
            for stream in some:
                self._judge(stream, now, wall, silent=silent)
            await asyncio.sleep(PAUSE_SECONDS)

    def _judge(self, stream: OpenStream, now: float, wall: float, *, silent: bool) -> None:
        # Both clocks count: one that is stepped back keeps no stream alive.
        if now >= stream.deadline or wall >= stream.principal.expires_at + self.leeway.total_seconds():
            stream.outgoing.end("the token of an open stream has expired")
        elif silent:
            stream.outgoing.end("the store does not say whether an open stream is still authorized")
        pending = stream.outgoing.pending
        if pending != stream.stuck:
            stream.stuck, stream.stuck_since = pending, now
        elif pending and now - stream.stuck_since >= self.stall.total_seconds():
            stream.outgoing.cut("the client of an open stream does not read")

    async def ask(self) -> None:
        """Tell the store which places are free, and ask it what it decides on, each when it is due.

        Raises:
            Unavailable: the store does not answer; the next call goes on where this one stopped.
        """
        await self._give_back()
        now = self.clock.monotonic()
        is_due, heard = now >= self._next_recheck, self._heard
        if is_due or heard:
            # Without an answer all streams are asked about the next time.
            then, self._next_recheck, self._heard = self._next_recheck, now, set()
            if self._unanswered_since is None:
                self._unanswered_since = now
            streams = tuple(self.streams) if is_due else await self._concerned(heard)
            await self._ask_whether_revoked(streams)
            await self._ask_for_sessions(streams)
            self._unanswered_since = None
            self._next_recheck = now + self.recheck.total_seconds() if is_due else then
        if now >= self._next_renewal:
            await self._keep_places()
            self._next_renewal = now + LEASE.total_seconds() / 3

    async def _give_back(self) -> None:
        now = self.clock.monotonic()
        for some in _batches(self.left):
            held = [leave for leave in some if self.left.get(leave, now) > now]
            if held:
                await self.store.run(held)
            for leave in some:
                self.left.pop(leave, None)

    async def _concerned(self, keys: Set[str]) -> Sequence[OpenStream]:
        """The streams that one of the keys is about. Most keys are of sessions, so principals are looked at last."""
        revoked = {key for key in keys if key.startswith(REVOCATIONS)}
        found: list[OpenStream] = []
        for some in _batches(self.streams):
            found += [
                stream
                for stream in some
                if stream.session in keys
                or (revoked and any(question.key in revoked for question in questions(stream.principal)))
            ]
            await asyncio.sleep(0)
        return found

    async def _ask_whether_revoked(self, asked_about: Sequence[OpenStream]) -> None:
        # A token is asked about once, however many streams it opened.
        streams = _grouped((stream.principal.token_fingerprint, stream) for stream in asked_about)
        for some in _batches(streams.values(), AT_ONCE // 4):
            asked = [(opened, questions(opened[0].principal)) for opened in some]
            results = iter(await self.store.run([question for _, each in asked for question in each]))
            for opened, each in asked:
                found = refused(opened[0].principal, list(islice(results, len(each))))
                if found is not None:
                    _end(opened, f"the {found.kind} behind an open stream was revoked")

    async def _ask_for_sessions(self, asked_about: Sequence[OpenStream]) -> None:
        streams = _grouped((stream.session, stream) for stream in asked_about if stream.session is not None)
        for some in _batches(streams):
            for session, record in zip(some, await self.store.run([Get(key) for key in some]), strict=True):
                if record is None:
                    _end(streams[session], "the session of an open stream is gone")

    async def _keep_places(self) -> None:
        streams = {stream.place: stream for stream in self.streams if stream.place is not None}
        for some in _batches(streams):
            for place, inside in zip(some, await self.store.run(list(some)), strict=True):
                if not inside:
                    streams[place].outgoing.end("the principal has more streams than it may")

    async def _again_and_again(self, work: Callable[[], Coroutine[Any, Any, None]], woken: asyncio.Event) -> None:
        while True:
            woken.clear()
            try:
                await work()
            except Unavailable as fault:
                logger.warning("open streams cannot be asked about: %s", fault)
            except Exception:
                logger.exception("watching over open streams failed")
            await asyncio.sleep(GAP_SECONDS)
            with suppress(TimeoutError):
                async with asyncio.timeout(TICK_SECONDS):
                    await woken.wait()


def _end(streams: Iterable[OpenStream], reason: str) -> None:
    for stream in streams:
        stream.outgoing.end(reason)


def _grouped(pairs: Iterable[tuple[Key, OpenStream]]) -> dict[Key, list[OpenStream]]:
    groups: dict[Key, list[OpenStream]] = {}
    for key, stream in pairs:
        groups.setdefault(key, []).append(stream)
    return groups


def _batches(items: Iterable[Item], size: int = AT_ONCE) -> Iterator[tuple[Item, ...]]:
    """What `items` holds now, a few at a time."""
    rest = iter(tuple(items))
    while some := tuple(islice(rest, size)):
        yield some
