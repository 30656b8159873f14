"""The certificate of a client: its thumbprint (RFC 8705 §3.1), and how servers and proxies hand it on.

A server that ends TLS itself says it in the scope (ASGI TLS extension, PEM); a proxy that does says it in the field
`Client-Cert` (RFC 9440 §2.2). Neither the chain nor the names in it count here: whoever ended TLS has judged them, and
a token is bound to the bytes of one certificate.
"""

import binascii
import hashlib
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from cryptography import x509

from mcp_guard.protocol import b64url

MAX_BYTES: Final = 16 * 1024
"""What a certificate may have in DER. More is none that is used for this."""

_BYTE_SEQUENCE = re.compile(rb":((?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?):")
"""RFC 8941 §3.3.5, with its padding and without parameters, of which RFC 9440 has none."""

_PEM = re.compile(
    r"-----BEGIN CERTIFICATE-----\r?\n([A-Za-z0-9+/=\r\n]+)\r?\n?-----END CERTIFICATE-----[\r\n]*", re.ASCII
)


class ClientCertificate(NamedTuple):
    """The certificate that the client showed in the TLS handshake, and proved to have: to the server, or to a trusted
    proxy that says so. `thumbprint` is its SHA-256 in base64url (RFC 8705 §3.1), None where there is no certificate.

    `not_before` and `not_after` are the first and the last instant it is in force, in seconds since 1970.
    """

    thumbprint: str | None = None
    not_before: float = 0.0
    not_after: float = 0.0


NO_CERTIFICATE = ClientCertificate()
"""That of a client that showed none."""


class CertificateError(ValueError):
    """What should be a certificate is none. The message quotes nothing of it."""


def thumbprint(der: bytes) -> str:
    """The SHA-256 of a certificate in DER, in base64url: `x5t#S256` (RFC 8705 §3.1)."""
    return b64url.encode(hashlib.sha256(der).digest())


@lru_cache(1024)
def from_pem(text: str) -> ClientCertificate:
    """A certificate in PEM (RFC 7468 §5), as the ASGI TLS extension has it.

    Raises:
        CertificateError: it is none, or more than one.
    """
    found = _PEM.fullmatch(text)
    if found is None:
        raise CertificateError("the certificate is not one in PEM")
    return _read(_decoded(found[1].translate({10: None, 13: None}).encode("ascii")))


def from_field(values: Sequence[bytes]) -> ClientCertificate:
    """The certificate in the values of `Client-Cert` (RFC 9440 §2.2): one byte sequence (RFC 8941 §3.3.5).

    Raises:
        CertificateError: there is more than one value, it is no byte sequence, or what it holds is no certificate.
    """
    if len(values) != 1:
        raise CertificateError("Client-Cert has more than one value")
    return _from_value(values[0])


@lru_cache(1024)
def _from_value(value: bytes) -> ClientCertificate:
    found = _BYTE_SEQUENCE.fullmatch(value)
    if found is None:
        raise CertificateError("Client-Cert is not one byte sequence")
    return _read(_decoded(found[1]))


def _decoded(text: bytes) -> bytes:
    try:
        der = binascii.a2b_base64(text, strict_mode=True)
    except binascii.Error:
        raise CertificateError("the certificate is not in base64") from None
    if binascii.b2a_base64(der, newline=False) != text:
        raise CertificateError("the base64 of the certificate is not canonical")
    return der


def _read(der: bytes) -> ClientCertificate:
    if len(der) > MAX_BYTES:
        raise CertificateError(f"the certificate has more than {MAX_BYTES} bytes")
    try:
        found = x509.load_der_x509_certificate(der)
        first, last = found.not_valid_before_utc.timestamp(), found.not_valid_after_utc.timestamp()
    except ValueError:
        raise CertificateError("the certificate is not one of X.509 in DER") from None
    return ClientCertificate(thumbprint(der), first, last)
