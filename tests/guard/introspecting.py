"""A loopback introspection endpoint that answers as it is told to, and keeps what it was asked."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

from tests.guard.signing import NOW, RESOURCE

OPAQUE = b"opaque-token-1"


def said(**changes: Any) -> dict[str, Any]:
    """An answer that is good at `NOW` for `RESOURCE`; a change of None leaves a member out."""
    members = {
        "active": True,
        "sub": "alice",
        "client_id": "client-1",
        "aud": RESOURCE,
        "scope": "mcp:tools",
        "exp": NOW + 300,
        "iat": NOW - 10,
        "token_type": "Bearer",
        **changes,
    }
    return {name: value for name, value in members.items() if value is not None}


def http(body: bytes, status: str = "200 OK", *fields: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", "content-type: application/json", f"content-length: {len(body)}", *fields]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@dataclass
class Endpoint:
    """`answer` goes to every POST; `documents` to a GET of its path. `hold` is waited for before each answer."""

    answer: bytes = field(default_factory=lambda: http(json.dumps(said()).encode()))
    documents: dict[str, Any] = field(default_factory=dict)
    asked: list[dict[str, str]] = field(default_factory=list)
    heads: list[str] = field(default_factory=list)
    hold: asyncio.Event | None = None
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def introspect(self) -> str:
        return f"{self.url}/introspect"

    def says(self, value: Any, status: str = "200 OK", *fields: str) -> None:
        self.answer = http(value if isinstance(value, bytes) else json.dumps(value).encode(), status, *fields)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                method, path, _ = head.split(" ", 2)
                if method == "GET":
                    document = self.documents.get(path)
                    missing = http(b"{}", "404 Not Found")
                    writer.write(missing if document is None else http(json.dumps(document).encode()))
                else:
                    self.heads.append(head)
                    length = int(head.lower().split("content-length: ")[1].split("\r\n")[0])
                    form = parse_qs((await reader.readexactly(length)).decode(), strict_parsing=True)
                    self.asked.append({name: values[0] for name, values in form.items()})
                    if self.hold is not None:
                        await self.hold.wait()
                    writer.write(self.answer)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()


@asynccontextmanager
async def endpoint() -> AsyncIterator[Endpoint]:
    one = Endpoint()
    server = await asyncio.start_server(one.serve, "127.0.0.1", 0)
    one.port = server.sockets[0].getsockname()[1]
    try:
        yield one
    finally:
        server.close()
        if one.hold is not None:
            one.hold.set()
