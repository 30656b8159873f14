"""PRM-016: the members of a resource's metadata that concern keys and signatures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from pytest_mcp_conformance import Finding, Inconclusive, NotApplicable
from pytest_mcp_conformance.discovery import Document
from pytest_mcp_conformance.forge.jws import Jws, read_jws, verifies
from pytest_mcp_conformance.options import is_loopback
from pytest_mcp_conformance.target import Target

MEMBERS = ("jwks_uri", "resource_signing_alg_values_supported", "signed_metadata")


class KeysNotOverHttps(Finding):
    """jwks_uri is no https URL."""


class NoneIsOffered(Finding):
    """resource_signing_alg_values_supported lists none."""


class SignedMetadataUnsound(Finding):
    """signed_metadata is no JWT with iss, or its signature does not verify."""


class SignedMetadataDisagrees(Finding):
    """A signed claim differs from the plain member."""


def check_signed_metadata(target: Target, document: Document) -> None:
    """Raises a finding, NotApplicable when no such member is present, Inconclusive when the signer's key is unknown."""
    members = document.members
    if not any(name in members for name in MEMBERS):
        raise NotApplicable("the metadata names no keys, no signing algorithms and no signed copy")
    _check_plain(document, members)
    text = members.get("signed_metadata")
    if text is None:
        return
    jws = read_jws(text) if isinstance(text, str) else None
    if (
        jws is None
        or not isinstance(jws.claims.get("iss"), str)
        or str(jws.header.get("alg", "none")).lower() == "none"
    ):
        raise SignedMetadataUnsound(
            "signed_metadata is not a signed JWT that names its issuer",
            evidence=document.exchange,
            expected="a JWT with iss, signed with an asymmetric algorithm",
            got=_describe(jws),
        )
    for name, value in jws.claims.items():
        if name in members and members[name] != value:
            raise SignedMetadataDisagrees(
                f"the signed {name} differs from the plain one",
                evidence=document.exchange,
                expected=repr(value),
                got=repr(members[name]),
            )
    _check_signature(target, document, str(text), jws)


def _check_plain(document: Document, members: Mapping[str, Any]) -> None:
    uri = members.get("jwks_uri")
    if "jwks_uri" in members and not (isinstance(uri, str) and _is_https(uri)):
        raise KeysNotOverHttps(
            "jwks_uri is no https URL",
            evidence=document.exchange,
            expected="an https URL (http on loopback only)",
            got=repr(uri),
        )
    algorithms = members.get("resource_signing_alg_values_supported")
    if isinstance(algorithms, list) and any(str(name).lower() == "none" for name in algorithms):
        raise NoneIsOffered(
            "resource_signing_alg_values_supported lists none",
            evidence=document.exchange,
            expected="signing algorithms only",
            got=repr(algorithms),
        )


def _check_signature(target: Target, document: Document, text: str, jws: Jws) -> None:
    uri = document.members.get("jwks_uri")
    if jws.claims.get("iss") != document.members.get("resource") or not isinstance(uri, str):
        raise Inconclusive("signed_metadata is signed by another party, whose keys are not known to the run")
    listing = target.discovery.fetch(uri).json()
    keys = listing.get("keys") if isinstance(listing, dict) else None
    candidates = [key for key in keys if isinstance(key, dict)] if isinstance(keys, list) else []
    verdicts = [verifies(text, key) for key in candidates]
    if verdicts and all(verdict is None for verdict in verdicts):
        raise Inconclusive(f"the algorithm {jws.header.get('alg')!r} of signed_metadata is not one this check verifies")
    if True not in verdicts:
        raise SignedMetadataUnsound(
            "no key at jwks_uri verifies signed_metadata",
            evidence=document.exchange,
            expected="a signature by one of the resource's keys",
            got=f"{len(candidates)} keys, none of which fits",
        )


def _describe(jws: Jws | None) -> str:
    if jws is None:
        return "no JWT"
    return f"alg {jws.header.get('alg')!r}, iss {jws.claims.get('iss')!r}"


def _is_https(uri: str) -> bool:
    parts = urlsplit(uri)
    return bool(parts.hostname) and (parts.scheme == "https" or is_loopback(parts.hostname or ""))
