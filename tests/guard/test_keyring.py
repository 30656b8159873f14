"""The key ring: what is signed or sealed with it, and what it makes nothing of."""

import base64
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_guard.failures import ConfigurationError
from mcp_guard.keyring import KeyRing, new_key

OLD, NEW, OTHER = b"o" * 32, b"n" * 32, b"x" * 32
RING = KeyRing((NEW, OLD))
PARTS = st.lists(st.binary(max_size=8), max_size=3).map(tuple)


def encoded(key: bytes) -> str:
    return base64.urlsafe_b64encode(key).decode().rstrip("=")


def test_a_mac_is_verified_with_every_key_of_the_ring_and_no_other() -> None:
    mac = KeyRing((OLD,)).mac("session", b"a", b"b")
    assert RING.verifies(mac, "session", b"a", b"b")
    assert not KeyRing((NEW,)).verifies(mac, "session", b"a", b"b")
    assert RING.mac("session", b"a") == KeyRing((NEW,)).mac("session", b"a"), "the first key signs"


def test_a_mac_is_of_its_purpose_alone() -> None:
    assert not RING.verifies(RING.mac("session", b"a"), "event", b"a")


@given(PARTS, PARTS)
def test_other_parts_have_another_mac(one: tuple[bytes, ...], other: tuple[bytes, ...]) -> None:
    assert RING.verifies(RING.mac("p", *one), "p", *other) is (one == other)


@given(st.binary(max_size=64), PARTS)
def test_what_is_sealed_is_opened_with_its_context(content: bytes, context: tuple[bytes, ...]) -> None:
    assert RING.open("p", RING.seal("p", content, *context), *context) == content


def test_what_is_sealed_is_opened_with_every_key_of_the_ring_and_no_other() -> None:
    sealed = KeyRing((OLD,)).seal("p", b"content")
    assert RING.open("p", sealed) == b"content"
    assert KeyRing((NEW, OTHER)).open("p", sealed) is None
    assert KeyRing((NEW,)).open("p", RING.seal("p", b"content")) == b"content", "the first key seals"


def test_a_seal_is_of_its_purpose_and_context_alone() -> None:
    sealed = RING.seal("p", b"content", b"alice", b"tool")
    assert RING.open("q", sealed, b"alice", b"tool") is None
    assert RING.open("p", sealed, b"bob", b"tool") is None
    assert RING.open("p", sealed, b"alicetool") is None


@given(st.integers(0, 8 * 40 - 1))
def test_a_seal_with_one_bit_flipped_is_nothing(bit: int) -> None:
    sealed = bytearray(RING.seal("p", b"twelve bytes"))
    sealed[bit // 8 % len(sealed)] ^= 1 << bit % 8
    assert RING.open("p", bytes(sealed)) is None


@pytest.mark.parametrize("length", [0, 1, 12, 27])
def test_what_is_too_short_for_a_seal_is_nothing(length: int) -> None:
    assert RING.open("p", bytes(length)) is None


def test_no_two_seals_are_alike() -> None:
    assert len({RING.seal("p", b"content") for _ in range(100)}) == 100


def test_derived_keys_belong_to_a_purpose_and_a_context() -> None:
    assert RING.derive("p", b"c")[1] == KeyRing((OLD,)).derive("p", b"c")[0]
    assert len({*RING.derive("p", b"c"), *RING.derive("p", b"d"), *RING.derive("q", b"c")}) == 6
    assert {len(key) for key in RING.derive("p")} == {32}


@pytest.mark.parametrize("between", [",", " ", "\n", ", ", "\n\n"])
def test_a_ring_is_read_newest_first(between: str) -> None:
    assert KeyRing.parse(f"{encoded(NEW)}{between}{encoded(OLD)}\n").keys == (NEW, OLD)


def test_a_new_key_is_one_that_can_be_read() -> None:
    first, second = new_key().reveal(), new_key().reveal()
    assert first != second
    assert len(KeyRing.parse(f"{first},{second}").keys) == 2
    assert KeyRing.generate().keys != KeyRing.generate().keys


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "1 to 8 keys, not 0"),
        ("!", "key 1 of the key ring is not base64url"),
        (f"{encoded(NEW)},äöü", "key 2 of the key ring is not base64url"),
        (encoded(NEW[:31]), "key 1 of the key ring has 31 bytes, not 32"),
        (f"{encoded(NEW)},{encoded(NEW)}", "is there twice"),
        (",".join(encoded(bytes([n]) * 32) for n in range(9)), "1 to 8 keys, not 9"),
    ],
)
def test_what_is_no_ring_is_refused_without_being_shown(text: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says) as refused:
        KeyRing.parse(text)
    assert not text or len(text) < 2 or text not in str(refused.value)


def test_a_key_of_another_length_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="has 32 bytes"):
        KeyRing((b"short",))


def test_a_ring_does_not_show_its_keys() -> None:
    assert "nnn" not in repr(RING)


def test_a_ring_is_read_from_a_file_that_is_its_owners_alone(tmp_path: Path) -> None:
    file = tmp_path / "ring"
    file.write_text(f"{encoded(NEW)}\n{encoded(OLD)}\n")
    file.chmod(0o600)
    assert KeyRing.read(file).keys == (NEW, OLD)
    file.chmod(0o640)
    with pytest.raises(ConfigurationError, match="may be read by others"):
        KeyRing.read(file)


def test_a_file_that_holds_no_ring_is_named(tmp_path: Path) -> None:
    missing, wrong = tmp_path / "missing", tmp_path / "wrong"
    with pytest.raises(ConfigurationError, match="missing: No such file"):
        KeyRing.read(missing)
    wrong.write_bytes(b"\xff")
    wrong.chmod(0o600)
    with pytest.raises(ConfigurationError, match="wrong: is not ASCII"):
        KeyRing.read(wrong)
