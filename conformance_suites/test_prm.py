"""PRM: protected resource metadata (RFC 9728) is published, findable and sound."""

from __future__ import annotations

from pytest_mcp_conformance import Finding, requirement
from pytest_mcp_conformance.target import Target


class NoMetadata(Finding):
    """No location answers 200 with a JSON object."""


@requirement("PRM-001")
def test_metadata_is_published_for_the_endpoint(target: Target) -> None:
    """RFC 9728 §3: one of the challenge's URL, the path-inserted and the root well-known URL answers."""
    target.require_protected()
    documents = target.discovery.resource_documents()
    if not any(document.published for document in documents):
        raise NoMetadata(
            "no location holds the protected resource metadata",
            evidence=[document.exchange for document in documents],
            expected="200 with a JSON object at one of them",
            got="; ".join(f"{document.url}: {document.exchange.summary}" for document in documents),
        )
