"""mcp-guard: layers that make an MCP server safe to put on the internet."""

from mcp_guard.auditlog import AuditLog, FileSink
from mcp_guard.check import Check, Layer, StatefulCheck
from mcp_guard.facts import ClientAddress, Principal, RequestId, Resource, fact
from mcp_guard.failures import ConfigurationError, Unavailable
from mcp_guard.keysources import RemoteKeys, StaticKeys
from mcp_guard.layers.rate_limit import Limit
from mcp_guard.layers.token import TrustedIssuer
from mcp_guard.profiles import Limits, standard
from mcp_guard.rejections import Rejection
from mcp_guard.stack import Guard, guard
from mcp_guard.stores.memory import MemoryStore

__all__ = [
    "AuditLog",
    "Check",
    "ClientAddress",
    "ConfigurationError",
    "FileSink",
    "Guard",
    "Layer",
    "Limit",
    "Limits",
    "MemoryStore",
    "Principal",
    "Rejection",
    "RemoteKeys",
    "RequestId",
    "Resource",
    "StatefulCheck",
    "StaticKeys",
    "TrustedIssuer",
    "Unavailable",
    "fact",
    "guard",
    "standard",
]
