"""Secrets do not show themselves; the clock is the only reader of time."""

import copy
import json
import logging
import time
import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_guard.clock import ManualClock, SystemClock
from mcp_guard.secret import Secret, constant_time_equals, digest, fingerprint, generated_password, mint_token

CANARY = "canary-4f1c9b"


def test_a_secret_shows_itself_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    secret = Secret(CANARY)
    with caplog.at_level(logging.INFO):
        logging.getLogger("mcp_guard").info("%s %r %s", secret, secret, {"key": [secret]})
    shown = f"{secret} {secret!r} {[secret]} {(secret,)!r} {copy.copy(secret)!r}" + caplog.text
    assert CANARY not in shown
    assert "Secret(…)" in shown
    assert secret.reveal() == CANARY


def test_a_secret_shows_itself_in_no_traceback_with_locals() -> None:
    secret = Secret(CANARY)
    try:
        raise ValueError(f"about {secret}")
    except ValueError as error:
        shown = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    assert "secret = Secret(…)" in shown
    assert "about …" in shown


def test_a_secret_does_not_become_json() -> None:
    with pytest.raises(TypeError):
        json.dumps({"key": Secret(CANARY)})


@given(st.text(), st.text())
def test_a_secret_equals_its_value_alone(value: str, presented: str) -> None:
    assert Secret(value).equals(value)
    assert Secret(value).equals(presented) is (value == presented)
    assert constant_time_equals(value, presented) is (value == presented)


def test_comparison_survives_text_that_is_no_unicode() -> None:
    assert not Secret("a").equals("\ud800")
    assert constant_time_equals("\ud800", "\ud800")


def test_minted_tokens_have_256_bits_and_do_not_repeat() -> None:
    tokens = {mint_token() for _ in range(1000)}
    assert len(tokens) == 1000
    assert {len(token) for token in tokens} == {43}
    assert all(token.replace("-", "").replace("_", "").isalnum() and token.isascii() for token in tokens)


def test_generated_passwords_are_masked_and_do_not_repeat() -> None:
    passwords = {generated_password().reveal() for _ in range(1000)}
    assert len(passwords) == 1000
    assert {len(password) for password in passwords} == {12}
    assert "…" in repr(generated_password())


def test_a_fingerprint_names_a_secret_without_giving_it_away() -> None:
    assert fingerprint("abc") == fingerprint(b"abc") == "ba7816bf8f01cfea"
    assert digest("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert len({fingerprint("\ud800" * 300), digest("\ud800"), fingerprint("\ud801" * 300)}) == 3


def test_the_system_clock_reads_the_system() -> None:
    clock = SystemClock()
    assert abs(clock.wall() - time.time()) < 5
    before = clock.monotonic()
    assert before <= clock.monotonic() <= time.monotonic()


def test_a_manual_clock_moves_when_told_and_a_step_moves_the_wall_alone() -> None:
    clock = ManualClock(now=100.0, ticks=5.0)
    clock.advance(2.5)
    assert (clock.wall(), clock.monotonic()) == (102.5, 7.5)
    clock.advance(0)
    clock.step(-50)
    assert (clock.wall(), clock.monotonic()) == (52.5, 7.5)
    with pytest.raises(ValueError, match="at least 0"):
        clock.advance(-0.1)
