"""How many workers there are, and what a store that is one process's own makes of more than one."""

import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mcp_guard.failures import ConfigurationError
from mcp_guard.stores.memory import MemoryStore
from mcp_guard.workers import declared_workers

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("environment", "line", "workers"),
    [
        ({}, [], 1),
        ({}, ["serve.py", "--workers", "4"], 1),
        ({"WEB_CONCURRENCY": "3"}, ["serve.py"], 3),
        ({"MCP_WORKERS": "2"}, ["serve.py"], 2),
        ({"MCP_WORKERS": "many", "WEB_CONCURRENCY": "-2"}, [], 1),
        ({"WEB_CONCURRENCY": "0"}, [], 1),
        ({}, ["/venv/bin/uvicorn", "app:app", "--workers", "4"], 4),
        ({}, ["/venv/bin/uvicorn", "app:app", "--workers=4"], 4),
        ({}, ["/venv/lib/uvicorn/__main__.py", "app:app", "--workers", "2"], 2),
        ({}, ["gunicorn", "-w", "2", "app:app"], 2),
        ({}, ["gunicorn", "-w2", "app:app"], 2),
        ({}, ["granian", "app:app", "--workers"], 1),
        ({}, ["hypercorn", "--worker-class", "uvloop", "app:app"], 1),
        ({"WEB_CONCURRENCY": "2"}, ["uvicorn", "app:app", "--workers", "3"], 3),
    ],
)
def test_what_was_asked_for_is_read(environment: dict[str, str], line: list[str], workers: int) -> None:
    assert declared_workers(environment, line) == workers


async def test_a_memory_store_does_not_start_beside_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEB_CONCURRENCY", "2")
    with pytest.raises(ConfigurationError, match=r"2 workers.*ValkeyStore or a PostgresStore"):
        await MemoryStore().start()


async def test_the_override_of_it_is_loud(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("WEB_CONCURRENCY", "2")
    with caplog.at_level(logging.WARNING, "mcp_guard"):
        await MemoryStore(insecure_per_worker=True).start()
    assert "sessions of one worker are unknown to the others" in caplog.text


APP = """
from mcp_guard.stack import guard
from mcp_guard.layers.rate_limit import RateLimit
from mcp_guard.layers.session import Session
from mcp_guard.stores.memory import MemoryStore
from tests.guard.stubs import Facts

async def inner(scope, receive, send):
    raise AssertionError("nothing is served")

app = guard(inner, Facts(), RateLimit(store=MemoryStore()))
"""


def test_uvicorn_with_two_workers_on_memory_stops_and_says_why(tmp_path: Path) -> None:
    (tmp_path / "two_workers.py").write_text(APP)
    line = [
        sys.executable,
        "-m",
        "uvicorn",
        "two_workers:app",
        "--workers",
        "2",
        "--port",
        "0",
        "--app-dir",
        str(tmp_path),
    ]
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MCP_", "WEB_"))}
    process = subprocess.Popen(
        line, cwd=ROOT, env=clean, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True, text=True
    )
    try:
        said, _ = process.communicate(timeout=30)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    assert "2 workers" in said
    assert "Uvicorn running" not in said or "failed to start" in said
