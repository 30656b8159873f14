"""Several processes that serve on one listening socket, started anew when they die and stopped together.

When a worker cannot start before any has, the deployment cannot: all stop. Once one has served, what keeps another from
starting is taken for an outage, and is tried again.
"""

import logging
import multiprocessing
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event
from types import FrameType
from typing import Any, Final

from mcp_guard.clock import Clock, SystemClock
from mcp_guard.failures import ConfigurationError

logger = logging.getLogger("mcp_guard")

SPAWNING: Final = multiprocessing.get_context("spawn")
STARTUP_FAILURE: Final = 3
"""How a worker ends that could not start, as uvicorn has it."""

STOP_SECONDS: Final = 9.0
"""How long workers may take to stop before they are ended: what is in flight in them has less."""

LOOK_SECONDS: Final = 0.25
YOUNG_SECONDS: Final = 1.0
"""A worker that dies this soon, or could not start, is not started anew at once."""

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


@dataclass(eq=False)
class Supervisor:
    """`workers` processes that serve the app of the import string `factory` on `listener`.

    `settings` are further ones of the web server's. `clock` measures how long workers live.
    """

    factory: str
    listener: socket.socket
    workers: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    clock: Clock = field(default_factory=SystemClock)
    stopping: bool = field(default=False, init=False)
    running: dict[BaseProcess, float] = field(default_factory=dict, init=False)
    served: Event = field(default_factory=SPAWNING.Event, init=False)

    def run(self) -> int:
        """Serve until interrupted. Answers 1 when no worker could start, and 0 otherwise."""
        status = 0
        with self._interruptible():
            try:
                while not self.stopping and status == 0:
                    self._fill()
                    wait([process.sentinel for process in self.running], timeout=LOOK_SECONDS)
                    status = self._bury()
            finally:
                self._stop()
        return status

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        def stop(number: int, frame: FrameType | None) -> None:
            self.stopping = True

        before = {number: signal.signal(number, stop) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _fill(self) -> None:
        while len(self.running) < self.workers:
            told = (self.factory, self.listener, dict(self.settings), self.served)
            process = SPAWNING.Process(target=work, args=told)
            process.start()
            self.running[process] = self.clock.monotonic()

    def _bury(self) -> int:
        """Let go of workers that died. Answers 1 when one of them could not start before any had."""
        for process in [one for one in self.running if one.exitcode is not None]:
            lived = self.clock.monotonic() - self.running.pop(process)
            if self.stopping:
                continue
            could_not_start = process.exitcode == STARTUP_FAILURE
            if could_not_start and not self.served.is_set():
                logger.error("worker %s could not start; no other one is started", process.pid)
                return 1
            what = "could not start" if could_not_start else f"died ({process.exitcode})"
            logger.warning("worker %s %s; another takes its place", process.pid, what)
            if could_not_start or lived < YOUNG_SECONDS:
                wait([one.sentinel for one in self.running], timeout=YOUNG_SECONDS)
        return 0

    def _stop(self) -> None:
        """Ask all workers to stop, and end those that do not in time."""
        for process in self.running:
            process.terminate()
        end = self.clock.monotonic() + STOP_SECONDS
        for process in self.running:
            process.join(max(0.0, end - self.clock.monotonic()))
            if process.exitcode is None:
                logger.error("worker %s does not stop; it is ended", process.pid)
                process.kill()
                process.join()


def work(factory: str, listener: socket.socket, settings: dict[str, Any], served: Event) -> None:
    """What a worker does: serve until interrupted, or until there is no supervisor any more; `served` is then set."""
    from mcp_guard.serving import Server, configuration

    threading.Thread(target=follow_parent, daemon=True).start()
    try:
        Server(configuration(factory, factory=True, **settings), started_up=served.set).run(sockets=[listener])
    except ConfigurationError as error:
        print(f"mcp-guard: {error}", file=sys.stderr)  # noqa: T201 - a worker speaks for the command line
        sys.exit(STARTUP_FAILURE)


def follow_parent() -> None:
    """Interrupt this process when the one that started it is gone."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
