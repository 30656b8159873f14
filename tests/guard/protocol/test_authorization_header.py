"""One Authorization field, one scheme, one space, one token; and challenges that cannot be broken out of."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_guard.protocol.authorization_header import (
    Credentials,
    CredentialsError,
    CredentialsFault,
    bearer_challenge,
    challenge,
    parse,
)

TOKEN = b"eyJhbGciOiJFUzI1NiJ9.e30.AAAA"


def fault(*values: bytes, query: bytes = b"") -> CredentialsFault:
    with pytest.raises(CredentialsError) as caught:
        parse(values, query)
    assert TOKEN.decode() not in caught.value.reason
    return caught.value.fault


@pytest.mark.parametrize("scheme", [b"Bearer", b"bearer", b"BEARER", b"BeArEr"])
def test_the_scheme_is_matched_in_any_case(scheme: bytes) -> None:
    assert parse([scheme + b" " + TOKEN]) == Credentials("bearer", TOKEN)


@pytest.mark.parametrize("token", [b"a", b"-._~+/", b"abc==", b"a" * 8192])
def test_every_token68_is_a_token(token: bytes) -> None:
    assert parse([b"Bearer " + token]).token == token


def test_without_a_field_credentials_are_missing() -> None:
    assert fault() is CredentialsFault.MISSING


@pytest.mark.parametrize(
    "value",
    [
        b"Bearer",
        b"Bearer ",
        b"Bearer  " + TOKEN,
        b"Bearer\t" + TOKEN,
        b"Bearer " + TOKEN + b" ",
        b" Bearer " + TOKEN,
        b"Bearer " + TOKEN + b" x",
        b"Bearer " + TOKEN + b", Bearer " + TOKEN,
        b"Bearer " + TOKEN + b",Bearer",
        b'Bearer token="' + TOKEN + b'"',
        b"Bearer =",
        b"Bearer a=b",
        b"Bearer \xc3\xa9",
        b"Bearer a\x00b",
        b"Bearer a\nb",
        b"Bearer a\n",
        b"",
        b" ",
        b"\xff",
        b"(Bearer) a",
        b", Bearer a",
    ],
)
def test_anything_but_a_scheme_one_space_and_a_token_is_malformed(value: bytes) -> None:
    assert fault(value) is CredentialsFault.MALFORMED


@pytest.mark.parametrize(
    "value",
    [b"Token " + TOKEN, b"Basic YTpi", b"DPoP " + TOKEN, b"Bearerx " + TOKEN, b"Basic", b'Digest a="b", c=d', TOKEN],
)
def test_another_scheme_is_named_as_such(value: bytes) -> None:
    assert fault(value) is CredentialsFault.SCHEME


@pytest.mark.parametrize(
    "values",
    [
        (b"Bearer " + TOKEN, b"Bearer " + TOKEN),
        (b"Bearer " + TOKEN, b"garbage"),
        (b"garbage", b"Bearer " + TOKEN),
        (b"Bearer " + TOKEN, b"DPoP " + TOKEN),
        (b"", b"Bearer " + TOKEN),
    ],
)
def test_two_fields_are_refused_in_whatever_order(values: tuple[bytes, ...]) -> None:
    assert fault(*values) is CredentialsFault.REPEATED


QUERIES = [
    b"access_token=x",
    b"a=1&access_token=x",
    b"access_token",
    b"access%5Ftoken=x",
    b"%61ccess_token=",
    b"&access_token=&",
]


@pytest.mark.parametrize("query", QUERIES)
def test_a_token_in_the_query_alone_is_not_read(query: bytes) -> None:
    assert fault(query=query) is CredentialsFault.MISSING


@pytest.mark.parametrize("query", QUERIES)
def test_a_token_in_the_query_beside_the_field_is_a_second_credential(query: bytes) -> None:
    assert fault(b"Bearer " + TOKEN, query=query) is CredentialsFault.REPEATED


@pytest.mark.parametrize(
    "query", [b"", b"session_id=1", b"token=x", b"xaccess_token=1", b"a=access_token", b"%zz=1&=&&"]
)
def test_other_parameters_are_left_alone(query: bytes) -> None:
    assert parse([b"Bearer " + TOKEN], query).token == TOKEN


@pytest.mark.parametrize("size", [9_000, 65_536, 1_048_576])
def test_a_field_that_can_hold_no_token_is_refused_unread(size: int) -> None:
    assert fault(b"Bearer " + b"a" * size) is CredentialsFault.TOO_LONG


def test_other_schemes_may_be_accepted() -> None:
    assert parse([b"DPoP " + TOKEN], schemes={"bearer", "dpop"}) == Credentials("dpop", TOKEN)


def test_credentials_do_not_show_their_token() -> None:
    assert TOKEN.decode() not in repr(parse([b"Bearer " + TOKEN]))


@given(st.binary(max_size=60))
def test_whatever_is_accepted_is_spelled_exactly_so(value: bytes) -> None:
    try:
        found = parse([value])
    except CredentialsError:
        return
    assert value[:7].lower() == b"bearer "
    assert value[7:] == found.token


def test_a_challenge_without_credentials_has_no_error() -> None:
    assert bearer_challenge("https://mcp.example.com/.well-known/oauth-protected-resource/mcp", {"b", "a"}) == (
        b'Bearer resource_metadata="https://mcp.example.com/.well-known/oauth-protected-resource/mcp", scope="a b"'
    )


def test_a_challenge_names_the_error_first() -> None:
    written = bearer_challenge("https://x/", error="invalid_token", error_description="The token has expired")
    assert written == (
        b'Bearer error="invalid_token", error_description="The token has expired", resource_metadata="https://x/"'
    )


def test_quotes_and_backslashes_are_escaped() -> None:
    assert challenge("Bearer", {"realm": 'a"b\\c'}) == b'Bearer realm="a\\"b\\\\c"'


def test_a_scheme_may_stand_alone() -> None:
    assert challenge("Bearer", {}) == b"Bearer"


@pytest.mark.parametrize("value", ["a\r\nSet-Cookie: x=1", "a\n", "a\x00", "é", "\u2028", "a\x7f", "\t"])
@pytest.mark.parametrize("name", ["realm", "resource_metadata", "error", "error_description", "error_uri", "scope"])
def test_no_value_can_break_out_of_the_field(name: str, value: str) -> None:
    with pytest.raises(ValueError, match=r"must|scope"):
        challenge("Bearer", {name: value})


@pytest.mark.parametrize("value", ['"', "\\", 'a"b'])
@pytest.mark.parametrize("name", ["error", "error_description", "error_uri", "scope"])
def test_values_of_rfc_6750_have_neither_quotes_nor_backslashes(name: str, value: str) -> None:
    with pytest.raises(ValueError, match=r"must|scope"):
        challenge("Bearer", {name: value})


@pytest.mark.parametrize("name", ["", "a b", 'a"', "a=", "é", "a\r\n"])
def test_a_name_is_a_token(name: str) -> None:
    with pytest.raises(ValueError, match="token"):
        challenge("Bearer", {name: "x"})
    with pytest.raises(ValueError, match="token"):
        challenge(name, {})


@given(st.dictionaries(st.sampled_from(["realm", "error", "error_description", "x-y"]), st.text(max_size=30)))
def test_every_challenge_that_is_written_is_one_line_of_printable_ascii(params: dict[str, str]) -> None:
    try:
        written = challenge("Bearer", params)
    except ValueError:
        return
    assert all(0x20 <= byte < 0x7F for byte in written)
