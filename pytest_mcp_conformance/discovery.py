"""Protected resource metadata (RFC 9728) and authorization server metadata (RFC 8414), as the target publishes them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

from pytest_mcp_conformance.exchange import Exchange
from pytest_mcp_conformance.failures import Inconclusive, NotApplicable, NotRun
from pytest_mcp_conformance.probe import Probe

RESOURCE_SEGMENT = "/.well-known/oauth-protected-resource"
SERVER_SEGMENTS = ("/.well-known/oauth-authorization-server", "/.well-known/openid-configuration")


@dataclass(frozen=True)
class Document:
    """A metadata document and how it was found: `challenge`, `path`, `root`, or the well-known name of an issuer."""

    found_by: str
    url: str
    exchange: Exchange

    @property
    def published(self) -> bool:
        """Whether the answer is 200 with a JSON object."""
        return self.exchange.status == 200 and isinstance(self.exchange.json(), dict)

    @property
    def members(self) -> dict[str, Any]:
        """The object; empty when the answer is none."""
        value = self.exchange.json()
        return value if isinstance(value, dict) else {}


def resource_well_known(resource: str) -> str:
    """Where RFC 9728 §3.1 puts the metadata of `resource`: the segment between host and path."""
    parts = urlsplit(resource)
    path = "" if parts.path == "/" else parts.path
    return f"{parts.scheme}://{parts.netloc}{RESOURCE_SEGMENT}{path}" + (f"?{parts.query}" if parts.query else "")


def server_well_knowns(issuer: str) -> list[str]:
    """Where an issuer's metadata may be, in the order MCP asks clients to try (RFC 8414 §3.1, OIDC Discovery §4.1)."""
    parts = urlsplit(issuer)
    origin, path = f"{parts.scheme}://{parts.netloc}", parts.path.rstrip("/")
    inserted = [f"{origin}{segment}{path}" for segment in SERVER_SEGMENTS]
    return inserted if not path else [*inserted, f"{origin}{path}{SERVER_SEGMENTS[1]}"]


class Discovery:
    """Fetches each document once; every use counts its exchange as evidence of the running check."""

    def __init__(self, url: str, probe: Probe, challenged: Callable[[], Exchange]) -> None:
        self._url = url
        self._probe = probe
        self._challenged = challenged
        self._fetched: dict[str, Exchange] = {}

    def fetch(self, url: str) -> Exchange:
        """GET `url` as a client without credentials does; once.

        Raises:
            Inconclusive: the URL is none the run may contact.
        """
        if url not in self._fetched:
            self._fetched[url] = self._probe.get(url, ("Accept", "application/json"))
        self._probe.cite(self._fetched[url])
        return self._fetched[url]

    @cached_property
    def locations(self) -> tuple[tuple[str, str], ...]:
        """Where the target's metadata may be, `(found_by, url)`, in the order clients try."""
        challenge = self._challenged().bearer()
        named = "" if challenge is None else challenge.parameters.get("resource_metadata", "")
        places = [("challenge", named)] if named else []
        inserted, root = resource_well_known(self._url), _root_of(self._url)
        places.append(("path", inserted))
        return tuple([*places, ("root", root)] if root != inserted else places)

    def resource_documents(self) -> list[Document]:
        """What each location answers; locations that may not be contacted are left out."""
        self._challenged()
        return [Document(how, url, self.fetch(url)) for how, url in self.locations if not self._probe.refusal(url)]

    def resource_document(self) -> Document:
        """The first published one, as a client finds it.

        Raises:
            Inconclusive: there is none (PRM-001 is the requirement that judges this).
        """
        published = [document for document in self.resource_documents() if document.published]
        if not published:
            raise Inconclusive("no protected resource metadata is published (see PRM-001)")
        return published[0]

    def issuers(self) -> list[str]:
        """The authorization servers the resource names; those that are strings.

        Raises:
            NotApplicable: it names none (PRM-009 judges this).
        """
        named = self.resource_document().members.get("authorization_servers")
        issuers = [issuer for issuer in named if isinstance(issuer, str)] if isinstance(named, list) else []
        if not issuers:
            raise NotApplicable("the metadata names no authorization server (see PRM-009)")
        return issuers

    def server_documents(self, issuer: str) -> list[Document]:
        """What each well-known location of an issuer answers, locations that may not be contacted left out."""
        urls = [url for url in server_well_knowns(issuer) if not self._probe.refusal(url)]
        return [Document(urlsplit(url).path, url, self.fetch(url)) for url in urls]

    def server_document(self, issuer: str) -> Document:
        """The first published one, as a client finds it; later locations are not asked.

        Raises:
            Inconclusive: there is none. NotRun: the issuer may not be contacted.
        """
        for url in server_well_knowns(issuer):
            refusal = self._probe.refusal(url)
            if refusal:
                raise NotRun(f"the authorization server {issuer} was not contacted: {refusal}")
            document = Document(urlsplit(url).path, url, self.fetch(url))
            if document.published:
                return document
        raise Inconclusive(f"the authorization server {issuer} publishes no metadata (see ASM-001)")


def _root_of(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}{RESOURCE_SEGMENT}"
