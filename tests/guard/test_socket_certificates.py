"""Tokens that are bound to a client certificate (RFC 8705 §3), on WebSockets over TLS as `mcp-guard serve` has them."""

import json
import socket
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trustme
import uvicorn.protocols.websockets.auto
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

from mcp_guard.facts import Resource
from mcp_guard.serving import websocket_protocol, with_h11, with_httptools
from tests.guard.certificates import x5t
from tests.guard.encrypted import NAME, Issued, encrypting
from tests.guard.socketing import Place, bearer, call

MCP = f"https://{NAME}/mcp"
WITHIN_SECONDS = 10


@dataclass
class Encrypted:
    """A server that asks its clients for certificates, and sockets of clients that show one."""

    issued: Issued
    clients: trustme.CA = field(default_factory=trustme.CA)
    place: Place = field(default_factory=lambda: Place(resource=Resource(MCP, "/mcp", certificates="allowed")))
    port: int = 0

    def connect(self, shown: trustme.LeafCert | None, **claims: Any) -> ClientConnection:
        name, value = bearer(aud=MCP, **claims)
        connection = socket.create_connection(("127.0.0.1", self.port), WITHIN_SECONDS)
        try:
            return connect(
                f"wss://{NAME}/mcp",
                sock=connection,
                ssl=self.issued.client(shown),
                additional_headers={name.decode(): value.decode()},
                proxy=None,
            )
        except BaseException:
            connection.close()
            raise


@pytest.fixture(params=[with_httptools, with_h11])
def encrypted(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Encrypted]:
    protocol: Callable[[], Any] = request.param
    made = Encrypted(Issued(tmp_path))
    made.issued.trust(made.clients)
    asking = made.issued.encryption(client_ca=made.issued.client_ca, client_auth="optional")
    with encrypting(made.place.guarded, asking, http=protocol()) as made.port:
        yield made


def thumbprint(shown: trustme.LeafCert) -> str:
    return x5t(ssl.PEM_cert_to_DER_cert(shown.cert_chain_pems[0].bytes().decode()))


def test_a_bound_token_opens_a_socket_with_its_certificate_alone(encrypted: Encrypted) -> None:
    own, other = (encrypted.clients.issue_cert(f"{name}@example.com") for name in ("own", "other"))
    bound = {"x5t#S256": thumbprint(own)}
    with encrypted.connect(own, cnf=bound) as opened:
        opened.send(json.dumps(call("whoami")))
        answer = json.loads(opened.recv(WITHIN_SECONDS))
    assert answer["result"]["content"][0]["text"] == "alice"
    for shown, verdict in ((other, "certificate_binding"), (None, "certificate_missing")):
        with pytest.raises(InvalidStatus) as caught:
            encrypted.connect(shown, cnf=bound)
        assert caught.value.response.status_code == 401
        assert encrypted.place.records()[-1]["verdict"] == verdict
    assert len(encrypted.place.app.scopes) == 1


def test_a_token_that_is_bound_to_none_needs_no_certificate(encrypted: Encrypted) -> None:
    with encrypted.connect(None) as opened:
        opened.send(json.dumps(call("whoami")))
        assert json.loads(opened.recv(WITHIN_SECONDS))["result"]


def test_without_a_library_for_them_there_are_no_websockets(monkeypatch: pytest.MonkeyPatch) -> None:
    assert websocket_protocol() is not None
    monkeypatch.setattr(uvicorn.protocols.websockets.auto, "AutoWebSocketsProtocol", None)
    assert websocket_protocol() is None
