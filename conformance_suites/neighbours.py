"""Other resources of the target's authorization server, and tokens for them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from pytest_mcp_conformance import mcp
from pytest_mcp_conformance.bench import Bench
from pytest_mcp_conformance.credentials import Credential
from pytest_mcp_conformance.eras import result_of
from pytest_mcp_conformance.failures import Judgement
from pytest_mcp_conformance.mcp import Era
from pytest_mcp_conformance.streams import open_sse
from pytest_mcp_conformance.target import Target

MOST = 3


@dataclass(frozen=True, repr=False)
class Neighbour:
    """A resource beside the target, and a token of user A for it.

    `same_server`: it is the target's other transport, for which an operator may let the same tokens count.
    """

    resource: str
    token: str
    same_server: bool


def own_identifier(target: Target) -> str:
    """The resource the target publishes; its URL when it publishes none."""
    named = target.discovery.resource_document().members.get("resource")
    return named if isinstance(named, str) else target.url


def neighbour_tokens(bench: Bench) -> Iterator[Neighbour]:
    """A token for each other resource that the authorization server says it serves (RFC 9728 §4), as far as it grants
    one.
    """
    own = own_identifier(bench.target)
    try:
        server = bench.authorization_server()
        named = server.metadata.get("protected_resources")
        others = [one for one in named if isinstance(one, str) and one != own] if isinstance(named, list) else []
    except Judgement:
        return
    for resource in others[:MOST]:
        try:
            token = server.tokens(server.grant(resource=resource)).access_token
        except Judgement:
            continue
        yield Neighbour(resource, token, _is_other_transport(bench.target, resource, Credential("a", token)))


def _is_other_transport(target: Target, resource: str, credential: Credential) -> bool:
    """Whether the same server, by name and version, answers there by a transport that the target does not speak."""
    if urlsplit(resource)[:2] != urlsplit(target.url)[:2]:
        return False
    found = _server_info(target, resource, credential)
    return bool(found) and found == dict(target.spoken.server_info)


def _server_info(target: Target, resource: str, credential: Credential) -> Mapping[str, Any]:
    try:
        if target.era is Era.SSE:
            request = mcp.initialize().request(resource, credential.header)
            result: object = result_of(target.probe.send(request))
        else:
            with open_sse(target.probe, resource, credential) as session:
                result = (session.begin(credential) or {}).get("result")
    except Judgement:
        return {}
    info = result.get("serverInfo") if isinstance(result, dict) else None
    return info if isinstance(info, dict) else {}
