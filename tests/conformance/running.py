"""Runs the certifier as its users do: pytest in an empty folder, in a process of its own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
SECONDS = 120


@dataclass(frozen=True)
class Ended:
    """How a run ended. `output` is standard output and error together."""

    code: int
    output: str
    folder: Path

    @property
    def report(self) -> dict[str, Any]:
        """The JSON report, of a run that was told to write one into `report`."""
        found: dict[str, Any] = json.loads((self.folder / "report" / "report.json").read_text("utf-8"))
        return found

    def outcome(self, requirement: str) -> str:
        return str(next(entry for entry in self.report["requirements"] if entry["id"] == requirement)["outcome"])

    @property
    def errors(self) -> list[str]:
        return re.findall(r"^ERROR: (.*)$", self.output, re.MULTILINE)


def run_pytest(folder: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> Ended:
    """`pytest` with the plugin of this tree and no other, in `folder`; no credentials but those in `environment`."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MCP_", "PYTEST_"))}
    settings = {"PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    plugins = ("-p", "pytest_mcp_conformance.plugin")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "pytest", *plugins, *arguments],
        cwd=folder,
        env={**inherited, **settings, **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    return Ended(done.returncode, done.stdout, folder)


def certify(folder: Path, url: str, *options: str, environment: Mapping[str, str] | None = None) -> Ended:
    """A run against `url` that writes its report."""
    reporting: Sequence[str] = ("--mcp-conformance-report=report",)
    return run_pytest(folder, f"--mcp-target={url}", *reporting, *options, environment=environment)
