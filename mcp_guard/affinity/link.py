"""One private connection between two workers: frames out, frames in, and neither side ahead of the other.

Frames that are written within one turn of the event loop go out together. What arrives is not read from the socket
faster than it is taken, so that a slow reader at one end slows the writer at the other.
"""

import asyncio
import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

from mcp_guard.affinity.frames import HEAD, MAX_CONTENT_BYTES, MAX_STRANGER_BYTES, Frame, Seal

logger = logging.getLogger("mcp_guard")

HIGH_WATER_BYTES = 256 * 1024
"""More than this, waiting to be taken or to go out, is too much."""
TCP_OPTIONS = {socket.TCP_NODELAY: 1, socket.TCP_KEEPIDLE: 30, socket.TCP_KEEPINTVL: 10, socket.TCP_KEEPCNT: 3}
"""Nothing is held back. A silent connection is probed after 30 s, and lost after three probes 10 s apart."""


@dataclass(eq=False)
class Link(asyncio.Protocol):
    """`made` is called once it is connected. Until `seal` was called, frames go in the clear and are short."""

    made: Callable[["Link"], None] | None = None
    ended: bool = field(default=False, init=False)
    _transport: asyncio.Transport = field(init=False, repr=False)
    _outbound: Seal | None = field(default=None, init=False, repr=False)
    _inbound: Seal | None = field(default=None, init=False, repr=False)
    _arrived: bytearray = field(default_factory=bytearray, init=False, repr=False)
    _paused: bool = field(default=False, init=False)
    _leaving: list[bytes] = field(default_factory=list, init=False, repr=False)
    _leaving_bytes: int = field(default=0, init=False)
    _full: bool = field(default=False, init=False)
    _changed: asyncio.Event = field(default_factory=asyncio.Event, init=False, repr=False)

    def seal(self, outbound: bytes, inbound: bytes) -> None:
        """Seal whatever is written, and open whatever is taken, from now on with these keys."""
        self._outbound, self._inbound = Seal(outbound), Seal(inbound)

    def write(self, frame: Frame) -> None:
        """Send a frame. Nothing happens once the link has ended."""
        if self.ended:
            return
        if self._outbound is not None:
            frame = self._outbound.close(frame)
        if not self._leaving:
            asyncio.get_running_loop().call_soon(self._flush)
        self._leaving += (HEAD.pack(len(frame.content), frame.kind), frame.content)
        self._leaving_bytes += len(frame.content)

    async def drain(self) -> None:
        """Wait until the other side keeps up, or the link has ended."""
        if self._leaving_bytes > HIGH_WATER_BYTES:
            self._flush()
        while self._full and not self.ended:
            await self.change()

    async def next(self) -> Frame | None:
        """The next frame, waited for; None when there will be no other."""
        while True:
            frame = self.take()
            if frame is not None or self.ended:
                return frame
            await self.change()

    def take(self) -> Frame | None:
        """The next frame, if it is there. One that does not open ends the link."""
        end = self._end_of_first()
        if end is None:
            return None
        frame = Frame(self._arrived[4], bytes(self._arrived[HEAD.size : end]))
        del self._arrived[:end]
        if self._paused and (len(self._arrived) <= HIGH_WATER_BYTES or self._end_of_first() is None):
            self._paused = False
            self._transport.resume_reading()
        if self._inbound is None:
            return frame
        opened = self._inbound.open(frame)
        if opened is None:
            self._break_off("a frame between workers does not open")
        return opened

    async def change(self) -> None:
        """Wait until something arrives, or may be written again, or the link ends. It may also be nothing."""
        self._changed.clear()
        await self._changed.wait()

    def wake(self) -> None:
        """Let whoever waits for a change look again."""
        self._changed.set()

    def close(self) -> None:
        """End the link after what was written."""
        if not self.ended:
            self._flush()
            self.ended = True
            self._transport.close()
            self.wake()

    def abort(self) -> None:
        """End the link now."""
        self.ended = True
        self._transport.abort()
        self.wake()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(HIGH_WATER_BYTES)
        set_up(transport.get_extra_info("socket"))
        if self.made is not None:
            self.made(self)

    def data_received(self, data: bytes) -> None:
        self._arrived += data
        if len(self._arrived) > HIGH_WATER_BYTES and not self._paused and self._end_of_first() is not None:
            self._paused = True
            self._transport.pause_reading()
        self.wake()

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        self.wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended = True
        self.wake()

    def _end_of_first(self) -> int | None:
        """Where the first frame ends, once it has arrived whole. One that is too long ends the link."""
        if len(self._arrived) < HEAD.size:
            return None
        length, _ = HEAD.unpack_from(self._arrived)
        if length > (MAX_STRANGER_BYTES if self._inbound is None else MAX_CONTENT_BYTES):
            self._break_off("a frame between workers is too long")
            return None
        return HEAD.size + length if len(self._arrived) >= HEAD.size + length else None

    def _flush(self) -> None:
        if self._leaving and not self.ended:
            self._transport.write(b"".join(self._leaving))
        self._leaving.clear()
        self._leaving_bytes = 0

    def _break_off(self, why: str) -> None:
        logger.warning("%s; the connection is closed", why)
        self._arrived.clear()
        self.abort()


def set_up(connected: socket.socket) -> None:
    """Let what is written on a TCP connection go out at once, and the kernel find out when the other host is gone."""
    if connected.family != socket.AF_UNIX:
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in TCP_OPTIONS.items():
            connected.setsockopt(socket.IPPROTO_TCP, option, value)
