"""Serves the hosts of the deployment and no other.

Decides: whether the Host field names this deployment: its public URL's host and port, or one listed besides. A
loopback deployment is also known as `localhost`, `127.0.0.1` and `[::1]` on the same port. Refuses with
`host_not_allowed` (421), a missing or malformed field included. Does not: route by host, nor build anything from it.
Needs the transport. Must stand after: proxy.

A page that rebinds its own name to this machine's address still sends its own name here, which is why a server that
listens on loopback needs the check most.
"""

from dataclasses import dataclass, field

from mcp_guard import rejections
from mcp_guard.check import Check
from mcp_guard.facts import Transport
from mcp_guard.failures import ConfigurationError
from mcp_guard.layer import ADMITTED, Admission, RequestHead
from mcp_guard.protocol.uris import DEFAULT_PORTS, Authority, PublicUrl, UriError, parse_host


@dataclass(frozen=True)
class Host(Check):
    """`also` are further hosts, each with its port unless that is the default of the public URL's scheme."""

    needs = (Transport,)
    judges_handshakes = True

    public_url: str
    also: tuple[str, ...] = ()

    default_port: int = field(init=False, repr=False, compare=False)
    allowed: frozenset[tuple[str, int]] = field(init=False, repr=False, compare=False)
    spellings: frozenset[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        public = PublicUrl.parse(self.public_url)
        object.__setattr__(self, "default_port", DEFAULT_PORTS[public.scheme])
        allowed = {(host, public.port) for host in public.hosts}
        allowed.update(self._effective(self._listed(text)) for text in self.also)
        spellings = {f"{host}:{port}" for host, port in allowed}
        spellings.update(host for host, port in allowed if port == self.default_port)
        object.__setattr__(self, "allowed", frozenset(allowed))
        object.__setattr__(self, "spellings", frozenset(spellings))

    def _listed(self, text: str) -> Authority:
        try:
            return parse_host(text.encode())
        except UriError as fault:
            raise ConfigurationError(f"also: {text!r} {fault}") from None

    def _effective(self, authority: Authority) -> tuple[str, int]:
        return authority.host, self.default_port if authority.port is None else authority.port

    async def admit(self, request: RequestHead) -> Admission:
        presented = request.fact(Transport).authority
        if presented in self.spellings:
            return ADMITTED
        try:
            known = self._effective(parse_host(presented.encode("latin-1"))) in self.allowed
        except UriError as fault:
            raise rejections.HOST_NOT_ALLOWED.because(f"the Host field {fault}") from None
        if not known:
            raise rejections.HOST_NOT_ALLOWED.because("the Host field names another host or port")
        return ADMITTED
