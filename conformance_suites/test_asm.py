"""ASM: authorization server metadata (RFC 8414) is published, complete and consistent. What it promises is in
`test_asm_promises.py`.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from conformance_suites.server_documents import by_issuer, by_published_issuer, endpoints, is_https, listed, published
from pytest_mcp_conformance import Advice, Finding, NotApplicable, requirement
from pytest_mcp_conformance.discovery import SERVER_SEGMENTS, Document
from pytest_mcp_conformance.exchange import Exchange, Request
from pytest_mcp_conformance.probe import Probe
from pytest_mcp_conformance.target import Target

DEFAULT_ENDPOINTS = {"/authorize": "GET", "/token": "POST", "/register": "POST"}
SHARED_MEMBERS = (
    "issuer",
    "authorization_endpoint",
    "token_endpoint",
    "registration_endpoint",
    "revocation_endpoint",
    "introspection_endpoint",
    "jwks_uri",
    "code_challenge_methods_supported",
    "authorization_response_iss_parameter_supported",
    "client_id_metadata_document_supported",
)


class NoMetadata(Finding):
    """No well-known location of an advertised issuer answers 200 with a JSON object."""


class NoOAuthForm(Finding):
    """The OAuth well-known name does not answer; the OpenID one does."""


class NothingAtTheRoot(Finding):
    """Neither metadata nor the default endpoints are found with the path taken off the MCP URL."""


class NothingAtTheRootAnyMore(Advice):
    """As above, at a server that speaks later revisions too, whose clients do not look there."""


class NamesAnotherIssuer(Finding):
    """The issuer member is not the identifier the document was looked up for."""


class NotAJsonDocument(Finding):
    """A metadata URL answers 200 with something else than a JSON object of type application/json."""


class EmptyList(Finding):
    """A member is an empty array."""


class MemberMissing(Finding):
    """A member that the offered grants need is absent."""


class EndpointUnusable(Finding):
    """An endpoint is no absolute https URL, or has a fragment."""


class CopiesDisagree(Finding):
    """Two documents of one issuer differ in a member both should share."""


class ResourceUnlisted(Finding):
    """protected_resources does not contain the MCP server."""


@requirement("ASM-001")
def test_every_issuer_has_metadata(target: Target) -> None:
    """RFC 8414 §3, in the order MCP asks clients to try."""
    for issuer, documents in by_issuer(target).items():
        if not any(document.published for document in documents):
            raise NoMetadata(
                f"the advertised issuer {issuer} publishes no metadata",
                evidence=[document.exchange for document in documents],
                expected="200 with a JSON object at one of its well-known URLs",
                got="; ".join(f"{document.url}: {document.exchange.summary}" for document in documents),
            )


@requirement("ASM-002")
def test_metadata_has_the_oauth_form(target: Target) -> None:
    """RFC 8414 §3.1: the revision 2025-06-18 knows no OpenID discovery."""
    for issuer, documents in by_published_issuer(target).items():
        oauth = [document for document in documents if urlsplit(document.url).path.startswith(SERVER_SEGMENTS[0])]
        if not any(document.published for document in oauth):
            raise NoOAuthForm(
                f"{issuer} publishes OpenID metadata alone",
                evidence=[document.exchange for document in oauth],
                expected=f"200 with a JSON object at {oauth[0].url}",
                got=oauth[0].exchange.summary,
            )


@requirement("ASM-003")
def test_clients_of_the_first_revision_find_the_server(target: Target, probe: Probe) -> None:
    """MCP 2025-03-26, Authorization Base URL: the path is taken off the MCP URL. Servers of that revision need no
    resource metadata; where it is published and names no authorization server, there is none.
    """
    target.require_protected()
    if any(document.published for document in target.discovery.resource_documents()):
        target.discovery.issuers()
    root = target.discovery.fetch(f"{target.origin}{SERVER_SEGMENTS[0]}")
    if root.status == 200 and isinstance(root.json(), dict):
        return
    unknown = probe.get(f"{target.origin}/conformance-check-nobody")
    answers = [probe.send(Request(method, f"{target.origin}{path}")) for path, method in DEFAULT_ENDPOINTS.items()]
    missing = [answer for answer in answers if answer.status in {0, 404} or _same(answer, unknown)]
    if not missing:
        return
    kind = NothingAtTheRoot if target.revisions == {"2025-03-26"} else NothingAtTheRootAnyMore
    raise kind(
        "clients that know no later revision than 2025-03-26 find no authorization server",
        evidence=[root, *missing],
        expected=f"200 with a JSON object at {root.request.url}, or the endpoints {', '.join(DEFAULT_ENDPOINTS)}",
        got=f"{root.summary}; {', '.join(answer.request.url for answer in missing)}: {missing[0].summary}",
    )


def _same(answer: Exchange, unknown: Exchange) -> bool:
    return (answer.status, answer.body) == (unknown.status, unknown.body)


@requirement("ASM-004")
def test_issuer_is_what_the_url_was_formed_from(target: Target) -> None:
    """RFC 8414 §3.3: equal code point for code point, or clients must not use the document."""
    for issuer, document in published(target):
        if document.members.get("issuer") != issuer:
            raise NamesAnotherIssuer(
                "the document names another issuer than the one advertised, so clients must not use it",
                evidence=document.exchange,
                expected=f"issuer {issuer!r}",
                got=f"issuer {document.members.get('issuer')!r}",
            )


@requirement("ASM-005")
def test_the_document_is_a_json_object_without_empty_lists(target: Target) -> None:
    """RFC 8414 §3.2."""
    for documents in by_published_issuer(target).values():
        answering = [document for document in documents if document.exchange.status == 200]
        for document in answering:
            if document is answering[0] or document.published:
                _judge_shape(document)


def _judge_shape(document: Document) -> None:
    exchange = document.exchange
    if exchange.media_type != "application/json" or not document.published:
        kind = type(exchange.json()).__name__ if exchange.json() is not None else "no JSON"
        raise NotAJsonDocument(
            f"{document.url} answers 200 with something else than a metadata document",
            evidence=exchange,
            expected="Content-Type application/json and a JSON object",
            got=f"{exchange.media_type or 'no Content-Type'}, {kind}",
        )
    empty = sorted(name for name, value in document.members.items() if value == [])
    if empty:
        raise EmptyList(
            "a member without values is sent as an empty list",
            evidence=exchange,
            expected="the member left out",
            got=", ".join(empty),
        )


@requirement("ASM-006")
def test_the_document_is_complete_and_its_endpoints_are_https(target: Target) -> None:
    """RFC 8414 §2; OAuth 2.1 §1.5."""
    for _, document in published(target):
        members = document.members
        grants = set(listed(members, "grant_types_supported")) or {"authorization_code", "implicit"}
        needed = ["issuer", "response_types_supported"]
        needed += ["authorization_endpoint"] if grants & {"authorization_code", "implicit"} else []
        needed += ["token_endpoint"] if grants != {"implicit"} else []
        missing = [name for name in needed if not members.get(name)]
        if missing:
            raise MemberMissing(
                "the metadata lacks members that its grants need",
                evidence=document.exchange,
                expected=", ".join(needed),
                got=f"no {', no '.join(missing)}",
            )
        for name, url in {"issuer": members["issuer"], **endpoints(members)}.items():
            forbidden = "?#" if name == "issuer" else "#"
            if not is_https(url) or set(forbidden) & set(url):
                raise EndpointUnusable(
                    f"{name} is no absolute https URL without {'query and ' if name == 'issuer' else ''}fragment",
                    evidence=document.exchange,
                    expected="an https URL (http on loopback only)",
                    got=repr(url),
                    counterexample=name,
                )


@requirement("ASM-012")
def test_all_documents_of_an_issuer_agree(target: Target) -> None:
    """RFC 8414 §5, §6.2: which of them a client reads must not matter."""
    for documents in by_published_issuer(target).values():
        copies = [document for document in documents if document.published]
        for copy in copies[1:]:
            ours, theirs = copies[0].members, copy.members
            differing = [name for name in SHARED_MEMBERS if ours.get(name) != theirs.get(name)]
            if differing:
                raise CopiesDisagree(
                    f"the documents at {copies[0].found_by} and {copy.found_by} differ",
                    evidence=(copies[0].exchange, copy.exchange),
                    expected="the same members in each",
                    got="; ".join(f"{name}: {ours.get(name)!r} and {theirs.get(name)!r}" for name in differing),
                )


@requirement("ASM-014")
def test_a_list_of_protected_resources_contains_this_one(target: Target) -> None:
    """RFC 9728 §4."""
    holding = [document for _, document in published(target) if "protected_resources" in document.members]
    resource = target.discovery.resource_document().members.get("resource")
    if not holding:
        raise NotApplicable("the metadata has no protected_resources")
    for document in holding:
        if resource not in listed(document.members, "protected_resources"):
            raise ResourceUnlisted(
                "protected_resources does not name the MCP server",
                evidence=document.exchange,
                expected=f"{resource!r} among them",
                got=repr(document.members["protected_resources"]),
            )
