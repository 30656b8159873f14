"""How the environment says that `mcp-guard serve` encrypts, and what certificates of clients come to there."""

import http.client
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from mcp_guard.config import load
from mcp_guard.deployment import encryption_of, from_settings
from mcp_guard.failures import ConfigurationError
from mcp_guard.layers.certificate import Certificate
from mcp_guard.layers.proxy import Proxy
from tests.guard.asgi import polled
from tests.guard.certificates import x5t
from tests.guard.encrypted import Issued, put, serial_seen
from tests.guard.signing import SigningKey, jwk_set
from tests.support.serving import listen

KEY = SigningKey.new()


@pytest.fixture
def issued(tmp_path: Path) -> Issued:
    made = Issued(tmp_path, "127.0.0.1")
    made.trust(trustme.CA())
    return made


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, issued: Issued) -> pytest.MonkeyPatch:
    for name in [name for name in os.environ if name.startswith("MCP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("MCP_PUBLIC_URL", "https://127.0.0.1:8443/mcp")
    monkeypatch.setenv("MCP_OAUTH_ISSUER", "https://as.example.com")
    monkeypatch.setenv("MCP_TLS_CERT", str(issued.certificate))
    monkeypatch.setenv("MCP_TLS_KEY", str(issued.key))
    return monkeypatch


def test_without_a_certificate_nothing_is_encrypted(environment: pytest.MonkeyPatch) -> None:
    environment.delenv("MCP_TLS_CERT")
    environment.delenv("MCP_TLS_KEY")
    assert encryption_of(load()) is None


def test_clients_are_asked_for_certificates_where_that_is_set(environment: pytest.MonkeyPatch, issued: Issued) -> None:
    environment.setenv("MCP_TLS_CLIENT_AUTH", "required")
    environment.setenv("MCP_TLS_CLIENT_CA", str(issued.client_ca))
    environment.setenv("MCP_CERTIFICATES", "required")
    settings = load()
    made = encryption_of(settings)
    assert made is not None
    assert (made.certificate, made.client_ca, made.client_auth) == (issued.certificate, issued.client_ca, "required")
    layers = from_settings(settings)
    assert any(isinstance(layer, Certificate) for layer in layers)
    assert not any(layer.client_certificates for layer in layers if isinstance(layer, Proxy))


def test_proxies_say_whose_certificate_they_saw_where_that_is_set(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("MCP_CERTIFICATES", "allowed")
    environment.setenv("MCP_PROXY_CLIENT_CERT", "true")
    with pytest.raises(ConfigurationError, match="MCP_PROXY_CLIENT_CERT: client_certificates"):
        from_settings(load())
    environment.setenv("MCP_TRUSTED_PROXIES", "10.0.0.0/24")
    (proxy,) = [layer for layer in from_settings(load()) if isinstance(layer, Proxy)]
    assert proxy.client_certificates


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"TLS_KEY": ""}, "MCP_TLS_KEY"),
        ({"TLS_CLIENT_AUTH": "optional"}, "MCP_TLS_CLIENT_CA and MCP_TLS_CLIENT_AUTH"),
        ({"TLS_CLIENT_CA": "{ca}"}, "MCP_TLS_CLIENT_CA and MCP_TLS_CLIENT_AUTH"),
        ({"TLS_CLIENT_AUTH": "always", "TLS_CLIENT_CA": "{ca}"}, "MCP_TLS_CLIENT_AUTH: "),
        ({"TLS_CLIENT_AUTH": "optional", "TLS_CLIENT_CA": "/nowhere"}, "MCP_TLS_CLIENT_CA: there is no file"),
        ({"CERTIFICATES": "allowed"}, "MCP_CERTIFICATES is allowed, and nobody says"),
        ({"CERTIFICATES": "some"}, "MCP_CERTIFICATES: "),
    ],
)
def test_settings_that_do_not_go_together_are_named(
    environment: pytest.MonkeyPatch, issued: Issued, settings: dict[str, str], named: str
) -> None:
    for name, value in settings.items():
        environment.setenv(f"MCP_{name}", value.format(ca=issued.client_ca))
    with pytest.raises(ConfigurationError, match=named):
        load()


def test_authorities_without_encryption_are_no_use(environment: pytest.MonkeyPatch, issued: Issued) -> None:
    environment.delenv("MCP_TLS_CERT")
    environment.delenv("MCP_TLS_KEY")
    environment.setenv("MCP_TLS_CLIENT_AUTH", "optional")
    environment.setenv("MCP_TLS_CLIENT_CA", str(issued.client_ca))
    with pytest.raises(ConfigurationError, match="MCP_TLS_CLIENT_CA: without MCP_TLS_CERT"):
        load()


def test_a_file_that_does_not_work_stops_the_start(environment: pytest.MonkeyPatch, issued: Issued) -> None:
    put(issued.key, b"nonsense")
    with pytest.raises(ConfigurationError, match=r"MCP_TLS_…: .*key\.pem"):
        encryption_of(load())


APP = """
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        raise RuntimeError("no lifespan")
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"done"})
"""
LIST = {"jsonrpc": "2.0", "id": 1, "method": "ping"}


@pytest.mark.parametrize("workers", [1, 2])
def test_a_bound_token_is_worth_its_certificate_alone_over_tls(
    environment: pytest.MonkeyPatch, issued: Issued, tmp_path: Path, workers: int
) -> None:
    """RFC 8705 §3, with every process and every handshake as it is."""
    clients = trustme.CA()
    own, other = (clients.issue_cert(f"{name}@example.com") for name in ("own", "other"))
    issued.trust(clients)
    with listen() as bound:
        port = bound.getsockname()[1]
    url = f"https://127.0.0.1:{port}/mcp"
    (tmp_path / "plain.py").write_text(APP)
    (tmp_path / "keys.json").write_text(json.dumps(jwk_set(KEY)))
    for name, value in {
        "PUBLIC_URL": url,
        "PORT": str(port),
        "WORKERS": str(workers),
        "OAUTH_JWKS_FILE": str(tmp_path / "keys.json"),
        "TLS_CLIENT_AUTH": "optional",
        "TLS_CLIENT_CA": str(issued.client_ca),
        "CERTIFICATES": "allowed",
        "INSECURE_MEMORY_STORE_PER_WORKER": "true",
        "AUDIT_FILE": str(tmp_path / "audit.jsonl"),
    }.items():
        environment.setenv(f"MCP_{name}", value)
    now = int(time.time())
    claims: dict[str, Any] = {"iss": "https://as.example.com", "aud": url, "iat": now, "exp": now + 60}
    der = x509.load_pem_x509_certificate(own.cert_chain_pems[0].bytes()).public_bytes(Encoding.DER)
    bound_token = KEY.token(**claims, cnf={"x5t#S256": x5t(der)}).decode()

    def call(shown: trustme.LeafCert | None, token: str) -> int:
        connection = http.client.HTTPSConnection("127.0.0.1", port, context=issued.client(shown), timeout=10)
        fields = {
            "Authorization": f"Bearer {token}",
            "Content-Type": "application/json",
            "Accept": "application/json, text/event-stream",
        }
        try:
            connection.request("POST", "/mcp", json.dumps(LIST), fields)
            answer = connection.getresponse()
            return answer.status
        finally:
            connection.close()

    def up() -> bool:
        try:
            return bool(serial_seen(port, issued.client()))
        except OSError:
            return process.poll() is not None

    command = [sys.executable, "-m", "mcp_guard.cli", "serve", "plain:app"]
    path = os.pathsep.join([str(tmp_path), str(Path.cwd())])
    process = subprocess.Popen(command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": path})
    try:
        polled(up, 30)
        polled(lambda: call(own, bound_token) == 200, 30)
        for _ in range(4):
            assert call(own, bound_token) == 200
            assert call(None, bound_token) == 401
            assert call(other, bound_token) == 401
            assert call(None, KEY.token(**claims).decode()) == 200
    finally:
        process.terminate()
        process.wait(30)
    assert b'"certificate_binding"' in b"".join(file.read_bytes() for file in tmp_path.glob("audit*.jsonl"))
