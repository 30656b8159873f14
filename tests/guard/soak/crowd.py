"""A crowd: principals with sessions of every era, whose requests go to any of the workers of a deployment.

Each member of the crowd is one session (or one stateless client) of one principal. It knows what it may expect: its own
answers, as its own user, and nothing at all of a session that is another's.
"""

import asyncio
import random
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.guard.affinity.process import (
    BOTH,
    INITIALIZE,
    INITIALIZED,
    MCP_URL,
    SSE_URL,
    Deployment,
    Process,
    call,
    result_of,
)

WHOAMI = call("whoami")
MODERN = "2026-07-28"
LEGACY = ("2025-03-26", "2025-06-18", "2025-11-25")


@dataclass(eq=False)
class Tally:
    """What happened, by kind: `served`, `lost` (404 for one's own session), `wrong_user`, `stolen`, `refused`, and
    `unexpected`: any other status or a broken connection. A theft is `stolen` or `refused`.
    """

    counts: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    def note(self, kind: str, what: str = "") -> None:
        self.counts[kind] += 1
        if what and len(self.notes) < 20:
            self.notes.append(f"{kind}: {what}")


@dataclass(eq=False)
class Member(ABC):
    """One session. `subject` is whose it is; `home` the worker that it was opened at."""

    deployment: Deployment
    http: httpx.AsyncClient
    subject: str
    tally: Tally
    home: Process | None = None

    audience = MCP_URL

    def __post_init__(self) -> None:
        self.token = self.deployment.token(self.subject, self.audience)

    @abstractmethod
    async def open(self, at: Process) -> None:
        """Begin at a worker."""

    @abstractmethod
    async def ask(self, at: Process) -> None:
        """One call of `whoami` at a worker, tallied."""

    @abstractmethod
    async def stolen_by(self, thief: str, at: Process) -> None:
        """Somebody else presents this session's handle at a worker, tallied."""

    def headers(self, token: str, **more: str) -> dict[str, str]:
        return {"authorization": f"Bearer {token}", **BOTH, **more}

    def judge(self, answer: httpx.Response, at: Process) -> None:
        if answer.status_code == 404:
            self.tally.note("lost", f"{type(self).__name__} of {self.subject}: {answer.text[:100]}")
        elif answer.status_code != 200:
            self.tally.note("unexpected", f"{type(self).__name__}: {answer.status_code} {answer.text[:200]}")
        else:
            self.judge_result(result_of(answer.text))

    def judge_result(self, result: dict[str, Any]) -> None:
        if result.get("subject") == self.subject:
            self.tally.note("served")
        else:
            self.tally.note("wrong_user", f"{self.subject} was answered as {result}")

    def judge_theft(self, answer: httpx.Response) -> None:
        if answer.status_code == 404:
            self.tally.note("refused")
        elif answer.status_code < 400:
            self.tally.note("stolen", f"{type(self).__name__}: {answer.text[:200]}")
        else:
            self.tally.note("unexpected", f"a theft was answered {answer.status_code} {answer.text[:100]}")


class Stateless(Member):
    """A client of 2026-07-28: there is nothing to steal, and every worker serves it."""

    async def open(self, at: Process) -> None:
        self.home = None

    async def ask(self, at: Process) -> None:
        meta = {
            "io.modelcontextprotocol/protocolVersion": MODERN,
            "io.modelcontextprotocol/clientInfo": {"name": "crowd", "version": "1"},
            "io.modelcontextprotocol/clientCapabilities": {},
        }
        message = {**WHOAMI, "params": {"name": "whoami", "arguments": {}, "_meta": meta}}
        fields = {"mcp-protocol-version": MODERN, "mcp-method": "tools/call", "mcp-name": "whoami"}
        answer = await self.http.post(f"{at.url}/mcp", json=message, headers=self.headers(self.token, **fields))
        self.judge(answer, at)

    async def stolen_by(self, thief: str, at: Process) -> None:
        await self.ask(at)


@dataclass(eq=False)
class Streamable(Member):
    """A session of Streamable HTTP."""

    revision: str = LEGACY[0]
    session: str = ""

    def fields(self, token: str) -> dict[str, str]:
        return self.headers(token, **{"mcp-session-id": self.session, "mcp-protocol-version": self.revision})

    async def open(self, at: Process) -> None:
        params = {**INITIALIZE["params"], "protocolVersion": self.revision}  # type: ignore[dict-item]
        answer = await self.http.post(
            f"{at.url}/mcp", json={**INITIALIZE, "params": params}, headers=self.headers(self.token)
        )
        if answer.status_code != 200:
            self.tally.note("unexpected", f"a session is not opened: {answer.status_code} {answer.text[:200]}")
            return
        self.session, self.home = answer.headers["mcp-session-id"], at
        done = await self.http.post(f"{at.url}/mcp", json=INITIALIZED, headers=self.fields(self.token))
        if done.status_code != 202:
            self.tally.note("unexpected", f"a session is not begun: {done.status_code} {done.text[:200]}")

    async def ask(self, at: Process) -> None:
        self.judge(await self.http.post(f"{at.url}/mcp", json=WHOAMI, headers=self.fields(self.token)), at)

    async def stolen_by(self, thief: str, at: Process) -> None:
        token = self.deployment.token(thief, self.audience)
        self.judge_theft(await self.http.post(f"{at.url}/mcp", json=WHOAMI, headers=self.fields(token)))


@dataclass(eq=False)
class Sse(Member):
    """A session of HTTP+SSE (2024-11-05): a stream that stays open, and a URL for messages."""

    endpoint: str = ""
    waiting: dict[int, "asyncio.Future[dict[str, Any]]"] = field(default_factory=dict)
    number: int = 0
    reading: "asyncio.Task[None] | None" = None
    ready: asyncio.Event = field(default_factory=asyncio.Event)

    audience = SSE_URL

    async def open(self, at: Process) -> None:
        self.home, self.endpoint = at, ""
        self.ready.clear()
        self.reading = asyncio.create_task(self.read(at))
        async with asyncio.timeout(30):
            await self.ready.wait()
        if self.endpoint:
            await self.exchange(at, {**INITIALIZE, "params": {**INITIALIZE["params"]}})  # type: ignore[dict-item]
            await self.send(at, INITIALIZED, self.token)

    async def read(self, at: Process) -> None:
        """Take in the stream until it ends."""
        try:
            async with self.http.stream("GET", f"{at.url}/sse", headers=self.headers(self.token)) as stream:
                if stream.status_code != 200:
                    self.tally.note("unexpected", f"a stream is answered {stream.status_code}")
                    return
                async for line in stream.aiter_lines():
                    self.take(line)
        except httpx.HTTPError:
            return
        finally:
            self.ready.set()
            for waiting in self.waiting.values():
                waiting.cancel()

    def take(self, line: str) -> None:
        data = line.removeprefix("data: ")
        if data == line:
            return
        if not self.endpoint:
            self.endpoint = data
            self.ready.set()
            return
        message = httpx.Response(200, text=data).json()
        waiting = self.waiting.pop(message.get("id", -1), None)
        if waiting is not None and not waiting.done():
            waiting.set_result(message)

    async def send(self, at: Process, message: dict[str, Any], token: str) -> httpx.Response:
        return await self.http.post(f"{at.url}{self.endpoint}", json=message, headers=self.headers(token))

    async def exchange(self, at: Process, message: dict[str, Any]) -> dict[str, Any] | None:
        """Send a request and wait for its answer on the stream; None when the request is not accepted."""
        self.number += 1
        answered = asyncio.get_running_loop().create_future()
        self.waiting[self.number] = answered
        accepted = await self.send(at, {**message, "id": self.number}, self.token)
        if accepted.status_code == 404:
            self.tally.note("lost", f"Sse of {self.subject}: {accepted.text[:100]}")
        elif accepted.status_code != 202:
            self.tally.note("unexpected", f"Sse: {accepted.status_code} {accepted.text[:200]}")
        else:
            async with asyncio.timeout(30):
                found: dict[str, Any] = await answered
                return found
        self.waiting.pop(self.number, None)
        return None

    async def ask(self, at: Process) -> None:
        try:
            answer = await self.exchange(at, WHOAMI)
        except (asyncio.CancelledError, TimeoutError):
            if self.reading is None or not self.reading.done():
                raise
            self.tally.note("lost", f"the stream of {self.subject} ended")
            return
        if answer is not None:
            self.judge_result(answer["result"]["structuredContent"])

    async def stolen_by(self, thief: str, at: Process) -> None:
        self.judge_theft(await self.send(at, WHOAMI, self.deployment.token(thief, self.audience)))

    async def close(self) -> None:
        if self.reading is not None:
            self.reading.cancel()
            await asyncio.wait([self.reading])


@dataclass(eq=False)
class Crowd:
    """The members, and the order in which they act, which `seed` decides."""

    deployment: Deployment
    members: Sequence[Member]
    tally: Tally
    chance: random.Random
    at_once: int = 40

    @property
    def processes(self) -> list[Process]:
        return [process for process in self.deployment.processes if process.popen.poll() is None]

    async def everyone(self, act: Any) -> None:
        """Each member acts once, `at_once` of them at the same time."""
        room = asyncio.Semaphore(self.at_once)

        async def acting(member: Member, at: Process) -> None:
            async with room:
                try:
                    await act(member, at)
                except httpx.HTTPError as fault:
                    self.tally.note("unexpected", f"{type(member).__name__}: {fault!r}")

        order = [(member, self.chance.choice(self.processes)) for member in self.members]
        self.chance.shuffle(order)
        await asyncio.gather(*[acting(member, at) for member, at in order])

    async def open(self) -> None:
        await self.everyone(lambda member, at: member.open(at))

    async def ask(self, times: int = 1) -> None:
        for _ in range(times):
            await self.everyone(lambda member, at: member.ask(at))

    async def steal(self) -> None:
        """Each session's handle is presented by a principal whose it is not."""
        subjects = sorted({member.subject for member in self.members})

        async def theft(member: Member, at: Process) -> None:
            thief = self.chance.choice([subject for subject in subjects if subject != member.subject])
            await member.stolen_by(thief, at)

        await self.everyone(theft)


@asynccontextmanager
async def crowd(deployment: Deployment, sessions: int, principals: int, seed: int) -> AsyncIterator[Crowd]:
    """So many sessions, of every era in turn, of so many principals in turn."""
    tally = Tally()
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=200)
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(httpx.AsyncClient(timeout=60, trust_env=False, limits=limits))
        members: list[Member] = []
        for number in range(sessions):
            subject, kind = f"user-{number % principals}", number // principals % 5
            if kind == 0:
                members.append(Stateless(deployment, http, subject, tally))
            elif kind == 1:
                sse = Sse(deployment, http, subject, tally)
                stack.push_async_callback(sse.close)
                members.append(sse)
            else:
                members.append(Streamable(deployment, http, subject, tally, revision=LEGACY[kind - 2]))
        yield Crowd(deployment, members, tally, random.Random(seed))
