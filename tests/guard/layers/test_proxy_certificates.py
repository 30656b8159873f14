"""Proxy: whose certificate a connection has, and whom we believe about it."""

from typing import Any

import pytest

from mcp_guard.failures import ConfigurationError
from mcp_guard.layers.proxy import Proxy
from mcp_guard.protocol.client_certificate import NO_CERTIFICATE, ClientCertificate
from tests.guard.asgi import CountingApp, drive, http_scope
from tests.guard.certificates import certificate, field, over_tls, pem, x5t
from tests.guard.signing import NOW

OWN = certificate()
KNOWN = ClientCertificate(x5t(OWN), NOW - 3600, NOW + 3600)
HOST = (b"host", b"mcp.example.com")
PROXY, STRANGER = ("10.0.0.1", 1), ("192.0.2.7", 1)
BEHIND = Proxy(trusted=("10.0.0.0/8",), client_certificates=True)
CERT = (b"client-cert", field(OWN))


async def learned(layer: Proxy, *headers: tuple[bytes, bytes], **scope: Any) -> ClientCertificate:
    app = CountingApp()
    outcome = await drive(layer.wrap(app), http_scope(headers=[HOST, *headers], **{"client": STRANGER, **scope}))
    assert outcome.status == 200
    assert app.scopes[-1]["headers"] == [HOST], "no field about certificates is handed on"
    found = app.scopes[-1]["mcp_guard"][ClientCertificate]
    assert isinstance(found, ClientCertificate)
    return found


@pytest.mark.parametrize(
    "extensions",
    [
        None,
        {},
        {"tls": None},
        {"tls": {}},
        over_tls(),
        over_tls(pem(OWN), error="self-signed certificate"),
        over_tls("no certificate"),
        over_tls("no certificate", pem(OWN)),
        {"tls": {"client_cert_chain": None}},
    ],
)
async def test_a_connection_without_a_verified_certificate_has_none(extensions: Any) -> None:
    assert await learned(Proxy(), extensions=extensions) == NO_CERTIFICATE


async def test_the_first_certificate_of_the_chain_is_the_client_s() -> None:
    assert await learned(Proxy(), extensions=over_tls(pem(OWN), pem(certificate("authority")))) == KNOWN
    assert await learned(Proxy(), (b"x-real-ip", b"1.2.3.4"), extensions=over_tls(pem(OWN))) == KNOWN


async def test_two_clients_of_one_address_keep_their_certificates_apart() -> None:
    layer, other = Proxy(), certificate()
    for _ in range(2):
        assert await learned(layer, extensions=over_tls(pem(OWN))) == KNOWN
        assert (await learned(layer, extensions=over_tls(pem(other)))).thumbprint == x5t(other)
        assert await learned(layer) == NO_CERTIFICATE


FIELDS = [
    b"client-cert",
    b"client-cert-chain",
    b"x-client-cert",
    b"x-client-cert-chain",
    b"x-client-verify",
    b"x-forwarded-client-cert",
    b"x-forwarded-tls-client-cert",
    b"x-ssl-client-cert",
    b"x-ssl-client-verify",
    b"x-tls-client-cert",
    b"ssl-client-cert",
    b"ssl_client_verify",
    b"x-arr-clientcert",
    b"x-amzn-mtls-clientcert",
]


# tls-04
@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("layer", [Proxy(), BEHIND, Proxy(trusted=("10.0.0.0/8",))])
async def test_tls_04_a_stranger_s_word_for_a_certificate_is_removed(layer: Proxy, name: bytes) -> None:
    for value in (field(OWN), b"SUCCESS", b"malformed", pem(OWN).encode()):
        assert await learned(layer, (name, value)) == NO_CERTIFICATE


@pytest.mark.parametrize("name", [name for name in FIELDS if name != b"client-cert"])
async def test_tls_04_a_proxy_is_believed_by_one_field_alone(name: bytes) -> None:
    assert await learned(BEHIND, (name, field(OWN)), client=PROXY) == NO_CERTIFICATE


async def test_a_proxy_is_believed_where_that_is_set() -> None:
    assert await learned(BEHIND, CERT, client=PROXY) == KNOWN
    assert await learned(BEHIND, CERT, (b"x-forwarded-proto", b"https"), client=PROXY) == KNOWN
    assert await learned(BEHIND, CERT, client=PROXY, extensions=over_tls(pem(certificate("proxy")))) == KNOWN
    assert await learned(BEHIND, client=PROXY, extensions=over_tls(pem(OWN))) == NO_CERTIFICATE
    assert await learned(Proxy(trusted=("10.0.0.0/8",)), CERT, client=PROXY) == NO_CERTIFICATE
    assert await learned(Proxy(trusted=("unix",), client_certificates=True), CERT, client=None) == KNOWN


@pytest.mark.parametrize(
    "values", [[b""], [b":AAAA:"], [field(OWN), field(OWN)], [field(OWN) + b";a"], [pem(OWN).encode()]]
)
async def test_what_a_proxy_says_unclearly_is_refused(values: list[bytes]) -> None:
    app = CountingApp()
    headers = [HOST, *((b"client-cert", value) for value in values)]
    outcome = await drive(BEHIND.wrap(app), http_scope(headers=headers, client=PROXY))
    assert (outcome.status, app.calls) == (400, 0)
    assert outcome.json()["error"] == "forwarded_malformed"


def test_certificates_are_taken_from_named_proxies_alone() -> None:
    with pytest.raises(ConfigurationError, match="client_certificates"):
        Proxy(client_certificates=True)
