"""HTTP, the headers that mirror a message in the stateless era, and arrays of messages."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import replace

from conformance_suites.bodies import is_unanswered
from conformance_suites.calls import Caller, did_it, harmless_tools
from pytest_mcp_conformance import Advice, Finding, Inconclusive, NotApplicable, mcp, requirement
from pytest_mcp_conformance.declarations import Declarations
from pytest_mcp_conformance.eras import result_of
from pytest_mcp_conformance.exchange import Exchange, Request
from pytest_mcp_conformance.mcp import MODERN_REVISION, Era
from pytest_mcp_conformance.target import Target

HEADER_MISMATCH = -32020
VERSION = "MCP-Protocol-Version"
OLDER = "2025-11-25"
WITH_BATCHES = frozenset({"2024-11-05", "2025-03-26"})


class NewestAssumed(Finding):
    """A request without a version header is served as one of the newest revision."""


class VersionsDiffer(Finding):
    """A request is served whose header and body name different versions."""


class MethodsDiffer(Finding):
    """A request is served whose Mcp-Method is missing, doubtful, or not the method of the body."""


class NamesDiffer(Finding):
    """A call is served whose Mcp-Name is missing, doubtful, or not the name in the body."""


class GoodHeaderRefused(Finding):
    """A request whose headers agree with its body is refused."""


class BlanksRefused(Advice):
    """Blanks around the value of a header count as part of it (RFC 9110 §5.5)."""


class RefusedOddly(Advice):
    """A request whose headers disagree with its body is refused, and not with 400 and -32020."""


class BatchServed(Finding):
    """An array of messages is served in a revision that has none."""


class BatchUnanswered(Finding):
    """An array of messages is answered with a server error, or not at all."""


def mismatched(exchange: Exchange, finding: type[Finding], reason: str, what: str) -> None:
    """Raises: the finding, when the request was served; RefusedOddly, when it was refused in another way."""
    if result_of(exchange) is not None:
        raise finding(
            reason,
            evidence=exchange,
            expected=f"400, JSON-RPC error {HEADER_MISMATCH}",
            got=exchange.summary,
            counterexample=what,
        )
    if exchange.status != 400 or exchange.rpc_error not in {HEADER_MISMATCH, None}:
        raise RefusedOddly(
            "a request whose headers disagree with its body is refused, and not with 400 and -32020",
            evidence=exchange,
            expected=f"400, JSON-RPC error {HEADER_MISMATCH}",
            got=exchange.summary,
            counterexample=what,
        )


def _modern(target: Target) -> Request:
    target.require(Era.MODERN)
    return mcp.modern("tools/list").request(target.url)


@requirement("HTTP-006")
def test_no_version_is_not_the_newest(target: Target) -> None:
    """MCP streamable HTTP, Protocol Version Header: what says nothing is of an older revision, or refused."""
    request = _modern(target)
    credential = target.require_credential()
    with target.controlled(credential):
        exchange = target.send(request.without(VERSION), credential)
        result = result_of(exchange)
        if result is not None and "resultType" in result:
            raise NewestAssumed(
                "a request without a version header is served as one of the newest revision",
                evidence=exchange,
                expected=f"400, JSON-RPC error {HEADER_MISMATCH}",
                got=exchange.summary,
                counterexample=f"no {VERSION}",
            )


@requirement("HTTP-007")
def test_header_and_body_name_one_version(target: Target) -> None:
    """MCP basic, _meta: the version in the body is that of the header."""
    request = _modern(target)
    credential = target.require_credential()
    older = mcp.modern("tools/list", revision=OLDER).request(target.url)
    with target.controlled(credential):
        for what, one in (
            (f"{MODERN_REVISION} in the header, {OLDER} in the body", older.with_headers((VERSION, MODERN_REVISION))),
            (f"{OLDER} in the header, {MODERN_REVISION} in the body", request.with_headers((VERSION, OLDER))),
        ):
            exchange = target.send(one, credential)
            if result_of(exchange) is not None:
                raise VersionsDiffer(
                    "a request is served whose header and body name different versions",
                    evidence=exchange,
                    expected=f"400, JSON-RPC error {HEADER_MISMATCH}",
                    got=exchange.summary,
                    counterexample=what,
                )


@requirement("HTTP-008")
def test_mcp_method_is_the_method_of_the_body(target: Target) -> None:
    """SEP-2243: missing, another, in other case, and repeated."""
    request = _modern(target)
    credential = target.require_credential()
    with target.controlled(credential):
        for what, one in _spoilt(request, "Mcp-Method", "tools/list", "server/discover"):
            mismatched(
                target.send(one, credential),
                MethodsDiffer,
                "a request is served whose Mcp-Method is missing, doubtful, or not the method of the body",
                what,
            )
        _judge_good(target, request.with_headers(("MCP-METHOD", "tools/list")), "the name of the header in capitals")
        blank = target.send(request.with_headers(("Mcp-Method", "  tools/list  ")), credential)
        if result_of(blank) is None:
            raise BlanksRefused(
                "blanks around the value of a header count as part of it",
                evidence=blank,
                expected="a result",
                got=blank.summary,
                counterexample="Mcp-Method with blanks before and after its value",
            )


def _spoilt(request: Request, name: str, good: str, other: str) -> Iterator[tuple[str, Request]]:
    """The request with one header that is wrong, and what is wrong with it."""
    yield f"no {name}", request.without(name)
    yield f"{name}: {other}", request.with_headers((name, other))
    yield f"{name}: {good.upper()}", request.with_headers((name, good.upper()))
    yield f"{name}: {good}, then {other}", request.with_headers((name, good), (name, other))
    yield f"{name}: {other}, then {good}", request.with_headers((name, other), (name, good))


def _judge_good(target: Target, request: Request, what: str) -> None:
    exchange = target.send(request, target.require_credential())
    if result_of(exchange) is None:
        raise GoodHeaderRefused(
            "a request whose headers agree with its body is refused",
            evidence=exchange,
            expected="a result",
            got=exchange.summary,
            counterexample=what,
        )


def _call(target: Target, declared: Declarations) -> tuple[Request, str]:
    """A call of a harmless tool that works, and the tool's name."""
    target.require(Era.MODERN)
    credential = target.require_credential()
    name = harmless_tools(target, declared, credential)[0]
    request = Caller(target, credential).call(name)
    if not did_it(target.send(request, credential)):
        raise Inconclusive("a call of the harmless tool does not work")
    return request, name


@requirement("HTTP-009")
def test_mcp_name_is_the_name_in_the_body(target: Target, declared: Declarations) -> None:
    """SEP-2243: missing, another, in other case, and repeated."""
    request, name = _call(target, declared)
    for what, one in _spoilt(request, "Mcp-Name", name, f"{name}2"):
        mismatched(
            target.send(one, target.require_credential()),
            NamesDiffer,
            "a call is served whose Mcp-Name is missing, doubtful, or not the name in the body",
            what,
        )


@requirement("HTTP-011")
def test_encoded_names_are_decoded(target: Target, declared: Declarations) -> None:
    """MCP streamable HTTP, Value Encoding: `=?base64?…?=`, exactly so."""
    request, name = _call(target, declared)
    encoded = base64.b64encode(name.encode()).decode()
    other = base64.b64encode(f"{name}2".encode()).decode()
    _judge_good(target, request.with_headers(("Mcp-Name", f"=?base64?{encoded}?=")), "the name in base64")
    for what, value in (
        ("another name in base64", f"=?base64?{other}?="),
        ("a marker in other case", f"=?BASE64?{encoded}?="),
        ("no end of the marker", f"=?base64?{encoded}"),
        ("base64 with a character of no alphabet", f"=?base64?!{encoded}?="),
        ("base64 in base64", f"=?base64?{base64.b64encode(f'=?base64?{encoded}?='.encode()).decode()}?="),
    ):
        mismatched(
            target.send(request.with_headers(("Mcp-Name", value)), target.require_credential()),
            NamesDiffer,
            "a call is served whose Mcp-Name is missing, doubtful, or not the name in the body",
            what,
        )


@requirement("HTTP-021")
def test_arrays_are_refused(target: Target) -> None:
    """MCP 2025-06-18, changes: one message a request. What 2025-03-26 does with arrays is not judged here."""
    if target.revisions <= WITH_BATCHES:
        raise NotApplicable("the target speaks no revision without batches")
    credential = target.require_credential()
    request = Caller(target, credential).request("tools/list")
    message = json.loads(request.body or b"{}")
    with target.controlled(credential):
        for array in ([], [message], [message, {**message, "id": 2}], [[message]]):
            exchange = target.send(replace(request, body=json.dumps(array).encode()), credential)
            if is_unanswered(exchange):
                raise BatchUnanswered(
                    "an array of messages is answered with a server error, or not at all",
                    evidence=exchange,
                    expected="400",
                    got=exchange.summary,
                    counterexample=f"an array of {len(array)}",
                )
            if exchange.succeeded and b'"result"' in exchange.body:
                raise BatchServed(
                    "an array of messages is served in a revision that has none",
                    evidence=exchange,
                    expected="400",
                    got=exchange.summary,
                    counterexample=f"an array of {len(array)}",
                )
