"""TLS of the web server: what it offers, which certificate it has, and what it asks of clients (RFC 9325).

TLS 1.2 with forward secrecy and authenticated encryption, or TLS 1.3; no compression, no renegotiation. A client has to
name the host it wants (RFC 6066 §3), and the certificate has to be for it; only where the certificate is for an
address may a client name none, as it does when it connects to one. Otherwise the handshake fails, with
`unrecognized_name`.

The files may be replaced while the server serves. They are looked at every few seconds, and connections that are made
after that have the new certificate; what is open is left alone. Files that do not work are said in the log, and change
nothing.
"""

import asyncio
import logging
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from cryptography import x509

from mcp_guard.clock import Clock, SystemClock
from mcp_guard.failures import ConfigurationError

logger = logging.getLogger("mcp_guard")

ClientAuth: TypeAlias = Literal["none", "optional", "required"]
"""Whether clients are asked for a certificate, and whether one without any is turned away."""

LOOK_SECONDS: Final = 10.0
"""How often the files are looked at."""

CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""Those of TLS 1.2 (RFC 9325 §4.2); TLS 1.3 has none that are weak."""

_VERIFY = {"none": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}

Marks: TypeAlias = tuple[tuple[int, int, int] | None, ...]


@dataclass(frozen=True)
class Encryption:
    """`certificate` is a PEM file with the chain, the server's own first, `key` that with its private key.

    `client_ca` has the authorities that certificates of clients must be from, or such certificates themselves, where
    they are self-signed (RFC 8705 §2.2). `clock` says whether the certificate has expired.
    """

    certificate: Path
    key: Path
    client_ca: Path | None = None
    client_auth: ClientAuth = "none"
    clock: Clock = field(default_factory=SystemClock)

    def __post_init__(self) -> None:
        if (self.client_ca is None) is not (self.client_auth == "none"):
            raise ConfigurationError("client_ca and client_auth go together: who asks for certificates knows whose")

    def load(self) -> "Offer":
        """What the files come to now.

        Raises:
            ConfigurationError: naming the file that does not work, and why.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(CIPHERS)
        context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
        context.set_alpn_protocols(["http/1.1"])
        own = self._own()
        try:
            context.load_cert_chain(self.certificate, self.key)
        except (OSError, ValueError) as fault:
            raise ConfigurationError(f"{self.certificate} and {self.key}: {reason_of(fault)}") from None
        if self.client_ca is not None:
            self._ask(context, self.client_ca)
        return Offer(context, *names_of(own, self.certificate))

    def _own(self) -> x509.Certificate:
        """The server's own certificate."""
        try:
            own = x509.load_pem_x509_certificates(self.certificate.read_bytes())[0]
        except (OSError, ValueError) as fault:
            raise ConfigurationError(f"{self.certificate}: {reason_of(fault)}") from None
        if own.not_valid_after_utc.timestamp() < self.clock.wall():
            raise ConfigurationError(f"{self.certificate}: the certificate has expired")
        return own

    def _ask(self, context: ssl.SSLContext, authorities: Path) -> None:
        """Ask clients for certificates: with TLS 1.3 at each connection; TLS 1.2 resumes sessions for two hours."""
        try:
            context.load_verify_locations(authorities)
        except (OSError, ValueError) as fault:
            raise ConfigurationError(f"{authorities}: {reason_of(fault)}") from None
        context.verify_mode = _VERIFY[self.client_auth]
        context.options |= ssl.OP_NO_TICKET
        context.num_tickets = 0

    def marks(self) -> Marks:
        """What changes when a file is replaced."""
        files = (self.certificate, self.key, self.client_ca)
        return tuple(_mark(file) for file in files if file is not None)


@dataclass(frozen=True, eq=False)
class Offer:
    """A context with a certificate, the DNS `names` it is for, and whether it is for an IP address too."""

    context: ssl.SSLContext
    names: frozenset[str]
    addressed: bool

    def serves(self, name: str | None) -> bool:
        """Whether a client that asks for `name` is served: a name of the certificate, in any case (RFC 6125 §6.4)."""
        if name is None:
            return self.addressed
        lower = name.lower()
        return lower in self.names or f"*.{lower.partition('.')[2]}" in self.names


class Handshakes:
    """Gives each new connection the newest certificate that works. Fits uvicorn's `ssl_context_factory`."""

    def __init__(self, encryption: Encryption) -> None:
        self.encryption = encryption
        self.marks = encryption.marks()
        self.offer = encryption.load()

    def __call__(self, *_: Any) -> ssl.SSLContext:
        """The context to listen with."""
        entrance = self.encryption.load().context
        entrance.sni_callback = self._choose
        return entrance

    def _choose(self, connection: ssl.SSLObject, name: str | None, entrance: ssl.SSLContext) -> int | None:
        offer = self.offer
        if not offer.serves(name):
            return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
        connection.context = offer.context
        return None

    async def follow(self) -> None:
        """Look at the files for as long as the server serves."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            self.look()

    def look(self) -> None:
        """Take up files that were replaced, if they work."""
        marks = self.encryption.marks()
        if marks == self.marks:
            return
        self.marks = marks
        try:
            self.offer = self.encryption.load()
        except ConfigurationError as fault:
            logger.error("the TLS certificate was replaced by one that does not work; the old one stays: %s", fault)
        else:
            logger.warning("new connections have the TLS certificate that replaced the old one")


def names_of(own: x509.Certificate, file: Path) -> tuple[frozenset[str], bool]:
    """The DNS names that a certificate is for, in lower case, and whether it is for an address.

    Raises:
        ConfigurationError: it is for nothing (RFC 6125 §6.4.4: a common name is no name of a host).
    """
    try:
        said = own.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        raise ConfigurationError(f"{file}: the certificate names no host (subjectAltName)") from None
    names = frozenset(name.lower() for name in said.get_values_for_type(x509.DNSName))
    return names, bool(said.get_values_for_type(x509.IPAddress))


def reason_of(fault: Exception) -> str:
    """What the operator reads of a file that does not work; nothing of what is in it."""
    if isinstance(fault, ssl.SSLError):
        return f"not a certificate and its key ({fault.reason or 'no PEM'})"
    return (fault.strerror or "cannot be read") if isinstance(fault, OSError) else "not a certificate in PEM"


def _mark(file: Path) -> tuple[int, int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
