"""The authorization server metadata documents a check looks at, and what they say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from pytest_mcp_conformance.discovery import Document
from pytest_mcp_conformance.failures import NotApplicable, NotRun
from pytest_mcp_conformance.options import is_loopback
from pytest_mcp_conformance.target import Target


def by_issuer(target: Target) -> dict[str, list[Document]]:
    """What each well-known location of each advertised issuer answers, published or not, in the order clients try.

    Raises:
        NotApplicable: the target requires no authorization, or names no authorization server.
        NotRun: no issuer may be contacted, and why.
    """
    target.require_protected()
    issuers = dict.fromkeys(target.discovery.issuers())
    found = {issuer: target.discovery.server_documents(issuer) for issuer in issuers}
    contacted = {issuer: documents for issuer, documents in found.items() if documents}
    if not contacted:
        issuer = next(iter(issuers))
        raise NotRun(f"the authorization server {issuer} was not contacted: {target.probe.refusal(issuer)}")
    return contacted


def published(target: Target) -> list[tuple[str, Document]]:
    """The documents that are published, each with the issuer it was looked up for.

    Raises:
        NotApplicable: there is none (ASM-001 judges this). NotRun: as `by_issuer`.
    """
    found = [
        (issuer, document)
        for issuer, documents in by_issuer(target).items()
        for document in documents
        if document.published
    ]
    if not found:
        raise NotApplicable("no authorization server metadata is published (see ASM-001)")
    return found


def by_published_issuer(target: Target) -> dict[str, list[Document]]:
    """As `by_issuer`, for the issuers that publish anything; what `published` raises."""
    issuers = {issuer for issuer, _ in published(target)}
    return {issuer: documents for issuer, documents in by_issuer(target).items() if issuer in issuers}


def first_published(target: Target) -> Document:
    """The document a client finds first; what `published` raises."""
    return published(target)[0][1]


def listed(members: Mapping[str, Any], name: str) -> list[str]:
    """The texts in a list member; empty when it is absent or no list."""
    value = members.get(name)
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []


def endpoints(members: Mapping[str, Any]) -> dict[str, Any]:
    """The members that are URLs a client contacts: jwks_uri and everything named *_endpoint, aliases included."""
    aliases = members.get("mtls_endpoint_aliases")
    nested = (
        {f"mtls_endpoint_aliases.{name}": url for name, url in aliases.items()} if isinstance(aliases, dict) else {}
    )
    plain = {name: url for name, url in members.items() if name.endswith("_endpoint") or name == "jwks_uri"}
    return {**plain, **nested}


def urls(members: Mapping[str, Any]) -> dict[str, str]:
    """Every URL in the document, by where it stands."""

    def walk(where: str, value: object) -> Iterator[tuple[str, str]]:
        if isinstance(value, str) and "://" in value:
            yield where, value
        if isinstance(value, Mapping):
            for name, one in value.items():
                yield from walk(f"{where}.{name}", one)
        if isinstance(value, list):
            for at, one in enumerate(value):
                yield from walk(f"{where}[{at}]", one)

    return dict(pair for name, value in members.items() for pair in walk(name, value))


def is_https(value: object) -> bool:
    """Whether a value is an absolute https URL; http does on loopback."""
    if not isinstance(value, str):
        return False
    try:
        parts = urlsplit(value)
    except ValueError:
        return False
    return bool(parts.hostname) and (
        parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname or ""))
    )
