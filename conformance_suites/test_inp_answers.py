"""INP, what comes back: internals in errors, forged headers, and members of _meta that mean nothing."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from hypothesis import strategies as st

from conformance_suites.bodies import HandWriter, is_unanswered
from conformance_suites.calls import Caller
from pytest_mcp_conformance import Finding, requirement
from pytest_mcp_conformance.checks import last
from pytest_mcp_conformance.exchange import Exchange, Header
from pytest_mcp_conformance.probe import Probe
from pytest_mcp_conformance.properties import Space
from pytest_mcp_conformance.target import Target

INJECTED = "X-Conformance-Injected"
BREAKS = ("%0d%0a", "%0a", "%E5%98%8D%E5%98%8A", "\r", "\x00")
INTERNALS: Mapping[str, re.Pattern[str]] = {
    "a traceback": re.compile(r'Traceback \(most recent call last\)|File "[^"\n]+", line \d+|goroutine \d+ \['),
    "a stack frame": re.compile(
        r"\bat [\w.$<>]+ \((?:/|[A-Z]:\\|file:)[^)\n]*:\d+(?::\d+)?\)|java\.lang\.\w+Exception"
    ),
    "a source file": re.compile(
        r"/[\w.-]+/[\w./-]+\.(?:py|js|mjs|ts|rb|php|go|java|rs|cs)\b|site-packages|node_modules"
    ),
    "words of a database": re.compile(r"SQLSTATE|sqlite3\.\w+Error|psycopg2?\.|ORA-\d{5}|syntax error at or near"),
}
ODD_META: tuple[Mapping[str, Any], ...] = (
    {"traceparent": ""},
    {"traceparent": "00-zz"},
    {"traceparent": 7, "tracestate": [], "baggage": {}},
    {"baggage": "k=v," * 5000},
    {"progressToken": {}},
    {"progressToken": True},
    {"progressToken": "x" * 5000},
    {"io.modelcontextprotocol/conformance": None, "": 1, "/": 2, "example.org/é": "x"},
)


class InternalsShown(Finding):
    """An error shows how the server is made inside."""


class HeaderInjected(Finding):
    """Text of a request becomes a header of the answer."""


class OddMetaUnanswered(Finding):
    """A member of _meta that is odd is answered with a server error, or not at all."""


@requirement("INP-011")
@last
def test_errors_show_no_internals(target: Target, probe: Probe) -> None:
    """OWASP error handling: of every error of the run, and a few more that are asked for here."""
    caller = Caller(target, target.require_credential())
    writer = HandWriter(caller)
    for request in (
        writer.with_body(b'{"jsonrpc": '),
        writer.with_members(id={}),
        writer.with_members(params=[]),
        caller.request("conformance/nothing"),
        caller.call("conformance_nothing"),
        caller.request("tools/call", {"name": 7, "arguments": "x"}),
    ):
        caller.send(request)
    for exchange in probe.history:
        if exchange.status >= 400 or exchange.rpc_error is not None:
            _judge_words(exchange)


def _judge_words(exchange: Exchange) -> None:
    sent = (exchange.request.body or b"").decode("latin-1") + exchange.request.url
    for what, pattern in INTERNALS.items():
        found = pattern.search(exchange.text)
        if found is not None and found[0] not in sent and found[0] not in str(exchange.request.headers):
            raise InternalsShown(
                "an error shows how the server is made inside",
                evidence=exchange,
                expected="an error in words of the protocol",
                got=f"{exchange.summary}, with {what}",
            )


@requirement("INP-013")
def test_input_forges_no_headers(target: Target, space: Space) -> None:
    """RFC 9110 §5.5: line breaks, and what is decoded to some, in whatever may be repeated in the answer."""
    harmless = target.harmless()
    path = urlsplit(target.url).path or "/"

    def judge(case: tuple[str, str]) -> None:
        place, line_break = case
        text = f"conformance{line_break}{INJECTED}:%20yes" if "%" in line_break else f"x{line_break}{INJECTED}: yes"
        headers: dict[str, Header] = {
            "the token": ("Authorization", f"Bearer {text}"),
            "Mcp-Session-Id": ("Mcp-Session-Id", text),
            "Origin": ("Origin", f"{target.origin}{text}"),
            "traceparent": ("traceparent", text),
        }
        if place == "the query":
            request = replace(harmless, raw_target=f"{path}?conformance={text}".encode("latin-1"))
        elif place == "the path":
            request = replace(harmless, raw_target=f"{path}{text}".encode("latin-1"))
        else:
            request = harmless.with_headers(headers[place])
        exchange = target.send(request)
        if exchange.header(INJECTED) is not None:
            raise HeaderInjected(
                "text of a request becomes a header of the answer",
                evidence=exchange,
                expected=f"no {INJECTED}",
                got=exchange.summary,
                counterexample=f"{line_break!r} in {place}",
            )

    places = ("the token", "Mcp-Session-Id", "Origin", "traceparent")
    classics = [(place, "%0d%0a") for place in ("the query", "the path", *places)]
    everywhere = st.tuples(st.sampled_from(places), st.sampled_from(BREAKS))
    in_target = st.tuples(st.sampled_from(("the query", "the path")), st.sampled_from(BREAKS[:3]))
    space.search(judge, everywhere | in_target, classics=classics, max_examples=5)
    target.control(target.require_credential(), "after")


@requirement("INP-014")
def test_odd_members_of_meta_do_no_harm(target: Target, space: Space) -> None:
    """MCP basic, _meta: trace context, progress tokens and names that nobody knows."""
    caller = Caller(target, target.require_credential())

    def judge(odd: Mapping[str, Any]) -> None:
        exchange = caller.send(caller.request("tools/list", {"_meta": dict(odd)}))
        if is_unanswered(exchange):
            raise OddMetaUnanswered(
                "a member of _meta that is odd is answered with a server error, or not at all",
                evidence=exchange,
                expected="a result, or 400",
                got=exchange.summary,
                counterexample=f"_meta with {ascii(dict(odd))[:90]}",
            )

    values = st.none() | st.booleans() | st.integers() | st.text(max_size=20)
    names = st.sampled_from(("traceparent", "tracestate", "baggage", "progressToken", "conformance"))
    with target.controlled(target.require_credential()):
        space.search(judge, st.dictionaries(names, values, min_size=1), classics=ODD_META, max_examples=2)
