"""The parts without a request: parameters, records, settings, errors."""

import json
import re
from dataclasses import replace
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_guard.failures import ConfigurationError
from mcp_guard.oauth import Lifetimes, Rate, limits, negotiation
from mcp_guard.oauth.errors import OAuthError, RedirectableError, legal_description
from mcp_guard.oauth.parameters import ParameterError, Parameters, encode_form, parse_form
from mcp_guard.oauth.records import BrowserSession, Client, Code, Family, Transaction, decode, encode
from mcp_guard.protocol.registration import RegistrationError, parse_client_metadata
from mcp_guard.revocation import ask_revoked, is_revoked, revoke

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
PAIRS = st.lists(st.tuples(TEXT, TEXT), max_size=8)


@given(PAIRS)
def test_a_form_is_read_as_it_was_written(pairs: list[tuple[str, str]]) -> None:
    assert parse_form(urlencode(pairs).encode()) == tuple(pairs)


@given(PAIRS)
def test_one_spelling_is_stable(pairs: list[tuple[str, str]]) -> None:
    spelled = encode_form(parse_form(urlencode(pairs).encode()))
    assert spelled.isascii()
    assert encode_form(parse_form(spelled.encode())) == spelled


@given(st.binary(max_size=80))
def test_any_bytes_are_a_form_or_refused(data: bytes) -> None:
    try:
        outcome = len(parse_form(data))
    except ParameterError:
        outcome = 0
    assert outcome <= data.count(b"&") + 1


@pytest.mark.parametrize(
    "data", [b"%", b"a=%", b"a=%2", b"a=%2x", b"%zz=1", b"a=%ff", b"a=\xff", b"a=%ed%a0%80", b"&".join([b"a"] * 65)]
)
def test_a_form_with_more_than_one_reading_is_refused(data: bytes) -> None:
    with pytest.raises(ParameterError):
        parse_form(data)


def test_a_value_is_what_follows_the_first_equals_sign() -> None:
    assert parse_form(b"a=b=c&d&=e&&f=+%20") == (("a", "b=c"), ("d", ""), ("", "e"), ("f", "  "))
    assert parse_form(b"") == ()


def test_a_parameter_is_there_once_or_not_at_all() -> None:
    parameters = Parameters((("a", "1"), ("b", ""), ("c", "1"), ("c", "1")))
    assert parameters.one("a") == "1"
    assert parameters.one("b") is None
    assert parameters.one("z") is None
    assert parameters.has("b")
    assert not parameters.has("z")
    assert parameters.repeated() == "c"
    assert parameters.one_or_none("c") is None
    with pytest.raises(ParameterError, match="c is repeated"):
        parameters.one("c")
    assert Parameters(()).repeated() is None


RECORDS: list[Any] = [
    Client("id", "none", None, ("https://a.example/",), ("authorization_code",), None, None, 1),
    Client("id", "client_secret_basic", "d" * 64, ("https://a.example/",), ("authorization_code",), ("a",), "Ä", 1),
    BrowserSession("s", "n", None, None, 1.5),
    BrowserSession("s", "n", "t", ("a",), 1.5),
    Transaction("b", "c", "r", "s\u2028", ("a",), "r", "c", "q", 1.5),
    Code("c", "r", "h", "r", ("a",), "s", None, "g", 1.5, used=False),
    Family("c", "r", ("a",), "s", "t", "g", "h", 1.5),
    Client("id", "none", None, ("https://a.example/",), ("authorization_code",), None, None, 1, dpop_bound=True),
    Transaction("b", "c", "r", None, ("a",), "r", "c", "q", 1.5, jkt="k"),
    Code("c", "r", "h", "r", ("a",), "s", None, "g", 1.5, used=False, jkt="k"),
    Family("c", "r", ("a",), "s", "t", "g", "h", 1.5, jkt="k"),
]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_a_record_comes_back_equal_and_as_the_same_bytes(record: Any) -> None:
    data = encode(record)
    again = decode(type(record), data)
    assert again == record
    assert encode(again) == data


def test_a_record_from_before_keys_were_bound_is_what_it_was() -> None:
    """Refresh tokens and registrations outlive a new release, and what is compared with them is made by it."""
    before = (
        b'{"client_id":"c","expires_at":1.5,"grant":"g","head":"h","kind":"Family","resource":"r","scopes":["a"],'
        b'"subject":"s","tenant":"t","v":1}'
    )
    assert encode(RECORDS[6]) == before
    assert decode(Family, before) == RECORDS[6]


def spoil(name: str, value: object) -> bytes:
    members = json.loads(encode(RECORDS[5]))
    members[name] = value
    return json.dumps(members).encode()


@pytest.mark.parametrize(
    "data",
    [
        None,
        True,
        b"",
        b"{",
        b"[]",
        b"1",
        b"\xff",
        b"{}",
        spoil("v", 2),
        spoil("v", "1"),
        spoil("kind", "Family"),
        spoil("extra", 1),
        spoil("used", 1),
        spoil("used", None),
        spoil("grant", 1),
        spoil("grant", None),
        spoil("scopes", "ab"),
        spoil("scopes", [1]),
        spoil("scopes", None),
        spoil("expires_at", "1"),
        spoil("expires_at", True),
        spoil("tenant", 1),
        spoil("jkt", 1),
        b"[" * 100_000,
    ],
)
def test_a_record_that_is_not_one_of_ours_counts_as_absent(data: object) -> None:
    """Corrupt or foreign record: accepts 0, faults 0."""
    assert decode(Code, data) is None


@given(st.binary(max_size=60))
def test_no_bytes_are_a_record_by_chance(data: bytes) -> None:
    assert decode(Client, data) is None


@pytest.mark.parametrize("grant", ["g", "", "ä" * 500, "mcp:\n\0 {}"])
def test_any_grant_has_a_key_that_a_store_takes(grant: str) -> None:
    key = ask_revoked(grant).key
    assert key.startswith("mcp:grant-revoked:")
    assert key.isascii()
    assert len(key) <= 512
    assert revoke(grant, timedelta(days=1)).key == key
    assert is_revoked(b"1")
    assert not is_revoked(None)


@pytest.mark.parametrize("of", ["", "alice", "ä\n" * 500, "192.0.2.1 alice"])
def test_a_limit_s_key_shows_nothing_of_whose_it_is(of: str) -> None:
    key = limits.bucket("login-user", Rate(1, timedelta(1)), of).key
    assert re.fullmatch(r"mcp:oauth:limit:login-user:[0-9a-f]{64}", key)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"access_token": timedelta(hours=1, seconds=1)}, "access_token"),
        ({"access_token": timedelta(0)}, "access_token"),
        ({"access_token": timedelta(milliseconds=999)}, "access_token"),
        ({"code": timedelta(minutes=10, seconds=1)}, "code"),
        ({"code": timedelta(seconds=-1)}, "code"),
        ({"refresh_token": timedelta(minutes=14)}, "refresh_token"),
        ({"client": timedelta(0)}, "client"),
    ],
)
def test_a_lifetime_that_cannot_be_safe_is_a_configuration_error(changes: dict[str, timedelta], named: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"lifetimes\.{named}"):
        Lifetimes(**changes)


def test_the_longest_lifetimes_are_accepted() -> None:
    longest = Lifetimes(access_token=timedelta(hours=1), code=timedelta(minutes=10), refresh_token=timedelta(hours=1))
    assert replace(longest).access_token == timedelta(hours=1)


@pytest.mark.parametrize(
    ("count", "period"), [(0, timedelta(1)), (-1, timedelta(1)), (1, timedelta(0)), (1, timedelta(-1))]
)
def test_a_rate_has_a_count_and_a_period(count: int, period: timedelta) -> None:
    with pytest.raises(ConfigurationError, match="rate"):
        Rate(count, period)


@given(st.text(max_size=40))
def test_a_description_has_only_the_characters_of_rfc_6749(text: str) -> None:
    """tok-09, RFC 6749 §5.2."""
    allowed = {*range(0x20, 0x22), *range(0x23, 0x5C), *range(0x5D, 0x7F)}
    for shown in [OAuthError("e", text).description, RedirectableError("e", text).description, legal_description(text)]:
        assert {ord(character) for character in shown} <= allowed
        assert len(shown) == len(text)


SERVER = {
    "grant_types_supported": ["authorization_code"],
    "response_types_supported": ["code"],
    "token_endpoint_auth_methods_supported": ["none"],
    "scopes_supported": ["a", "b"],
}


@pytest.mark.parametrize(
    ("members", "sound"),
    [
        ({"token_endpoint_auth_method": "none"}, True),
        ({}, False),
        ({"token_endpoint_auth_method": "none", "grant_types": ["authorization_code", "refresh_token"]}, False),
    ],
)
def test_a_client_is_registered_only_for_what_the_metadata_offers(members: dict[str, Any], sound: bool) -> None:
    metadata = parse_client_metadata({"redirect_uris": ["https://a.example/"], **members})
    if sound:
        assert negotiation.settle(metadata, SERVER) == metadata
    else:
        with pytest.raises(RegistrationError) as refusal:
            negotiation.settle(metadata, SERVER)
        assert refusal.value.error == "invalid_client_metadata"


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"issuer": "http://as.example"},
        {"issuer": "https://as.example", "authorization_endpoint": "http://as.example/authorize"},
        {"issuer": "https://as.example", "authorization_response_iss_parameter_supported": "yes"},
    ],
)
def test_metadata_that_clients_must_refuse_is_a_configuration_error(document: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="metadata"):
        negotiation.check_server_metadata(document)
