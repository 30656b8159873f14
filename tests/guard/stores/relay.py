"""Stands between a client and PostgreSQL, passes everything on, and counts round trips on the wire."""

import asyncio
from dataclasses import dataclass, field
from types import TracebackType

from psycopg.conninfo import conninfo_to_dict, make_conninfo

READY = b"Z"
"""ReadyForQuery: the server has answered everything and waits (PostgreSQL, Message Formats)."""


@dataclass
class Relay:
    """`round_trips` counts how often the server said that it is ready, over all connections."""

    upstream: str
    round_trips: int = 0
    url: str = ""
    tasks: set["asyncio.Task[None]"] = field(default_factory=set)

    async def __aenter__(self) -> "Relay":
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        port = self.server.sockets[0].getsockname()[1]
        self.url = make_conninfo(self.upstream, port=port, sslmode="disable", gssencmode="disable")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.server.close()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def serve(self, client: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        port = int(str(conninfo_to_dict(self.upstream)["port"]))
        server, forth = await asyncio.open_connection("127.0.0.1", port)
        ways = [asyncio.create_task(self.pass_on(client, forth)), asyncio.create_task(self.answer(server, back))]
        self.tasks.update(ways)
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for writer in (forth, back):
            writer.close()

    @staticmethod
    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.read(1):
            size = await reader.readexactly(4)
            body = await reader.readexactly(int.from_bytes(size) - 4)
            self.round_trips += head == READY
            writer.write(head + size + body)
            await writer.drain()
