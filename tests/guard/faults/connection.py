"""A connection of a client, on asyncio alone: a load of hundreds of requests in a second must cost little."""

import asyncio
import contextlib
from dataclasses import dataclass
from typing import NamedTuple


class Answer(NamedTuple):
    """A response; `status` is 0 when the connection ended before it did."""

    status: int
    fields: dict[str, str]
    body: bytes


LOST = Answer(0, {}, b"")


@dataclass(eq=False)
class Connection:
    """One connection, for one request at a time."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @classmethod
    async def to(cls, port: int) -> "Connection":
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def ask(self, request: bytes) -> Answer:
        """Send a request and read its response to the end."""
        try:
            self.writer.write(request)
            status, fields = await self.head()
            return Answer(status, fields, await self.body(fields))
        except (OSError, asyncio.IncompleteReadError, ValueError):
            return LOST

    async def head(self) -> tuple[int, dict[str, str]]:
        """The status and the fields of the next response."""
        lines = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        fields = dict([line.split(": ", 1) for line in lines[1:] if line])
        return int(lines[0].split(" ")[1]), {name.lower(): value for name, value in fields.items()}

    async def body(self, fields: dict[str, str]) -> bytes:
        if fields.get("transfer-encoding") != "chunked":
            return await self.reader.readexactly(int(fields.get("content-length", "0")))
        body = b""
        while size := int(await self.reader.readuntil(b"\r\n"), 16):
            body += (await self.reader.readexactly(size + 2))[:-2]
        await self.reader.readexactly(2)
        return body

    async def until_end(self) -> None:
        """Read until the server ends the response or the connection."""
        with contextlib.suppress(OSError):
            while data := await self.reader.read(65536):
                if data.endswith(b"0\r\n\r\n"):
                    return

    def close(self) -> None:
        self.writer.close()


def request(method: str, authority: str, token: str, body: bytes = b"", **fields: str) -> bytes:
    """A request as bytes; underscores in names of fields stand for hyphens."""
    lines = [
        f"{method} /mcp HTTP/1.1",
        f"host: {authority}",
        f"authorization: Bearer {token}",
        "accept: application/json, text/event-stream",
        "content-type: application/json",
        *(f"{name.replace('_', '-')}: {value}" for name, value in fields.items()),
        f"content-length: {len(body)}",
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body
