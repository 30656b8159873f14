"""REG, where a client id is the URL of the client's own metadata: what the authorization server will fetch."""

from __future__ import annotations

from collections.abc import Iterator

from conformance_suites.authorization_pages import is_page, opened
from conformance_suites.doors import door
from pytest_mcp_conformance import Finding, Inconclusive, NotApplicable, NotRun, requirement
from pytest_mcp_conformance.exchange import Exchange
from pytest_mcp_conformance.grants import Registration
from pytest_mcp_conformance.oauth import AuthorizationServer
from pytest_mcp_conformance.pages import read_forms
from pytest_mcp_conformance.probe import Probe
from pytest_mcp_conformance.target import Target

REDIRECT = "https://client.example/callback"
ODD = (
    "http://client.example/document",
    "https://client.example",
    "https://client.example/document#part",
    "https://user@client.example/document",
    "https://client.example/a/../document",
    "https://client.example/%2e%2e/document",
    "https://client.example/./document",
    "HTTPS://client.example/document",
    "ftp://client.example/document",
)


class OddIdentifierUsed(Finding):
    """A client id that is no proper document URL was used, or fetched."""


class InternalAddressReached(Finding):
    """The authorization server fetched a client's metadata from an internal address."""


class ServerTellsWhatItFound(Finding):
    """The refusal tells an address that answered from one that did not."""


def require_documents(server: AuthorizationServer) -> None:
    """Raises: NotApplicable when documents are not supported."""
    if server.metadata.get("client_id_metadata_document_supported") is not True:
        raise NotApplicable("the authorization server supports no client-id metadata documents")


def asked(server: AuthorizationServer, probe: Probe, client_id: str) -> tuple[Exchange, str]:
    """What comes of an authorization request of this client."""
    return opened(probe, server, Registration(client_id, redirect_uri=REDIRECT), REDIRECT)


def was_used(exchange: Exchange, there: str) -> bool:
    """Whether the request went on: back to the client, or to a form."""
    form = is_page(exchange) and exchange.status < 400 and read_forms(exchange.text, exchange.request.url)
    return bool(there) or bool(form)


@requirement("REG-015")
def test_odd_document_urls_are_refused(target: Target, authorization_server: AuthorizationServer, probe: Probe) -> None:
    """MCP, Client ID Metadata Documents: https, with a path, and nothing else that is odd; http is never fetched."""
    server = authorization_server
    require_documents(server)
    if was_used(*asked(server, probe, "conformance-nobody")):
        raise Inconclusive("the authorization server takes any client id for a client")
    for client_id in ODD:
        exchange, there = asked(server, probe, client_id)
        if was_used(exchange, there):
            raise OddIdentifierUsed(
                "a client id that is no proper document URL was used",
                evidence=exchange,
                expected="an error page",
                got=exchange.summary,
                counterexample=f"client_id={client_id}",
            )
    if not target.settings.is_local:
        return
    with door() as watched:
        for client_id in (f"http://127.0.0.1:{watched.port}/document", f"http://localhost:{watched.port}/document"):
            exchange, _ = asked(server, probe, client_id)
            if watched.was_tried():
                raise OddIdentifierUsed(
                    "a client id that is no https URL was fetched",
                    evidence=exchange,
                    expected="no connection",
                    got="a connection",
                    counterexample=f"client_id={client_id}",
                )


@requirement("REG-016")
def test_documents_are_not_fetched_from_inside(
    target: Target, authorization_server: AuthorizationServer, probe: Probe
) -> None:
    """MCP, Server-Side Request Forgery: in any spelling of an address, and of a name for it."""
    server = authorization_server
    require_documents(server)
    if not target.settings.is_local:
        raise NotRun("only a target on this machine can be watched for connections")
    with door() as watched:
        for host in _inside():
            watched.forget()
            client_id = f"https://{host}:{watched.port}/document"
            exchange, there = asked(server, probe, client_id)
            if watched.was_tried() or was_used(exchange, there):
                raise InternalAddressReached(
                    "the authorization server fetched a client's metadata from an internal address",
                    evidence=exchange,
                    expected="a refusal, and no connection",
                    got="a connection",
                    counterexample=f"client_id={client_id}",
                )
        there_is, _ = asked(server, probe, f"https://127.0.0.1:{watched.port}/document")
        there_is_not, _ = asked(server, probe, "https://127.0.0.1:9/document")
    if (there_is.status, there_is.text) != (there_is_not.status, there_is_not.text):
        raise ServerTellsWhatItFound(
            "the refusal tells an internal address that answers from one that does not",
            evidence=(there_is, there_is_not),
            expected="the same answer for both",
            got=f"{there_is.summary}, and {there_is_not.summary}",
        )


def _inside() -> Iterator[str]:
    """Ways to write this machine."""
    yield from ("127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::]")
    yield from ("127.1", "2130706433", "0x7f.1", "0", "LOCALHOST", "localhost.")
