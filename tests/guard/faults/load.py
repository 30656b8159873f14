"""The load: so many requests in a second of 20 principals, and 50 streams, whatever becomes of them.

`python -m tests.guard.faults.load SPEC` is a process of its own; SPEC is JSON: `port`, `authority`, `tokens`, `rate`,
`streams`, `out`. It says `ready` when the streams are open, goes on until its input ends, and then writes one line of
JSON for each request to `out`. The requests come at their times: none waits for the answer to another.
"""

import asyncio
import itertools
import json
import random
import secrets
import sys
import time
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from tests.guard.faults.connection import LOST, Answer, Connection, request

MODERN, LEGACY = "2026-07-28", "2025-11-25"
WITHIN_SECONDS = 15.0
AT_ONCE = 400
"""Requests under way; what comes when there are so many is not sent, and counted."""
REMEMBERED = 200
"""Payments whose requests are sent again later."""
REOPEN_SECONDS = 1.0
KEPT_SECONDS = 2.0
"""How long a connection may be idle and is used again; the server closes it after five seconds."""


class Sample(NamedTuple):
    """One request: when it began (monotonic), how long it took, what it was, and what came of it.

    `status` is 0 when the connection was lost, -1 when no answer came in time, -2 when it was not sent. `wrong` is
    whether the answer was made for somebody else. `quota` is the limit that the response states, 0 for none.
    """

    at: float
    seconds: float
    kind: str
    status: int
    retry_after: bool = False
    wrong: bool = False
    quota: int = 0


@dataclass(eq=False)
class Seat:
    """A principal, its session and the stream in it."""

    name: str
    token: str
    session: str = ""
    opening: asyncio.Lock = field(default_factory=asyncio.Lock)


@dataclass(eq=False)
class Load:
    """What is asked of the deployment on `port`, `rate` requests in a second."""

    port: int
    authority: str
    tokens: dict[str, str]
    rate: float
    streams: int
    out: str
    samples: list[Sample] = field(default_factory=list)
    idle: list[tuple[Connection, float]] = field(default_factory=list)
    used: "deque[tuple[Seat, bytes]]" = field(default_factory=lambda: deque(maxlen=REMEMBERED))
    underway: set["asyncio.Task[None]"] = field(default_factory=set)
    chance: random.Random = field(default_factory=lambda: random.Random(7))
    ending: bool = False

    def __post_init__(self) -> None:
        people = itertools.cycle(self.tokens.items())
        self.seats = [Seat(*next(people)) for _ in range(self.streams)]

    async def run(self, end: asyncio.Event) -> None:
        """Ask until the end."""
        await asyncio.gather(*[self.begin(seat) for seat in self.seats])
        streams = [asyncio.create_task(self.hold(seat)) for seat in self.seats]
        print("ready", flush=True)
        due = time.monotonic()
        while not end.is_set():
            scenario, requests = self.next()
            if len(self.underway) < AT_ONCE:
                task = asyncio.create_task(scenario())
                self.underway.add(task)
                task.add_done_callback(self.underway.discard)
            else:
                self.samples.append(Sample(due, 0, "unsent", -2))
            due += requests / self.rate
            await asyncio.sleep(max(0.0, due - time.monotonic()))
        self.ending = True
        await asyncio.wait([*self.underway, asyncio.create_task(asyncio.sleep(0))], timeout=WITHIN_SECONDS)
        for stream in streams:
            stream.cancel()
        await asyncio.gather(*streams, return_exceptions=True)

    def next(self) -> tuple[Callable[[], Coroutine[Any, Any, None]], int]:
        """What comes next, and how many requests it makes."""
        seat, other = self.chance.sample(self.seats, 2)
        kind = self.chance.random()
        if kind < 0.40:
            return (lambda: self.call(seat)), 1
        if kind < 0.75:
            return (lambda: self.in_session(seat)), 1
        if kind < 0.81:
            return (lambda: self.pay(seat)), 3
        if kind < 0.85:
            return (lambda: self.visit(seat)), 2
        if kind < 0.90:
            return (lambda: self.as_stranger(seat, other)), 1
        if kind < 0.95:
            return (lambda: self.forge(seat)), 1
        return self.replay, 1

    async def call(self, seat: Seat) -> None:
        """A call without a session."""
        await self.ask("call", seat, modern(seat, self.authority, "whoami"))

    async def in_session(self, seat: Seat) -> None:
        """A call in a session; a session that is gone is opened anew."""
        session = seat.session
        answer = await self.ask("session", seat, legacy(seat, self.authority, "tools/call", session))
        if answer.status == 404:
            async with seat.opening:
                if seat.session == session:
                    await self.open(seat)

    async def begin(self, seat: Seat) -> None:
        """Open the first session of a seat, however often that must be tried."""
        while not seat.session:
            await self.open(seat)

    async def open(self, seat: Seat) -> None:
        """Open the session of a seat."""
        answer = await self.ask("initialize", seat, legacy(seat, self.authority, "initialize", ""))
        if answer.status == 200:
            seat.session = answer.fields["mcp-session-id"]

    async def visit(self, seat: Seat) -> None:
        """Open a session and end it."""
        answer = await self.ask("initialize", seat, legacy(seat, self.authority, "initialize", ""))
        if answer.status == 200:
            session = answer.fields["mcp-session-id"]
            ending = request("DELETE", self.authority, seat.token, mcp_session_id=session, mcp_protocol_version=LEGACY)
            await self.ask("delete", seat, ending)

    async def as_stranger(self, seat: Seat, other: Seat) -> None:
        """A call in the session of somebody else."""
        if other.name != seat.name:
            theirs = legacy(seat, self.authority, "tools/call", other.session or "0" * 32)
            await self.ask("stranger", seat, theirs)

    async def forge(self, seat: Seat) -> None:
        """A call with a token that nobody signed."""
        head, claims, signature = seat.token.split(".")
        forged = Seat(seat.name, f"{head}.{claims}.{signature[::-1]}")
        await self.ask("forged", forged, modern(forged, self.authority, "whoami"))

    async def pay(self, seat: Seat) -> None:
        """Pay with a state that may be used once, and try it again."""
        number = secrets.token_hex(8)
        answer = await self.ask("ask", seat, modern(seat, self.authority, "pay", arguments={"number": number}))
        if answer.status != 200:
            return
        state = json.loads(answer.body)["result"]["requestState"]
        responses = {"sure": {"action": "accept", "content": {}}}
        paying = {"arguments": {"number": number}, "inputResponses": responses, "requestState": state}
        payment = modern(seat, self.authority, "pay", **paying)
        paid = (await self.ask("pay", seat, payment)).status == 200
        again = await self.ask("replay" if paid else "again", seat, payment)
        if paid or again.status == 200:
            self.used.append((seat, payment))

    async def replay(self) -> None:
        """A payment of some time ago once more."""
        if self.used:
            seat, payment = self.chance.choice(self.used)
            await self.ask("replay", seat, payment)

    async def hold(self, seat: Seat) -> None:
        """Keep a stream open in the session of a seat."""
        while not self.ending:
            opening = request(
                "GET", self.authority, seat.token, mcp_session_id=seat.session, mcp_protocol_version=LEGACY
            )
            began = time.monotonic()
            connection = None
            try:
                connection = await Connection.to(self.port)
                connection.writer.write(opening)
                status, fields = await asyncio.wait_for(connection.head(), WITHIN_SECONDS)
                self.take("stream", began, Answer(status, fields, b""))
                if status == 200:
                    await connection.until_end()
                    self.samples.append(Sample(time.monotonic(), time.monotonic() - began, "ended", 0))
            except (OSError, asyncio.IncompleteReadError):
                self.take("stream", began, LOST)
            finally:
                if connection is not None:
                    connection.close()
            await asyncio.sleep(REOPEN_SECONDS)

    async def ask(self, kind: str, seat: Seat, data: bytes) -> Answer:
        """One request on a connection that is free."""
        began = time.monotonic()
        connection, answer, status = None, LOST, 0
        try:
            async with asyncio.timeout(WITHIN_SECONDS):
                connection = await self.free()
                answer = await connection.ask(data)
                status = answer.status
        except TimeoutError:
            status = -1
        except OSError:
            status = 0
        if connection is not None and status > 0 and answer.fields.get("connection") != "close":
            self.idle.append((connection, time.monotonic()))
        elif connection is not None:
            connection.close()
        self.take(kind, began, answer._replace(status=status), seat.name)
        return answer

    async def free(self) -> Connection:
        """A connection that nobody uses, and that the server has not closed for that."""
        while self.idle:
            connection, since = self.idle.pop()
            if time.monotonic() - since < KEPT_SECONDS and not connection.reader.at_eof():
                return connection
            connection.close()
        return await Connection.to(self.port)

    def take(self, kind: str, began: float, answer: Answer, name: str = "") -> None:
        """Keep what came of a request."""
        said = json.loads(answer.body) if answer.status == 200 and answer.body else {}
        subject = said.get("result", {}).get("structuredContent", {}).get("subject", name)
        quota = answer.fields.get("ratelimit-policy", ";q=0;").split(";q=")[1].split(";")[0]
        after = "retry-after" in answer.fields
        taken = time.monotonic() - began
        self.samples.append(Sample(began, taken, kind, answer.status, after, subject != name, int(quota)))


def modern(seat: Seat, authority: str, tool: str, **params: Any) -> bytes:
    """A call of 2026-07-28."""
    meta = {
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientInfo": {"name": "load", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {"elicitation": {}},
    }
    members = {"name": tool, "arguments": {}, **params, "_meta": meta}
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": members}).encode()
    routing = {"mcp_protocol_version": MODERN, "mcp_method": "tools/call", "mcp_name": tool}
    return request("POST", authority, seat.token, body, **routing)


def legacy(seat: Seat, authority: str, method: str, session: str) -> bytes:
    """A request of the era of sessions; `session` may be empty."""
    client = {"name": "load", "version": "1"}
    params: dict[str, Any] = {"name": "whoami", "arguments": {}}
    if method == "initialize":
        params = {"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": client}
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
    named = {"mcp_session_id": session} if session else {}
    return request("POST", authority, seat.token, body, mcp_protocol_version=LEGACY, **named)


async def until_input_ends(load: Load) -> None:
    """Run a load."""
    end = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(sys.stdin.fileno(), end.set)
    await load.run(end)
    loop.remove_reader(sys.stdin.fileno())


def main() -> None:
    """Load until the input ends, and write what came of it."""
    load = Load(**json.loads(sys.argv[1]))
    asyncio.run(until_input_ends(load))
    with Path(load.out).open("w", encoding="ascii") as file:
        file.writelines(json.dumps(sample) + "\n" for sample in load.samples)


if __name__ == "__main__":
    main()
