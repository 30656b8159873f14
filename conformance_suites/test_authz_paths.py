"""AUTHZ: other spellings of the path, and other kinds of connection."""

from __future__ import annotations

import base64
import secrets as randomness
from dataclasses import replace
from urllib.parse import urlsplit

from conformance_suites.calls import speaks_rpc
from pytest_mcp_conformance import Finding, NotApplicable, requirement
from pytest_mcp_conformance.exchange import Header, Request
from pytest_mcp_conformance.properties import Space
from pytest_mcp_conformance.strategies.paths import path_spelling_classics, path_spellings
from pytest_mcp_conformance.target import Target


class OtherSpellingServed(Finding):
    """The endpoint is served without credentials under another spelling of its path."""


class UpgradedWithoutCredentials(Finding):
    """A WebSocket handshake without credentials succeeds."""


@requirement("AUTHZ-023")
def test_no_spelling_of_the_path_gets_around_authorization(target: Target, space: Space) -> None:
    """RFC 3986 §6.2: what decides about the path and what serves it must read it alike."""
    target.require_protected()
    harmless = target.harmless()
    path = urlsplit(target.url).path

    def judge(spelling: str) -> None:
        exchange = target.send(replace(harmless, raw_target=spelling.encode("latin-1")))
        if exchange.succeeded and (speaks_rpc(exchange) or exchange.media_type == "text/event-stream"):
            raise OtherSpellingServed(
                "the endpoint is served without credentials under another spelling of its path",
                evidence=exchange,
                expected="401, 403 or 404",
                got=exchange.summary,
                counterexample=spelling,
            )

    if not path.strip("/"):
        raise NotApplicable("the endpoint is at the root, which has no other spelling")
    absolute = f"{target.origin}{path}"
    space.search(judge, path_spellings(path), classics=[absolute, *path_spelling_classics(path)], max_examples=3)
    _judge_upgrade(target)


def _judge_upgrade(target: Target) -> None:
    headers: tuple[Header, ...] = (
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", base64.b64encode(randomness.token_bytes(16)).decode()),
        ("Sec-WebSocket-Protocol", "mcp"),
    )
    exchange = target.send(Request("GET", target.url, headers))
    if exchange.status == 101:
        raise UpgradedWithoutCredentials(
            "a WebSocket handshake without credentials succeeds",
            evidence=exchange,
            expected="401, 403, 404 or 426",
            got=exchange.summary,
        )
