"""Refuses request lines and header fields that two readers may read differently, or that are too large.

Decides: whether path, method, version and header fields have one reading, within bounds of our own whatever the server
allows.
Refuses with `path_not_canonical` (400), `target_too_long` (414), `method_not_allowed` (405), `headers_too_large` (431),
`header_malformed` (400), `header_repeated` (400) and `framing_ambiguous` (400). Does not: look at what the fields mean;
`authorization` is left to the token layer and forwarding fields to the proxy layer. Must stand outermost after audit:
every layer further in relies on it.

Hidden from the app: names with an underscore, which many servers fold into the name with a hyphen; fields that ask to
be treated as another method or URL; Range, which nothing behind the guard has a use for (RFC 9110 §14.2). Blanks around
a value are no part of it (RFC 9110 §5.5): some servers leave them there, so they are taken off here, for the layers
further in and for the app alike.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from mcp_guard import rejections
from mcp_guard.asgi import RawHeaders
from mcp_guard.check import Check
from mcp_guard.failures import ConfigurationError
from mcp_guard.layer import ADMITTED, Admission, RequestHead
from mcp_guard.protocol.paths import PathError, canonical
from mcp_guard.rejections import Rejection

SINGLE = frozenset(
    {
        b"content-encoding",
        b"content-length",
        b"content-type",
        b"dpop",
        b"host",
        b"last-event-id",
        b"mcp-method",
        b"mcp-name",
        b"mcp-protocol-version",
        b"mcp-session-id",
        b"origin",
        b"transfer-encoding",
    }
)
"""Fields that have one value, so that a second one is a second reading (RFC 9110 §5.3)."""

INERT = frozenset(
    {
        b"if-range",
        b"range",
        b"x-http-method",
        b"x-http-method-override",
        b"x-method-override",
        b"x-original-url",
        b"x-rewrite-url",
    }
)

_TOKEN_BYTES = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz"
"""What names are made of (RFC 9110 §5.6.2), in lower case as ASGI promises."""
FRAMING = frozenset({b"content-length", b"transfer-encoding"})
KEPT_NAMES_BYTES = 2048
KEPT_PATH_BYTES = 256
"""Names together and paths that are longer are judged each time, so that what is kept stays small."""

VERSIONS = frozenset({"1", "1.0", "1.1", "2", "3"})
"""Versions of HTTP that have header fields and a framing; "1" is 1.0 as granian writes it."""
BLANKS = b" \t"
CLOSING: RawHeaders = [(b"connection", b"close")]
_CONTROLS = bytes(byte for byte in (*range(0x20), 0x7F) if byte not in b"\t\n")
"""What no value has in it (RFC 9110 §5.5), but for the line feed, which is counted."""

_QUERY = re.compile(rb"[!\"$-~]*")
_DIGITS = re.compile(rb"[0-9]{1,19}")
_METHOD = re.compile(r"[A-Z]+")


@dataclass(frozen=True)
class Wire(Check):
    """Sizes are in bytes: of the request target, of one field (name and value), of all fields together."""

    judges_handshakes = True

    methods: tuple[str, ...] = ("DELETE", "GET", "HEAD", "OPTIONS", "POST")
    max_target_bytes: int = 8 * 1024
    max_headers: int = 100
    max_header_bytes: int = 16 * 1024
    max_headers_bytes: int = 64 * 1024

    allow: RawHeaders = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.methods:
            raise ConfigurationError("methods: at least one is needed")
        for method in self.methods:
            if _METHOD.fullmatch(method) is None or method in ("CONNECT", "TRACE"):
                raise ConfigurationError(f"methods: {method!r} cannot be let through")
        for setting in ("max_target_bytes", "max_headers", "max_header_bytes", "max_headers_bytes"):
            if getattr(self, setting) < 1:
                raise ConfigurationError(f"{setting} must be at least 1, not {getattr(self, setting)}")
        object.__setattr__(self, "allow", [(b"allow", ", ".join(sorted(self.methods)).encode())])

    async def admit(self, request: RequestHead) -> Admission:
        self._check_target(request)
        if request.method not in self.methods:
            raise rejections.METHOD_NOT_ALLOWED.because("the method is not one that is let through", self.allow)
        version = request.scope.get("http_version", "1.1")
        if version not in VERSIONS:
            raise ambiguous("the version of HTTP is none whose framing is known", version)
        headers = request.headers
        if not headers:
            return ADMITTED
        names, values = request.names, [value for _, value in headers]
        self._check_sizes(headers, names, values)
        verdict = (
            judge_names(names, len(headers)) if len(names) <= KEPT_NAMES_BYTES else Names.read(names, len(headers))
        )
        if [value.strip(BLANKS) for value in values] == values:
            if verdict.frames:
                check_framing(request.fields, version)
            return verdict.admission
        hide = verdict.admission.hide
        trimmed = [(name, value.strip(BLANKS)) for name, value in headers if name not in hide]
        if verdict.frames:
            check_framing(dict(trimmed), version)
        return Admission(scope={"headers": trimmed})

    def _check_target(self, request: RequestHead) -> None:
        raw_path = request.raw_path
        length = len(request.path.encode("utf-8", "surrogatepass") if raw_path is None else raw_path)
        if length + len(request.query) > self.max_target_bytes:
            raise rejections.TARGET_TOO_LONG.because(f"the target is longer than {self.max_target_bytes} bytes")
        try:
            read = kept_canonical if length <= KEPT_PATH_BYTES else canonical
            read(request.path, raw_path, request.scope.get("root_path", ""))
        except PathError as fault:
            raise rejections.PATH_NOT_CANONICAL.because(f"the path {fault}") from None
        if request.query and _QUERY.fullmatch(request.query) is None:
            raise rejections.PATH_NOT_CANONICAL.because("the query has a character that queries do not have")

    def _check_sizes(self, headers: RawHeaders, names: bytes, values: list[bytes]) -> None:
        """Check number and sizes of the fields, and the characters of their values, in one pass over all of them."""
        count = len(headers)
        if count > self.max_headers:
            raise rejections.HEADERS_TOO_LARGE.because(f"more than {self.max_headers} fields")
        content = b"\n".join(values)
        size = len(names) + len(content) + 1 - count
        if size > self.max_headers_bytes:
            raise rejections.HEADERS_TOO_LARGE.because(f"more than {self.max_headers_bytes} bytes of fields")
        if size > self.max_header_bytes and any(
            len(name) + len(value) > self.max_header_bytes for name, value in headers
        ):
            raise rejections.HEADERS_TOO_LARGE.because(f"a field of more than {self.max_header_bytes} bytes")
        if len(content.translate(None, _CONTROLS)) != len(content) or content.count(b"\n") != count - 1:
            raise rejections.HEADER_MALFORMED.because("a field value has a control character in it")


@dataclass(frozen=True, slots=True)
class Names:
    """What the names of a request's fields say: how the request is admitted, and whether it has a body's framing."""

    admission: Admission
    frames: bool

    @classmethod
    def read(cls, joined: bytes, count: int) -> "Names":
        """Judge the `count` names in `joined`, one a line.

        Raises:
            Rejection: one is no token in lower case, or a field that has one value is there twice.
        """
        names = joined.split(b"\n")
        if b"" in names or joined.translate(None, _TOKEN_BYTES) != b"\n" * (count - 1):
            raise rejections.HEADER_MALFORMED.because("a field name is no lower-case token")
        present = set(names)
        for name in SINGLE & present:
            if names.count(name) > 1:
                raise rejections.HEADER_REPEATED.because(f"more than one {name.decode()} field")
        hide = frozenset(name for name in present if b"_" in name or name in INERT)
        return cls(Admission(hide=hide) if hide else ADMITTED, not FRAMING.isdisjoint(present))


@lru_cache(1024)
def judge_names(joined: bytes, count: int) -> Names:
    """The same client sends the same names again and again: the last verdicts are kept."""
    return Names.read(joined, count)


kept_canonical = lru_cache(1024)(canonical)


def check_framing(fields: Mapping[bytes, bytes], version: str) -> None:
    """Refuse what two servers may take for bodies of different lengths (RFC 9112 §6.1, §6.3; RFC 9113 §8.2.2).

    Raises:
        Rejection: Content-Length beside Transfer-Encoding, a length that is no plain number, a coding but chunked or
            in another version than 1.1, the only one that has codings.
    """
    length, coding = fields.get(b"content-length"), fields.get(b"transfer-encoding")
    if length is not None and coding is not None:
        raise ambiguous("Content-Length beside Transfer-Encoding", version)
    if length is not None and _DIGITS.fullmatch(length) is None:
        raise ambiguous("Content-Length is not a plain number", version)
    if coding is not None and (coding.lower() != b"chunked" or version != "1.1"):
        raise ambiguous("Transfer-Encoding is not chunked alone, or not in HTTP/1.1", version)


def ambiguous(reason: str, version: str) -> Rejection:
    """Where the request ends is not known, so the connection ends: what follows on it may be part of the request."""
    return rejections.FRAMING_AMBIGUOUS.because(reason, [] if version in ("2", "3") else CLOSING)
