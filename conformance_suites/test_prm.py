"""PRM: protected resource metadata (RFC 9728) is published, findable and sound."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from conformance_suites.metadata_signatures import check_signed_metadata
from pytest_mcp_conformance import Advice, Finding, NotApplicable, requirement
from pytest_mcp_conformance.discovery import RESOURCE_SEGMENT, Document
from pytest_mcp_conformance.exchange import Header, Request
from pytest_mcp_conformance.options import is_loopback
from pytest_mcp_conformance.probe import Probe
from pytest_mcp_conformance.properties import Space
from pytest_mcp_conformance.strategies.origins import FOREIGN_ORIGINS
from pytest_mcp_conformance.strategies.paths import PATH_CLASSICS, path_suffixes
from pytest_mcp_conformance.target import Target

OMNIBUS_SCOPES = frozenset({"*", "all", "admin", "root", "full", "full-access", "full_access", "superuser"})
ATTACKER = "attacker.example"


class NoMetadata(Finding):
    """No location answers 200 with a JSON object."""


class NotAtThePathInsertedUrl(Finding):
    """The well-known URL of the endpoint's own path does not answer."""


class ChallengeWithoutMetadataUrl(Finding):
    """The 401 names no absolute resource_metadata URL."""


class OnlyOneWayOfDiscovery(Finding):
    """The challenge or the well-known URL is missing."""


class CopiesDisagree(Finding):
    """Two locations answer with different documents."""


class MetadataUrlUnusable(Finding):
    """The resource_metadata URL is not absolute, not https, or does not answer with the document."""


class NotAJsonDocument(Finding):
    """A metadata URL answers 200 with something else than a JSON object of type application/json."""


class NamesAnotherResource(Finding):
    """The resource member is not the identifier the URL was derived from."""


class ChallengeLeadsElsewhere(Finding):
    """The document the challenge leads to is about another URL than the one requested."""


class IssuersUnusable(Finding):
    """authorization_servers is missing, empty, or holds something else than https issuers."""


class ResourceUnusable(Finding):
    """The resource member is no absolute https URI, or has a fragment."""


class ResourceUntidy(Advice):
    """The resource member has a query or a trailing slash the endpoint does not have."""


class EmptyList(Finding):
    """A member is an empty array."""


class QueryTokensInvited(Finding):
    """bearer_methods_supported lists query, or leaves header out."""


class OfflineAccessOffered(Finding):
    """offline_access stands in the document or in a challenge."""


class OmnibusScope(Finding):
    """scopes_supported lists a scope that stands for everything."""


class MetadataNeedsCredentials(Finding):
    """The document is not served to somebody without a good token."""


class UnknownPathGetsMetadata(Finding):
    """A path that does not exist gets a document that names it."""


class UrlsFollowRequestHeaders(Finding):
    """A URL in the document or the challenge changes with a header of the request."""


class CorsWithCredentials(Finding):
    """The document lets pages of other origins send credentials."""


def published(target: Target) -> list[Document]:
    """The documents that answered as they should; a finding about their absence belongs to PRM-001."""
    target.require_protected()
    documents = [document for document in target.discovery.resource_documents() if document.published]
    if not documents:
        raise NotApplicable("no document is published (see PRM-001)")
    return documents


def by_well_known(target: Target) -> Document:
    """The document at the well-known URL a client finds first: that of the path, else that of the root."""
    found = [document for document in published(target) if document.found_by in {"path", "root"}]
    if not found:
        raise NotApplicable("no well-known URL answers (see PRM-002)")
    return found[0]


def named_in_challenge(target: Target) -> str:
    """The resource_metadata of the challenge; empty when there is none."""
    challenge = target.require_protected().bearer()
    return "" if challenge is None else challenge.parameters.get("resource_metadata", "")


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


@requirement("PRM-002")
def test_the_path_inserted_url_answers(target: Target) -> None:
    """RFC 9728 §3.1: the segment goes between the host and the path."""
    found = {document.found_by for document in published(target)}
    document = next(d for d in target.discovery.resource_documents() if d.found_by == "path")
    if "path" not in found:
        raise NotAtThePathInsertedUrl(
            f"the document is published ({', '.join(sorted(found))}), but not at its well-known URL",
            evidence=document.exchange,
            expected=f"200 with a JSON object at {document.url}",
            got=document.exchange.summary,
        )


@requirement("PRM-003")
def test_the_challenge_carries_resource_metadata(target: Target) -> None:
    """RFC 9728 §5.1; the only way of discovery in the revision 2025-06-18."""
    exchange = target.require_protected()
    named = named_in_challenge(target)
    if not _is_absolute(named):
        raise ChallengeWithoutMetadataUrl(
            "the answer to a request without credentials does not say where the metadata is",
            evidence=exchange,
            expected='401 with WWW-Authenticate: Bearer resource_metadata="<absolute URL>"',
            got=f"resource_metadata={named!r}" if named else f"{exchange.summary}, no resource_metadata",
        )


@requirement("PRM-004")
def test_both_ways_of_discovery_are_offered_and_agree(target: Target) -> None:
    """RFC 9728 §5.1, SEP-985. A root document about another resource is not a copy."""
    documents = published(target)
    first = documents[0]
    if {"challenge", "path"} - {document.found_by for document in documents} == {
        "challenge"
    } and not named_in_challenge(target):
        raise OnlyOneWayOfDiscovery(
            "the document is found by its well-known URL alone",
            evidence=target.challenge,
            expected="resource_metadata in the challenge as well",
            got=target.challenge.summary,
        )
    for other in documents[1:]:
        another = other.found_by == "root" and other.members.get("resource") != first.members.get("resource")
        if other.members != first.members and not another:
            differing = sorted(
                name for name in {*first.members, *other.members} if first.members.get(name) != other.members.get(name)
            )
            raise CopiesDisagree(
                f"the documents found by {first.found_by} and by {other.found_by} differ",
                evidence=(first.exchange, other.exchange),
                expected="the same document from each",
                got=f"they differ in {', '.join(differing)}",
            )


@requirement("PRM-005")
def test_the_url_in_the_challenge_can_be_fetched(target: Target) -> None:
    """RFC 9728 §5.1, §7.1: absolute, https unless loopback, 200 with JSON for anybody."""
    named = named_in_challenge(target)
    if not named:
        raise NotApplicable("the challenge names no resource_metadata")
    parts = urlsplit(named)
    if not _is_absolute(named) or (parts.scheme != "https" and not is_loopback(parts.hostname or "")):
        raise MetadataUrlUnusable(
            "the resource_metadata of the challenge is no absolute https URL",
            evidence=target.challenge,
            expected="an absolute https URL (http on loopback only)",
            got=named,
        )
    exchange = target.discovery.fetch(named)
    if exchange.status != 200 or exchange.json() is None:
        raise MetadataUrlUnusable(
            "the resource_metadata URL does not answer with the document",
            evidence=exchange,
            expected="200 with JSON",
            got=exchange.summary,
        )


@requirement("PRM-006")
def test_the_document_is_a_json_object(target: Target) -> None:
    """RFC 9728 §3.2: 200, application/json, a JSON object."""
    target.require_protected()
    answering = [document for document in target.discovery.resource_documents() if document.exchange.status == 200]
    if not answering:
        raise NotApplicable("no document is published (see PRM-001)")
    for document in answering:
        exchange = document.exchange
        if exchange.media_type != "application/json" or not document.published:
            kind = type(exchange.json()).__name__ if exchange.json() is not None else "no JSON"
            raise NotAJsonDocument(
                f"{document.url} answers 200 with something else than a metadata document",
                evidence=exchange,
                expected="Content-Type application/json and a JSON object",
                got=f"{exchange.media_type or 'no Content-Type'}, {kind}",
            )


@requirement("PRM-007")
def test_resource_is_what_the_url_was_derived_from(target: Target) -> None:
    """RFC 9728 §3.3: equal code point for code point, or clients must discard the document."""
    document = by_well_known(target)
    derived = document.url.replace(RESOURCE_SEGMENT, "", 1)
    named = document.members.get("resource")
    if named != derived and not (document.found_by == "root" and named == f"{derived}/"):
        raise NamesAnotherResource(
            "the document is not about the resource its URL stands for, so clients must discard it",
            evidence=document.exchange,
            expected=f"resource {derived!r}",
            got=f"resource {named!r}",
        )


@requirement("PRM-008")
def test_the_challenge_leads_to_the_requested_resource(target: Target) -> None:
    """RFC 9728 §3.3: the document found through a challenge names the URL that was requested."""
    documents = [document for document in published(target) if document.found_by == "challenge"]
    if not documents:
        raise NotApplicable("the challenge leads to no document")
    named = documents[0].members.get("resource")
    if named != target.url:
        raise ChallengeLeadsElsewhere(
            "the challenge leads to the metadata of another resource",
            evidence=(target.challenge, documents[0].exchange),
            expected=f"resource {target.url!r}",
            got=f"resource {named!r}",
        )


@requirement("PRM-009")
def test_authorization_servers_holds_https_issuers(target: Target) -> None:
    """MCP authorization server discovery; RFC 9728 §2, RFC 8414 §2: https, no query, no fragment."""
    document = published(target)[0]
    issuers = document.members.get("authorization_servers")
    sound = isinstance(issuers, list) and bool(issuers) and all(_is_issuer(issuer) for issuer in issuers)
    if not sound:
        raise IssuersUnusable(
            "authorization_servers does not name an authorization server",
            evidence=document.exchange,
            expected="a list of at least one https URL without query and fragment",
            got="no such member" if issuers is None else repr(issuers),
        )


@requirement("PRM-010")
def test_resource_is_an_absolute_https_uri(target: Target) -> None:
    """RFC 9728 §1.2, RFC 8707 §2."""
    document = published(target)[0]
    named = document.members.get("resource")
    if not isinstance(named, str) or not _is_web_uri(named) or "#" in named:
        raise ResourceUnusable(
            "resource is no absolute https URI without fragment",
            evidence=document.exchange,
            expected="scheme https (http on loopback only), a host, no fragment",
            got=repr(named),
        )
    has_slash = named.endswith("/") and not target.url.endswith("/") and urlsplit(named).path != "/"
    if ("?" in named and "?" not in target.url) or has_slash:
        raise ResourceUntidy(
            "resource is spelled in a way clients will not expect",
            evidence=document.exchange,
            expected="no query and no trailing slash the endpoint does not have",
            got=named,
        )


@requirement("PRM-011")
def test_no_member_is_an_empty_list(target: Target) -> None:
    """RFC 9728 §3.2: members with zero values are left out."""
    document = published(target)[0]
    empty = sorted(name for name, value in document.members.items() if value == [])
    if empty:
        raise EmptyList(
            "a member without values is sent as an empty list",
            evidence=document.exchange,
            expected="the member left out",
            got=", ".join(empty),
        )


@requirement("PRM-012")
def test_tokens_in_the_query_are_not_invited(target: Target) -> None:
    """OAuth 2.1 §5.1: tokens go into the header."""
    document = published(target)[0]
    methods = document.members.get("bearer_methods_supported")
    if methods is not None and (not isinstance(methods, list) or "header" not in methods or "query" in methods):
        raise QueryTokensInvited(
            "bearer_methods_supported invites tokens elsewhere than in the header",
            evidence=document.exchange,
            expected="header in the list, query not",
            got=repr(methods),
        )


@requirement("PRM-013")
def test_offline_access_is_not_offered(target: Target) -> None:
    """SEP-2207: refresh tokens are between client and authorization server."""
    document = published(target)[0]
    listed = document.members.get("scopes_supported")
    if isinstance(listed, list) and "offline_access" in listed:
        raise OfflineAccessOffered(
            "scopes_supported lists offline_access",
            evidence=document.exchange,
            expected="no offline_access",
            got=repr(listed),
        )
    challenge = target.challenge.bearer()
    scope = "" if challenge is None else challenge.parameters.get("scope", "")
    if "offline_access" in scope.split(" "):
        raise OfflineAccessOffered(
            "the challenge asks for offline_access",
            evidence=target.challenge,
            expected="no offline_access",
            got=f'scope="{scope}"',
        )


@requirement("PRM-014")
def test_scopes_are_not_omnibus(target: Target) -> None:
    """MCP security best practices, Scope Minimization: clients ask for every scope that is listed."""
    document = published(target)[0]
    listed = document.members.get("scopes_supported")
    scopes = [scope for scope in listed if isinstance(scope, str)] if isinstance(listed, list) else []
    omnibus = [s for s in scopes if s.lower() in OMNIBUS_SCOPES or s.endswith((":*", "/*", ".*"))]
    if omnibus:
        raise OmnibusScope(
            "scopes_supported lists a scope that stands for everything",
            evidence=document.exchange,
            expected="scopes that each allow one thing",
            got=", ".join(omnibus),
        )


@requirement("PRM-015")
def test_the_document_is_for_everybody(target: Target, probe: Probe) -> None:
    """RFC 9728 §3: discovery comes before authorization, and a bad token must not stand in its way."""
    target.require_protected()
    documents = target.discovery.resource_documents()
    for document in documents:
        bad = probe.get(document.url, ("Accept", "application/json"), ("Authorization", "Bearer not-a-token"))
        refused = next((e for e in (document.exchange, bad) if e.status in {401, 403}), None)
        if refused is not None and (document.published or refused is document.exchange):
            raise MetadataNeedsCredentials(
                "the metadata is not served to somebody without a good token",
                evidence=refused,
                expected="200 with the document, with no token and with a bad one",
                got=refused.summary,
            )
    if not any(document.published for document in documents):
        raise NotApplicable("no document is published (see PRM-001)")


@requirement("PRM-016")
def test_keys_and_signatures_are_sound(target: Target) -> None:
    """RFC 9728 §2, §2.2, §3.3."""
    check_signed_metadata(target, published(target)[0])


@requirement("PRM-017")
def test_unknown_paths_get_no_metadata(target: Target, probe: Probe, space: Space) -> None:
    """RFC 9728 §7.3: a document that echoes the path it was asked for vouches for whatever an attacker names."""
    known = {document.members.get("resource") for document in published(target)}
    root = f"{target.origin}{RESOURCE_SEGMENT}"

    def judge(suffix: str) -> None:
        exchange = probe.send(Request("GET", root, raw_target=f"{RESOURCE_SEGMENT}{suffix}".encode()))
        members = exchange.json() if exchange.status == 200 else None
        named = members.get("resource") if isinstance(members, dict) else None
        if isinstance(named, str) and named not in known and _echoes(named, suffix):
            raise UnknownPathGetsMetadata(
                "a path that does not exist gets metadata that names it",
                evidence=exchange,
                expected="404, or the document of a resource that exists",
                got=f"200 with resource {named!r}",
                counterexample=f"{RESOURCE_SEGMENT}{suffix}",
            )

    space.search(judge, path_suffixes(), classics=PATH_CLASSICS, max_examples=15)


@requirement("PRM-018")
def test_urls_do_not_follow_request_headers(target: Target, probe: Probe) -> None:
    """RFC 9728 §7.3, RFC 9700 §4.13: only the server's configuration says who it is."""
    documents = published(target)
    before = _names(documents[0].members)
    for header in _foreign_headers(target):
        for document in documents[:2]:
            exchange = probe.send(Request("GET", document.url, (header,)))
            members = exchange.json()
            after = _names(members) if exchange.status == 200 and isinstance(members, dict) else before
            if after != before and after != _names(document.members):
                raise UrlsFollowRequestHeaders(
                    f"the document's URLs follow the {header[0]} header",
                    evidence=exchange,
                    expected=f"{before}, or a refusal",
                    got=f"{after}",
                    counterexample=f"{header[0]}: {header[1]!s}",
                )
        _judge_challenge(target, header)


@requirement("PRM-019")
def test_other_origins_read_the_document_without_credentials(target: Target, probe: Probe) -> None:
    """RFC 9700 §2.6: what browser clients need is Access-Control-Allow-Origin, and never credentials."""
    document = published(target)[0]
    exchange = probe.get(document.url, ("Origin", FOREIGN_ORIGINS[0]))
    allowed = exchange.header("access-control-allow-origin")
    if allowed is None:
        raise NotApplicable("the document carries no CORS permission, so browser clients are not claimed")
    if exchange.header("access-control-allow-credentials") == "true":
        raise CorsWithCredentials(
            "the document lets pages of other origins send credentials",
            evidence=exchange,
            expected="Access-Control-Allow-Origin without Access-Control-Allow-Credentials",
            got=f"Access-Control-Allow-Origin: {allowed}, Access-Control-Allow-Credentials: true",
        )


def _judge_challenge(target: Target, header: Header) -> None:
    named = named_in_challenge(target)
    exchange = target.send(target.challenge.request, None, header)
    challenge = exchange.bearer() if exchange.status == target.challenge.status else None
    if challenge is not None and challenge.parameters.get("resource_metadata", named) != named:
        raise UrlsFollowRequestHeaders(
            f"the challenge's resource_metadata follows the {header[0]} header",
            evidence=exchange,
            expected=f"{named}, or a refusal",
            got=challenge.parameters["resource_metadata"],
            counterexample=f"{header[0]}: {header[1]!s}",
        )


def _foreign_headers(target: Target) -> list[Header]:
    other = "http" if target.url.startswith("https") else "https"
    host = urlsplit(target.url).netloc
    return [
        ("Host", ATTACKER),
        ("Host", f"{ATTACKER}:8443"),
        ("Host", f"{host}.{ATTACKER}"),
        ("X-Forwarded-Host", ATTACKER),
        ("X-Forwarded-Host", f"{host}, {ATTACKER}"),
        ("X-Forwarded-Proto", other),
        ("X-Forwarded-Prefix", "/attacker"),
        ("X-Original-Host", ATTACKER),
        ("Forwarded", f"host={ATTACKER};proto={other}"),
        ("Forwarded", f'host="[2001:db8::7]:443";proto={other}'),
    ]


def _names(members: dict[str, Any]) -> dict[str, Any]:
    return {name: members.get(name) for name in ("resource", "authorization_servers", "jwks_uri")}


def _echoes(named: str, suffix: str) -> bool:
    plain = suffix.strip("/").lower()
    return bool(plain) and (plain in named.lower() or plain.rpartition("/")[2] in named.lower())


def _is_absolute(text: str) -> bool:
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and bool(parts.hostname)


def _is_web_uri(text: str) -> bool:
    return _is_absolute(text) and (text.startswith("https://") or is_loopback(urlsplit(text).hostname or ""))


def _is_issuer(value: object) -> bool:
    return isinstance(value, str) and _is_web_uri(value) and not set("?#") & set(value)
