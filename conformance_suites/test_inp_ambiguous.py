"""INP-004: what one reader of a message takes for its content, and another for something else."""

from __future__ import annotations

import json

from conformance_suites.bodies import HandWriter
from conformance_suites.calls import Caller, did_it, harmless_tools
from pytest_mcp_conformance import Finding, Inconclusive, NotRun, requirement
from pytest_mcp_conformance.credentials import Credential
from pytest_mcp_conformance.declarations import Declarations
from pytest_mcp_conformance.eras import result_of
from pytest_mcp_conformance.exchange import Exchange
from pytest_mcp_conformance.mcp import Era
from pytest_mcp_conformance.target import Target


class ForbiddenToolRun(Finding):
    """A tool that the caller's token does not allow runs when the message names two."""


class AnotherMethodRun(Finding):
    """A message that names two methods is carried out as another than its headers name."""


def spellings(member: str, permitted: str, forbidden: str) -> list[tuple[str, str]]:
    """Texts that give a member twice, and how."""
    escaped = f"\\u{ord(member[0]):04x}{member[1:]}"
    other = member.capitalize()
    return [
        ("the permitted one first", f'"{member}": {permitted}, "{member}": {forbidden}'),
        ("the forbidden one first", f'"{member}": {forbidden}, "{member}": {permitted}'),
        ("the forbidden one last, its name escaped", f'"{member}": {permitted}, "{escaped}": {forbidden}'),
        ("the forbidden one first, its name escaped", f'"{escaped}": {forbidden}, "{member}": {permitted}'),
        ("the forbidden one last, its name in other case", f'"{member}": {permitted}, "{other}": {forbidden}'),
    ]


@requirement("INP-004")
def test_the_tool_that_was_judged_is_the_one_that_runs(
    target: Target, alice: Credential, declared: Declarations
) -> None:
    """RFC 8259 §4: names twice. Of the tools named one is harmless, the other is declared to need more scopes."""
    if not declared.scoped_tool:
        raise NotRun("no tool is declared that the token's scopes do not suffice for (scoped_tool)")
    caller = Caller(target, alice)
    harmless = harmless_tools(target, declared, alice)[0]
    if did_it(caller.send(caller.call(declared.scoped_tool))):
        raise Inconclusive("the tool that is declared to need more scopes runs with this token")
    writer = HandWriter(caller, "tools/call", {"name": harmless, "arguments": {}})
    expected = _said(writer.send(writer.with_body(writer.text)))
    if expected is None or expected != _said(writer.send(writer.with_body(writer.text))):
        raise Inconclusive("the harmless tool does not answer, or not twice the same")
    permitted, forbidden = json.dumps(harmless), json.dumps(declared.scoped_tool)
    plain = f'"name": {permitted}'
    bodies = [(how, writer.text.decode().replace(plain, text)) for how, text in spellings("name", permitted, forbidden)]
    inner = json.dumps(writer.payload["params"])
    whole = f'"params": {inner}'
    twice = spellings("params", inner, inner.replace(permitted, forbidden))[:2]
    bodies += [(f"{how}, each in params of its own", writer.text.decode().replace(whole, text)) for how, text in twice]
    for how, body in bodies:
        exchange = writer.send(writer.with_body(body.encode()))
        said = _said(exchange)
        if said is not None and said != expected:
            raise ForbiddenToolRun(
                "a tool that the caller's token does not allow runs when the message names two",
                evidence=exchange,
                expected="400, 403, or the harmless tool",
                got=exchange.summary,
                counterexample=f"name twice, {how}",
            )


def _said(exchange: Exchange) -> object:
    """What a tool answered; None when it was not carried out."""
    result = result_of(exchange) or {}
    return [result.get("content"), result.get("structuredContent")] if did_it(exchange) else None


@requirement("INP-004")
def test_the_method_of_the_headers_is_the_one_that_runs(target: Target) -> None:
    """MCP streamable HTTP, Server Validation: what is keyed on a header must not be got around."""
    target.require(Era.MODERN)
    writer = HandWriter(Caller(target, target.require_credential()))
    with target.controlled(target.require_credential()):
        for _, text in spellings("method", '"tools/list"', '"server/discover"'):
            body = writer.text.decode().replace('"method": "tools/list"', text)
            exchange = writer.send(writer.with_body(body.encode()))
            result = result_of(exchange)
            if result is not None and "tools" not in result:
                raise AnotherMethodRun(
                    "a message that names two methods is carried out as another than its headers name",
                    evidence=exchange,
                    expected="400, or the list of tools",
                    got=exchange.summary,
                    counterexample=f"method twice: {text}",
                )
