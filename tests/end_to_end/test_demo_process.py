"""The demo as a process: what it prints, tokens from the command line, and its end with streams open."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from mcp_guard.demo import CURL_BODY
from tests.end_to_end.conftest import USERS, RunningDemo, started_demo

END_WITHIN_SECONDS = 10


def command(*arguments: str, password: str | None = None) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, **({} if password is None else {"MCP_PASSWORD": password})}
    return subprocess.run(
        [sys.executable, "-m", "mcp_guard.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment,
        stdin=subprocess.DEVNULL,
        check=False,
    )


def call_whoami(demo: RunningDemo, token: str) -> httpx.Response:
    """The curl command that the demo prints."""
    headers = {
        "Authorization": f"Bearer {token}",
        "Content-Type": "application/json",
        "Accept": "application/json, text/event-stream",
        "MCP-Protocol-Version": "2026-07-28",
        "Mcp-Method": "tools/call",
        "Mcp-Name": "whoami",
    }
    return httpx.post(demo.mcp, content=CURL_BODY, headers=headers)


@pytest.mark.parametrize("user", ["alice", "bob"])
def test_a_token_from_the_command_line_calls_a_tool_as_its_user(demo: RunningDemo, user: str) -> None:
    done = command("token", demo.mcp, "--user", user, password=USERS[user])
    assert done.returncode == 0, done.stderr
    answer = call_whoami(demo, done.stdout.strip())
    assert answer.status_code == 200
    assert user in answer.text


def test_a_token_for_the_event_stream_endpoint_is_had_too(demo: RunningDemo) -> None:
    done = command("token", demo.sse, "--user", "alice", password=USERS["alice"])
    assert done.returncode == 0, done.stderr


def test_a_wrong_password_is_refused_without_being_shown(demo: RunningDemo) -> None:
    done = command("token", demo.mcp, "--user", "alice", password="not-the-password")
    assert done.returncode == 1
    assert "alice" in done.stderr
    assert "not-the-password" not in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_the_demo_states_its_limits_in_every_answer(demo: RunningDemo) -> None:
    token = command("token", demo.mcp, "--user", "alice", password=USERS["alice"]).stdout.strip()
    answer = call_whoami(demo, token)
    assert answer.headers["ratelimit-policy"].startswith('"tool";q='), "of all limits the one that has the least left"
    assert answer.headers["ratelimit"].startswith('"tool";r=')


def test_an_interrupt_ends_the_demo_cleanly_with_streams_open(tmp_path: Path) -> None:
    with started_demo(tmp_path) as demo, httpx.Client(timeout=10) as client:
        token = command("token", demo.sse, "--user", "alice", password=USERS["alice"]).stdout.strip()
        headers = {"Authorization": f"Bearer {token}", "Accept": "text/event-stream"}
        with client.stream("GET", demo.sse, headers=headers) as stream:
            assert stream.status_code == 200
            first = next(stream.iter_lines())
            assert first == "event: endpoint"
            began = time.monotonic()
            demo.process.send_signal(signal.SIGINT)
            status = demo.process.wait(END_WITHIN_SECONDS)
        took = time.monotonic() - began
        said = demo.errors.read_text()
    assert status in (0, 130), said
    assert took < END_WITHIN_SECONDS
    assert "Traceback" not in said
    verified = command("audit", "verify", str(demo.audit))
    assert verified.returncode == 0, verified.stderr
