"""The reference of tokens and keys names every rule, bound and setting there is."""

import inspect
from dataclasses import fields
from pathlib import Path

import pytest

from mcp_guard.keysources import Freshness, RemoteKeys
from mcp_guard.protocol import jose, jwk, jwt, strict_json
from mcp_guard.protocol.jwt import Fault
from mcp_guard.tokens import TrustedIssuer

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "tokens.md").read_text("utf-8")

SETTINGS = [
    *(field.name for field in fields(TrustedIssuer)),
    *(f"freshness.{field.name}" for field in fields(Freshness)),
    *(set(inspect.signature(RemoteKeys).parameters) - {"issuer", "jwks_url", "clock", "freshness"}),
]
BOUNDS = [
    jose.MAX_TOKEN_BYTES,
    jose.MAX_KID_CHARACTERS,
    jwk.MIN_RSA_BITS,
    jwk.MAX_RSA_BITS,
    jwk.MAX_KEYS,
    jwt.MAX_SUBJECT_CHARACTERS,
    jwt.MAX_CLIENT_ID_CHARACTERS,
    strict_json.MAX_DEPTH,
    strict_json.MAX_DIGITS,
]


@pytest.mark.parametrize("alg", sorted(jose.ALGORITHMS))
def test_every_algorithm_is_named(alg: str) -> None:
    assert alg in PAGE


@pytest.mark.parametrize("fault", list(Fault))
def test_every_refusal_of_a_token_is_named(fault: Fault) -> None:
    assert f"`token_{fault}`" in PAGE


@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_every_setting_is_named(name: str) -> None:
    assert f"| `{name}` |" in PAGE


@pytest.mark.parametrize("bound", BOUNDS)
def test_every_bound_is_named(bound: int) -> None:
    assert f"{bound:,}" in PAGE
