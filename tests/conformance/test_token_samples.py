"""How guessable a sample of issued secrets is taken to be, and which texts of a run belong to it."""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Callable
from urllib.parse import urlencode

import pytest

from conformance_suites.token_samples import ENOUGH_BITS, FEWEST, codes, opaque_tokens, varying_bits
from pytest_mcp_conformance.exchange import Exchange, Request, Response
from pytest_mcp_conformance.grants import REDIRECT_URI

TOKEN_URL = "https://as.example/token"


def exchange(request: Request, *headers: tuple[str, str], body: bytes = b"") -> Exchange:
    return Exchange(1, request, Response(200, "OK", headers, body))


def answered(fields: dict[str, str], body: str) -> Exchange:
    return exchange(Request("POST", TOKEN_URL, body=urlencode(fields).encode()), body=body.encode())


@pytest.mark.parametrize(
    "draw",
    [
        lambda n: str(uuid.uuid4()),
        lambda n: secrets.token_hex(16),
        lambda n: secrets.token_urlsafe(32),
        lambda n: f"rt_{n:05}_{secrets.token_urlsafe(24)}",
    ],
    ids=["uuid", "hex", "base64url", "numbered-and-random"],
)
def test_random_texts_vary_enough(draw: Callable[[int], str]) -> None:
    assert varying_bits([draw(n) for n in range(FEWEST)]) >= ENOUGH_BITS


@pytest.mark.parametrize(
    "draw",
    [
        lambda n: f"code-{n}",
        lambda n: secrets.token_hex(4),
        lambda n: f"conformance-check-a-long-beginning-{secrets.token_hex(8)}",
        lambda n: f"{n:064}",
        lambda n: str(uuid.UUID(int=2**100 + n)),
    ],
    ids=["counter", "short", "long-common-beginning", "padded-counter", "counted-uuid"],
)
def test_guessable_texts_do_not(draw: Callable[[int], str]) -> None:
    assert varying_bits([draw(n) for n in range(FEWEST)]) < ENOUGH_BITS


def test_codes_are_those_that_came_back_to_the_client() -> None:
    login = exchange(
        Request("GET", "https://as.example/authorize"), ("Location", "https://as.example/login?code=inner")
    )
    back = exchange(Request("POST", "https://as.example/consent"), ("Location", f"{REDIRECT_URI}?code=one&state=x"))
    assert [code for code, _ in codes([login, back, back])] == ["one", "one"]


def test_a_token_that_is_handed_out_again_to_whoever_repeats_a_request_counts_once() -> None:
    first = answered({"code": "a"}, '{"refresh_token": "one"}')
    second = answered({"code": "b"}, '{"refresh_token": "one"}')
    kept = answered({"refresh_token": "one"}, '{"refresh_token": "one"}')
    sample = opaque_tokens([first, first, kept, second], TOKEN_URL, "refresh_token")
    assert [token for token, _ in sample] == ["one", "one"]


def test_signed_tokens_are_left_out() -> None:
    jwt = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJl"
    assert opaque_tokens([answered({"code": "a"}, f'{{"access_token": "{jwt}"}}')], TOKEN_URL, "access_token") == []
