"""The certificate of a client has one spelling in each place, and its thumbprint is that of RFC 8705."""

import base64
import hashlib
import ssl
import textwrap

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from mcp_guard.protocol import client_certificate
from mcp_guard.protocol.client_certificate import CertificateError, ClientCertificate, from_field, from_pem, thumbprint
from tests.guard.certificates import certificate, field, large, pem, x5t
from tests.guard.signing import NOW

DER = certificate()
KNOWN = ClientCertificate(x5t(DER), NOW - 3600, NOW + 3600)

RFC_9440 = (
    b":MIIBqDCCAU6gAwIBAgIBBzAKBggqhkjOPQQDAjA6MRswGQYDVQQKDBJMZXQncyBBdXRoZW50aWNhdGUxGzAZBgNVBAMMEkxBIEludGVybWVkaWF0"
    b"ZSBDQTAeFw0yMDAxMTQyMjU1MzNaFw0yMTAxMjMyMjU1MzNaMA0xCzAJBgNVBAMMAkJDMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE8YnXXfaU"
    b"gmnMtOXU/IncWalRhebrXmckC8vdgJ1p5Be5F/3YC8OthxM4+k1M6aEAEFcGzkJiNy6J84y7uzo9M6NyMHAwCQYDVR0TBAIwADAfBgNVHSMEGDAW"
    b"gBRm3WjLa38lbEYCuiCPct0ZaSED2DAOBgNVHQ8BAf8EBAMCBsAwEwYDVR0lBAwwCgYIKwYBBQUHAwIwHQYDVR0RAQH/BBMwEYEPYmRjQGV4YW1w"
    b"bGUuY29tMAoGCCqGSM49BAMCA0gAMEUCIBHda/r1vaL6G3VliL4/Di6YK0Q6bMjeSkC3dFCOOB8TAiEAx/kHSB4urmiZ0NX5r5XarmPk0wmuydBV"
    b"oU4hBVZ1yhk=:"
)
"""RFC 9440, Appendix A, figure 4."""


def test_the_thumbprint_is_the_digest_of_the_certificate_in_der() -> None:
    digest = hashlib.sha256(DER).digest()
    assert thumbprint(DER) == base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
    assert len(thumbprint(DER)) == 43


def test_the_example_of_rfc_9440_is_read() -> None:
    found = from_field([RFC_9440])
    assert (found.not_before, found.not_after) == (1579042533, 1611442533)
    assert found.thumbprint == x5t(base64.b64decode(RFC_9440.strip(b":")))


def test_field_and_pem_say_the_same() -> None:
    assert from_field([field(DER)]) == from_pem(pem(DER)) == KNOWN
    assert from_pem(ssl.DER_cert_to_PEM_cert(DER)) == KNOWN
    assert from_pem(pem(DER).replace("\n", "\r\n")) == KNOWN


TRAILING = next(der for der in (certificate(str(number)) for number in range(1000)) if len(der) % 3)
LOOSE = base64.b64encode(TRAILING)
LOOSE = LOOSE.rstrip(b"=")[:-1] + bytes([LOOSE.rstrip(b"=")[-1] + 1]) + b"=" * LOOSE.count(b"=")
"""The same bytes with unused bits set."""


@pytest.mark.parametrize(
    "values",
    [
        [],
        [field(DER), field(DER)],
        [b""],
        [b"::"],
        [b":AAAA:"],
        [field(DER) + b", " + field(DER)],
        [field(DER) + b";a=1"],
        [b" " + field(DER)],
        [field(DER) + b"\n"],
        [field(DER)[1:]],
        [field(DER)[:-1]],
        [base64.b64encode(DER)],
        [pem(DER).encode()],
        [b":" + base64.urlsafe_b64encode(hashlib.sha512(b"x").digest()).rstrip(b"=") + b":"],
        [field(TRAILING).replace(b"=", b"")],
        [b":" + LOOSE + b":"],
        [field(DER + b"\0")],
        [field(DER[:-1])],
        [field(DER + DER)],
        [field(b"\0" * (client_certificate.MAX_BYTES + 1))],
    ],
)
def test_what_is_not_one_certificate_in_its_one_spelling_is_refused(values: list[bytes]) -> None:
    with pytest.raises(CertificateError) as refused:
        from_field(values)
    assert len(str(refused.value)) < 80


@pytest.mark.parametrize(
    "text",
    [
        "",
        pem(DER) + pem(DER),
        "x" + pem(DER),
        pem(DER).replace("CERTIFICATE", "PRIVATE KEY"),
        pem(DER).replace("\n-----END", "=\n-----END"),
        pem(DER[:-1] + b"\0").replace("MII", "NII"),
        ssl.DER_cert_to_PEM_cert(b"no certificate"),
        "-----BEGIN CERTIFICATE-----\nAA==AAAA\n-----END CERTIFICATE-----\n",
        "-----BEGIN CERTIFICATE-----\nAAAAA\n-----END CERTIFICATE-----\n",
        f"-----BEGIN CERTIFICATE-----\n{textwrap.fill(LOOSE.decode(), 64)}\n-----END CERTIFICATE-----\n",
    ],
)
def test_pem_that_is_not_one_certificate_is_refused(text: str) -> None:
    with pytest.raises(CertificateError):
        from_pem(text)


@given(st.binary(max_size=200) | st.binary(max_size=100).map(lambda data: b":" + base64.b64encode(data) + b":"))
def test_whatever_bytes_a_proxy_writes_they_are_refused_and_nothing_else_happens(value: bytes) -> None:
    with pytest.raises(CertificateError):
        from_field([value])


def test_a_certificate_that_is_too_large_is_refused() -> None:
    for der, is_read in (
        (large(client_certificate.MAX_BYTES // 2), True),
        (large(client_certificate.MAX_BYTES), False),
    ):
        assert (len(der) <= client_certificate.MAX_BYTES) is is_read
        if is_read:
            assert from_field([field(der)]).thumbprint == x5t(der)
        else:
            with pytest.raises(CertificateError, match="more than"):
                from_field([field(der)])


def test_certificates_of_an_authority_are_read_like_any_others() -> None:
    issued = trustme.CA().issue_cert("client@example.com")
    der = x509.load_pem_x509_certificate(issued.cert_chain_pems[0].bytes()).public_bytes(Encoding.DER)
    assert from_pem(issued.cert_chain_pems[0].bytes().decode()).thumbprint == x5t(der)
