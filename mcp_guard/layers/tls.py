"""Serves https alone, and says so to browsers.

Decides: whether the request came over https, or stays on this machine. Refuses with `cleartext` (403), and with
`credential_over_cleartext` (403) when a credential came along and is to be replaced; never redirects, since a redirect
would hide that the credential has already been read by others. Does not: terminate TLS, nor look into credentials.
Needs the transport and the client's address. Must stand after: proxy.

Every response gets `nosniff`, and, unless the app says otherwise, fields that deny framing, scripts, referrers and
storing. Strict-Transport-Security is said over https alone (RFC 6797 §7.2), and never for a loopback host, whose ports
belong to many.
"""

from dataclasses import dataclass, field

from mcp_guard import rejections
from mcp_guard.asgi import RawHeaders
from mcp_guard.check import Check
from mcp_guard.facts import ClientAddress, Transport
from mcp_guard.failures import ConfigurationError
from mcp_guard.layer import Admission, RequestHead
from mcp_guard.protocol.uris import PublicUrl
from mcp_guard.rejections import Rejection

ONE_YEAR_SECONDS = 31_536_000

ALWAYS: RawHeaders = [(b"x-content-type-options", b"nosniff")]
NOT_STORED: RawHeaders = [(b"cache-control", b"no-store")]
UNLESS_SAID: RawHeaders = [
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
]
"""For responses that are no pages: the MCP endpoints' and the guard's own. An app that serves pages sets its own."""


@dataclass(frozen=True)
class Tls(Check):
    """`public_url` is the deployment's. `hsts_max_age_seconds` is at least a year (RFC 6797 §6.1.1).

    A loopback deployment takes http from clients on this machine. `insecure_allow_cleartext` takes it from anywhere.
    """

    needs = (Transport, ClientAddress)
    judges_handshakes = True

    public_url: str
    hsts_max_age_seconds: int = ONE_YEAR_SECONDS
    hsts_include_subdomains: bool = False
    insecure_allow_cleartext: bool = False

    loopback: bool = field(init=False, repr=False, compare=False)
    over_http: Admission = field(init=False, repr=False, compare=False)
    over_https: Admission = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.hsts_max_age_seconds < ONE_YEAR_SECONDS:
            raise ConfigurationError(
                f"hsts_max_age_seconds must be at least {ONE_YEAR_SECONDS}, not {self.hsts_max_age_seconds}"
            )
        loopback = PublicUrl.parse(self.public_url).is_loopback
        policy = f"max-age={self.hsts_max_age_seconds}"
        if self.hsts_include_subdomains:
            policy += "; includeSubDomains"
        hsts = [] if loopback else [(b"strict-transport-security", policy.encode())]
        object.__setattr__(self, "loopback", loopback)
        object.__setattr__(
            self, "over_http", Admission(response_headers=ALWAYS, default_headers=NOT_STORED + UNLESS_SAID)
        )
        object.__setattr__(
            self, "over_https", Admission(response_headers=ALWAYS + hsts, default_headers=NOT_STORED + UNLESS_SAID)
        )

    async def admit(self, request: RequestHead) -> Admission:
        if request.fact(Transport).is_secure:
            return self.over_https
        if self.insecure_allow_cleartext or (self.loopback and request.fact(ClientAddress).is_local):
            return self.over_http
        raise refusal(request)


def refusal(request: RequestHead) -> Rejection:
    """What to answer to cleartext."""
    if carries_credential(request):
        return rejections.CREDENTIAL_OVER_CLEARTEXT.because("a credential was sent over http")
    return rejections.CLEARTEXT.because("the request came over http")


def carries_credential(request: RequestHead) -> bool:
    """Whether something that looks like a credential came along, where RFC 6750 §2 and RFC 9449 §4 put them."""
    if request.value(b"authorization") is not None or request.value(b"dpop") is not None:
        return True
    return any(part.startswith(b"access_token=") for part in request.query.split(b"&"))
