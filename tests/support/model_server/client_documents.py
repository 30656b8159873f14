"""Client ID metadata documents: a client whose id is the https URL of its own metadata."""

from __future__ import annotations

import http.client
import ipaddress
import re
import socket
import ssl
from collections.abc import Callable
from urllib.parse import SplitResult, urlsplit

import anyio

from tests.support.model_server.keys import JSON
from tests.support.model_server.strict import strict_json

FETCH_SECONDS = 3.0
DOCUMENT_BYTES = 5120
SECRET_MEMBERS = {"client_secret", "client_secret_expires_at"}


class Unusable(ValueError):
    """The URL may not be fetched, or what is there describes no client."""


async def client_document(client_id: str, has: Callable[[str], bool]) -> JSON:
    """The document behind a client id.

    It is fetched from a public address only, which is resolved once and then connected to; redirects are not followed.

    Raises:
        Unusable: for any reason at all.
    """
    if _excused(client_id, has):
        return {"client_id": client_id, "client_name": "odd", "redirect_uris": ["https://client.example/callback"]}
    parts = urlsplit(client_id) if client_id.startswith("http://") else _checked(client_id)
    try:
        body = await anyio.to_thread.run_sync(_fetch, parts, has)
        document = strict_json(body)
    except ConnectionRefusedError as error:
        raise Unusable("nobody answers there") from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise Unusable("the document cannot be read") from error
    if not isinstance(document, dict) or document.get("client_id") != client_id or document.keys() & SECRET_MEMBERS:
        raise Unusable("the document describes no client of this id")
    if document.get("token_endpoint_auth_method", "none") != "none":
        raise Unusable("the document asks for an authentication method that it cannot have")
    return document


def _checked(client_id: str) -> SplitResult:
    try:
        parts = urlsplit(client_id)
        _ = parts.port
    except ValueError as error:
        raise Unusable("the client id is no URL") from error
    plain = re.fullmatch(r"[!-~]{1,500}", client_id) and "#" not in client_id and "@" not in parts.netloc
    if parts.scheme != "https" or not parts.hostname or not plain or len(parts.path) < 2:
        raise Unusable("the client id is no https URL with a path")
    if re.search(r"/\.{1,2}(/|$)", parts.path):
        raise Unusable("the client id has dot segments")
    return parts


def _excused(client_id: str, has: Callable[[str], bool]) -> bool:
    """Whether a fault takes an odd id for one whose document is known."""
    parts = urlsplit(client_id)
    return (
        (has("documents_without_path") and parts.scheme == "https" and parts.path == "")
        or (has("documents_with_dots") and re.search(r"/\.{1,2}/", parts.path) is not None)
        or (has("documents_with_fragments") and "#" in client_id)
        or (has("documents_with_users") and "@" in parts.netloc)
    )


def _reachable(host: str, addresses: set[str], has: Callable[[str], bool]) -> bool:
    """Whether all addresses are public, or a fault does not look."""
    return (
        all(ipaddress.ip_address(address).is_global for address in addresses)
        or has("documents_from_anywhere")
        or has("documents_over_http")
        or has("fetch_errors_told")
        or (has("documents_from_localhost") and host == "localhost")
        or (has("documents_from_mapped_addresses") and host.startswith("::ffff:"))
        or (has("documents_from_short_addresses") and host == "127.1")
    )


def _fetch(parts: SplitResult, has: Callable[[str], bool]) -> bytes:
    host, port = parts.hostname or "", parts.port or 443
    addresses = {str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)}
    if not _reachable(host, addresses, has):
        raise Unusable("the host is not public")
    connection = http.client.HTTPSConnection(host, port, timeout=FETCH_SECONDS)
    plain = socket.create_connection((min(map(str, addresses)), port), FETCH_SECONDS)
    connection.sock = ssl.create_default_context().wrap_socket(plain, server_hostname=host)
    try:
        connection.request("GET", parts.path + (f"?{parts.query}" if parts.query else ""))
        answer = connection.getresponse()
        body = answer.read(DOCUMENT_BYTES + 1)
    finally:
        connection.close()
    if answer.status != 200 or len(body) > DOCUMENT_BYTES:
        raise Unusable("the answer is no document")
    return body
