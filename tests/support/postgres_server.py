"""A real PostgreSQL server for the tests: made in a folder of its own, ended by its process id.

The programs come with the package `postgresql` (`make postgres`); the cluster that the package may start is not used.
PostgreSQL refuses to run as root, so root starts it as the user `postgres`, or `nobody`.
"""

import atexit
import functools
import itertools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
from psycopg import sql

OWNER = "mcp"
START_SECONDS = 20.0
NUMBERS = itertools.count(1)


@functools.cache
def program(name: str) -> str:
    """Where a program of PostgreSQL is: on PATH, or where Debian keeps the newest version."""
    found = shutil.which(name)
    if found is not None:
        return found
    kept = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[-3]))
    if not kept:
        raise RuntimeError(f"{name} is not installed: make postgres")
    return str(kept[-1])


def server_user() -> str | None:
    """Who runs the server; None for whoever runs the tests."""
    if os.getuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in known else "nobody"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@dataclass
class PostgresServer:
    """One server on one loopback port. `durable` waits for the disk at each commit, as in production."""

    durable: bool = False
    port: int = field(default_factory=free_port)
    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="mcp-postgres-")))
    process: "subprocess.Popen[bytes] | None" = None

    def __post_init__(self) -> None:
        self.user = server_user()
        if self.user is not None:
            entry = pwd.getpwnam(self.user)
            os.chown(self.folder, entry.pw_uid, entry.pw_gid)
        self.run(
            program("initdb"),
            *("--pgdata", str(self.data), "--username", OWNER, "--auth", "trust"),
            *("--encoding", "UTF8", "--locale", "C", "--no-sync"),
        )

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def run(self, *command: str) -> None:
        subprocess.run(command, check=True, user=self.user, group=self.group, cwd=self.folder, capture_output=True)

    @property
    def group(self) -> int | None:
        return None if self.user is None else pwd.getpwnam(self.user).pw_gid

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://{OWNER}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Start it and wait until it answers."""
        switch = "on" if self.durable else "off"
        settings = {
            "port": str(self.port),
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "fsync": switch,
            "full_page_writes": switch,
            "max_connections": "100",
        }
        command = [program("postgres"), "-D", str(self.data)]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=self.folder, user=self.user, group=self.group
            )
        self.wait()

    def wait(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                psycopg.connect(self.url(), connect_timeout=2).close()
            except psycopg.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
            else:
                return

    def stop(self) -> None:
        """End it in order: connections are closed with a word."""
        self.end(signal.SIGINT)

    def kill(self) -> None:
        """End it as a crash does: nothing is written, connections break; the next start recovers."""
        self.end(signal.SIGQUIT)

    def end(self, how: signal.Signals) -> None:
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(START_SECONDS)
            self.process = None

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Within, no process of the server does anything; connections stay open."""
        halted = self.processes()
        self.signal(halted, signal.SIGSTOP)
        try:
            yield
        finally:
            self.signal(halted, signal.SIGCONT)

    def processes(self) -> list[int]:
        """The server and its children."""
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text("ascii")
        return [self.process.pid, *(int(pid) for pid in children.split())]

    @staticmethod
    def signal(processes: Sequence[int], what: signal.Signals) -> None:
        for pid in processes:
            os.kill(pid, what)

    def remove(self) -> None:
        """End it and delete its folder."""
        self.stop()
        shutil.rmtree(self.folder)

    def execute(self, statement: sql.Composed) -> None:
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(statement)

    @contextmanager
    def database(self, template: str = "template1") -> Iterator[str]:
        """The URL of a database of one's own; it is dropped afterwards."""
        name = f"test_{next(NUMBERS)}"
        make = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
        self.execute(make.format(sql.Identifier(name), sql.Identifier(template)))
        try:
            yield self.url(name)
        finally:
            self.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@functools.cache
def shared() -> PostgresServer:
    """The server of this test process, started when it is first asked for; it ends with the process."""
    server = PostgresServer()
    atexit.register(server.remove)
    server.start()
    return server
