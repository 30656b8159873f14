"""Nonces are known again without being kept, for a while and for one purpose."""

from datetime import timedelta

import pytest

from mcp_guard.failures import ConfigurationError
from mcp_guard.keyring import KeyRing
from mcp_guard.protocol.nonces import Nonces

RING = KeyRing.generate()
NONCES = Nonces(RING, "here", timedelta(seconds=120))
NOW = 1_800_000_000.0
"""The beginning of a period."""


@pytest.mark.parametrize(
    ("later", "good"),
    [(-121, False), (-120, True), (0, True), (119.9, True), (239.9, True), (240, False), (1e6, False)],
)
def test_a_nonce_is_good_in_its_period_and_the_ones_beside_it(later: float, good: bool) -> None:
    assert NONCES.accepts(NONCES.current(NOW), NOW + later) is good


def test_a_new_nonce_begins_with_each_period() -> None:
    assert NONCES.current(NOW) == NONCES.current(NOW + 119.9)
    assert NONCES.current(NOW) != NONCES.current(NOW + 120)


def test_a_nonce_is_text_that_a_field_can_have() -> None:
    assert len(NONCES.current(NOW)) == 43
    assert set(NONCES.current(NOW)) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


def test_workers_that_share_a_ring_share_their_nonces_also_while_it_is_rotated() -> None:
    new = KeyRing.generate()
    rotated = Nonces(KeyRing((*new.keys, *RING.keys)), "here")
    assert rotated.accepts(NONCES.current(NOW), NOW)
    assert Nonces(RING, "here").accepts(NONCES.current(NOW), NOW)
    assert not Nonces(new, "here").accepts(NONCES.current(NOW), NOW)


def test_a_nonce_for_another_purpose_is_none() -> None:
    assert not NONCES.accepts(Nonces(RING, "elsewhere").current(NOW), NOW)


@pytest.mark.parametrize("nonce", ["", "x", "ä", "=", "A" * 43, "A" * 4096])
def test_what_nobody_made_is_none(nonce: str) -> None:
    assert not NONCES.accepts(nonce, NOW)


def test_one_changed_bit_is_noticed() -> None:
    good = NONCES.current(NOW)
    for position in range(len(good) - 1):
        other = "A" if good[position] != "A" else "B"
        assert not NONCES.accepts(good[:position] + other + good[position + 1 :], NOW)


@pytest.mark.parametrize("lifetime", [timedelta(0), timedelta(seconds=0.9), timedelta(hours=1, seconds=1)])
def test_a_lifetime_that_cannot_be_is_named(lifetime: timedelta) -> None:
    with pytest.raises(ConfigurationError, match="lifetime of a nonce"):
        Nonces(RING, "here", lifetime)
