"""Where a Valkey deployment is and how to enter it: one URL.

    valkey://[user:password@]host[:port][/db]       one server; valkeys:// through TLS
    unix://[user:password@]/path/of/the/socket      one server on this host; ?db= names the database
    sentinel://[user:password@]host[:port],host…/name[?db=]   the primary that sentinels name; sentinels:// through TLS
    cluster://[user:password@]host[:port],host…     a cluster, entered at any of these nodes; clusters:// through TLS

A user name and a password in it are percent-encoded (RFC 3986 §2.1) and are those of the servers; sentinels that want
their own take `sentinel_username` and `sentinel_password` from the query. With TLS, certificate and host name are
checked; `ca` in the query names a file of authorities in place of the system's, `cert` and `key` a client certificate.
"""

import re
import ssl
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from mcp_guard.failures import ConfigurationError
from mcp_guard.secret import Secret

Kind = Literal["single", "sentinel", "cluster"]
_SCHEMES: dict[str, tuple[Kind, bool, int]] = {
    "valkey": ("single", False, 6379),
    "valkeys": ("single", True, 6379),
    "unix": ("single", False, 0),
    "sentinel": ("sentinel", False, 26379),
    "sentinels": ("sentinel", True, 26379),
    "cluster": ("cluster", False, 6379),
    "clusters": ("cluster", True, 6379),
}
_QUERY = {"db", "ca", "cert", "key", "sentinel_username", "sentinel_password"}
_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::([0-9]{1,5}))?")


@dataclass(frozen=True, slots=True)
class Node:
    """One server: a host and a port, or the path of a Unix socket (then the port is 0)."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}" if self.port else self.host


@dataclass(frozen=True, slots=True)
class Credentials:
    """An ACL user; without a name it is the default user, without a password nobody logs in."""

    username: str | None = None
    password: Secret | None = None


@dataclass(frozen=True, slots=True)
class Tls:
    """Files in PEM form; None takes the system's authorities, and no client certificate."""

    ca: str | None = None
    cert: str | None = None
    key: str | None = None


@dataclass(frozen=True)
class Address:
    """A deployment. `nodes` are the server, the sentinels or nodes of the cluster; sentinels know the `primary`."""

    kind: Kind
    nodes: tuple[Node, ...]
    credentials: Credentials = field(default_factory=Credentials)
    sentinel_credentials: Credentials = field(default_factory=Credentials)
    tls: Tls | None = None
    db: int = 0
    primary: str = ""


def parse(url: str) -> Address:
    """The deployment that a URL names.

    Raises:
        ConfigurationError: it names none. The message says what is wrong and repeats nothing that may be a secret.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ConfigurationError("the Valkey URL is not a URL") from None
    if parts.scheme not in _SCHEMES:
        raise ConfigurationError(
            f"the Valkey URL must begin with one of {', '.join(f'{name}://' for name in _SCHEMES)}"
        )
    kind, encrypted, port = _SCHEMES[parts.scheme]
    query = _query_of(parts)
    login, _, hosts = parts.netloc.rpartition("@")
    if parts.fragment:
        raise ConfigurationError("the Valkey URL must not have a fragment; write # in a password as %23")
    if parts.scheme == "unix":
        nodes, path = [_socket(parts, hosts)], ""
    else:
        nodes, path = [_node(host, port) for host in hosts.split(",")], parts.path.strip("/")
    if kind == "single" and len(nodes) > 1:
        raise ConfigurationError("the Valkey URL names several hosts; sentinel:// or cluster:// takes several")
    if kind == "sentinel" and not path:
        raise ConfigurationError("the Valkey URL must end with the name that the sentinels have for the primary")
    if kind == "cluster" and (path or "db" in query):
        raise ConfigurationError("the Valkey URL of a cluster cannot choose a database")
    return Address(
        kind,
        tuple(nodes),
        _login(login),
        _credentials(query.get("sentinel_username"), query.get("sentinel_password")),
        _tls(query, encrypted),
        _db(query.get("db") or (path if kind == "single" and path else "0")),
        unquote(path) if kind == "sentinel" else "",
    )


def _query_of(parts: SplitResult) -> dict[str, str]:
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    unknown = sorted(name for name in query if name not in _QUERY)
    if unknown:
        raise ConfigurationError(f"the query of the Valkey URL takes {', '.join(sorted(_QUERY))}, and nothing else")
    return query


def _socket(parts: SplitResult, hosts: str) -> Node:
    if hosts or len(parts.path) < 2:
        raise ConfigurationError("the Valkey URL of a Unix socket is unix:///path, with three slashes")
    return Node(unquote(parts.path), 0)


def _node(text: str, default_port: int) -> Node:
    match = _HOST.fullmatch(text)
    if match is None:
        raise ConfigurationError("a host of the Valkey URL is not of the form name:port")
    port = int(match[3]) if match[3] else default_port
    if not 1 <= port <= 65535:
        raise ConfigurationError(f"the port of a host of the Valkey URL must be 1 to 65535, not {port}")
    return Node(match[1] or match[2], port)


def _login(text: str) -> Credentials:
    name, _, password = text.partition(":")
    return _credentials(unquote(name), unquote(password))


def _credentials(name: str | None, password: str | None) -> Credentials:
    if name and not password:
        raise ConfigurationError("the Valkey URL names a user without a password")
    return Credentials(name or None, Secret(password) if password else None)


def _db(text: str) -> int:
    if not re.fullmatch("[0-9]{1,5}", text):
        raise ConfigurationError("the database of the Valkey URL must be a number")
    return int(text)


def _tls(query: dict[str, str], encrypted: bool) -> Tls | None:
    if not encrypted:
        if query.keys() & {"ca", "cert", "key"}:
            raise ConfigurationError("the Valkey URL names certificates, but its scheme is one without TLS")
        return None
    tls = Tls(query.get("ca"), query.get("cert"), query.get("key"))
    if (tls.cert is None) is not (tls.key is None):
        raise ConfigurationError("the Valkey URL must name both cert and key, or neither")
    context = ssl.create_default_context()
    for name, path in (("ca", tls.ca), ("cert", tls.cert)):
        try:
            if path is not None and name == "ca":
                context.load_verify_locations(path)
            elif path is not None:
                context.load_cert_chain(path, tls.key)
        except OSError:
            raise ConfigurationError(f"the file that {name} of the Valkey URL names cannot be used") from None
    return tls
