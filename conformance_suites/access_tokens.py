"""What an access token says about itself, where it is a JWT."""

from __future__ import annotations

from typing import Any

from pytest_mcp_conformance.failures import Inconclusive
from pytest_mcp_conformance.forge.jws import read_jws

HOUR_SECONDS = 3600


def claims_of(token: str) -> dict[str, Any] | None:
    """The claims of a JWT; None for an opaque token."""
    jws = read_jws(token)
    return None if jws is None else jws.claims


def audiences(token: str) -> list[str]:
    """The audiences of a JWT; empty when it names none.

    Raises:
        Inconclusive: the token is opaque.
    """
    claims = claims_of(token)
    if claims is None:
        raise Inconclusive("access tokens are opaque, so what they are for cannot be read")
    named = claims.get("aud")
    if isinstance(named, str):
        return [named]
    return [one for one in named if isinstance(one, str)] if isinstance(named, list) else []


def is_number(value: object) -> bool:
    """Whether a claim or member is a number (RFC 7519 §2), which true is not."""
    return isinstance(value, int | float) and not isinstance(value, bool)
