"""What cannot work is said in one sentence that names the cause, with a non-zero exit status and no traceback."""

import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

APP = "tests.end_to_end.unguarded:app"
GOOD = {
    "MCP_PUBLIC_URL": "http://127.0.0.1:8000/mcp",
    "MCP_OAUTH_ISSUER": "https://as.example.com",
    "MCP_PORT": "0",
}
ROOT = Path(__file__).parents[2]


def run(*arguments: str, settings: Mapping[str, str] | None = None) -> tuple[int, str]:
    """One command: its exit status and what it said on standard error."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MCP_")}
    command = [sys.executable, "-m", "mcp_guard.cli", *arguments]
    environment = {**clean, "PYTHONPATH": str(ROOT), **(settings or {})}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, env=environment, stdin=subprocess.DEVNULL, check=False
    )
    return done.returncode, done.stderr


def refused_port() -> int:
    """A loopback port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"MCP_OAUTH_ISSUER": ""}, "MCP_OAUTH_ISSUER"),
        ({"MCP_SESSION_TTL_SECONDS": "soon"}, "MCP_SESSION_TTL_SECONDS"),
        ({"MCP_SESSION_STORE": "redis"}, "MCP_SESSION_STORE"),
        ({"MCP_PORT": "70000"}, "MCP_PORT"),
        ({"MCP_PUBLIC_URL": "http://mcp.example.com/mcp"}, "MCP_PUBLIC_URL"),
        ({"MCP_TRUSTED_PROXIES": "10.0.0.0/8,*"}, "MCP_TRUSTED_PROXIES"),
        ({"MCP_ALLOWED_ORIGINS": "https://app.example.com/"}, "MCP_ALLOWED_ORIGINS"),
        ({"MCP_OAUTH_JWKS_FILE": "/nowhere/jwks.json"}, "/nowhere/jwks.json"),
        ({"MCP_TLS_CERT": "/nowhere/cert.pem", "MCP_TLS_KEY": "/nowhere/key.pem"}, "/nowhere/cert.pem"),
        ({"MCP_TLS_CERT": "/nowhere/cert.pem"}, "MCP_TLS_KEY"),
        ({"MCP_AUDIT_FILE": "/nowhere/audit.jsonl"}, "/nowhere/audit.jsonl"),
    ],
)
def test_a_wrong_setting_is_named(settings: dict[str, str], named: str) -> None:
    status, said = run("serve", APP, settings={**GOOD, **settings})
    assert status == 1
    assert named in said
    assert "Traceback" not in said


def test_an_issuer_that_cannot_be_reached_is_named() -> None:
    issuer = f"http://127.0.0.1:{refused_port()}"
    status, said = run("serve", APP, settings={**GOOD, "MCP_OAUTH_ISSUER": issuer})
    assert status == 1
    assert issuer in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("app", "named"),
    [
        ("no_such_module:app", "no_such_module"),
        ("json:no_such_app", "no_such_app"),
        ("json", "MODULE:APP"),
        ("json:__doc__", "not an ASGI app"),
    ],
)
def test_an_app_that_is_not_there_is_named(app: str, named: str) -> None:
    status, said = run("serve", app, settings=GOOD)
    assert status == 1
    assert named in said
    assert "Traceback" not in said


@pytest.mark.parametrize("users", ["alice", "alice:", ":secret", "alice:a,alice:b"])
def test_users_that_cannot_be_read_are_refused_without_their_passwords(users: str) -> None:
    status, said = run("demo", "--port", "0", "--users", users)
    assert status == 1
    assert "--users" in said
    assert "secret" not in said


def test_a_port_that_is_taken_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        status, said = run("demo", "--port", str(port))
    assert status == 1
    assert str(port) in said
    assert "Traceback" not in said


def test_a_token_from_an_endpoint_that_does_not_answer_is_refused_by_name() -> None:
    url = f"http://127.0.0.1:{refused_port()}/mcp"
    status, said = run("token", url, "--user", "alice", settings={"MCP_PASSWORD": "x"})
    assert status == 1
    assert url in said
    assert "Traceback" not in said


def test_an_audit_file_that_is_not_there_is_named() -> None:
    status, said = run("audit", "verify", "/nowhere/audit.jsonl")
    assert status == 1
    assert "/nowhere/audit.jsonl" in said


def test_a_wrong_order_of_layers_names_both(tmp_path: Path) -> None:
    (tmp_path / "wrong.py").write_text(
        "from mcp_guard import guard\n"
        "from mcp_guard.layers.proxy import Proxy\n"
        "from mcp_guard.layers.shield import Shield\n"
        "async def app(scope, receive, send): ...\n"
        "guard(app, Shield(), Proxy())\n"
    )
    done = subprocess.run(
        [sys.executable, tmp_path / "wrong.py"],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert "Shield" in last
    assert "Proxy" in last
