"""Certify a deployed MCP server: `pytest --mcp-target=URL`.

What a suite author imports. A check is a synchronous pytest function marked with `requirement`; it passes by returning
and concludes anything else by raising one of the exceptions below.
"""

from pytest_mcp_conformance.checks import requirement
from pytest_mcp_conformance.failures import Advice, Finding, Inconclusive, NotApplicable, NotRun

__all__ = ["Advice", "Finding", "Inconclusive", "NotApplicable", "NotRun", "requirement"]
