"""The operator's minting command: what it is asked, and what becomes of what it answers."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from pytest_mcp_conformance.failures import Inconclusive, NotRun
from pytest_mcp_conformance.forge.jws import read_jws
from pytest_mcp_conformance.minting import Mint
from pytest_mcp_conformance.redaction import Secrets
from tests.support.model_server import ModelServer
from tests.support.serving import serving

HEADER = {"alg": "ES256", "typ": "at+jwt"}
CLAIMS = {"sub": "alice", "aud": "https://mcp.example/mcp"}


@contextmanager
def minting(command: str, secrets: Secrets | None = None) -> Iterator[Mint]:
    mint = Mint(command, secrets or Secrets())
    try:
        yield mint
    finally:
        mint.close()


def program(text: str) -> str:
    return shlex.join([sys.executable, "-u", "-c", text])


def answering(expression: str) -> str:
    return program(f"import json, sys\nfor line in sys.stdin:\n    asked = json.loads(line)\n    print({expression})")


def test_without_a_command_nothing_is_minted() -> None:
    with minting("") as mint:
        assert not mint.available
        with pytest.raises(NotRun, match="--mcp-conformance-mint-command was not given"):
            mint.token(HEADER, CLAIMS)


def test_the_command_signs_exactly_what_it_is_asked_to_and_the_token_is_kept_secret() -> None:
    secrets = Secrets()
    with serving(lambda url: ModelServer(url, minting=True)) as server:
        command = shlex.join([sys.executable, "-m", "tests.support.minting", server.url])
        with minting(command, secrets) as mint:
            tokens = [mint.token(HEADER, {**CLAIMS, "n": number}) for number in range(3)]
            doubled = mint.token(HEADER, b'{"sub":"a","sub":"b"}')
    made = [read_jws(token) for token in tokens]
    assert [one.claims["n"] for one in made if one is not None] == [0, 1, 2]
    assert doubled.split(".")[1] == "eyJzdWIiOiJhIiwic3ViIjoiYiJ9"
    assert secrets.redact(tokens[0]) == "$MCP_MINTED"


def test_a_token_with_the_same_members_in_another_order_is_taken() -> None:
    expression = (
        "'.'.join(__import__('base64').urlsafe_b64encode(json.dumps(asked[part], sort_keys=True).encode())"
        ".decode().rstrip('=') for part in ('header', 'claims')) + '.c2ln'"
    )
    with minting(answering(expression)) as mint:
        made = read_jws(mint.token(HEADER, CLAIMS))
        assert made is not None
        assert made.claims == CLAIMS
        with pytest.raises(Inconclusive, match="another token"):
            mint.token(HEADER, b'{"sub":"a","sub":"b"}')


@pytest.mark.parametrize(
    ("command", "kind", "reason"),
    [
        (answering("''"), NotRun, "cannot make such a token"),
        (answering("'e30.e30.c2ln'"), Inconclusive, "another token than it was asked for"),
        (answering("'opaque'"), Inconclusive, "another token than it was asked for"),
        ("/nowhere/at/all", Inconclusive, "could not be started"),
        ("'unclosed", Inconclusive, "could not be started"),
        (program("pass"), Inconclusive, "did not answer"),
    ],
)
def test_a_command_that_does_not_do_its_part_decides_nothing(
    command: str, kind: type[Exception], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pytest_mcp_conformance.minting.ANSWER_SECONDS", 1.0)
    with minting(command) as mint, pytest.raises(kind, match=reason):
        mint.token(HEADER, CLAIMS)
