"""What every part of one deployment shares: its names, its clock, its keys, its users and its switches."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

from tests.support.model_server.faults import Switches
from tests.support.model_server.keys import SigningKey

MCP_PATH = "/mcp"
SSE_PATH = "/sse"
MESSAGES_PATH = "/messages/"
BASE_SCOPE = "mcp:tools"
ADMIN_SCOPE = "mcp:admin"
AUDIT_SCOPE = "mcp:audit"
SCOPES = (BASE_SCOPE, ADMIN_SCOPE, AUDIT_SCOPE)
IMPLIED_SCOPES: Mapping[str, frozenset[str]] = {ADMIN_SCOPE: frozenset({BASE_SCOPE})}
USERS: Mapping[str, str] = {"alice": "correct horse battery", "bob": "staple of another kind"}
UPSTREAM_ISSUER = "https://upstream.example"
ACCESS_TOKEN_SECONDS = 3600
CODE_SECONDS = 60

_ABSOLUTE = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]*)(.*)", re.DOTALL)


class Deployment:
    """The identity of one server: `base` is its public origin, without a trailing slash."""

    def __init__(self, base: str, switches: Switches, clock: Callable[[], float] = time.time) -> None:
        self.base = base.rstrip("/")
        self.has = switches.has
        self.clock = clock
        self.key = SigningKey()
        self.upstream_key = SigningKey()
        self.prefix = "/issuer" if self.has("asm_under_a_path") else ""
        self.issuer = self.base + self.prefix
        self.hosts = self._hosts()

    @property
    def resources(self) -> Mapping[str, str]:
        """Protected resource identifiers by path."""
        return {path: self.base + path for path in (MCP_PATH, SSE_PATH)}

    def known_resource(self, text: str) -> str | None:
        """The canonical identifier that `text` spells, or None (RFC 8707 §2, RFC 3986 §6.2.2.1)."""
        spelled = text if self.has("resource_spelling_strict") else _lower_authority(text)
        if self.has("as_knows_only_a_trailing_slash"):
            return spelled.removesuffix("/") if spelled in {f"{name}/" for name in self.resources.values()} else None
        return spelled if spelled in self.resources.values() else None

    def _hosts(self) -> frozenset[str]:
        authority = urlsplit(self.base)
        port = "" if authority.port is None else f":{authority.port}"
        names = {authority.hostname or ""}
        if names & {"127.0.0.1", "localhost", "::1"}:
            names = {"127.0.0.1", "localhost", "[::1]"}
        return frozenset(f"{name}{port}" for name in names)


def _lower_authority(text: str) -> str:
    parts = _ABSOLUTE.fullmatch(text)
    return text if parts is None else f"{parts[1].lower()}://{parts[2].lower()}{parts[3]}"
