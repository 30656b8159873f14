"""The certifier is silent on sound servers of others, but for what it rightly finds there; each finding is listed."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests.end_to_end.python_servers import USERS, behind_an_issuer, fastmcp_server, sdk_server
from tests.support.serving import Application

THE_ISSUERS: Mapping[str, str] = {
    "ASM-003": "the issuer is on another origin, where clients of 2025-03-26 do not look for it",
    "ASM-010": "client-id metadata documents are not in the first form of the authorization server",
    "PKCE-007": "the server judges tokens by themselves and cannot know that their grant was revoked",
}
OF_BOTH: Mapping[str, str] = {
    "AUTHZ-011": "the first of two credentials is taken",
    "HTTP-008": "blanks behind the value of Mcp-Method, which httptools leaves there, count as part of it",
    "INP-005": "a body in UTF-16 is read",
    "INP-007": "a call of an unknown tool is answered with a result that says isError, and not with -32602",
    "ORIG-004": "Host is matched with a wildcard for the port, or not at all",
    "SESS-006": "the first of two session ids is taken",
    "TOK-024": "an answer to an authorized request may be cached",
}
THE_SDKS: Mapping[str, str] = {
    **OF_BOTH,
    "AUTHZ-004": "the challenge says invalid_token where no token was sent",
    "AUTHZ-009": "the challenge names no scope",
    "ORIG-002": "allowed origins are matched with a wildcard for the port",
    "TOK-003": "PyJWT, which its users verify with, takes a padded signature",
}
FASTMCPS: Mapping[str, str] = {
    **OF_BOTH,
    "ORIG-001": "Origin is not looked at unless it is configured",
}


@pytest.mark.parametrize(
    ("build", "known"), [(sdk_server, THE_SDKS), (fastmcp_server, FASTMCPS)], ids=["the SDK", "FastMCP"]
)
def test_nothing_is_found_but_what_is_known(
    build: Callable[..., Application], known: Mapping[str, str], tmp_path: Path
) -> None:
    with behind_an_issuer(build) as url:
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("MCP_", "PYTEST_", "COV_"))},
            "MCP_CONFORMANCE_USER": "alice",
            "MCP_CONFORMANCE_PASSWORD": USERS["alice"],
            "MCP_CONFORMANCE_USER_B": "bob",
            "MCP_CONFORMANCE_PASSWORD_B": USERS["bob"],
        }
        command = [sys.executable, "-m", "pytest", f"--mcp-target={url}", "--mcp-conformance-login=form"]
        done = subprocess.run(
            [*command, f"--mcp-conformance-report={tmp_path}", f"--rootdir={tmp_path}"],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    report = json.loads((tmp_path / "report.json").read_text())
    found = {one["id"] for one in report["requirements"] if one["outcome"] in ("fail", "warn")}
    assert found == {*known, *THE_ISSUERS}, done.stdout
