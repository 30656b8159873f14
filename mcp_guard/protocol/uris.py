"""Hosts, origins and the public URL: parsed once, compared as parsed (RFC 3986 §3.2, RFC 9110 §7.2, RFC 6454 §6.2).

A host is kept in lower case, an IPv6 address in brackets in its shortest form. International names are A-labels
(RFC 5890 §2.3.2.1); nothing here converts them.
"""

import re
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Final
from urllib.parse import unquote

from mcp_guard.failures import ConfigurationError
from mcp_guard.protocol.paths import PathError, canonical

DEFAULT_PORTS: Final = {"http": 80, "https": 443}

LOOPBACK_HOSTS: Final = ("localhost", "127.0.0.1", "[::1]")

MAX_NAME_CHARACTERS: Final = 253
"""RFC 1035 §2.3.4, without the root's dot."""

_AUTHORITY = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]+)(?::(?P<port>[1-9][0-9]{0,4}))?")
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_ORIGIN = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<authority>[^/?#@\\]+)")
_TARGET = re.compile(r"(?P<scheme>[A-Za-z]+)://(?P<authority>[^/?#@\\]+?):?(?P<path>/[^?#]*)?(?:[?#].*)?", re.DOTALL)
_PATH = re.compile(r"(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/]|%[0-9A-Fa-f]{2})*")
_TRIPLET = re.compile(r"%([0-9A-Fa-f]{2})")
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_PUBLIC_URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<authority>[^/?#@\\]*)(?P<path>/[^?#]*)?")


class UriError(ValueError):
    """Not a host, origin or URL as this module understands it. The message quotes nothing of it."""


@dataclass(frozen=True, slots=True)
class Authority:
    """A host and, when it was given, a port (1 to 65535)."""

    host: str
    port: int | None = None

    def __str__(self) -> str:
        return self.host if self.port is None else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class WebOrigin:
    """An origin (RFC 6454 §4). `port` is None for a scheme without a default port when none was given."""

    scheme: str
    host: str
    port: int | None

    @property
    def is_opaque(self) -> bool:
        return self.scheme == "null"

    def __str__(self) -> str:
        """Its ASCII serialisation (RFC 6454 §6.2)."""
        if self.is_opaque:
            return "null"
        return f"{self.scheme}://{_shown(self.scheme, self.host, self.port)}"


OPAQUE_ORIGIN: Final = WebOrigin("null", "", None)
"""What `null` stands for: sandboxed frames, local files, redirects across origins. Equal to no origin of a site."""


@dataclass(frozen=True, slots=True)
class PublicUrl:
    """The URL under which a deployment, or one endpoint of it, is reached. `path` is empty or begins with a slash."""

    scheme: str
    host: str
    port: int
    path: str

    @classmethod
    def parse(cls, text: str, *, setting: str = "public_url") -> "PublicUrl":
        """Read an absolute URL from a configuration.

        It is https, or http on a loopback host, without userinfo, query and fragment. The host is put in lower case and
        a default port dropped; the path is kept as it is spelled, a final slash included.

        Raises:
            ConfigurationError: it is anything else; the message names `setting`.
        """
        try:
            return _public_url(text)
        except (UriError, PathError) as fault:
            raise ConfigurationError(f"{setting}: {text!r} {fault}") from None

    @property
    def authority(self) -> str:
        """Host and port as they stand in a URL: without the scheme's default port."""
        return _shown(self.scheme, self.host, self.port)

    @property
    def origin(self) -> str:
        """Scheme, host and port (RFC 6454 §6.2); no final slash."""
        return f"{self.scheme}://{self.authority}"

    @property
    def is_loopback(self) -> bool:
        return is_loopback(self.host)

    @property
    def is_secure(self) -> bool:
        return self.scheme == "https"

    @property
    def hosts(self) -> tuple[str, ...]:
        """The hosts it is known under without being told: its own, and all the names of loopback if it is there."""
        return (self.host, *LOOPBACK_HOSTS) if self.is_loopback else (self.host,)

    def __str__(self) -> str:
        return f"{self.origin}{self.path}"


def parse_host(value: bytes) -> Authority:
    """Read a Host field (RFC 9110 §7.2): a name, an IPv4 address or an IPv6 address in brackets, and maybe a port.

    Raises:
        UriError: it is empty or anything else: userinfo, several hosts, a path, an unusual spelling of a number.
    """
    try:
        text = value.decode("ascii")
    except UnicodeDecodeError:
        raise UriError("is not ASCII") from None
    return _authority(text)


def parse_origin(value: bytes) -> WebOrigin:
    """Read an Origin field: exactly the serialisation of one origin (RFC 6454 §6.2), which browsers send.

    Raises:
        UriError: it is anything else: several origins, a path, upper case, a spelled-out default port.
    """
    if value == b"null":
        return OPAQUE_ORIGIN
    try:
        text = value.decode("ascii")
    except UnicodeDecodeError:
        raise UriError("is not ASCII") from None
    found = _ORIGIN.fullmatch(text)
    if found is None:
        raise UriError("is not the serialisation of an origin")
    authority = _authority(found["authority"])
    scheme = found["scheme"]
    port = authority.port if authority.port is not None else DEFAULT_PORTS.get(scheme)
    origin = WebOrigin(scheme, authority.host, port)
    if str(origin) != text:
        raise UriError("is not in the one form in which an origin is serialised")
    return origin


def normalised(text: str) -> str:
    """An http or https URL without its query and fragment, in the form that all its spellings share.

    Syntax-based normalisation (RFC 3986 §6.2.2: letter case, percent-encoding, dot segments) and scheme-based (§6.2.3:
    the default port, the empty path). An empty segment is kept: it makes another path.

    Raises:
        UriError: it is relative, of another scheme, has userinfo, or a character that URLs do not have.
    """
    found = _TARGET.fullmatch(text)
    if found is None or found["scheme"].lower() not in DEFAULT_PORTS:
        raise UriError("is not an absolute URL of http or https without userinfo")
    path = found["path"] or "/"
    if _PATH.fullmatch(path) is None:
        raise UriError("has a path with a character that paths do not have")
    scheme, authority = found["scheme"].lower(), _authority(found["authority"])
    path = _without_dots(_TRIPLET.sub(_shortest, path)) if "%" in path or "/." in path else path
    return f"{scheme}://{_shown(scheme, authority.host, authority.port)}{path}"


def _shortest(triplet: re.Match[str]) -> str:
    """A percent-encoded octet: as itself if it is unreserved, otherwise in upper case (RFC 3986 §6.2.2.1, §6.2.2.2)."""
    character = chr(int(triplet[1], 16))
    return character if character in _UNRESERVED else triplet[0].upper()


def _without_dots(path: str) -> str:
    """RFC 3986 §5.2.4, for a path that begins with a slash."""
    kept: list[str] = []
    segments = path.split("/")[1:]
    for segment in segments:
        if segment == "..":
            del kept[-1:]
        elif segment != ".":
            kept.append(segment)
    if segments[-1] in (".", ".."):
        kept.append("")
    return "/" + "/".join(kept)


def is_loopback(host: str) -> bool:
    """Whether `host` (lower case, IPv6 with or without brackets) is `localhost` or a loopback address.

    Names below `localhost` are not counted: resolvers disagree on them.
    """
    if host == "localhost":
        return True
    try:
        if ":" not in host:
            return IPv4Address(host).is_loopback
        address = IPv6Address(host.removeprefix("[").removesuffix("]"))
    except AddressValueError:
        return False
    return address.is_loopback if address.ipv4_mapped is None else address.ipv4_mapped.is_loopback


def _authority(text: str) -> Authority:
    found = _AUTHORITY.fullmatch(text)
    if found is None:
        raise UriError("is not a host with an optional port")
    port = None if found["port"] is None else int(found["port"])
    if port is not None and port > 65535:
        raise UriError("has a port beyond 65535")
    return Authority(_host(found["host"].lower()), port)


def _host(host: str) -> str:
    """A host in lower case, checked.

    Raises:
        UriError: an address out of range, or a name that is none.
    """
    if host.startswith("["):
        try:
            return f"[{IPv6Address(host[1:-1])}]"
        except AddressValueError:
            raise UriError("has no IPv6 address in its brackets") from None
    labels = host.split(".")
    if _NUMBER.fullmatch(labels[-1]):
        # Where the last label is a number, some parsers take the whole for an IPv4 address (WHATWG URL §3.5).
        try:
            return str(IPv4Address(host))
        except AddressValueError:
            raise UriError("ends like an IPv4 address but is none") from None
    if len(host) > MAX_NAME_CHARACTERS or not all(_LABEL.fullmatch(label) for label in labels):
        raise UriError("is not a host name")
    return host


def _public_url(text: str) -> PublicUrl:
    found = _PUBLIC_URL.fullmatch(text)
    if found is None:
        raise UriError("must be an absolute URL without userinfo, query and fragment")
    scheme = found["scheme"].lower()
    if scheme not in DEFAULT_PORTS:
        raise UriError("must begin with https://")
    authority = _authority(found["authority"])
    if scheme == "http" and not is_loopback(authority.host):
        raise UriError("must be https, because its host is not loopback")
    path = found["path"] or ""
    if path:
        try:
            canonical(unquote(path, errors="strict"), path.encode("ascii"))
        except UnicodeError:
            raise UriError("has a path that is not percent-encoded UTF-8") from None
    port = DEFAULT_PORTS[scheme] if authority.port is None else authority.port
    return PublicUrl(scheme, authority.host, port, path)


def _shown(scheme: str, host: str, port: int | None) -> str:
    return host if port is None or port == DEFAULT_PORTS.get(scheme) else f"{host}:{port}"
