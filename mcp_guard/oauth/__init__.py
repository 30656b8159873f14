"""The embedded OAuth 2.1 authorization server. Needs the extra `authserver`; its names are imported when first used."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mcp_guard.oauth.server import AuthorizationServer
    from mcp_guard.oauth.settings import Lifetimes, Limits, ProofTerms, Rate
    from mcp_guard.oauth.signing import SigningKeys
    from mcp_guard.oauth.users import StaticUsers, User, UserDirectory, hash_password

__all__ = [
    "AuthorizationServer",
    "Lifetimes",
    "Limits",
    "ProofTerms",
    "Rate",
    "SigningKeys",
    "StaticUsers",
    "User",
    "UserDirectory",
    "hash_password",
]

_HOMES = {
    "AuthorizationServer": "server",
    "Lifetimes": "settings",
    "Limits": "settings",
    "ProofTerms": "settings",
    "Rate": "settings",
    "SigningKeys": "signing",
    "StaticUsers": "users",
    "User": "users",
    "UserDirectory": "users",
    "hash_password": "users",
}


def __getattr__(name: str) -> object:
    """A public name, from its module."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
