"""Finds out who the client is and how it reached us, believing none but the named proxies.

Decides: the client's address, scheme, host and certificate. From a peer that is not trusted, every forwarding field is
ignored; from a trusted one, the configured fields are read from their end. Refuses with `forwarded_malformed` (400)
what a trusted proxy says unclearly, and with `header_repeated` (400) a second Host. Does not: judge scheme or host;
that is for `tls` and `host`; nor a certificate, which is for `certificate`. Must stand after: wire.

The certificate is that of the TLS connection, where the server tells it (ASGI TLS extension). Over a connection of a
trusted proxy that would be the proxy's own, so there it is never the client's: that one is in `Client-Cert` (RFC 9440),
if the proxy is said to write it.

Fields that say where a request comes from or who sent it are never handed to the app, whoever sent them: what they say
is in the facts, and in the scope's `client` and `scheme`. A server that reads forwarding fields itself must be told not
to (uvicorn: `--no-proxy-headers`), or this layer sees the result of another's trust.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any, Literal, TypeAlias

from mcp_guard import rejections
from mcp_guard.asgi import Scope
from mcp_guard.check import Check
from mcp_guard.facts import ClientAddress, Transport
from mcp_guard.failures import ConfigurationError
from mcp_guard.layer import Admission, RequestHead
from mcp_guard.protocol.client_certificate import (
    NO_CERTIFICATE,
    CertificateError,
    ClientCertificate,
    from_field,
    from_pem,
)
from mcp_guard.protocol.forwarded import Address, ForwardedError, Reading, forwarded, read_address, x_forwarded
from mcp_guard.protocol.uris import UriError, parse_host

UNIX = "unix"
"""Stands for a peer without an address: whoever can open the server's socket file."""

CLAIMS = frozenset(
    {
        b"forwarded",
        b"x-real-ip",
        b"x-client-ip",
        b"x-cluster-client-ip",
        b"x-original-forwarded-for",
        b"x-envoy-external-address",
        b"true-client-ip",
        b"cf-connecting-ip",
        b"cf-connecting-ipv6",
        b"fastly-client-ip",
        b"client-ip",
        b"remote-user",
        b"x-remote-user",
        b"x-authenticated-user",
        b"x-mcp-subject",
        b"x-mcp-scope",
        b"client-cert",
        b"client-cert-chain",
        b"x-client-verify",
        b"x-arr-clientcert",
    }
)
CLAIM_PREFIXES = (
    b"x-forwarded-",
    b"x-auth-request-",
    b"x-client-cert",
    b"x-ssl-client-",
    b"x-tls-client-",
    b"x-amzn-mtls-",
    b"ssl-client-",
    b"ssl_client_",
)
"""Fields by which proxies tell an app about the client: its address, its name, its certificate."""

KEPT_NAMES_BYTES = 2048
KEPT_HOST_BYTES = 256
"""What is longer is looked at each time, so that what is kept stays small."""

HTTP_SCHEMES = {"http": "http", "https": "https", "ws": "http", "wss": "https"}

Network: TypeAlias = IPv4Network | IPv6Network
Peer: TypeAlias = tuple[ClientAddress, bool]


@dataclass(frozen=True)
class Proxy(Check):
    """`trusted` are the networks of the proxies in CIDR notation, and `unix` for a Unix socket; none by default.

    `header` is the family that they write. `trust_host` takes the host from them too, which is needed only where they
    do not pass the Host field on. `client_certificates` takes the client's certificate from `Client-Cert` (RFC 9440),
    which every one of them must then set or remove itself. `insecure_trust_any_proxy` permits networks that contain
    every address.
    """

    adds = (ClientAddress, Transport, ClientCertificate)
    judges_handshakes = True

    trusted: tuple[str, ...] = ()
    header: Literal["x-forwarded", "forwarded"] = "x-forwarded"
    trust_host: bool = False
    client_certificates: bool = False
    insecure_trust_any_proxy: bool = False

    networks: tuple[Network, ...] = field(init=False, repr=False, compare=False)
    peer: Callable[[str], Peer] = field(init=False, repr=False, compare=False)
    kept_seen: Callable[[str, str, bytes, ClientCertificate], Admission] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.header not in ("x-forwarded", "forwarded"):
            raise ConfigurationError(f"header must be 'x-forwarded' or 'forwarded', not {self.header!r}")
        if self.client_certificates and not self.trusted:
            raise ConfigurationError("client_certificates: name in trusted the proxies that write Client-Cert")
        networks = tuple(self._network(text) for text in self.trusted if text != UNIX)
        object.__setattr__(self, "networks", networks)
        object.__setattr__(self, "peer", lru_cache(4096)(self._peer))
        object.__setattr__(self, "kept_seen", lru_cache(4096)(self._seen))

    def _network(self, text: str) -> Network:
        try:
            network = ip_network(text)
        except ValueError as fault:
            raise ConfigurationError(f"trusted: {text!r} is not a network in CIDR notation ({fault})") from None
        if network.prefixlen == 0 and not self.insecure_trust_any_proxy:
            raise ConfigurationError(f"trusted: {text!r} is every address; name the proxies' own networks")
        if isinstance(network, IPv6Network) and network.prefixlen >= 96:
            mapped = network.network_address.ipv4_mapped
            if mapped is not None:
                return IPv4Network((mapped, network.prefixlen - 96))
        return network

    def trusts(self, address: Address) -> bool:
        """Whether `address` is one of the trusted proxies."""
        return any(address in network for network in self.networks)

    def _peer(self, host: str) -> Peer:
        address = read_address(host)
        if address is None:
            return ClientAddress(None), UNIX in self.trusted
        return ClientAddress(address), self.trusts(address)

    async def admit(self, request: RequestHead) -> Admission:
        scope = request.scope
        client = scope.get("client")
        peer = client[0] if client else ""
        hosts = request.values(b"host")
        if len(hosts) > 1:
            raise rejections.HEADER_REPEATED.because("more than one Host field")
        host = hosts[0] if hosts else b""
        scheme = HTTP_SCHEMES.get(scope.get("scheme", "http"), "http")
        claims = claims_among(request.names)
        address, trusted = self.peer(peer)
        if claims and trusted:
            return self._believe(request, address, scheme, host, claims)
        certificate = NO_CERTIFICATE if trusted else of_connection(scope)
        if not claims and len(host) <= KEPT_HOST_BYTES:
            return self.kept_seen(peer, scheme, host, certificate)
        return self._seen(peer, scheme, host, certificate, claims)

    def _seen(
        self,
        peer: str,
        scheme: str,
        host: bytes,
        certificate: ClientCertificate,
        claims: frozenset[bytes] = frozenset(),
    ) -> Admission:
        """What the server alone says of the client."""
        transport = Transport(scheme, host.decode("latin-1"))
        return Admission(facts=(self.peer(peer)[0], transport, certificate), hide=claims)

    def _believe(
        self, request: RequestHead, peer: ClientAddress, scheme: str, host: bytes, claims: frozenset[bytes]
    ) -> Admission:
        """What a trusted peer says of the client.

        Raises:
            Rejection: it is not clear.
        """
        try:
            reading = self._read(request, peer.ip)
            seen: dict[str, Any] = {"scheme": reading.proto or scheme}
            if reading.client is not None:
                seen["client"] = (str(reading.client), 0)
            if self.trust_host and reading.host is not None:
                host = reading.host.encode("latin-1")
                parse_host(host)
                kept = [pair for pair in request.scope["headers"] if pair[0] != b"host" and pair[0] not in claims]
                seen["headers"] = [(b"host", host), *kept]
            said = request.values(b"client-cert") if self.client_certificates else []
            certificate = from_field(said) if said else NO_CERTIFICATE
        except (ForwardedError, UriError, CertificateError) as fault:
            raise rejections.FORWARDED_MALFORMED.because(f"from the proxy at {peer}: {fault}") from None
        transport = Transport(reading.proto or scheme, host.decode("latin-1"))
        return Admission(facts=(ClientAddress(reading.client), transport, certificate), hide=claims, scope=seen)

    def _read(self, request: RequestHead, peer: Address | None) -> Reading:
        """The configured family; the other one only to see whether it contradicts."""
        standard = request.values(b"forwarded")
        addresses, protos = request.values(b"x-forwarded-for"), request.values(b"x-forwarded-proto")
        hosts = request.values(b"x-forwarded-host") if self.trust_host else []
        readings = {"x-forwarded": Reading(peer), "forwarded": Reading(peer)}
        both = bool(standard and (addresses or protos))
        if both or self.header == "x-forwarded":
            readings["x-forwarded"] = x_forwarded(addresses, protos, hosts, peer, self.trusts)
        if standard and (both or self.header == "forwarded"):
            readings["forwarded"] = forwarded(standard, peer, self.trusts)
        if both and readings["x-forwarded"].contradicts(readings["forwarded"]):
            raise ForwardedError("Forwarded and X-Forwarded-* contradict each other")
        return readings[self.header]


def of_connection(scope: Scope) -> ClientCertificate:
    """What the server says of the certificate of its connection (ASGI TLS extension); none that it could not verify."""
    tls = (scope.get("extensions") or {}).get("tls")
    if not tls or tls.get("client_cert_error") is not None:
        return NO_CERTIFICATE
    chain = list(tls.get("client_cert_chain") or ())
    try:
        return from_pem(chain[0]) if chain else NO_CERTIFICATE
    except CertificateError:
        return NO_CERTIFICATE


def claims_among(joined: bytes) -> frozenset[bytes]:
    """Those of the names, one a line, of fields that say where a request comes from or who sent it."""
    return kept_claims(joined) if len(joined) <= KEPT_NAMES_BYTES else find_claims(joined)


def find_claims(joined: bytes) -> frozenset[bytes]:
    """The same, whatever was found before."""
    return frozenset(name for name in joined.split(b"\n") if name in CLAIMS or name.startswith(CLAIM_PREFIXES))


@lru_cache(1024)
def kept_claims(joined: bytes) -> frozenset[bytes]:
    """The same client sends the same names again and again: the last answers are kept."""
    return find_claims(joined)
