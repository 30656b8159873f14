"""What the web server offers over TLS, and how its certificate is renewed under it."""

import http.client
import logging
import socket
import ssl
import subprocess
from pathlib import Path
from typing import Any

import pytest
import trustme

from mcp_guard import encryption as module
from mcp_guard import serving as web
from mcp_guard.asgi import Receive, Scope, Send
from mcp_guard.clock import ManualClock
from mcp_guard.encryption import Encryption, Handshakes
from mcp_guard.failures import ConfigurationError
from tests.guard.asgi import CountingApp, body, polled, start
from tests.guard.certificates import x5t
from tests.guard.encrypted import NAME, Issued, connected, encrypting, greeted, hello, put, serial_seen

GOOD_SUITE = 0xC02B
"""TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256."""
SUITES = {
    "RC4": 0xC011,
    "RC4 ECDSA": 0xC007,
    "3DES": 0xC008,
    "3DES RSA": 0x000A,
    "NULL": 0xC006,
    "NULL RSA": 0x003B,
    "anonymous": 0xC018,
    "export": 0x0003,
    "CBC": 0xC009,
    "CBC with SHA-256": 0xC023,
    "no forward secrecy": 0x009C,
}


@pytest.fixture
def issued(tmp_path: Path) -> Issued:
    return Issued(tmp_path)


@pytest.fixture(params=["httptools", "h11"])
def protocol(request: pytest.FixtureRequest) -> Any:
    return web.with_httptools() if request.param == "httptools" else web.with_h11()


async def silent(scope: Scope, receive: Receive, send: Send) -> None:
    await send(start(200))
    await send(body(b"done"))


def test_tls_07_weak_versions_and_suites_fail_in_the_handshake(tmp_path: Path) -> None:
    issued = Issued(tmp_path, NAME)
    with encrypting(silent, issued.encryption()) as port:
        assert greeted(port, hello(0x0303, [GOOD_SUITE], NAME))
        for version in (0x0300, 0x0301, 0x0302):
            assert not greeted(port, hello(version, [GOOD_SUITE, 0xC009, 0x002F], NAME)), hex(version)
        for name, suite in SUITES.items():
            assert not greeted(port, hello(0x0303, [suite], NAME)), name


def test_tls_07_a_client_names_the_host_it_wants_and_it_is_ours(tmp_path: Path) -> None:
    issued = Issued(tmp_path, NAME, "*.tenants.example.com")
    with encrypting(silent, issued.encryption()) as port:
        for name in (NAME, "MCP.example.COM", "a.tenants.example.com"):
            assert greeted(port, hello(0x0303, [GOOD_SUITE], name)), name
        for other in (None, "evil.example", "example.com", "tenants.example.com", "a.b.tenants.example.com"):
            assert not greeted(port, hello(0x0303, [GOOD_SUITE], other)), other


def test_tls_07_who_connects_to_an_address_names_no_host(tmp_path: Path) -> None:
    issued = Issued(tmp_path, "127.0.0.1")
    with encrypting(silent, issued.encryption()) as port:
        assert greeted(port, hello(0x0303, [GOOD_SUITE], None))
        assert not greeted(port, hello(0x0303, [GOOD_SUITE], "evil.example"))


def test_tls_07_nobody_renegotiates(issued: Issued) -> None:
    with encrypting(silent, issued.encryption()) as port:
        command = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-tls1_2", "-servername", NAME]
        ended = subprocess.run(command, input=b"R\n", capture_output=True, timeout=30, check=False)
    said = ended.stdout + ended.stderr
    assert b"RENEGOTIATING" in said
    assert b"no renegotiation" in said
    assert issued.encryption().load().context.options & ssl.OP_NO_RENEGOTIATION, "whatever OpenSSL's default is"


def test_neither_compression_nor_anything_but_http_is_offered(issued: Issued) -> None:
    client = issued.client()
    client.set_alpn_protocols(["h2", "http/1.1"])
    with encrypting(silent, issued.encryption()) as port, connected(port, client) as connection:
        assert connection.version() == "TLSv1.3"
        assert connection.compression() is None
        assert connection.selected_alpn_protocol() == "http/1.1"


def fetch(port: int, client: ssl.SSLContext) -> int:
    connection = http.client.HTTPSConnection("127.0.0.1", port, context=client, timeout=10)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status
    finally:
        connection.close()


def test_the_certificate_of_the_client_is_in_the_scope_of_each_request(issued: Issued, protocol: Any) -> None:
    clients = trustme.CA()
    own = clients.issue_cert("client@example.com")
    issued.trust(clients)
    app = CountingApp()
    asking = issued.encryption(client_ca=issued.client_ca, client_auth="optional")
    with encrypting(app, asking, http=protocol) as port:
        connection = http.client.HTTPSConnection("127.0.0.1", port, context=issued.client(own), timeout=10)
        for _ in range(2):
            connection.request("GET", "/")
            assert connection.getresponse().read() is not None
        connection.close()
        assert fetch(port, issued.client()) == 200
    first, second, without = (scope["extensions"]["tls"] for scope in app.scopes)
    assert first == second
    (pem,) = first["client_cert_chain"]
    assert x5t(ssl.PEM_cert_to_DER_cert(pem)) == x5t(ssl.PEM_cert_to_DER_cert(own.cert_chain_pems[0].bytes().decode()))
    assert (first["client_cert_error"], without["client_cert_chain"]) == (None, ())


def test_a_client_without_a_certificate_or_with_a_stranger_s_is_turned_away(issued: Issued) -> None:
    clients, strangers = trustme.CA(), trustme.CA()
    issued.trust(clients)
    app = CountingApp()
    asking = issued.encryption(client_ca=issued.client_ca, client_auth="required")
    with encrypting(app, asking) as port:
        for shown in (None, strangers.issue_cert("client@example.com")):
            with pytest.raises((ssl.SSLError, ConnectionError)):
                fetch(port, issued.client(shown))
        assert fetch(port, issued.client(clients.issue_cert("client@example.com"))) == 200
    assert app.calls == 1


def test_tls_1_3_resumes_only_where_no_certificate_is_asked_for(issued: Issued) -> None:
    def resumes(port: int) -> bool:
        context = issued.client(own)
        session, reused = None, None
        for _ in range(2):
            plain = socket.create_connection(("127.0.0.1", port), 10)
            with plain, context.wrap_socket(plain, server_hostname="127.0.0.1", session=session) as connection:
                connection.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                assert connection.recv(4096).startswith(b"HTTP/1.1 200")
                reused, session = connection.session_reused, connection.session
        return bool(reused)

    clients = trustme.CA()
    own = clients.issue_cert("client@example.com")
    issued.trust(clients)
    with encrypting(silent, issued.encryption()) as port:
        assert resumes(port)
    with encrypting(silent, issued.encryption(client_ca=issued.client_ca, client_auth="optional")) as port:
        assert not resumes(port)


def test_authorities_of_clients_are_replaced_too(issued: Issued, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.02)
    before, after = trustme.CA(), trustme.CA()
    old, new = (issued.client(one.issue_cert("client@example.com")) for one in (before, after))
    issued.trust(before)

    def welcome(client: ssl.SSLContext) -> bool:
        try:
            return fetch(port, client) == 200
        except (ssl.SSLError, ConnectionError):
            return False

    asking = issued.encryption(client_ca=issued.client_ca, client_auth="required")
    with encrypting(CountingApp(), asking) as port:
        assert (welcome(old), welcome(new)) == (True, False)
        issued.trust(after)
        polled(lambda: welcome(new), 10)
        assert not welcome(old)


def test_tls_09_new_connections_have_the_new_certificate_and_open_ones_stay(
    issued: Issued, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.02)
    client = issued.client()
    first = issued.replace()
    with encrypting(silent, issued.encryption()) as port, connected(port, client) as kept:
        assert serial_seen(port, client) == first
        second = issued.replace()
        polled(lambda: serial_seen(port, client) == second, 10)

        put(issued.key, b"no key")
        polled(lambda: "does not work; the old one stays" in caplog.text, 10)
        assert serial_seen(port, client) == second
        put(issued.certificate, b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
        issued.certificate.unlink()
        polled(lambda: "No such file" in caplog.text, 10)
        assert serial_seen(port, client) == second

        third = issued.replace()
        polled(lambda: serial_seen(port, client) == third, 10)
        kept.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert kept.recv(4096).startswith(b"HTTP/1.1 200")


def test_files_that_are_as_they_were_are_left_alone(issued: Issued, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    handshakes = Handshakes(issued.encryption())
    offer = handshakes.offer
    handshakes.look()
    assert handshakes.offer is offer
    issued.replace()
    handshakes.look()
    assert handshakes.offer is not offer
    assert len(caplog.records) == 1


def test_files_that_are_gone_are_said_once(issued: Issued, caplog: pytest.LogCaptureFixture) -> None:
    handshakes = Handshakes(issued.encryption())
    offer = handshakes.offer
    issued.certificate.unlink()
    for _ in range(2):
        handshakes.look()
        assert handshakes.offer is offer
    assert [record.levelname for record in caplog.records] == ["ERROR"]


def test_a_certificate_that_has_expired_is_none(tmp_path: Path, issued: Issued) -> None:
    clock = ManualClock(now=300_000_000_000)
    with pytest.raises(ConfigurationError, match=r"cert\.pem: the certificate has expired"):
        issued.encryption(clock=clock).load()


def broken(issued: Issued, file: str, data: bytes | None) -> Encryption:
    path = getattr(issued, file)
    issued.trust(trustme.CA())
    if data is None:
        path.unlink()
    else:
        put(path, data)
    return issued.encryption(client_ca=issued.client_ca, client_auth="required")


@pytest.mark.parametrize(
    "data", [None, b"", b"nonsense", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
@pytest.mark.parametrize(("file", "name"), [("certificate", "cert"), ("key", "key"), ("client_ca", "clients")])
def test_a_file_that_does_not_work_is_named(issued: Issued, file: str, name: str, data: bytes | None) -> None:
    encryption = broken(issued, file, data)
    with pytest.raises(ConfigurationError, match=rf"{name}\.pem: "):
        encryption.load()


def test_a_key_of_another_certificate_is_refused(issued: Issued) -> None:
    put(issued.key, issued.authority.issue_cert(NAME).private_key_pem.bytes())
    with pytest.raises(ConfigurationError, match="KEY_VALUES_MISMATCH"):
        issued.encryption().load()


def test_a_certificate_that_names_no_host_is_refused(issued: Issued) -> None:
    put(issued.certificate, issued.authority.cert_pem.bytes())
    put(issued.key, issued.authority.private_key_pem.bytes())
    with pytest.raises(ConfigurationError, match="names no host"):
        issued.encryption().load()


@pytest.mark.parametrize("settings", [{"client_auth": "required"}, {"client_ca": Path("clients.pem")}])
def test_who_asks_for_certificates_says_whose(issued: Issued, settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="client_ca and client_auth go together"):
        issued.encryption(**settings)
