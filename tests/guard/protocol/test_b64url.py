"""Base64url has one spelling for each byte string."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_guard.protocol import b64url


@given(st.binary(max_size=300))
def test_what_is_encoded_decodes_to_itself(data: bytes) -> None:
    text = b64url.encode(data)
    assert b64url.decode(text) == data
    assert text == base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@given(st.text(alphabet="ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_+/=\n ", max_size=40))
def test_every_text_that_decodes_is_the_encoding_of_what_it_decodes_to(text: str) -> None:
    try:
        data = b64url.decode(text)
    except b64url.Base64Error:
        return
    assert b64url.encode(data) == text


@pytest.mark.parametrize("data", [bytes([value]) * size for value in (0, 62, 63, 255) for size in range(5)])
def test_every_length_modulo_three_comes_back(data: bytes) -> None:
    assert b64url.decode(b64url.encode(data).encode()) == data


@pytest.mark.parametrize(
    "text",
    [
        "A",
        "AAAAA",
        "AA==",
        "AAA=",
        "=",
        "AAAA=",
        "AAAA====",
        "AB",
        "AAB",
        "A_",
        "AA_",
        "+AAA",
        "/AAA",
        "AAAA\n",
        "\nAAAA",
        "AA AA",
        " AAAA",
        "AA\tA",
        "AAAé",
        "AAA\x00",
        "AAA!",
        "AAA.",
        "\uff21\uff21\uff21\uff21",
    ],
)
def test_a_text_that_is_not_canonical_is_refused(text: str) -> None:
    with pytest.raises(b64url.Base64Error):
        b64url.decode(text)


def test_bytes_beyond_ascii_are_refused() -> None:
    with pytest.raises(b64url.Base64Error):
        b64url.decode(b"\xff\xff\xff\xff")
