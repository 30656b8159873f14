"""Somebody between two workers, or in the place of one: reads, changes and repeats what they say to each other."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from mcp_guard.affinity.frames import HEAD, Frame

Change = Callable[[bool, int, Frame], list[Frame]]
"""What becomes of a frame. It is told whether the frame goes to the owner, and its number in that direction, from 0."""


def unchanged(to_owner: bool, number: int, frame: Frame) -> list[Frame]:
    return [frame]


def written(frame: Frame) -> bytes:
    return HEAD.pack(len(frame.content), frame.kind) + frame.content


async def read_frame(reader: asyncio.StreamReader) -> Frame | None:
    """The next frame as it is on the wire; None at the end."""
    try:
        length, kind = HEAD.unpack(await reader.readexactly(HEAD.size))
        return Frame(kind, await reader.readexactly(length))
    except (asyncio.IncompleteReadError, ConnectionError):
        return None


@dataclass
class Between:
    """A TCP port that leads to the port `beyond`; `said` is all that passed, by direction."""

    beyond: int
    change: Change = unchanged
    port: int = 0
    said: list[tuple[bool, Frame]] = field(default_factory=list)
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.beyond)
        self.writers += [writer, far_writer]
        back = {True: writer, False: far_writer}
        await asyncio.gather(
            self.pump(True, reader, far_writer, back[True]), self.pump(False, far_reader, writer, back[False])
        )

    async def pump(
        self, to_owner: bool, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, back: asyncio.StreamWriter
    ) -> None:
        """Pass frames on; one of kind 0 stands for the frame sent back to where it came from."""
        number = 0
        while (frame := await read_frame(reader)) is not None:
            self.said.append((to_owner, frame))
            for one in self.change(to_owner, number, frame):
                if one.kind == 0:
                    back.write(written(frame))
                else:
                    writer.write(written(one))
            number += 1
        writer.close()


@contextlib.asynccontextmanager
async def between(beyond: int, change: Change = unchanged) -> AsyncIterator[Between]:
    """Somebody in front of a port."""
    one = Between(beyond, change)
    server = await asyncio.start_server(one.meet, "127.0.0.1", 0)
    one.port = server.sockets[0].getsockname()[1]
    try:
        yield one
    finally:
        server.close()
        for writer in one.writers:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


async def say(port: int, *frames: Frame | bytes) -> list[Frame]:
    """Say this to a listener, and hear until it has nothing more to say."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    heard = []
    try:
        for frame in frames:
            writer.write(frame if isinstance(frame, bytes) else written(frame))
        async with asyncio.timeout(5):
            while (frame_back := await read_frame(reader)) is not None:
                heard.append(frame_back)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
    return heard
