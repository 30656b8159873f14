"""Which hosts a run may contact.

A target names URLs of its own choosing; this decides before anything is sent to them.
"""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

from pytest_mcp_conformance.options import is_loopback

Address = tuple[str, int]


class Forbidden(ValueError):
    """The URL is not one the run may contact. The message says why."""


@dataclass(frozen=True)
class Egress:
    """The target's own host and every host the operator named may be contacted. Other hosts the target names:
    loopback ones when the target is on loopback, else only https ones whose every address is a public one.
    """

    target_host: str
    authorized_hosts: frozenset[str]

    def addresses(self, url: str) -> list[Address]:
        """Where to connect for `url`. The caller connects to these, and resolves nothing again.

        Raises:
            Forbidden: the URL may not be contacted.
            OSError: the name does not resolve.
        """
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
        except ValueError as error:
            raise Forbidden(f"it is not a URL ({error})") from None
        if parts.scheme not in {"http", "https"} or not host or "@" in parts.netloc:
            raise Forbidden("it is not a plain http or https URL")
        trusted = self.is_authorized(host)
        if not trusted:
            self._judge_scheme(host, parts.scheme)
        found = [(info[4][0], port) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
        local_only = is_loopback(self.target_host)
        for address, _ in found:
            if not trusted:
                _judge_address(str(address), host, local_only)
        return [(str(address), port) for address, port in found]

    def is_authorized(self, host: str) -> bool:
        """Whether the operator agreed to tests of this host, and not only to reading what it publishes."""
        return (
            host == self.target_host
            or host in self.authorized_hosts
            or (is_loopback(host) and is_loopback(self.target_host))
        )

    def _judge_scheme(self, host: str, scheme: str) -> None:
        if is_loopback(self.target_host):
            raise Forbidden(f"the target is on loopback and {host} is not")
        if is_loopback(host):
            raise Forbidden(f"{host} is this machine, and the target is not")
        if scheme != "https":
            raise Forbidden("it is not https")


def _judge_address(address: str, host: str, local_only: bool) -> None:
    if not local_only and not ipaddress.ip_address(address.partition("%")[0]).is_global:
        raise Forbidden(f"{host} resolves to {address}, which is not a public address")
