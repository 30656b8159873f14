"""One worker of a deployment, as a process: a stateful server on the real SDK, behind the complete stack, on uvicorn.

`python -m tests.guard.affinity.process SETTINGS`, where SETTINGS is JSON: `url` of the deployment, `store`, `ring`,
`listen`, `jwks`, `audit`, `json_response`. The first line of output is the port.
"""

import asyncio
import contextlib
import gc
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from mcp.server.auth.middleware.auth_context import get_access_token
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.transport_security import TransportSecuritySettings

from mcp_guard.affinity import Worker
from mcp_guard.asgi import ASGIApp, Receive, Scope, Send
from mcp_guard.auditlog import AuditLog, FileSink
from mcp_guard.facts import Resource
from mcp_guard.keyring import KeyRing, new_key
from mcp_guard.keysources import StaticKeys
from mcp_guard.profiles import standard
from mcp_guard.serving import Server, configuration
from mcp_guard.stack import guard
from mcp_guard.stores.valkey import ValkeyStore
from mcp_guard.tokens import TrustedIssuer
from tests.benchmarks.peers import ISSUER, PLENTY_OF_ALL, Keys
from tests.support.serving import listen

PATIENCE = timedelta(seconds=5)
"""How long the store may take: what is tested here is not how a busy machine feels."""

AUTHORITY = "127.0.0.1:9"
"""The deployment's public host: that of a balancer in front, which the tests do without."""
MCP_URL, SSE_URL = f"http://{AUTHORITY}/mcp", f"http://{AUTHORITY}/sse"
BOTH = {"accept": "application/json, text/event-stream", "host": AUTHORITY, "content-type": "application/json"}


def application(json_response: bool) -> ASGIApp:
    """A server that keeps its sessions in this process, over both transports."""
    server = MCPServer("worker")
    counts: dict[str, int] = {}

    @server.tool()
    def add(a: int, b: int) -> int:
        """Add two integers."""
        return a + b

    @server.tool()
    def whoami() -> dict[str, Any]:
        """Who asks, as the app sees it, in which process, and for which time."""
        token = get_access_token()
        subject = "nobody" if token is None else str(token.subject)
        counts[subject] = counts.get(subject, 0) + 1
        return {"subject": subject, "pid": os.getpid(), "count": counts[subject]}

    @server.tool()
    async def tick(times: int, seconds: float, ctx: Context[Any, Any]) -> str:
        """Report progress again and again."""
        for number in range(times):
            await ctx.report_progress(number, times)
            await asyncio.sleep(seconds)
        return "done"

    unchecked = TransportSecuritySettings(enable_dns_rebinding_protection=False)
    streamable = server.streamable_http_app(transport_security=unchecked, json_response=json_response)
    sse = server.sse_app(transport_security=unchecked)

    async def both(scope: Scope, receive: Receive, send: Send) -> None:
        of_sse = scope["type"] == "http" and scope["path"].startswith(("/sse", "/messages"))
        await (sse if of_sse else streamable)(scope, receive, send)

    return both


def stack(settings: dict[str, Any]) -> ASGIApp:
    """The server behind the complete stack."""
    store, ring = ValkeyStore(settings["store"], deadline=PATIENCE), KeyRing.parse(settings["ring"])
    layers = standard(
        resources=(Resource(MCP_URL, "/mcp"), Resource(SSE_URL, "/sse", messages="/messages/")),
        issuers=(TrustedIssuer(ISSUER, StaticKeys(settings["jwks"])),),
        store=store,
        ring=ring,
        worker=None if settings["listen"] is None else Worker(listen=settings["listen"], ring=ring, store=store),
        audit=AuditLog(FileSink(Path(settings["audit"]))),
        limits=PLENTY_OF_ALL,
    )
    return guard(application(settings["json_response"]), *layers)


def main() -> None:
    """Serve until terminated."""
    settings = json.loads(sys.argv[1])
    bound = listen()
    bound.listen(128)
    config: uvicorn.Config = configuration(stack(settings), log_level="critical")
    gc.collect()
    gc.freeze()
    print(bound.getsockname()[1], flush=True)
    Server(config).run(sockets=[bound])


@dataclass(eq=False)
class Process:
    """A worker process that runs; `url` is where it is reached itself."""

    settings: dict[str, Any]
    popen: subprocess.Popen[str] = field(init=False)
    url: str = field(init=False)

    def __post_init__(self) -> None:
        command = [sys.executable, "-m", "tests.guard.affinity.process", json.dumps(self.settings)]
        self.popen = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def wait(self, within_seconds: float = 90.0) -> None:
        """Wait until it says where it listens."""
        assert self.popen.stdout is not None
        ready, _, _ = select.select([self.popen.stdout], [], [], within_seconds)
        line = self.popen.stdout.readline() if ready else ""
        assert line, "the worker did not start"
        self.url = f"http://127.0.0.1:{line.strip()}"

    def signal(self, number: signal.Signals) -> None:
        self.popen.send_signal(number)

    def end(self) -> None:
        """End the process, whatever its state."""
        if self.popen.poll() is None:
            self.popen.send_signal(signal.SIGCONT)
            self.popen.kill()
        self.popen.wait(10)
        if self.popen.stdout is not None:
            self.popen.stdout.close()


@dataclass(eq=False)
class Deployment:
    """Workers that share a store and a ring, and the key of their issuer."""

    processes: Sequence[Process]
    keys: Keys

    def token(self, subject: str, audience: str = MCP_URL) -> str:
        return self.keys.token(audience, sub=subject)


@contextlib.contextmanager
def deployment(
    number: int, store: str, folder: Path, place: str | None = None, *, json_response: bool = False
) -> Iterator[Deployment]:
    """So many worker processes; `place` is where each listens for the others, sockets in `folder` by default."""
    keys = Keys()
    shared = {
        "store": store,
        "ring": new_key().reveal(),
        "listen": place or f"unix:{folder / 'w'}",
        "jwks": keys.jwks(),
        "json_response": json_response,
    }
    processes = [Process({**shared, "audit": str(folder / f"audit-{place}.jsonl")}) for place in range(number)]
    try:
        for process in processes:
            process.wait()
        yield Deployment(processes, keys)
    finally:
        for process in processes:
            process.end()


def call(tool: str, **arguments: Any) -> dict[str, Any]:
    """The JSON-RPC request that calls a tool."""
    params = {"name": tool, "arguments": arguments, "_meta": {"progressToken": 1}}
    return {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": params}


INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}},
}
INITIALIZED = {"jsonrpc": "2.0", "method": "notifications/initialized"}


@dataclass(eq=False)
class Speaker:
    """A client of one principal that may ask any worker."""

    http: httpx.AsyncClient
    token: str
    session: str = ""

    @property
    def headers(self) -> dict[str, str]:
        own = {"authorization": f"Bearer {self.token}", **BOTH}
        if self.session:
            own |= {"mcp-session-id": self.session, "mcp-protocol-version": "2025-06-18"}
        return own

    async def post(self, at: Process, message: dict[str, Any], **headers: str) -> httpx.Response:
        return await self.http.post(f"{at.url}/mcp", json=message, headers={**self.headers, **headers})

    async def open(self, at: Process) -> None:
        """Begin a session at a worker."""
        answer = await self.post(at, INITIALIZE)
        assert answer.status_code == 200, answer.text
        self.session = answer.headers["mcp-session-id"]
        assert (await self.post(at, INITIALIZED)).status_code == 202

    async def call(self, at: Process, tool: str, **arguments: Any) -> Any:
        """What a tool answers."""
        answer = await self.post(at, call(tool, **arguments))
        assert answer.status_code == 200, answer.text
        return result_of(answer.text)


def result_of(stream: str) -> Any:
    """The structured result in a response, or in its last event."""
    lines = [line.removeprefix("data: ") for line in stream.splitlines() if line.startswith(("data: {", "{"))]
    result = json.loads(lines[-1])["result"]
    return result.get("structuredContent", result)


@contextlib.asynccontextmanager
async def speaking(token: str) -> AsyncIterator[Speaker]:
    """A client that believes nothing of its environment."""
    async with httpx.AsyncClient(timeout=20, trust_env=False) as http:
        yield Speaker(http, token)


if __name__ == "__main__":
    main()
