"""The real Codex CLI logs in at the demo and calls a tool as the user who logged in."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.end_to_end.codex_model import scripted_model
from tests.end_to_end.conftest import USERS, RunningDemo

pytestmark = pytest.mark.clients

ROOT = Path(__file__).parents[2]
CODEX = ROOT / ".clients" / "node_modules" / ".bin" / "codex"
LIMIT_SECONDS = 60


def run(command: list[str], environment: dict[str, str], folder: Path) -> str:
    """Run a client with a time limit and end its whole process group afterwards; answers what it printed."""
    process = subprocess.Popen(
        command,
        env=environment,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=LIMIT_SECONDS)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert process.returncode == 0, output
    return output


def home(folder: Path, demo: RunningDemo, model_url: str, user: str) -> dict[str, str]:
    """A fresh home for the CLI, with the demo and the model configured and the walker as its browser."""
    codex_home, programs = folder / "codex", folder / "bin"
    codex_home.mkdir()
    programs.mkdir()
    (codex_home / "config.toml").write_text(
        f"""
model = "scripted"
model_provider = "stub"
mcp_oauth_credentials_store = "file"

[model_providers.stub]
name = "stub"
base_url = "{model_url}"
wire_api = "responses"

[mcp_servers.target]
url = "{demo.mcp}"
"""
    )
    for name in ("xdg-open", "open", "gio", "x-www-browser", "sensible-browser"):
        program = programs / name
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m tests.end_to_end.walker "$@"\n')
        program.chmod(0o755)
    return {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "HOME": str(folder),
        "CODEX_HOME": str(codex_home),
        "BROWSER": str(programs / "xdg-open"),
        "PYTHONPATH": str(ROOT),
        "NO_PROXY": "127.0.0.1,localhost",
        "WALKER_USER": user,
        "WALKER_PASSWORD": USERS[user],
    }


@pytest.mark.parametrize("user", ["alice", "bob"])
def test_codex_logs_in_and_whoami_answers_the_user(demo: RunningDemo, tmp_path: Path, user: str) -> None:
    assert CODEX.exists(), "the Codex CLI is installed by: make clients"
    with scripted_model("whoami") as model:
        environment = home(tmp_path, demo, model.url, user)
        run([str(CODEX), "mcp", "login", "target"], environment, tmp_path)
        unattended = "--dangerously-bypass-approvals-and-sandbox"
        run([str(CODEX), "exec", "--skip-git-repo-check", unattended, "call whoami"], environment, tmp_path)
        outputs = model.tool_outputs()
    assert outputs, "no tool answered"
    assert user in outputs[0]
