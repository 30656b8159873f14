"""The demo is certified as its user would do it: by two users' tokens, and by a login of the certifier's own."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mcp_guard.login import Login
from mcp_guard.secret import Secret
from tests.end_to_end.conftest import USERS, RunningDemo

WITHIN_SECONDS = 60
"""What the certifier promises for a whole run on loopback."""

LOGIN = {
    "MCP_CONFORMANCE_USER": "alice",
    "MCP_CONFORMANCE_PASSWORD": USERS["alice"],
    "MCP_CONFORMANCE_USER_B": "bob",
    "MCP_CONFORMANCE_PASSWORD_B": USERS["bob"],
}


@dataclass(frozen=True)
class Certification:
    """What a run of the certifier came to."""

    status: int
    seconds: float
    said: str
    report: Mapping[str, Any]

    def outcomes(self, *words: str) -> dict[str, str]:
        """The requirements with one of these outcomes."""
        return {one["id"]: one["outcome"] for one in self.report["requirements"] if one["outcome"] in words}


def certify(url: str, folder: Path, environment: Mapping[str, str], *options: str) -> Certification:
    """Run pytest in an empty folder."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MCP_", "PYTEST_", "COV_"))}
    (folder / "empty").mkdir()
    command = [sys.executable, "-m", "pytest", f"--mcp-target={url}", f"--mcp-conformance-report={folder}", *options]
    began = time.monotonic()
    done = subprocess.run(
        command,
        cwd=folder / "empty",
        env={**clean, **environment},
        capture_output=True,
        text=True,
        timeout=2 * WITHIN_SECONDS,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    seconds = time.monotonic() - began
    path = folder / "report.json"
    report = json.loads(path.read_text()) if path.exists() else {"requirements": []}
    return Certification(done.returncode, seconds, done.stdout + done.stderr, report)


def token(demo: RunningDemo, user: str) -> str:
    return Login(demo.mcp).with_password(user, Secret(USERS[user]))


def no_secret_is_shown(certification: Certification, *secrets: str) -> None:
    written = certification.said + json.dumps(certification.report)
    for secret in secrets:
        assert secret not in written


def test_two_tokens_certify_the_demo(demo: RunningDemo, tmp_path: Path) -> None:
    alice, bob = token(demo, "alice"), token(demo, "bob")
    tokens = {"MCP_CONFORMANCE_TOKEN": alice, "MCP_CONFORMANCE_TOKEN_B": bob}
    certification = certify(demo.mcp, tmp_path, tokens)
    assert certification.status == 0, certification.said
    assert certification.seconds < WITHIN_SECONDS
    assert certification.outcomes("fail", "inconclusive") == {}, certification.said
    assert len(certification.outcomes("pass")) >= 60
    assert "requirements assessed" in certification.said
    assert "not-run" in certification.said
    no_secret_is_shown(certification, alice, bob)


def test_a_login_of_its_own_certifies_the_demo(demo: RunningDemo, tmp_path: Path) -> None:
    certification = certify(demo.mcp, tmp_path, LOGIN, "--mcp-conformance-login=form")
    assert certification.status == 0, certification.said
    assert certification.seconds < WITHIN_SECONDS
    assert certification.outcomes("fail", "inconclusive") == {}, certification.said
    assert len(certification.outcomes("pass")) >= 80
    assert {f"PKCE-00{number}" for number in range(1, 10)} <= certification.outcomes("pass", "not-applicable").keys()
    no_secret_is_shown(certification, *USERS.values())


def test_the_event_stream_endpoint_is_certified_too(demo: RunningDemo, tmp_path: Path) -> None:
    certification = certify(demo.sse, tmp_path, LOGIN, "--mcp-conformance-login=form")
    assert certification.status == 0, certification.said
    assert certification.outcomes("fail", "inconclusive") == {}, certification.said


@pytest.mark.parametrize("change", [{"MCP_CONFORMANCE_PASSWORD": "wrong"}, {"MCP_CONFORMANCE_PASSWORD": ""}])
def test_a_login_that_fails_leaves_its_checks_not_run_and_says_so(
    demo: RunningDemo, tmp_path: Path, change: dict[str, str]
) -> None:
    options = ("--mcp-conformance-login=form", "--mcp-conformance-only=PKCE,PRM")
    certification = certify(demo.mcp, tmp_path, {**LOGIN, **change}, *options)
    assert "PKCE-003" in certification.outcomes("not-run")
    assert "login" in certification.said or "MCP_CONFORMANCE_PASSWORD" in certification.said
    assert "Traceback (most recent call last)" not in certification.said


def test_a_target_that_does_not_answer_is_named(tmp_path: Path) -> None:
    certification = certify("http://127.0.0.1:9/mcp", tmp_path, {})
    assert certification.status not in (0, 1)
    assert "http://127.0.0.1:9/mcp" in certification.said
    assert "Traceback (most recent call last)" not in certification.said


def test_a_target_elsewhere_needs_an_authorization(tmp_path: Path) -> None:
    certification = certify("https://mcp.example.com/mcp", tmp_path, {})
    assert certification.status not in (0, 1)
    assert "--mcp-conformance-authorized" in certification.said
