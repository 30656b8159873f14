"""A listener on loopback that offers a key of ours, and notices who fetches it."""

from __future__ import annotations

import base64
import datetime as dt
import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from pytest_mcp_conformance.forge.jws import dump, new_ec_key, public_jwk

NOWHERE = "https://canary.invalid"


class Canary:
    """A key, the documents that offer it, the paths that were asked for, and what was sent along.

    `origin` is a name that resolves nowhere when the target could not reach a listener on this machine's loopback.
    """

    def __init__(self, origin: str) -> None:
        self.origin = origin
        self.key = new_ec_key()
        self.jwk: dict[str, Any] = {**public_jwk(self.key), "kid": "conformance-check", "use": "sig", "alg": "ES256"}
        self.certificate = _certificate(self.key)
        self.fetched: list[str] = []
        self.received: list[str] = []

    @property
    def keys_url(self) -> str:
        return f"{self.origin}/keys.json"

    @property
    def certificate_url(self) -> str:
        return f"{self.origin}/certificate.pem"

    @property
    def x5c(self) -> list[str]:
        """The certificate as RFC 7515 §4.1.6 writes it."""
        return [base64.b64encode(self.certificate.public_bytes(Encoding.DER)).decode()]

    def body(self, path: str) -> bytes:
        """What is served at `path`: the certificate, metadata of an issuer, or the key set."""
        if path.startswith("/certificate"):
            return self.certificate.public_bytes(Encoding.PEM)
        if path.startswith("/.well-known"):
            return dump({"issuer": self.origin, "jwks_uri": self.keys_url})
        return dump({"keys": [self.jwk]})


@contextmanager
def listening(*, reachable: bool) -> Iterator[Canary]:
    """A canary; it listens on 127.0.0.1 when the target is `reachable` there, else it only has a name."""
    if not reachable:
        yield Canary(NOWHERE)
        return
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        canary = Canary(f"http://127.0.0.1:{server.server_address[1]}")
        server.RequestHandlerClass = _handler(canary)
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True, name="canary")
        thread.start()
        try:
            yield canary
        finally:
            server.shutdown()
            thread.join()


def _handler(canary: Canary) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            canary.fetched.append(self.path)
            canary.received.append(f"{self.requestline}\n{self.headers}\n{self._sent()}")
            body = canary.body(self.path)
            self.send_response(200)
            self.send_header("Content-Type", "application/json" if _is_json(body) else "application/x-pem-file")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815 - the name that http.server calls

        def _sent(self) -> str:
            length = self.headers.get("Content-Length", "")
            return self.rfile.read(min(int(length), 1 << 20)).decode("latin-1") if length.isdigit() else ""

        def log_message(self, *args: object) -> None:
            """Say nothing on the terminal of the run."""

    return Handler


def _is_json(body: bytes) -> bool:
    try:
        json.loads(body)
    except ValueError:
        return False
    return True


def _certificate(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "conformance check")])
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .sign(key, SHA256())
    )
