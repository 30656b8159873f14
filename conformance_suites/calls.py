"""Calls to the MCP server as one user, in the era it speaks over Streamable HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from conformance_suites.sessions import open_session
from pytest_mcp_conformance import NotApplicable, NotRun, mcp
from pytest_mcp_conformance.credentials import Credential
from pytest_mcp_conformance.declarations import Declarations
from pytest_mcp_conformance.eras import result_of
from pytest_mcp_conformance.exchange import Exchange, Request
from pytest_mcp_conformance.mcp import Era, Message
from pytest_mcp_conformance.target import Target


class Caller:
    """One user who calls the server over Streamable HTTP."""

    def __init__(self, target: Target, credential: Credential | None) -> None:
        """Raises: NotRun when the target speaks HTTP+SSE alone; Inconclusive when no session could be opened."""
        if target.era is Era.SSE:
            raise NotRun("this check calls over Streamable HTTP, which the target does not speak")
        self._target = target
        self.credential = credential
        self._session = ""
        if target.era is Era.LEGACY:
            try:
                self._session = open_session(target, credential)
            except NotApplicable:
                self._session = ""

    def message(self, method: str, params: Mapping[str, Any] | None = None) -> Message:
        """The message in the era the target speaks."""
        if self._target.era is Era.MODERN:
            return mcp.modern(method, params)
        return mcp.legacy(method, params, session=self._session)

    def request(self, method: str, params: Mapping[str, Any] | None = None) -> Request:
        """The request, without a credential."""
        return self.message(method, params).request(self._target.url)

    def call(self, tool: str, arguments: Mapping[str, Any] | None = None) -> Request:
        """The request that calls a tool, without a credential."""
        return self.request("tools/call", {"name": tool, "arguments": dict(arguments or {})})

    def send(self, request: Request) -> Exchange:
        """Send a request with the caller's credential."""
        return self._target.send(request, self.credential)

    def listed(self, method: str, kind: str, naming: str) -> frozenset[str] | None:
        """The names a list method answers (`tools/list`, `tools`, `name`); None when it is refused or unknown."""
        return names_in(self.send(self.request(method)), kind, naming)


def names_in(exchange: Exchange, kind: str, naming: str) -> frozenset[str] | None:
    """The names in the answer to a list method; None when it holds no list."""
    entries = (result_of(exchange) or {}).get(kind)
    if not isinstance(entries, list):
        return None
    return frozenset(str(entry[naming]) for entry in entries if isinstance(entry, dict) and naming in entry)


def speaks_rpc(exchange: Exchange) -> bool:
    """Whether the answer holds a JSON-RPC result or error."""
    return exchange.rpc_error is not None or result_of(exchange) is not None


def did_it(exchange: Exchange) -> bool:
    """Whether a call was carried out: a result that is no error."""
    result = result_of(exchange)
    return exchange.succeeded and result is not None and result.get("isError") is not True


def harmless_tools(target: Target, declared: Declarations, credential: Credential | None) -> list[str]:
    """Tools that may be called without arguments: those declared so, and those that say they only read.

    Raises:
        NotRun: there is none.
    """
    found = [tool for tool in target.tools(credential) if isinstance(tool.get("name"), str)]
    names = [tool["name"] for tool in found if tool["name"] in declared.harmless_tools or _only_reads(tool)]
    if not names:
        raise NotRun("no tool is known to be harmless: none is declared so, and none without arguments only reads")
    return names


def _only_reads(tool: Mapping[str, Any]) -> bool:
    annotations, schema = tool.get("annotations"), tool.get("inputSchema")
    reads = isinstance(annotations, dict) and annotations.get("readOnlyHint") is True
    return reads and not (isinstance(schema, dict) and schema.get("required"))
