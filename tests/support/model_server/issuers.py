"""Whether iss names the trusted issuer: exactly (RFC 9068 §4), unless a fault says otherwise."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlsplit


def issuer_matches(has: Callable[[str], bool], claim: object, issuer: str) -> bool:
    if has("issuer_ignored") or claim == issuer:
        return True
    if not isinstance(claim, str):
        return False
    if has("issuer_prefix") and claim.startswith(issuer):
        return True
    if has("issuer_slash_ignored") and claim.rstrip("/") == issuer:
        return True
    if has("issuer_any_case") and claim.lower() == issuer.lower():
        return True
    return has("issuer_port_ignored") and _without_port(claim) == _without_port(issuer)


def _without_port(text: str) -> tuple[str, str | None, str]:
    try:
        parts = urlsplit(text)
        return (parts.scheme, parts.hostname, parts.path)
    except ValueError:
        return ("", None, text)
