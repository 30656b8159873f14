#!/usr/bin/env python3
"""Chromium without a window, driven over the DevTools protocol through two pipes: no port, no library.

Nothing but this machine is reachable from it.

Run as a program it is a browser command: it takes a URL, signs in as WALKER_USER with WALKER_PASSWORD, presses the
button that WALKER_DECISION names (approve by default), and stays until the page it ends on is there.
"""

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.end_to_end.devtools import Browser, BrowserError

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-sync",
    "--no-first-run",
    "--no-proxy-server",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost, EXCLUDE [::1]",
    "--remote-debugging-pipe",
    "about:blank",
)
# Chromium reads commands from descriptor 3 and writes answers to 4.
LAUNCH = 'exec "${@:3}" 3<&"$1" 4>&"$2"'


def _pipe() -> tuple[int, int]:
    """A pipe whose ends stay clear of the descriptors that the browser wants."""
    ends = os.pipe()
    clear = tuple(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends)
    for end in ends:
        os.close(end)
    return clear[0], clear[1]


@contextlib.contextmanager
def chromium(home: Path, flags: Sequence[str] = ()) -> Iterator[Browser]:
    """A running browser that keeps everything in `home` and has ended when the block ends.

    Raises:
        BrowserError: it is not installed.
    """
    program = shutil.which("chromium")
    if program is None:
        raise BrowserError("chromium is installed by: make clients")
    (command_end, writes), (reads, answer_end) = _pipe(), _pipe()
    command = [program, f"--user-data-dir={home / 'profile'}", *flags, *FLAGS]
    process = subprocess.Popen(
        ["bash", "-c", LAUNCH, "chromium", str(command_end), str(answer_end), *command],
        pass_fds=(command_end, answer_end),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "HOME": str(home)},
        start_new_session=True,
    )
    os.close(command_end)
    os.close(answer_end)
    try:
        browser = Browser(reads, writes)
        yield browser
        with contextlib.suppress(BrowserError):
            browser.command("Browser.close")
    finally:
        os.close(reads)
        os.close(writes)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def main() -> None:
    with tempfile.TemporaryDirectory() as home, chromium(Path(home)) as browser, browser.context() as context:
        tab = context.tab()
        tab.open(sys.argv[-1])
        tab.sign_in(os.environ["WALKER_USER"], os.environ["WALKER_PASSWORD"])
        tab.decide(os.environ.get("WALKER_DECISION", "approve"))


if __name__ == "__main__":
    main()
