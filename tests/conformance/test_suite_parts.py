"""The parts that several suites share: estimates of chance, other spellings, pieces of secrets, the order of checks."""

from __future__ import annotations

import secrets
import uuid
from pathlib import Path

import pytest
from hypothesis import given, settings

from conformance_suites.canary import NOWHERE, listening
from conformance_suites.randomness import ENOUGH_BITS, random_bits
from conformance_suites.secret_pieces import PIECE, pieces
from pytest_mcp_conformance.forge.jws import compact, es256, new_ec_key, read_jws, unb64url
from pytest_mcp_conformance.strategies.paths import path_spelling_classics, path_spellings
from pytest_mcp_conformance.strategies.tokens import respelled
from tests.conformance.running import certify
from tests.support.model_server import ModelServer
from tests.support.serving import serving

SAMPLE = range(20)
TOKEN = compact({"alg": "ES256"}, {"sub": "alice"}, es256(new_ec_key()))


@pytest.mark.parametrize(
    ("sample", "enough"),
    [
        ([secrets.token_hex(16) for _ in SAMPLE], True),
        ([secrets.token_urlsafe(32) for _ in SAMPLE], True),
        ([str(uuid.uuid4()) for _ in SAMPLE], True),
        ([f"alice-{secrets.token_hex(32)}" for _ in SAMPLE], True),
        ([secrets.token_hex(8) for _ in SAMPLE], False),
        ([f"{number:064x}" for number in SAMPLE], False),
        ([f"{number:x}".rjust(16, "0") + secrets.token_hex(8) for number in SAMPLE], False),
        (["the same"] * 20, False),
        ([], False),
    ],
    ids=["hex", "base64url", "uuid", "named", "short", "counted", "half counted", "constant", "none"],
)
def test_chance_is_told_from_order(sample: list[str], enough: bool) -> None:
    assert (random_bits(sample) >= ENOUGH_BITS) is enough


@pytest.mark.parametrize("token", [TOKEN, secrets.token_urlsafe(32)], ids=["jwt", "opaque"])
def test_no_other_spelling_is_the_token_itself(token: str) -> None:
    spellings = [bent.token for bent in respelled(token)]
    assert token not in spellings
    assert len(set(spellings)) == len(spellings)


def test_idle_bits_change_the_text_and_not_the_octets() -> None:
    bent = next(one for one in respelled(TOKEN) if "idle bits" in one.what)
    changed, kept = read_jws(bent.token), read_jws(TOKEN)
    assert changed is not None
    assert kept is not None
    assert unb64url(changed.signature) == unb64url(kept.signature)
    assert changed.signature != kept.signature


def test_no_other_spelling_of_a_path_is_the_path_itself() -> None:
    classics = path_spelling_classics("/mcp")
    assert "/mcp" not in classics
    assert {"//mcp", "/MCP", "/mcp/", "/%6dcp", "/x/../mcp"} <= set(classics)


@settings(max_examples=50, deadline=None, database=None)
@given(path_spellings("/a/mcp"))
def test_drawn_spellings_differ_from_the_path(spelling: str) -> None:
    assert spelling != "/a/mcp"
    assert spelling.startswith("/")


def test_the_pieces_of_a_jwt_are_those_of_its_signature() -> None:
    assert all(len(piece) == PIECE for piece in pieces(TOKEN))
    assert all(piece in TOKEN.rpartition(".")[2] for piece in pieces(TOKEN))
    assert pieces("short") == set()


def test_a_canary_out_of_reach_only_has_a_name() -> None:
    with listening(reachable=False) as canary:
        assert canary.keys_url.startswith(NOWHERE)
    with listening(reachable=True) as canary:
        assert canary.keys_url.startswith("http://127.0.0.1:")
    assert canary.fetched == []


def test_a_check_that_asks_to_come_last_does(tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text(
        "from pytest_mcp_conformance import requirement\n"
        "from pytest_mcp_conformance.checks import last\n\n"
        "@last\n@requirement('PRM-001')\n"
        "def test_a(target, probe):\n"
        "    assert any('second' in exchange.request.url for exchange in probe.history)\n"
        "    target.send(target.harmless())\n\n"
        "@requirement('PRM-002')\ndef test_b(target, probe):\n    probe.get(target.origin + '/second')\n",
        "utf-8",
    )
    with serving(ModelServer) as server:
        ended = certify(tmp_path, f"{server.url}/mcp", "test_mine.py")
    assert ended.outcome("PRM-001") == "pass", ended.output
