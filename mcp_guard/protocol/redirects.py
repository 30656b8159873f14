"""Redirect URIs: which may be registered, when a presented one matches, and how a response is put on one.

Sources: OAuth 2.1 §2.3.1 and §4.1.1, RFC 8252 §7 (native apps), RFC 9700 §4.1.3. The grammar is RFC 3986 §3 without its
freedoms: no userinfo, no fragment, no dot segments, nothing that two URL parsers read differently. A URI that passes
can be compared as a string and shown to a person by its host.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote, urlencode

from mcp_guard.protocol.uris import UriError, parse_host

MAX_LENGTH = 2048
"""Characters in a redirect URI."""

LOOPBACK_HOSTS = frozenset({"127.0.0.1", "[::1]", "localhost"})
"""The hosts that may be reached over http, and whose port is free (RFC 8252 §7.3 and §8.3)."""

RESPONSE_PARAMETERS = frozenset(
    {"code", "state", "iss", "error", "error_description", "error_uri", "access_token", "id_token", "response"}
)
"""Names that an authorization response uses; a registered URI that has one already would carry it twice."""

_SCHEME = re.compile(r"([a-z][a-z0-9+.\-]*):(.*)")
_PCHAR = r"(?:[A-Za-z0-9\-._~!$&'()*+,;=:@]|%[0-9A-Fa-f]{2})"
_PATH_QUERY = re.compile(rf"((?:/{_PCHAR}*)*)(?:\?((?:{_PCHAR}|[/?])*))?")
_LOOPBACK = re.compile(
    r"http://(?P<host>127\.0\.0\.1|\[::1\]|localhost)(?::(?P<port>[1-9][0-9]{0,4}))?(?P<rest>(?:[/?].*)?)"
)
_REST = re.compile(rf"(?:{_PCHAR}|[/?\[\]])+")
_DOT_SEGMENT = re.compile(r"(?:/|^)(?:\.|%2[eE]){1,2}(?:/|$)")
_HIGHEST_PORT = 65535


class RedirectError(ValueError):
    """A redirect URI that is not accepted. The message says why and does not quote it."""


@dataclass(frozen=True, slots=True)
class Redirect:
    """A redirect URI taken apart. `host` is in lower case, IPv6 in brackets; None for private-use schemes."""

    uri: str
    scheme: str
    host: str | None = None
    port: int | None = None

    @property
    def is_loopback(self) -> bool:
        """Whether the browser's own machine is the target."""
        return self.host in LOOPBACK_HOSTS

    @property
    def display(self) -> str:
        """What a person is shown: the host with its port, or the private-use scheme."""
        if self.host is None:
            return f"{self.scheme}:"
        return self.host if self.port is None else f"{self.host}:{self.port}"

    @property
    def form_action_source(self) -> str:
        """The source expression that lets a form end there (CSP 3 §2.3.1), whose grammar has no IPv6 address."""
        if self.host is None or self.host.startswith("["):
            return f"{self.scheme}:"
        return f"{self.scheme}://{self.display}"


def parse_redirect(uri: str) -> Redirect:
    """Take apart a redirect URI that may be registered.

    Accepted: https; http on a loopback host (RFC 8252 §7.3); a private-use scheme that has a dot (RFC 8252 §7.1).

    Raises:
        RedirectError: anything else.
    """
    if not uri or len(uri) > MAX_LENGTH:
        raise RedirectError(f"a redirect URI has 1 to {MAX_LENGTH} characters")
    if "#" in uri:
        raise RedirectError("a redirect URI has no fragment")
    match = _SCHEME.fullmatch(uri)
    if match is None:
        raise RedirectError("a redirect URI is absolute and its scheme is in lower case")
    scheme, rest = match.groups()
    if scheme not in {"http", "https"}:
        return _parse_private_use(uri, scheme, rest)
    if not rest.startswith("//"):
        raise RedirectError("a redirect URI of http or https has an authority")
    redirect = _parse_web(uri, scheme, rest[2:])
    if scheme == "http" and not redirect.is_loopback:
        raise RedirectError("http is accepted on 127.0.0.1, [::1] and localhost only")
    return redirect


def _parse_private_use(uri: str, scheme: str, rest: str) -> Redirect:
    if "." not in scheme.strip("."):
        raise RedirectError("a private-use scheme is a reversed domain name, so it has a dot")
    if _REST.fullmatch(rest) is None:
        raise RedirectError("a redirect URI has only the characters of RFC 3986")
    _refuse_response_parameters(rest.partition("?")[2])
    return Redirect(uri, scheme)


def _parse_web(uri: str, scheme: str, rest: str) -> Redirect:
    cut = min((rest.find(mark) for mark in "/?" if mark in rest), default=len(rest))
    authority, rest = rest[:cut], rest[cut:]
    if "@" in authority:
        raise RedirectError("a redirect URI has no userinfo")
    try:
        host = parse_host(authority.encode("ascii"))
    except (UriError, UnicodeEncodeError):
        raise RedirectError("the host of a redirect URI is a domain name or an address, with a plain port") from None
    parts = _PATH_QUERY.fullmatch(rest)
    if parts is None:
        raise RedirectError("a redirect URI has only the characters of RFC 3986")
    if _DOT_SEGMENT.search(parts[1]):
        raise RedirectError("a redirect URI has no dot segments")
    _refuse_response_parameters(parts[2] or "")
    return Redirect(uri, scheme, host.host, host.port)


def _refuse_response_parameters(query: str) -> None:
    names = {name for name, _ in parse_qsl(query, keep_blank_values=True)}
    if names & RESPONSE_PARAMETERS:
        raise RedirectError("the query of a redirect URI has no parameter of an authorization response")


def matches(registered: str, presented: str) -> bool:
    """Whether `presented` is the registered URI: the same string, or on a loopback host one with another port.

    No normalisation of any kind (OAuth 2.1 §2.3.1); the port of a loopback host is chosen by the client's operating
    system when it listens, and is free (RFC 8252 §7.3).
    """
    if registered == presented:
        return True
    ours, theirs = _LOOPBACK.fullmatch(registered), _LOOPBACK.fullmatch(presented)
    if ours is None or theirs is None or ours.group("host", "rest") != theirs.group("host", "rest"):
        return False
    return theirs["port"] is None or int(theirs["port"]) <= _HIGHEST_PORT


def find_match(registered: Sequence[str], presented: str) -> bool:
    """Whether any of the registered URIs matches `presented`."""
    return any(matches(uri, presented) for uri in registered)


def with_parameters(uri: str, parameters: Sequence[tuple[str, str]]) -> str:
    """`uri` with a response in its query (RFC 6749 §4.1.2), each value percent-encoded as UTF-8."""
    query = urlencode(parameters, quote_via=quote, safe="")
    mark = "&" if "?" in uri else "?"
    return f"{uri}{'' if uri.endswith(('?', '&')) and mark == '&' else mark}{query}"
