"""Servers that encrypt, certificates for them, and clients that shake hands with them, for tests."""

import contextlib
import gc
import os
import socket
import ssl
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import trustme

from mcp_guard.asgi import ASGIApp
from mcp_guard.encryption import Encryption
from mcp_guard.serving import Server, configuration
from tests.guard.asgi import polled
from tests.support.serving import listen

NAME = "mcp.example.com"


class Issued:
    """The files of a server's certificate, and those of authorities, in `folder`."""

    def __init__(self, folder: Path, *names: str) -> None:
        self.authority = trustme.CA()
        self.certificate, self.key, self.client_ca = (folder / name for name in ("cert.pem", "key.pem", "clients.pem"))
        self.names = names or (NAME, "127.0.0.1")
        self.replace()

    def replace(self, *names: str) -> str:
        """Write another certificate and its key as renewals do, each file at once. Answers its serial number."""
        made = self.authority.issue_cert(*(names or self.names))
        put(self.key, made.private_key_pem.bytes())
        put(self.certificate, b"".join(part.bytes() for part in made.cert_chain_pems))
        return serial(made.cert_chain_pems[0].bytes())

    def trust(self, *authorities: trustme.CA) -> None:
        """Make these the authorities that clients' certificates are from."""
        put(self.client_ca, b"".join(one.cert_pem.bytes() for one in authorities))

    def encryption(self, **settings: Any) -> Encryption:
        return Encryption(self.certificate, self.key, **settings)

    def client(self, shown: trustme.LeafCert | None = None) -> ssl.SSLContext:
        """A client that trusts the authority, and shows a certificate of its own."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.authority.configure_trust(context)
        if shown is not None:
            shown.configure_cert(context)
        return context


def put(file: Path, data: bytes) -> None:
    beside = file.with_suffix(".new")
    beside.write_bytes(data)
    beside.replace(file)


def serial(pem: bytes) -> str:
    from cryptography import x509

    return f"{x509.load_pem_x509_certificate(pem).serial_number:X}"


@contextlib.contextmanager
def encrypting(app: ASGIApp, encryption: Encryption, **settings: Any) -> Iterator[int]:
    """Serve `app` as `mcp-guard serve` does, until the block ends. Answers the port."""
    settings = {"log_level": "critical", "timeout_graceful_shutdown": 1, "lifespan": "off", **settings}
    with listen() as bound:
        server = Server(configuration(app, encryption=encryption, **settings))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
        thread.start()
        try:
            polled(lambda: server.started or not thread.is_alive(), 10)
            assert server.started
            yield bound.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join(10)
            gc.unfreeze()


@contextlib.contextmanager
def connected(port: int, context: ssl.SSLContext, name: str = "127.0.0.1") -> Iterator[ssl.SSLSocket]:
    with (
        socket.create_connection(("127.0.0.1", port), 10) as plain,
        context.wrap_socket(plain, server_hostname=name) as it,
    ):
        yield it


def serial_seen(port: int, context: ssl.SSLContext, name: str = "127.0.0.1") -> str:
    """The serial number of the certificate that a new connection is shown."""
    with connected(port, context, name) as connection:
        return str((connection.getpeercert() or {})["serialNumber"]).lstrip("0")


def hello(version: int, suites: list[int], name: str | None) -> bytes:
    """A ClientHello of TLS 1.2 and before (RFC 5246 §7.4.1.2) as bytes, whatever the library of this machine offers."""
    groups, signatures = struct.pack("!HHH", 4, 29, 23), struct.pack("!HHHHH", 8, 0x0403, 0x0804, 0x0401, 0x0203)
    extensions = _extension(10, groups) + _extension(11, b"\x01\x00") + _extension(13, signatures)
    if name is not None:
        host = struct.pack("!BH", 0, len(name)) + name.encode()
        extensions += _extension(0, struct.pack("!H", len(host)) + host)
    offered = struct.pack(f"!{len(suites)}H", *suites)
    body = struct.pack("!H", version) + os.urandom(32) + b"\x00" + struct.pack("!H", len(offered)) + offered
    body += b"\x01\x00" + struct.pack("!H", len(extensions)) + extensions
    message = b"\x01" + len(body).to_bytes(3) + body
    return b"\x16\x03\x01" + struct.pack("!H", len(message)) + message


def _extension(kind: int, data: bytes) -> bytes:
    return struct.pack("!HH", kind, len(data)) + data


def greeted(port: int, data: bytes) -> bool:
    """Whether the server goes on with the handshake (record type 22), in place of an alert (21) or a closed connection.

    asyncio closes without sending the alert that it has (Python 3.11).
    """
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        connection.settimeout(10)
        connection.sendall(data)
        said = connection.recv(1)
    assert said in {b"", b"\x15", b"\x16"}
    return said == b"\x16"
