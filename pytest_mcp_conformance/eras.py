"""Which eras of MCP a target speaks: asked with a handshake of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pytest_mcp_conformance import mcp
from pytest_mcp_conformance.exchange import Exchange, Request
from pytest_mcp_conformance.mcp import Era

Send = Callable[[Request], Exchange]
Handshake = Callable[[str], Mapping[str, Any]]


@dataclass(frozen=True)
class Spoken:
    """What the target answered to a handshake of each era, and with whose credential it was asked."""

    eras: tuple[Era, ...]
    revisions: frozenset[str]
    refused: bool
    likely: Era
    server_info: Mapping[str, Any]


def harmless_request(url: str, era: Era) -> Request:
    """A request that changes nothing: `tools/list`, `initialize`, or the opening of a stream."""
    if era is Era.SSE:
        return Request("GET", url, (("Accept", "text/event-stream"),))
    return (mcp.modern("tools/list") if era is Era.MODERN else mcp.initialize()).request(url)


def find_eras(url: str, send: Send, on_stream: Handshake) -> Spoken:
    """What the target at `url` answers; the stream is tried only when nothing else was answered.

    `on_stream` takes a revision through a handshake over HTTP+SSE and hands the result back, empty when there is none:
    servers speak later revisions over that transport too.
    """
    eras: list[Era] = []
    modern = send(harmless_request(url, Era.MODERN))
    if modern.succeeded and result_of(modern) is not None:
        eras.append(Era.MODERN)
    revisions = {mcp.MODERN_REVISION} if eras else set[str]()
    info: dict[str, Any] = {}
    handshakes = [send(mcp.initialize(revision).request(url)) for revision in mcp.LEGACY_REVISIONS]
    for result in filter(None, map(result_of, handshakes)):
        if result.get("protocolVersion") in mcp.LEGACY_REVISIONS:
            revisions.add(str(result["protocolVersion"]))
            info = dict(result.get("serverInfo") or info)
    if revisions - {mcp.MODERN_REVISION}:
        eras.append(Era.LEGACY)
    if eras:
        return Spoken(tuple(eras), frozenset(revisions), False, eras[0], info)
    stream = send(harmless_request(url, Era.SSE))
    if stream.succeeded and stream.media_type == "text/event-stream":
        results = [on_stream(revision) for revision in mcp.LEGACY_REVISIONS]
        later = {str(result["protocolVersion"]) for result in results if "protocolVersion" in result}
        info = dict(results[-1].get("serverInfo") or info)
        return Spoken((Era.SSE,), frozenset({"2024-11-05", *later}), False, Era.SSE, info)
    posts_refused = any(answer.status in {401, 403} for answer in (modern, *handshakes))
    stream_refused = stream.status in {401, 403}
    likely = Era.SSE if stream_refused and not posts_refused else Era.MODERN
    return Spoken((), frozenset(), posts_refused or stream_refused, likely, info)


def result_of(exchange: Exchange) -> dict[str, Any] | None:
    """The JSON-RPC result of an answer; None when it holds none."""
    result = (exchange.message() or {}).get("result")
    return result if isinstance(result, dict) else None
