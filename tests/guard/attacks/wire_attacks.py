"""Area mcp-wire: fields that contradict the body, revisions that nobody serves, and scopes of single tools."""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from mcp_guard.protocol.mcp import REVISIONS
from tests.guard.attacks.corpus import Shot, attack
from tests.guard.attacks.deployment import MODERN, Deployment
from tests.guard.attacks.http_attacks import edited
from tests.guard.attacks.raw import Observation, Request

MISMATCH, UNSUPPORTED = -32020, -32022
WHOAMI = {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": "whoami", "arguments": {}}}
ADD = {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": "add", "arguments": {"a": 1, "b": 2}}}
UNKNOWN = "0123456789abcdef0123456789abcdef"


def code(*codes: int) -> Callable[[Observation], None]:
    """A check that the answer is a JSON-RPC error with one of the codes, and with the id of the request."""

    def check(seen: Observation) -> None:
        answer = seen.json()
        assert answer["error"]["code"] in codes, answer
        assert answer["id"] == 7

    return check


def with_field(request: Request, name: bytes, value: bytes | None) -> Request:
    """The request with another value of a field, or without it."""
    return edited(request, name, () if value is None else ((name, value),))


def mismatch(name: str, request: Request) -> Shot:
    return Shot(name, request, (400,), check=code(MISMATCH))


def initialize(version: str) -> dict[str, Any]:
    params = {"protocolVersion": version, "capabilities": {}, "clientInfo": {"name": "attack", "version": "1"}}
    return {"jsonrpc": "2.0", "id": 7, "method": "initialize", "params": params}


@attack("wire-01")
def another_method_in_the_field(live: Deployment) -> Iterator[Shot]:
    call = live.call(live.token())
    for method in (b"tools/list", b"ping", b"initialize", b"notifications/initialized"):
        yield mismatch(method.decode(), with_field(call, b"Mcp-Method", method))
    yield mismatch("the other way", with_field(live.call(live.token(), "tools/list"), b"Mcp-Method", b"tools/call"))


@attack("wire-02")
def another_name_in_the_field(live: Deployment) -> Iterator[Shot]:
    token = live.token()
    dear: Mapping[str, Any] = {"name": "add", "arguments": {"a": 1, "b": 2}}
    yield mismatch("tool", with_field(live.call(token, params=dear), b"Mcp-Name", b"whoami"))
    for name in (b"=?base64?d2hvYW1p?=", b"=?base64?YWRk", b"=?base64?YWRk?= ?=", b"add, whoami", b"ADD"):
        yield mismatch(repr(name), with_field(live.call(token, params=dear), b"Mcp-Name", name))
    read = live.call(token, "resources/read", {"uri": "file:///etc/passwd"}, headers=((b"Mcp-Name", b"file:///ok"),))
    yield mismatch("resource", read)
    prompt = live.call(token, "prompts/get", {"name": "admin"})
    yield mismatch("prompt", with_field(prompt, b"Mcp-Name", b"safe"))


@attack("wire-03")
def fields_that_are_missing_or_almost_right(live: Deployment) -> Iterator[Shot]:
    call = live.call(live.token())
    for field, odd in (
        (b"Mcp-Method", (b"Tools/Call", b"TOOLS/CALL", b"tools/call\xa0", b"tools/call;x", b'"tools/call"')),
        (b"Mcp-Name", (b"Whoami", b"whoami\xa0", b"whoami;x", b'"whoami"', b"%77hoami")),
    ):
        yield mismatch(f"{field.decode()} missing", with_field(call, field, None))
        yield mismatch(f"{field.decode()} empty", with_field(call, field, b""))
        for value in odd:
            yield mismatch(f"{field.decode()} {value!r}", with_field(call, field, value))
        right = dict(call.headers)[field]
        twice = Request(call.method, call.target, (*call.headers, (field, right)), call.body)
        yield Shot(f"{field.decode()} twice", twice, (400,))


@attack("wire-05")
def fields_that_an_older_revision_does_not_check(live: Deployment) -> Iterator[Shot]:
    token = live.token()
    session = live.open_session(token)
    lies = ((b"Mcp-Method", b"tools/list"), (b"Mcp-Name", b"whoami"))
    declared: tuple[str | None, ...] = ("2025-11-25", "2025-06-18", None)
    for version in declared:
        request = live.legacy(token, ADD, session=session)
        request = edited(request, b"MCP-Protocol-Version", lies)
        if version is not None:
            request = with_field(request, b"MCP-Protocol-Version", version.encode())
        yield Shot(f"{version}", request, (403,))
    harmless = edited(live.legacy(token, WHOAMI, session=session), add=((b"Mcp-Method", b"tools/list"),))
    yield Shot("decided from the body", harmless, (200,), reaches_app=True)


@attack("wire-06")
def revisions_that_are_none(live: Deployment) -> Iterator[Shot]:
    call = live.call(live.token())

    def lists_what_is_served(seen: Observation) -> None:
        code(UNSUPPORTED)(seen)
        assert seen.json()["error"]["data"]["supported"] == list(REVISIONS)

    for odd in ("9999-01-01", "2026-07-28, 2025-11-25", "2026-07-28;x", "2026-7-28", "20260728", "latest", "1.0"):
        unserved = with_field(call, b"MCP-Protocol-Version", odd.encode())
        yield Shot(odd, unserved, (400,), check=lists_what_is_served)
    older: tuple[str | None, ...] = ("2025-11-25", "2024-11-05", None)
    for version in older:
        other = with_field(call, b"MCP-Protocol-Version", None if version is None else version.encode())
        yield mismatch(f"{version} over a body of {MODERN}", other)
    bare = Request(call.method, call.target, call.headers, json.dumps(WHOAMI).encode())
    yield mismatch("a body without a revision", bare)
    twice = Request(call.method, call.target, (*call.headers, (b"MCP-Protocol-Version", b"2025-11-25")), call.body)
    yield Shot("twice", twice, (400,))


@attack("wire-09")
def a_tool_that_needs_another_scope(live: Deployment) -> Iterator[Shot]:
    token = live.token()

    def one_step_up(seen: Observation) -> None:
        challenges = seen.values("www-authenticate")
        assert len(challenges) == 1
        assert 'error="insufficient_scope"' in challenges[0]
        scope = challenges[0].partition('scope="')[2].partition('"')[0]
        assert set(scope.split()) == {"mcp:tools", "mcp:admin"}
        assert f'resource_metadata="{live.origin}/.well-known/oauth-protected-resource/mcp"' in challenges[0]

    dear: Mapping[str, Any] = {"name": "add", "arguments": {"a": 1, "b": 2}}
    yield Shot("modern", live.call(token, params=dear), (403,), check=one_step_up)
    session = live.open_session(token)
    yield Shot("legacy", live.legacy(token, ADD, session=session), (403,), check=one_step_up)
    batch = live.legacy(token, [WHOAMI, ADD], session=session, version="2025-03-26")
    yield Shot("in a batch", batch, (403,), check=one_step_up)
    granted = live.token(scope="mcp:tools mcp:admin")
    yield Shot("with the scope", live.call(granted, params=dear), (200,), reaches_app=True)


@attack("wire-10")
def an_older_era_sheds_no_check(live: Deployment) -> Iterator[Shot]:
    alice, bob = live.token(), live.token("bob")
    session = live.open_session(alice)
    poor = live.token(scope="other")
    evil = ((b"Origin", b"https://evil.example"),)
    for version in ("2024-11-05", "2025-03-26", None):

        def declared(request: Request, version: str | None = version) -> Request:
            return with_field(request, b"MCP-Protocol-Version", None if version is None else version.encode())

        yield Shot(f"{version} no token", declared(live.legacy(None, WHOAMI, session=session)), (401,))
        yield Shot(f"{version} scope", declared(live.legacy(poor, WHOAMI, session=session)), (403,))
        yield Shot(f"{version} tool", declared(live.legacy(alice, ADD, session=session)), (403,))
        yield Shot(f"{version} origin", declared(edited(live.legacy(alice, WHOAMI, session=session), add=evil)), (403,))
        yield Shot(f"{version} stolen", declared(live.legacy(bob, WHOAMI, session=session)), (404,))
        yield Shot(f"{version} unknown", declared(live.legacy(alice, WHOAMI, session=UNKNOWN)), (404,))

    def is_answered_with_one_that_is_served(seen: Observation) -> None:
        assert any(revision.encode() in seen.body for revision in REVISIONS)
        assert b"1999-01-01" not in seen.body
        live.secrets.add(seen.value("mcp-session-id"))

    unserved = live.legacy(alice, initialize("1999-01-01"), version="1999-01-01")
    yield Shot("an era that is none", unserved, (400,), check=code(UNSUPPORTED))
    # In the body it is an offer, which the server answers with a revision of its own (2025-11-25 §Version Negotiation).
    offer = live.legacy(alice, initialize("1999-01-01"))
    yield Shot("an offer", offer, (200,), reaches_app=True, check=is_answered_with_one_that_is_served)
