"""`mcp-guard serve --workers`: several processes on one Valkey serve each session, outlive a death, end together."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from mcp_guard.auditlog import Head, verify
from mcp_guard.keyring import new_key
from tests.benchmarks.peers import ISSUER, Keys
from tests.support.valkey_server import ValkeyServer, valkey_server

APP = "tests.end_to_end.unguarded:app"
PUBLIC = "http://127.0.0.1:8000/mcp"
INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}},
}
INITIALIZED = {"jsonrpc": "2.0", "method": "notifications/initialized"}
WHOAMI = {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "whoami", "arguments": {}}}


def children(pid: int) -> list[int]:
    """The processes that `pid` started to serve; not the one that keeps their resources."""
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in listed if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def until(true: Callable[[], bool], what: str, within_seconds: float = 20.0) -> None:
    end = time.monotonic() + within_seconds
    while not true():
        assert time.monotonic() < end, f"{what} did not happen within {within_seconds} s"
        time.sleep(0.02)


@dataclass(eq=False)
class Served:
    """A deployment that runs. Every request has a connection of its own, so that any worker may get it."""

    process: "subprocess.Popen[str]"
    environment: dict[str, str]
    folder: Path
    keys: Keys
    port: int = 0
    answers: list[int] = field(default_factory=list)

    def post(self, message: dict[str, Any], token: str, session: str | None = None) -> httpx.Response:
        fields = {
            "authorization": f"Bearer {token}",
            "accept": "application/json, text/event-stream",
            "host": "127.0.0.1:8000",
        }
        if session is not None:
            fields |= {"mcp-session-id": session, "mcp-protocol-version": "2025-06-18"}
        url = f"http://127.0.0.1:{self.port}/mcp"
        answer = httpx.post(url, json=message, headers=fields, timeout=60, trust_env=False)
        self.answers.append(answer.status_code)
        return answer

    def open(self, token: str) -> str:
        answer = self.post(INITIALIZE, token)
        assert answer.status_code == 200, answer.text
        session = answer.headers["mcp-session-id"]
        assert self.post(INITIALIZED, token, session).status_code == 202
        return str(session)

    def token(self, subject: str) -> str:
        return self.keys.token(PUBLIC, sub=subject)

    @property
    def workers(self) -> list[int]:
        return children(self.process.pid)

    def command(self, *words: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        line = [sys.executable, "-m", "mcp_guard.cli", *words]
        environment = {**self.environment, **variables}
        return subprocess.run(line, env=environment, capture_output=True, text=True, timeout=30, check=False)


def prepared(folder: Path, valkey: str, sockets: str = "/tmp/mcp-none") -> tuple[dict[str, str], Keys]:
    """The environment of a deployment, and its issuer. The path of `sockets` must be short."""
    keys = Keys()
    jwks = folder / "jwks.json"
    jwks.write_text(json.dumps(keys.jwks()))
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MCP_", "WEB_"))}
    settings = {
        "MCP_PUBLIC_URL": PUBLIC,
        "MCP_OAUTH_ISSUER": ISSUER,
        "MCP_OAUTH_JWKS_FILE": str(jwks),
        "MCP_SESSION_STORE": "valkey",
        "MCP_VALKEY_URL": valkey,
        "MCP_STORE_DEADLINE_SECONDS": "5",
        "MCP_SECRET_KEYS": new_key().reveal(),
        "MCP_AFFINITY": f"unix:{sockets}",
        "MCP_AUDIT_FILE": str(folder / "audit.jsonl"),
        "MCP_PORT": "0",
    }
    return {**clean, **settings}, keys


@contextmanager
def serving(folder: Path, valkey: str, workers: int = 2) -> Iterator[Served]:
    sockets = tempfile.TemporaryDirectory(prefix="mcp-")
    environment, keys = prepared(folder, valkey, sockets.name)
    line = [sys.executable, "-m", "mcp_guard.cli", "serve", APP, "--workers", str(workers)]
    with (folder / "errors.txt").open("w") as errors:
        process = subprocess.Popen(line, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True)
    served = Served(process, environment, folder, keys)
    try:
        assert process.stdout is not None
        served.port = int(process.stdout.readline().rpartition(":")[2])
        until(lambda: len(list(Path(sockets.name).glob("*.sock"))) == workers, "the start of the workers", 60.0)
        served.open(served.token("first"))
        yield served
    finally:
        remaining = [process.pid, *(served.workers if process.poll() is None else [])]
        for pid in remaining:
            if is_running(pid):
                os.kill(pid, signal.SIGKILL)
        process.wait(10)
        if process.stdout is not None:
            process.stdout.close()
        sockets.cleanup()


@pytest.fixture(scope="module")
def valkey() -> Iterator[ValkeyServer]:
    with valkey_server() as server:
        yield server


def test_a_session_is_served_whichever_worker_a_request_reaches(tmp_path: Path, valkey: ValkeyServer) -> None:
    with serving(tmp_path, valkey.url) as served:
        token, thief = served.token("alice"), served.token("bob")
        for _ in range(5):
            session = served.open(token)
            for _ in range(6):
                assert '"alice"' in served.post(WHOAMI, token, session).text.replace("\\", "")
            assert served.post(WHOAMI, thief, session).status_code == 404


def test_a_worker_that_dies_takes_its_sessions_along_and_another_takes_its_place(
    tmp_path: Path, valkey: ValkeyServer
) -> None:
    with serving(tmp_path, valkey.url) as served:
        tokens = [served.token(f"user-{number}") for number in range(9)]
        sessions = [(token, served.open(token)) for token in tokens]
        victim = served.workers[0]
        os.kill(victim, signal.SIGKILL)
        killed = time.monotonic()
        until(lambda: victim not in served.workers and len(served.workers) == 2, "the start of another worker", 5.0)
        assert time.monotonic() - killed < 5.0

        outcomes = {served.post(WHOAMI, token, session).status_code for token, session in sessions}
        assert outcomes <= {200, 404}
        assert served.post(WHOAMI, tokens[0], served.open(tokens[0])).status_code == 200
        assert set(served.answers) <= {200, 202, 404}

        served.process.terminate()
        assert served.process.wait(12) == 0
        chains = sorted(served.folder.glob("audit.*.jsonl"))
        assert len(chains) >= 2
        for chain in chains:
            assert isinstance(verify(chain.read_bytes().splitlines(keepends=True)), Head), chain


def test_a_store_that_is_away_while_a_worker_is_replaced_ends_nobody(tmp_path: Path) -> None:
    with valkey_server() as store, serving(tmp_path, store.url) as served:
        token, survivor = served.token("alice"), served.workers[1]
        store.stop()
        os.kill(served.workers[0], signal.SIGKILL)
        errors = tmp_path / "errors.txt"
        until(lambda: "could not start; another takes its place" in errors.read_text(), "a start without a store", 60.0)
        assert is_running(survivor)
        assert served.post(INITIALIZE, token).status_code == 503
        store.start()
        until(lambda: served.post(INITIALIZE, token).status_code == 200, "the return of the store", 30.0)
        until(lambda: len(served.workers) == 2, "the start of another worker", 60.0)
        assert served.process.poll() is None


def test_an_interrupt_ends_every_worker(tmp_path: Path, valkey: ValkeyServer) -> None:
    with serving(tmp_path, valkey.url) as served:
        workers = served.workers
        served.process.send_signal(signal.SIGINT)
        assert served.process.wait(12) == 0
        assert not [pid for pid in workers if is_running(pid)]


def test_workers_do_not_outlive_what_started_them(tmp_path: Path, valkey: ValkeyServer) -> None:
    with serving(tmp_path, valkey.url) as served:
        workers = served.workers
        served.process.kill()
        until(lambda: not any(is_running(pid) for pid in workers), "the end of the workers", 12.0)


def test_what_is_revoked_is_refused_by_every_worker(tmp_path: Path, valkey: ValkeyServer) -> None:
    with serving(tmp_path, valkey.url) as served:
        token, other, third = (served.token(name) for name in ("alice", "bob", "carol"))
        session = served.open(token)
        ended = served.command("revoke", "session", MCP_SESSION=session)
        assert ended.stdout.startswith("ended: the session "), ended.stderr
        assert {served.post(WHOAMI, token, session).status_code for _ in range(6)} == {404}

        refused = served.command("revoke", "token", MCP_TOKEN=token)
        assert refused.stdout.startswith("refused: the token "), refused.stderr
        assert token not in refused.stdout
        assert {served.post(INITIALIZE, token).status_code for _ in range(6)} == {401}

        assert served.command("revoke", "user", ISSUER, "bob").returncode == 0
        assert {served.post(INITIALIZE, other).status_code for _ in range(6)} == {401}
        assert served.command("revoke", "client", ISSUER, "c1").returncode == 0
        assert served.post(INITIALIZE, third).status_code == 401


def test_what_cannot_be_revoked_is_said(tmp_path: Path, valkey: ValkeyServer) -> None:
    environment, keys = prepared(tmp_path, valkey.url)
    served = Served(subprocess.Popen(["true"], text=True), environment, tmp_path, keys)
    served.process.wait()
    nothing = served.command("revoke", "token", MCP_TOKEN="")
    assert nothing.returncode == 1
    assert nothing.stderr.endswith("mcp-guard: set MCP_TOKEN, or write it to standard input\n")
    alone = served.command("revoke", "user", ISSUER, "bob", MCP_SESSION_STORE="memory")
    assert alone.returncode == 1
    assert "only the process that keeps the state can revoke in it" in alone.stderr
    unknown = served.command("revoke", "session", MCP_SESSION="nobody-has-this")
    assert unknown.stdout.startswith("unknown: the session ")


def test_a_deployment_whose_store_is_away_does_not_start(tmp_path: Path) -> None:
    environment, _ = prepared(tmp_path, "valkey://127.0.0.1:1/0")
    line = [sys.executable, "-m", "mcp_guard.cli", "serve", APP, "--workers", "2"]
    ended = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=40, check=False)
    assert ended.returncode == 1
    assert "could not start" in ended.stderr
    assert "valkey" in ended.stderr


def test_a_new_key_is_printed_and_nothing_else(tmp_path: Path) -> None:
    line = [sys.executable, "-m", "mcp_guard.cli", "keys", "new"]
    keys = {subprocess.run(line, capture_output=True, text=True, timeout=20, check=True).stdout for _ in range(2)}
    assert len(keys) == 2
    assert {len(key) for key in keys} == {44}
