"""Revoking a token as the client it was issued to (RFC 7009 §2.1)."""

from __future__ import annotations

from pytest_mcp_conformance.exchange import Exchange, Request
from pytest_mcp_conformance.oauth import Tokens, encode_form
from pytest_mcp_conformance.target import Target

FORM = "application/x-www-form-urlencoded"


def revoke(target: Target, endpoint: str, tokens: Tokens) -> Exchange:
    """Revoke the access token at `endpoint`; any answer is handed back."""
    fields = {"token": tokens.access_token, "token_type_hint": "access_token"}
    body = encode_form({**fields, "client_id": tokens.registration.client_id}).encode()
    return target.probe.send(Request("POST", endpoint, (("Content-Type", FORM),), body))
