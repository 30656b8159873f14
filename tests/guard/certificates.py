"""Certificates of clients, made for a test, and the forms in which servers and proxies hand them on."""

import base64
import hashlib
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.guard.signing import NOW

HOUR = 3600


def certificate(name: str = "client", not_before: float = NOW - HOUR, not_after: float = NOW + HOUR) -> bytes:
    """A self-signed certificate in DER; its times are whole seconds since 1970."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    begin = datetime(1970, 1, 1, tzinfo=UTC)
    made = x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
    made = made.serial_number(x509.random_serial_number())
    made = made.not_valid_before(begin + timedelta(seconds=not_before))
    made = made.not_valid_after(begin + timedelta(seconds=not_after))
    return made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def large(size: int) -> bytes:
    """A certificate in DER of more than `size` bytes, good in every other way."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "large")])
    names = x509.SubjectAlternativeName([x509.DNSName(f"{number:060d}.example.com") for number in range(size // 60)])
    made = x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
    made = made.serial_number(1).not_valid_before(datetime(2020, 1, 1, tzinfo=UTC))
    made = made.not_valid_after(datetime(2040, 1, 1, tzinfo=UTC)).add_extension(names, critical=False)
    return made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def x5t(der: bytes) -> str:
    """RFC 8705 §3.1."""
    return base64.urlsafe_b64encode(hashlib.sha256(der).digest()).rstrip(b"=").decode()


def field(der: bytes) -> bytes:
    """The value of Client-Cert (RFC 9440 §2.2)."""
    return b":" + base64.b64encode(der) + b":"


def pem(der: bytes) -> str:
    """RFC 7468 §5."""
    return x509.load_der_x509_certificate(der).public_bytes(serialization.Encoding.PEM).decode()


def over_tls(*chain: str, error: str | None = None) -> dict[str, object]:
    """The member `extensions` of a scope (ASGI TLS extension) of a client that showed `chain`."""
    return {"tls": {"server_cert": None, "client_cert_chain": chain, "client_cert_error": error}}
