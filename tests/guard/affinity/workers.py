"""Several guarded workers in one process, over one store, and clients that choose the worker they speak to."""

import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio

from mcp_guard.affinity import Worker
from mcp_guard.asgi import ASGIApp
from mcp_guard.auditlog import AuditLog, MemorySink
from mcp_guard.check import Check
from mcp_guard.facts import SessionHandle
from mcp_guard.keyring import KeyRing
from mcp_guard.layer import ADMITTED, Admission, RequestHead
from mcp_guard.layers.affinity import Affinity
from mcp_guard.layers.audit import Audit
from mcp_guard.layers.bridge import Bridge
from mcp_guard.stack import Guard, guard
from tests.guard.asgi import Client, Headers, Outcome, http_scope
from tests.guard.stubs import CountingStore, Facts


@dataclass(frozen=True)
class Held(Check):
    """Adds the handle of a session whose record names the worker in `x-home`."""

    adds = (SessionHandle,)

    async def admit(self, request: RequestHead) -> Admission:
        home = request.value(b"x-home")
        if home is None:
            return ADMITTED
        return Admission(facts=(SessionHandle("session-1", "f" * 16, home.decode()),), hide=frozenset({b"x-home"}))


@dataclass
class Member:
    """One of the workers."""

    worker: Worker
    app: ASGIApp
    guarded: Guard
    sink: MemorySink

    @property
    def home(self) -> str:
        return self.worker.home()


@dataclass
class Workers:
    """The workers that run; `ring` and `store` are what they share."""

    listen: str
    ring: KeyRing = field(default_factory=KeyRing.generate)
    store: CountingStore = field(default_factory=CountingStore)
    members: list[Member] = field(default_factory=list)

    async def add(self, app: ASGIApp, **settings: Any) -> Member:
        """Start one more."""
        layer = {name: settings.pop(name) for name in ("max_forwards",) if name in settings}
        worker = Worker(**{"listen": self.listen, "ring": self.ring, "store": self.store, **settings})
        sink = MemorySink()
        guarded = guard(app, Audit(log=AuditLog(sink)), Facts(), Held(), Affinity(worker, **layer), Bridge())
        await guarded.start()
        self.members.append(Member(worker, app, guarded, sink))
        return self.members[-1]


@contextlib.asynccontextmanager
async def workers(folder: Path | str, *apps: ASGIApp, **settings: Any) -> AsyncIterator[Workers]:
    """One worker for each app: on Unix sockets in `folder`, or wherever a text says. All are closed at the end."""
    together = Workers(f"unix:{folder}" if isinstance(folder, Path) else folder)
    try:
        for app in apps:
            await together.add(app, **settings)
        yield together
    finally:
        with anyio.fail_after(20):
            for member in together.members:
                await member.guarded.close()


async def ask(
    at: Member,
    holder: Member | str | None,
    *chunks: bytes,
    headers: Headers = (),
    client: Client | None = None,
    **scope: Any,
) -> Outcome:
    """A request to `at`, of a session that `holder` holds."""
    home = holder if isinstance(holder, str) or holder is None else holder.home
    named: Sequence[tuple[bytes, bytes]] = () if home is None else [(b"x-home", home.encode())]
    client = client or Client(chunks or (b"",))
    with anyio.fail_after(20):
        await at.guarded(http_scope(headers=[*named, *headers], **scope), client.receive, client.send)
    return client.outcome


async def until(ready: Callable[[], object], within_seconds: float = 5.0) -> None:
    """Wait until `ready` answers with something true."""
    with anyio.fail_after(within_seconds):
        while not ready():  # noqa: ASYNC110 - nothing tells that it happened
            await anyio.sleep(0.005)


def open_files() -> int:
    """How many files and sockets this process has open."""
    return len(left_in(Path("/proc/self/fd")))


def left_in(folder: Path) -> list[str]:
    """The names in a directory."""
    return sorted(path.name for path in folder.iterdir())
