"""Asking an issuer whether a token is active, and what it says (RFC 7662)."""

from mcp_guard.introspection.authentication import Anonymous, ClientAuthentication, ClientSecret, PrivateKeyJwt
from mcp_guard.introspection.client import Introspection

__all__ = ["Anonymous", "ClientAuthentication", "ClientSecret", "Introspection", "PrivateKeyJwt"]
