"""AUTHZ: nothing is served without credentials, whatever is asked and however it is spelled."""

from __future__ import annotations

import base64
import json
import secrets as randomness
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from hypothesis import strategies as st

from conformance_suites.calls import speaks_rpc
from pytest_mcp_conformance import Finding, mcp, requirement
from pytest_mcp_conformance.credentials import Credential
from pytest_mcp_conformance.exchange import Exchange, Header, Request
from pytest_mcp_conformance.mcp import Era, Message
from pytest_mcp_conformance.properties import Space
from pytest_mcp_conformance.strategies.authorization import authorization_classics, garbage_tokens
from pytest_mcp_conformance.target import Target

BAD_TOKEN = "conformance-check.never.issued"
REQUESTS = {
    Era.MODERN: (
        "server/discover",
        "tools/list",
        "tools/call",
        "prompts/list",
        "prompts/get",
        "resources/list",
        "resources/read",
        "resources/templates/list",
        "completion/complete",
        "subscriptions/listen",
        "ping",
    ),
    Era.LEGACY: (
        "initialize",
        "ping",
        "tools/list",
        "tools/call",
        "prompts/list",
        "resources/list",
        "logging/setLevel",
    ),
    Era.SSE: ("initialize", "tools/list", "tools/call"),
}
FIRST = ("initialize", "tools/list", "tools/call", "notifications/initialized")
NOTIFICATIONS = ("notifications/initialized", "notifications/cancelled", "notifications/progress")
PARAMS: Mapping[str, Mapping[str, Any]] = {
    "tools/call": {"name": "conformance-check", "arguments": {}},
    "prompts/get": {"name": "conformance-check"},
    "resources/read": {"uri": "conformance-check:nothing"},
    "logging/setLevel": {"level": "info"},
    "completion/complete": {
        "ref": {"type": "ref/prompt", "name": "conformance-check"},
        "argument": {"name": "a", "value": ""},
    },
}
OLDER_ADDRESSES = ("/sse", "/messages/", "/messages")
_WORDS = st.sampled_from(["jsonrpc", "2.0", "id", "method", "params", "initialize", ""])
SOME = 5
LARGEST_FIELD_BYTES = 8000  # what common servers take without complaint


class ServedWithoutCredentials(Finding):
    """A request without credentials is answered 2xx."""


class HandledWithoutCredentials(Finding):
    """A request without credentials is answered by the MCP server itself, with a JSON-RPC message."""


class StatelessDoorOpen(Finding):
    """A request of the stateless era without credentials is not answered 401."""


class OddCredentialsServed(Finding):
    """An Authorization field outside the grammar is honoured."""


class OddCredentialsCrash(Finding):
    """An Authorization field outside the grammar is answered 5xx, or not at all."""


class BodyJudgedFirst(Finding):
    """What is wrong with the body is told to somebody without credentials."""


@dataclass(frozen=True)
class Knock:
    """A request without credentials, and what it is, in words."""

    what: str
    request: Request


def controlled(target: Target, credential: Credential | None) -> AbstractContextManager[Exchange | None]:
    """The usual controls; none in a run without a credential, where the refusals are all there is."""
    return nullcontext() if credential is None else target.controlled(credential)


def write(era: Era, method: str, request_id: int | None = 1) -> Message:
    """A message of an era, with the parameters its method cannot do without."""
    params = PARAMS.get(method)
    if era is Era.MODERN:
        return mcp.modern(method, params, request_id=request_id)
    if method == "initialize":
        return mcp.initialize()
    return (mcp.legacy if era is Era.LEGACY else mcp.sse)(method, params, request_id=request_id)


def knocks(target: Target) -> Iterator[Knock]:
    """Verbs crossed with JSON-RPC methods, as requests and notifications, under the headers of each era."""
    for era, methods in REQUESTS.items():
        for method in methods:
            yield Knock(f"POST {method} of the {era} era", write(era, method).request(target.url))
        for method in NOTIFICATIONS:
            yield Knock(f"POST {method} of the {era} era", write(era, method, None).request(target.url))


def other_verbs(target: Target) -> Iterator[Knock]:
    """GET and DELETE, and the addresses where HTTP+SSE usually lives."""
    stream: tuple[Header, ...] = (("Accept", "text/event-stream"),)
    for version in (mcp.MODERN_REVISION, mcp.LEGACY_REVISIONS[-1]):
        headers = (*stream, ("MCP-Protocol-Version", version))
        yield Knock(f"GET with the version {version}", Request("GET", target.url, headers))
    yield Knock("DELETE", Request("DELETE", target.url))
    for path in OLDER_ADDRESSES:
        url = f"{target.origin}{path}"
        if path == "/sse":
            yield Knock(f"GET {path}", Request("GET", url, stream))
        else:
            yield Knock(f"POST {path}", mcp.sse("ping").request(f"{url}?session_id={randomness.token_hex(16)}"))


@requirement("AUTHZ-001")
def test_nothing_is_served_without_credentials(target: Target, space: Space) -> None:
    """MCP authorization, Error Handling: 401 when authorization is required."""
    if not any(document.published for document in target.discovery.resource_documents()):
        target.require_protected()  # and whoever publishes resource metadata says that authorization is required

    def judge(knock: Knock) -> None:
        exchange = target.send(knock.request)
        elsewhere = urlsplit(knock.request.url).path in OLDER_ADDRESSES and knock.request.url != target.url
        spoken = speaks_rpc(exchange) or exchange.media_type == "text/event-stream"
        if exchange.succeeded and (spoken or not elsewhere):
            raise ServedWithoutCredentials(
                f"{knock.what} is answered to somebody without credentials",
                evidence=exchange,
                expected="401, or 405 where the verb does not exist",
                got=exchange.summary,
                counterexample=knock.what,
            )
        if speaks_rpc(exchange) and exchange.status in {400, 404, 422}:
            raise HandledWithoutCredentials(
                f"{knock.what} reaches the MCP server although it has no credentials",
                evidence=exchange,
                expected="401",
                got=exchange.summary,
                counterexample=knock.what,
            )

    every = list(knocks(target))
    first = [knock for knock in every if any(f" {name} " in knock.what for name in FIRST)]
    others = st.sampled_from([knock for knock in every if knock not in first])
    space.search(judge, others, classics=[*other_verbs(target), *first], max_examples=4)


@requirement("AUTHZ-021")
def test_the_stateless_era_has_no_open_door(target: Target) -> None:
    """SEP-2575: no handshake comes first, so every method is guarded by itself."""
    target.require_protected()
    for method in ("server/discover", "subscriptions/listen", "ping", "tasks/get", "conformance/unknown"):
        exchange = target.send(mcp.modern(method, {"taskId": "conformance-check"} if method == "tasks/get" else None))
        if exchange.status not in {401, 403}:
            raise StatelessDoorOpen(
                f"{method} is not refused to somebody without credentials",
                evidence=exchange,
                expected="401",
                got=exchange.summary,
                counterexample=method,
            )


def odd_credentials(token: str) -> list[tuple[str, str | bytes]]:
    """Authorization values that no grammar of a known scheme produces, and values of other schemes."""
    return [
        ("nothing", ""),
        ("a scheme without a token", "Bearer"),
        ("a scheme and a space", "Bearer "),
        ("a tab", f"Bearer\t{token}"),
        ("dots", f"Bearer {'.' * 200}"),
        ("64 KiB", f"Bearer {'A' * 65536}"),
        ("octets outside ASCII", b"Bearer \xc3\xa9\xff\xfe"),
        ("a foreign scheme", "Negotiate YIIZ"),
        ("Basic without a colon", f"Basic {base64.b64encode(b'nocolon').decode()}"),
        ("Basic with the token as password", f"Basic {base64.b64encode(f'token:{token}'.encode()).decode()}"),
        *authorization_classics(token),
    ]


@requirement("AUTHZ-010")
def test_a_garbled_authorization_field_is_refused_cleanly(target: Target, space: Space) -> None:
    """RFC 6750 §3.1: 400 or 401 and a challenge; never a server error, and never success."""
    target.require_protected()
    credential = target.credential
    token = BAD_TOKEN if credential is None else credential.token

    def judge(value: tuple[str, str | bytes]) -> None:
        what, field = value
        seen = target.present(field)
        if seen.authenticated or (credential is None and seen.exchange.succeeded):
            raise OddCredentialsServed(
                "an Authorization field that is no bearer credential is honoured",
                evidence=seen.exchange,
                expected="400 or 401",
                got=seen.exchange.summary,
                counterexample=what,
            )
        unanswered = seen.exchange.status == 0 and len(field) < LARGEST_FIELD_BYTES and b"\x00" not in _octets(field)
        if seen.exchange.status >= 500 or unanswered:
            raise OddCredentialsCrash(
                "an Authorization field that is no bearer credential brings the server down",
                evidence=seen.exchange,
                expected="400 or 401",
                got=seen.exchange.summary,
                counterexample=what,
            )

    drawn = garbage_tokens().map(lambda text: (f"Bearer {text}", f"Bearer {text}"))
    with controlled(target, credential):
        space.search(judge, drawn, classics=odd_credentials(token), max_examples=2)


def _octets(field: str | bytes) -> bytes:
    return field if isinstance(field, bytes) else field.encode()


def broken_bodies(request: Request) -> list[tuple[str, bytes]]:
    """Bodies with one thing wrong each, built on a good one."""
    good = json.loads(request.body or b"{}")
    return [
        ("malformed JSON", b'{"jsonrpc": "2.0", '),
        ("no body", b""),
        ("an array", json.dumps([good, good]).encode()),
        ("no JSON-RPC", b'{"hello": "world"}'),
        ("an unknown method", json.dumps({**good, "method": "conformance/unknown"}).encode()),
        ("a known method without its parameters", json.dumps({**good, "method": "tools/call", "params": {}}).encode()),
        ("a megabyte of it", json.dumps({**good, "padding": "x" * (1 << 20)}).encode()),
        ("deep nesting", b"[" * 5000 + b"]" * 5000),
        ("not UTF-8", b'{"jsonrpc": "2.0", "method": "\xff"}'),
    ]


@requirement("AUTHZ-014")
def test_the_token_is_judged_before_the_body(target: Target, space: Space) -> None:
    """MCP authorization: what is wrong with a request's content is nobody's business who may not send it."""
    target.require_protected()
    good = target.harmless(Era.MODERN if target.era is Era.SSE else target.era)
    texts = st.recursive(st.none() | st.booleans() | st.integers() | _WORDS, _deeper, max_leaves=6)
    drawn = texts.map(lambda value: (f"the JSON text {json.dumps(value)}", json.dumps(value).encode()))

    def judge(broken: tuple[str, bytes], who: str = "no", *extra: Header) -> None:
        what, body = broken
        exchange = target.send(replace(good, body=body), None, *extra)
        told = speaks_rpc(exchange) and exchange.status not in {401, 403, 413, 429}
        if told or exchange.succeeded or exchange.status in {400, 404, 422} or exchange.status >= 500:
            raise BodyJudgedFirst(
                "a body is read, and its faults are told, before the token is judged",
                evidence=exchange,
                expected="401, or a refusal that needs no parsing (403, 413, 415)",
                got=exchange.summary,
                counterexample=f"{what}, with {who} token",
            )

    space.search(judge, drawn, classics=broken_bodies(good), max_examples=2)
    for broken in broken_bodies(good)[:SOME]:
        judge(broken, "a bad", ("Authorization", f"Bearer {BAD_TOKEN}"))


def _deeper(children: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    return st.lists(children, max_size=3) | st.dictionaries(_WORDS, children, max_size=3)
