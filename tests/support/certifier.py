"""Runs the certifier against model servers, many times and quickly.

A fork server imports pytest, Hypothesis and both servers once; each run is then a fork of it, with a model server in a
thread and the certifier in front, and ends with its process. Nothing leaks from one run into the next.
"""

from __future__ import annotations

import contextlib
import io
import json
import multiprocessing
import os
import re
import shlex
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import conformance_suites
from tests.support.model_server import USERS, ModelServer
from tests.support.serving import serving

PRELOADED = [
    "hypothesis.strategies",
    "pytest_mcp_conformance.engine",
    "pytest_mcp_conformance.fixtures",
    "tests.support.certifier",
    "uvicorn.protocols.http.h11_impl",
]
RUNS_AT_ONCE = 2
PLUGINS = ("-p", "no:cacheprovider", "-p", "pytest_mcp_conformance.plugin")
ROOT = Path(__file__).parents[2]
MINTING = shlex.join([sys.executable, "-m", "tests.support.minting"])
DECLARATIONS = ROOT / "tests" / "support" / "model_declarations.toml"
_CHECK = re.compile(r'@requirement\("([A-Z]+-\d{3})"\)')
BAD = frozenset({"fail", "warn"})


@dataclass(frozen=True)
class Run:
    """What to certify: a model server with these faults, at this endpoint, for these ids or areas (all, when empty)."""

    faults: frozenset[str] = frozenset()
    endpoint: str = "/mcp"
    only: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Certificate:
    """What came of a run. `outcomes` holds the verdict words of the requirements that have checks."""

    exit_code: int
    requests: int = 0
    outcomes: Mapping[str, str] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)
    output: str = ""

    @property
    def found(self) -> dict[str, str]:
        """The requirements with a finding, and what it was."""
        return {one: self.reasons[one] for one, outcome in self.outcomes.items() if outcome in BAD}


def certify(run: Run) -> Certificate:
    """Serve, certify and report, in this process. It is meant for a process of its own: see `certifiers`."""
    with (
        tempfile.TemporaryDirectory() as folder,
        serving(lambda url: ModelServer(url, run.faults, minting=True)) as server,
        contextlib.redirect_stdout(io.StringIO()) as output,
        contextlib.redirect_stderr(output),
    ):
        os.environ.update(_environment(server.app, run.endpoint))
        os.environ["PYTHONPATH"] = str(ROOT)  # of the minting command
        os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
        os.environ.pop("PYTEST_ADDOPTS", None)
        os.chdir(folder)
        arguments = [f"--mcp-target={server.url}{run.endpoint}", "--mcp-conformance-login=form"]
        arguments += [f"--mcp-conformance-report={folder}", "-c", _no_settings(Path(folder)), "-q", *PLUGINS]
        arguments.append(f"--mcp-conformance-mint-command={MINTING} {server.url}")
        arguments.append(f"--mcp-conformance-declarations={DECLARATIONS}")
        if run.only:
            arguments.append(f"--mcp-conformance-only={','.join(run.only)}")
        code = pytest.main([*arguments, *run.options, *_files(run.only)])
        os.chdir("/")
        return _certificate(int(code), Path(folder) / "report.json", output.getvalue())


def checks() -> dict[str, set[Path]]:
    """The files that hold checks of a requirement, by its id."""
    found: dict[str, set[Path]] = {}
    for folder in conformance_suites.__path__:
        for path in Path(folder).glob("test_*.py"):
            for one in _CHECK.findall(path.read_text("utf-8")):
                found.setdefault(one, set()).add(path)
    return found


def _no_settings(folder: Path) -> str:
    """An empty configuration file, so that no run takes the settings of the project around the suites."""
    path = folder / "pytest.ini"
    path.write_text("[pytest]\n", "utf-8")
    return str(path)


def _files(only: tuple[str, ...]) -> list[str]:
    """The files to collect for these ids; none, which means all, when one is an area or has no check."""
    known = checks()
    if not all(one in known for one in only):
        return []
    return sorted({str(path) for one in only for path in known[one]})


def _environment(app: Any, endpoint: str) -> dict[str, str]:
    now = int(time.time())
    claims = {"aud": app.deployment.resources[endpoint]}
    return {
        "MCP_CONFORMANCE_TOKEN": app.mint(subject="alice", claims=claims),
        "MCP_CONFORMANCE_TOKEN_B": app.mint(subject="bob", claims=claims),
        "MCP_CONFORMANCE_TOKEN_EXPIRED": app.mint(
            subject="alice", claims={**claims, "iat": now - 7200, "exp": now - 3600}
        ),
        "MCP_CONFORMANCE_TOKEN_UPSTREAM": app.upstream_token(),
        "MCP_CONFORMANCE_USER": "alice",
        "MCP_CONFORMANCE_PASSWORD": USERS["alice"],
        "MCP_CONFORMANCE_USER_B": "bob",
        "MCP_CONFORMANCE_PASSWORD_B": USERS["bob"],
    }


def _certificate(code: int, report: Path, output: str) -> Certificate:
    if not report.exists():
        return Certificate(code, output=output)
    statement = json.loads(report.read_text("utf-8"))
    checked = [entry for entry in statement["requirements"] if entry["checks"]]
    reasons = {entry["id"]: _reason(entry) for entry in checked}
    return Certificate(
        code, statement["requests"], {entry["id"]: entry["outcome"] for entry in checked}, reasons, output
    )


def _reason(entry: Mapping[str, Any]) -> str:
    """The reason of the check that decided the requirement's outcome."""
    for check in entry["checks"]:
        if check["outcome"] == entry["outcome"]:
            return f"{check['check']}: {check.get('reason', '')}"
    return ""


@contextlib.contextmanager
def certifiers() -> Iterator[ProcessPoolExecutor]:
    """A pool for `certify` that runs each call in a fresh process."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    with ProcessPoolExecutor(RUNS_AT_ONCE, mp_context=context, max_tasks_per_child=1) as pool:
        try:
            yield pool
        finally:
            pool.shutdown(cancel_futures=True)
