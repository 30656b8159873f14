"""What a requirement is: its members, and the closed lists of words they are taken from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Self

from pytest_mcp_conformance.references import source_url

REVISIONS = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25", "2026-07-28")
"""The protocol revisions, oldest first."""

AREAS: Mapping[str, str] = MappingProxyType(
    {
        "PRM": "Protected resource metadata",
        "AUTHZ": "Authorization of requests",
        "AUD": "Audience and resource indicators",
        "TOK": "Tokens",
        "PKCE": "Authorization codes and PKCE",
        "ASM": "Authorization server metadata",
        "RED": "Authorization endpoint and redirects",
        "REG": "Client registration",
        "REF": "Refresh tokens",
        "CLI": "Client authentication",
        "EXT": "Authorization extensions",
        "DPOP": "DPoP",
        "MTLS": "Mutual TLS",
        "SESS": "Sessions",
        "STATE": "State handles, tasks and subscriptions",
        "HTTP": "Streamable HTTP",
        "DISC": "Discovery and eras",
        "ORIG": "Origin, Host and CORS",
        "TLS": "TLS",
        "HSTS": "Strict transport security",
        "RATE": "Rate limits",
        "INP": "Input",
        "CSRF": "Cross-site request forgery and consent",
    }
)
"""What each prefix of an id stands for, in the order of a report. Each has a file `requirements/<prefix>.toml`."""


class Level(StrEnum):
    """The strongest keyword of the sources; `best-practice` where none of them obliges a deployed server."""

    MUST = "MUST"
    SHOULD = "SHOULD"
    MAY = "MAY"
    BEST_PRACTICE = "best-practice"


class Severity(StrEnum):
    """What a violation costs."""

    CRITICAL = "critical"
    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"


class Role(StrEnum):
    """Who has to mend a violation."""

    RESOURCE_SERVER = "resource-server"
    AUTHORIZATION_SERVER = "authorization-server"


class Needs(StrEnum):
    """The least a run must be given to judge a requirement; `Requirement.fixtures` says it more precisely."""

    NONE = "none"
    TOKEN = "token"  # noqa: S105
    TWO_USERS = "two-users"
    CLIENT_REGISTRATION = "client-registration"


class Condition(StrEnum):
    """When a requirement says anything about a target. `where` finishes the sentence "it applies"."""

    where: str

    def __new__(cls, slug: str, where: str) -> Self:
        member = str.__new__(cls, slug)
        member._value_ = slug
        member.where = where
        return member

    ALWAYS = "always", "for every target"
    AUTHORIZATION = "authorization", "where the server requires authorization"
    AUTHORIZATION_SERVER = "authorization-server", "where an authorization server is advertised or configured"
    METADATA_KEYS = "metadata-keys", "where the resource metadata names keys, signing algorithms or a signed copy"
    SCOPE_HIERARCHY = "scope-hierarchy", "where the operator declares that some scopes include others"
    CORS = "cors", "where the server answers cross-origin requests with CORS headers"
    DELEGATED_LOGIN = "delegated-login", "where tokens are minted from a grant at a third-party authorization server"
    OAUTH_PROXY = "oauth-proxy", "where the server stands between its clients and one upstream OAuth client of its own"
    OUTBOUND_TOOL = "outbound-tool", "where a tool makes HTTP calls that the tester can observe"
    JWT_ACCESS_TOKENS = "jwt-access-tokens", "where access tokens are JWTs by RFC 9068"
    INTROSPECTION = "introspection", "where an introspection_endpoint is advertised"
    REVOCATION = "revocation", "where a revocation_endpoint is advertised"
    REGISTRATION = "registration", "where a registration_endpoint is advertised"
    REGISTRATION_MANAGEMENT = "registration-management", "where registration returns a registration_client_uri"
    CIMD = "cimd", "where client_id_metadata_document_supported is true"
    REGISTRATION_BESIDE_CIMD = (
        "registration-beside-cimd",
        "where registration_endpoint and metadata documents are both offered",
    )
    CLIENT_CREDENTIALS = "client-credentials", "where the grant client_credentials is offered"
    ID_JAG = "id-jag", "where the grant profile urn:ietf:params:oauth:grant-profile:id-jag is advertised"
    WORKLOAD_FEDERATION = "workload-federation", "where jwt-bearer is advertised and the operator enables federation"
    DPOP = "dpop", "where the server or its authorization server supports DPoP"
    MTLS = "mtls", "where mutual TLS is offered"
    SESSIONS = "sessions", "where the server issues session ids"
    HTTP_SSE = "http-sse", "where the server offers the HTTP+SSE transport"
    SSE_EVENT_IDS = "sse-event-ids", "where the server puts ids on its events"
    REQUEST_STATE = "request-state", "where a declared tool returns requestState"
    SINGLE_USE_TOOL = "single-use-tool", "where the operator declares a tool whose retry counts once"
    HANDLES = "handles", "where declared tools return handles, and accept them"
    TASKS = "tasks", "where the server offers tasks"
    TASK_LISTING = "task-listing", "where the server declares that tasks can be listed"
    ELICITATION = "elicitation", "where the server asks its users questions"
    URL_ELICITATION = "url-elicitation", "where the server sends its users to a URL"
    MIRRORED_ARGUMENTS = "mirrored-arguments", "where a tool mirrors arguments into headers with x-mcp-header"
    LOCAL = "local", "where the server is meant for its own machine only"


@dataclass(frozen=True, slots=True)
class Requirement:
    """One thing that holds in a sound server, and what a reader needs to judge and to mend it.

    `revisions` are those in which it holds, oldest first (`all` in the data is expanded). `input_space` is given
    exactly when `property_based` is true: what a generator should produce.
    """

    id: str
    title: str
    level: Level
    severity: Severity
    role: Role
    revisions: tuple[str, ...]
    sources: tuple[str, ...]
    needs: Needs
    applies_when: Condition
    statement: str
    remedy: str
    property_based: bool
    input_space: str = ""
    fixtures: str = ""
    note: str = ""

    @property
    def area(self) -> str:
        """The prefix of the id, a key of `AREAS`."""
        return self.id.partition("-")[0]

    def links(self, revision: str | None = None) -> dict[str, str]:
        """The sources that have a web address, each with it; pages of MCP in `revision` where they exist there."""
        addresses = ((source, source_url(source, revision)) for source in self.sources)
        return {source: address for source, address in addresses if address is not None}
