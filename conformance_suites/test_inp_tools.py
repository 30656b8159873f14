"""INP, tools: their arguments, their results, and what they make of texts that mean more elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from conformance_suites.bodies import is_unanswered
from conformance_suites.calls import Caller, did_it
from conformance_suites.doors import door
from conformance_suites.schemas import references, violations
from conformance_suites.tool_samples import (
    properties_of,
    reading_tools,
    required_of,
    sample_arguments,
    text_arguments,
)
from pytest_mcp_conformance import Advice, Finding, Inconclusive, NotApplicable, NotRun, requirement
from pytest_mcp_conformance.declarations import Declarations
from pytest_mcp_conformance.eras import result_of
from pytest_mcp_conformance.target import Target

MOST_TOOLS = 3
FACTORS = (1337, 7331)
PRODUCT = str(FACTORS[0] * FACTORS[1])
TERM = f"{FACTORS[0]}*{FACTORS[1]}"
PAYLOADS = (
    f"conformance {{{{{TERM}}}}} ${{{TERM}}} #{{{TERM}}} <%= {TERM} %>",
    f"conformance'; echo $(({TERM})); echo `expr {FACTORS[0]} \\* {FACTORS[1]}` #",
    f"conformance' UNION SELECT {TERM} -- ",
)
INVALID_PARAMS = -32602
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


class InvalidArgumentsRun(Finding):
    """A tool runs with arguments that its schema does not allow."""


class InvalidArgumentsUnanswered(Finding):
    """Arguments that a schema does not allow are answered with a server error, or not at all."""


class UnknownToolRun(Finding):
    """A call of a tool that does not exist succeeds."""


class UnknownToolAnsweredOddly(Advice):
    """A call of a tool that does not exist is refused, and not with -32602."""


class StructuredContentMissing(Finding):
    """A tool with an output schema answers no structured content."""


class StructuredContentWrong(Finding):
    """The structured content of a tool is not of its output schema."""


class SchemaElsewhere(Finding):
    """A schema refers to a document on the network."""


class ArgumentEvaluated(Finding):
    """An expression in an argument comes back evaluated."""


class InternalAddressFetched(Finding):
    """A URL of this machine in an argument is fetched."""


def broken_arguments(tool: dict[str, Any], good: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Arguments of a tool with one thing wrong, and what it is."""
    for name in required_of(tool)[:2]:
        yield f"{name} left out", {other: value for other, value in good.items() if other != name}
    for name, schema in list(properties_of(tool).items())[:2]:
        kind = schema.get("type")
        if kind in {"string", "number", "integer", "boolean"}:
            yield f"an object as {name}, a {kind}", {**good, name: {"conformance": 1}}
        if kind in {"number", "integer"}:
            yield f"words as {name}, a {kind}", {**good, name: "conformance"}


@requirement("INP-007")
def test_arguments_are_held_to_the_schema(target: Target, declared: Declarations) -> None:
    """MCP tools, Error Handling: an error of the tool or -32602. Calls tools that only read, and are served when called
    as their schema says.
    """
    credential = target.require_credential()
    caller = Caller(target, credential)
    judged = 0
    for tool in reading_tools(target, declared, credential):
        good = sample_arguments(tool)
        wanted = properties_of(tool) and good is not None and judged < MOST_TOOLS
        if not wanted or good is None or not did_it(caller.send(caller.call(tool["name"], good))):
            continue
        judged += 1
        for what, arguments in broken_arguments(tool, good):
            exchange = caller.send(caller.call(tool["name"], arguments))
            if is_unanswered(exchange):
                raise InvalidArgumentsUnanswered(
                    "arguments that a schema does not allow are answered with a server error, or not at all",
                    evidence=exchange,
                    expected=f"isError, or JSON-RPC error {INVALID_PARAMS}",
                    got=exchange.summary,
                    counterexample=f"{tool['name']} with {what}",
                )
            if did_it(exchange):
                raise InvalidArgumentsRun(
                    "a tool runs with arguments that its schema does not allow",
                    evidence=exchange,
                    expected=f"isError, or JSON-RPC error {INVALID_PARAMS}",
                    got=exchange.summary,
                    counterexample=f"{tool['name']} with {what}",
                )
    if not judged:
        raise NotRun("no tool with arguments is known to be harmless and works with arguments made from its schema")


@requirement("INP-007")
def test_unknown_tools_are_refused(target: Target) -> None:
    """MCP tools, Error Handling: a protocol error."""
    caller = Caller(target, target.require_credential())
    exchange = caller.send(caller.call("conformance_nothing"))
    if did_it(exchange):
        raise UnknownToolRun(
            "a call of a tool that does not exist succeeds",
            evidence=exchange,
            expected=f"JSON-RPC error {INVALID_PARAMS}",
            got=exchange.summary,
        )
    if result_of(exchange) is not None:
        raise UnknownToolAnsweredOddly(
            "a call of a tool that does not exist is refused, and not with -32602",
            evidence=exchange,
            expected=f"JSON-RPC error {INVALID_PARAMS}",
            got=exchange.summary,
        )


@requirement("INP-008")
def test_results_are_of_the_output_schema(target: Target, declared: Declarations) -> None:
    """MCP tools, Output Schema. Calls tools that only read."""
    credential = target.require_credential()
    caller = Caller(target, credential)
    described = [tool for tool in target.tools(credential) if isinstance(tool.get("outputSchema"), dict)]
    if not described:
        raise NotApplicable("no tool has an output schema")
    for tool in described:
        for reference in [*references(tool["outputSchema"]), *references(tool.get("inputSchema"))]:
            if urlsplit(reference).netloc:
                raise SchemaElsewhere(
                    "a schema refers to a document on the network",
                    evidence=target.probe.cited[-1],
                    expected="a reference within the schema",
                    got=f"$ref to {urlsplit(reference).netloc}",
                    counterexample=str(tool.get("name")),
                )
    judged = 0
    known = [tool["name"] for tool in reading_tools(target, declared, credential)]
    for tool in [one for one in described if one.get("name") in known][:MOST_TOOLS]:
        judged += _judge_result(caller, tool)
    if not judged:
        raise NotRun("no tool with an output schema is known to be harmless and works with made up arguments")


def _judge_result(caller: Caller, tool: dict[str, Any]) -> bool:
    """Whether the tool worked, and so was judged."""
    good = sample_arguments(tool)
    exchange = None if good is None else caller.send(caller.call(tool["name"], good))
    if exchange is None or not did_it(exchange):
        return False
    content = (result_of(exchange) or {}).get("structuredContent", ...)
    if content is ...:
        raise StructuredContentMissing(
            "a tool with an output schema answers no structured content",
            evidence=exchange,
            expected="structuredContent",
            got=exchange.summary,
            counterexample=str(tool["name"]),
        )
    wrong = next(violations(content, tool["outputSchema"]), "")
    if wrong:
        raise StructuredContentWrong(
            "the structured content of a tool is not of its output schema",
            evidence=exchange,
            expected="a value of the schema",
            got=wrong,
            counterexample=str(tool["name"]),
        )
    return True


@requirement("INP-010")
def test_arguments_are_only_data(target: Target, declared: Declarations) -> None:
    """MCP tools, Security Considerations. Puts expressions of templates, shells and SQL, all of them a product of two
    numbers, and a URL of this machine into texts of tools that only read.
    """
    credential = target.require_credential()
    caller = Caller(target, credential)
    places = list(_places(target, declared))
    if not places:
        raise NotRun("no tool with text for an argument is known to be harmless")
    for name, argument, good in places:
        for payload in PAYLOADS:
            exchange = caller.send(caller.call(name, {**good, argument: payload}))
            if PRODUCT in exchange.text:
                raise ArgumentEvaluated(
                    "an expression in an argument comes back evaluated",
                    evidence=exchange,
                    expected=f"no {PRODUCT} in the answer",
                    got=exchange.summary,
                    counterexample=f"{argument} of {name}: {payload}",
                )
    if urlsplit(target.url).hostname not in LOOPBACK:
        return
    with door() as opened:
        for name, argument, good in places:
            opened.forget()
            url = f"http://127.0.0.1:{opened.port}/conformance"
            exchange = caller.send(caller.call(name, {**good, argument: url}))
            if exchange.status == 0:
                raise Inconclusive(f"a call of {name} is not answered")
            if opened.was_tried():
                raise InternalAddressFetched(
                    "a URL of this machine in an argument is fetched",
                    evidence=exchange,
                    expected="no connection to it",
                    got="a connection",
                    counterexample=f"{argument} of {name}: a loopback URL",
                )


def _places(target: Target, declared: Declarations) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Tools, an argument that takes text, and other arguments to go with it; not of a tool that is there to fetch."""
    found = 0
    for tool in reading_tools(target, declared, target.require_credential()):
        good = sample_arguments(tool)
        for argument in text_arguments(tool)[:1]:
            if good is not None and tool["name"] != declared.outbound_tool and found < MOST_TOOLS:
                found += 1
                yield tool["name"], argument, good
