"""Keeps web pages of other origins out, and lets the pages of listed origins in.

Decides: whether the page that sent the request is allowed. A request without an Origin comes from no page and is
admitted; the deployment's own origin is allowed. Refuses with `origin_not_allowed` (403), also beside a valid token,
and answers OPTIONS itself: a preflight of an allowed origin (Fetch §CORS protocol) with 204, any other with
`method_not_allowed` (405). Does not: protect pages that the deployment itself serves from each other. Must stand
after: wire; before: token, so that no OPTIONS passes by authentication.

Allowed origins may send credentials only in fields that they set themselves; cookies are never asked for.
"""

import re
from dataclasses import dataclass, field

from mcp_guard import rejections
from mcp_guard.asgi import RawHeaders
from mcp_guard.check import Check
from mcp_guard.failures import ConfigurationError
from mcp_guard.layer import ADMITTED, Admission, Answer, RequestHead
from mcp_guard.protocol.uris import PublicUrl, UriError, WebOrigin, parse_origin

METHODS = b"DELETE, GET, POST"
REQUEST_FIELDS = (
    b"accept",
    b"authorization",
    b"content-type",
    b"dpop",
    b"last-event-id",
    b"mcp-method",
    b"mcp-name",
    b"mcp-protocol-version",
    b"mcp-session-id",
)
EXPOSED = (
    b"DPoP-Nonce, MCP-Protocol-Version, Mcp-Session-Id, RateLimit, RateLimit-Policy, Retry-After, WWW-Authenticate"
)
PREFLIGHT_SECONDS = 600
MAX_PARAMETER_FIELDS = 32

_PARAMETER_FIELD = re.compile(rb"mcp-param-[a-z0-9!#$%&'*+\-.^_`|~]{1,64}")
"""Fields that mirror tool arguments (MCP 2026-07-28); their names are the tools' own."""


@dataclass(frozen=True)
class Origin(Check):
    """`allowed` are further origins, as browsers serialise them: `https://app.example.com`, no final slash.

    `insecure_allow_null` admits `null`, the origin of sandboxed frames and local files: of any page that wants it.
    """

    judges_handshakes = True

    public_url: str
    allowed: tuple[str, ...] = ()
    insecure_allow_null: bool = False

    admissions: dict[bytes, Admission] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        public = PublicUrl.parse(self.public_url)
        own = [WebOrigin(public.scheme, host, public.port) for host in public.hosts]
        listed = [str(one) for one in [*own, *(self._listed(text) for text in self.allowed)]]
        if self.insecure_allow_null:
            listed.append("null")
        admissions = {one.encode(): Admission(response_headers=shared(one)) for one in listed}
        object.__setattr__(self, "admissions", admissions)

    def _listed(self, text: str) -> WebOrigin:
        try:
            origin = parse_origin(text.encode())
        except UriError as fault:
            raise ConfigurationError(f"allowed: {text!r} {fault}") from None
        if origin.is_opaque:
            raise ConfigurationError("allowed: 'null' is any page's to take; insecure_allow_null admits it")
        return origin

    async def admit(self, request: RequestHead) -> Admission:
        origins = request.values(b"origin")
        admission = self._judge(origins) if origins else ADMITTED
        if request.method != "OPTIONS":
            return admission
        if not origins or request.value(b"access-control-request-method") is None:
            raise rejections.METHOD_NOT_ALLOWED.because("OPTIONS serves preflights alone", [(b"allow", METHODS)])
        return Admission(response_headers=admission.response_headers, answer=preflight(request))

    def _judge(self, origins: list[bytes]) -> Admission:
        """What is said of an allowed origin.

        Raises:
            Rejection: it is not allowed, or there are several.
        """
        if len(origins) > 1:
            raise rejections.ORIGIN_NOT_ALLOWED.because("more than one Origin field", VARIES)
        admission = self.admissions.get(origins[0])
        if admission is None:
            raise rejections.ORIGIN_NOT_ALLOWED.because("the origin is not listed", VARIES)
        return admission


VARIES: RawHeaders = [(b"vary", b"origin")]


def shared(origin: str) -> RawHeaders:
    """The fields by which pages of `origin` may read a response. Never with cookies."""
    return [
        (b"access-control-allow-origin", origin.encode()),
        (b"access-control-expose-headers", EXPOSED),
        *VARIES,
    ]


def preflight(request: RequestHead) -> Answer:
    """The answer to a preflight: methods and fields that MCP uses, and the tool parameters that were asked for."""
    asked = b",".join(request.values(b"access-control-request-headers")).lower().split(b",")
    parameters = {name.strip() for name in asked[: len(REQUEST_FIELDS) + MAX_PARAMETER_FIELDS]}
    fields = [*REQUEST_FIELDS, *sorted(name for name in parameters if _PARAMETER_FIELD.fullmatch(name))]
    return Answer(
        204,
        headers=[
            (b"access-control-allow-methods", METHODS),
            (b"access-control-allow-headers", b", ".join(fields)),
            (b"access-control-max-age", str(PREFLIGHT_SECONDS).encode()),
        ],
    )
