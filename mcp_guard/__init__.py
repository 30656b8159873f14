"""mcp-guard: layers that make an MCP server safe to put on the internet."""

from mcp_guard.affinity import Worker
from mcp_guard.auditlog import AuditLog, FileSink
from mcp_guard.check import Check, Layer, StatefulCheck
from mcp_guard.facts import ClientAddress, Principal, RequestId, Resource, ScopePolicy, fact
from mcp_guard.failures import ConfigurationError, Unavailable
from mcp_guard.introspection import ClientSecret, Introspection, PrivateKeyJwt
from mcp_guard.keyring import KeyRing
from mcp_guard.keysources import RemoteKeys, StaticKeys
from mcp_guard.layers.handles import Handle
from mcp_guard.layers.rate_limit import Limit, Shared, ToolLimit
from mcp_guard.profiles import Handling, Limits, Proofs, standard
from mcp_guard.rejections import Rejection
from mcp_guard.revocation import Revoker
from mcp_guard.sessions import SessionTerms
from mcp_guard.stack import Guard, guard
from mcp_guard.stores.memory import MemoryStore
from mcp_guard.tokens import IssuerPolicy, TrustedIssuer

__all__ = [
    "AuditLog",
    "Check",
    "ClientAddress",
    "ClientSecret",
    "ConfigurationError",
    "FileSink",
    "Guard",
    "Handle",
    "Handling",
    "Introspection",
    "IssuerPolicy",
    "KeyRing",
    "Layer",
    "Limit",
    "Limits",
    "MemoryStore",
    "Principal",
    "PrivateKeyJwt",
    "Proofs",
    "Rejection",
    "RemoteKeys",
    "RequestId",
    "Resource",
    "Revoker",
    "ScopePolicy",
    "SessionTerms",
    "Shared",
    "StatefulCheck",
    "StaticKeys",
    "ToolLimit",
    "TrustedIssuer",
    "Unavailable",
    "Worker",
    "fact",
    "guard",
    "standard",
]
