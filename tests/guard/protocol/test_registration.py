"""Client metadata: what is understood has its type and its bounds, what is not is ignored."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_guard.protocol.registration import (
    ClientMetadata,
    RegistrationError,
    is_displayable,
    parse_client_metadata,
)

URI = "https://app.example/cb"


def parse(**members: Any) -> ClientMetadata:
    return parse_client_metadata({"redirect_uris": [URI], **members})


def refusal(**members: Any) -> str:
    with pytest.raises(RegistrationError) as caught:
        parse(**members)
    return caught.value.error


def test_what_is_omitted_has_the_defaults_of_rfc_7591() -> None:
    """RFC 7591 §2."""
    metadata = parse()
    assert metadata.members() == {
        "redirect_uris": [URI],
        "token_endpoint_auth_method": "client_secret_basic",
        "grant_types": ["authorization_code"],
        "response_types": ["code"],
    }
    assert metadata.scopes is None


def test_what_is_understood_is_echoed() -> None:
    """REG-001."""
    given_members = {
        "redirect_uris": [URI, "http://127.0.0.1/cb"],
        "token_endpoint_auth_method": "none",
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "client_name": "My app — Größe 3",
        "client_uri": "https://app.example/?a=b#c",
        "software_id": "4NRB1-0XZABZI9E6-5SM3R",
        "software_version": "1.2",
        "scope": "b a",
    }
    assert parse(**given_members).members() == {**given_members, "scope": "a b"}


@pytest.mark.parametrize("document", [None, [], "x", 1, True, [{"redirect_uris": [URI]}]])
def test_only_an_object_is_metadata(document: object) -> None:
    with pytest.raises(RegistrationError):
        parse_client_metadata(document)


# dcr-02, REG-002
@pytest.mark.parametrize(
    "uris",
    [
        None,
        [],
        {},
        URI,
        [1],
        [None],
        [[URI]],
        [""],
        ["/cb"],
        ["javascript:alert(1)"],
        [URI, "http://app.example/"],
        [URI] * 11,
    ],
)
def test_redirect_uris_are_one_to_ten_sound_uris(uris: object) -> None:
    assert refusal(redirect_uris=uris) == "invalid_redirect_uri"


def test_redirect_uris_must_not_be_missing() -> None:
    with pytest.raises(RegistrationError) as caught:
        parse_client_metadata({})
    assert caught.value.error == "invalid_redirect_uri"


def test_unknown_members_are_ignored() -> None:
    """REG-003, dcr-12."""
    members = parse(client_id="victim", client_secret="s", registration_access_token="t", x={"y": []}).members()
    assert not {"client_id", "client_secret", "registration_access_token", "x"} & set(members)


# dcr-11
@pytest.mark.parametrize(
    "grant",
    [
        "client_credentials",
        "implicit",
        "password",
        "urn:ietf:params:oauth:grant-type:jwt-bearer",
        "urn:ietf:params:oauth:grant-type:token-exchange",
        "urn:ietf:params:oauth:grant-type:device_code",
        "",
        "AUTHORIZATION_CODE",
    ],
)
def test_a_grant_that_is_not_served_is_refused(grant: str) -> None:
    assert refusal(grant_types=["authorization_code", grant]) == "invalid_client_metadata"


@pytest.mark.parametrize(
    "members",
    [
        {"grant_types": ["refresh_token"]},
        {"grant_types": []},
        {"response_types": []},
        {"response_types": ["token"]},
        {"response_types": ["code", "token"]},
        {"response_types": ["code token"]},
        {"grant_types": "authorization_code"},
        {"grant_types": [1]},
        {"grant_types": {"authorization_code": 1}},
        {"response_types": "code"},
        {"token_endpoint_auth_method": "client_secret_post"},
        {"token_endpoint_auth_method": "private_key_jwt"},
        {"token_endpoint_auth_method": "NONE"},
        {"token_endpoint_auth_method": 1},
        {"token_endpoint_auth_method": ["none"]},
        {"client_name": 1},
        {"client_name": ["x"]},
        {"client_name": "a" * 201},
        {"scope": ["a"]},
        {"scope": "a  b"},
        {"scope": " a"},
        {"scope": 'a"b'},
        {"scope": "ä"},
        {"scope": "a" * 2049},
        {"client_uri": "javascript:alert(1)"},
        {"client_uri": "data:text/html,x"},
        {"client_uri": "https://u@x.example"},
        {"client_uri": "https://x.example/\\y"},
        {"client_uri": "x.example"},
        {"client_uri": 1},
        {"logo_uri": "javascript:alert(1)"},
        {"tos_uri": "vbscript:x"},
        {"policy_uri": "file:///x"},
        {"jwks_uri": "ftp://x"},
        {"jwks": "x"},
        {"jwks": {}},
        {"jwks": {"keys": {}}},
        {"jwks": {"keys": [{}] * 33}},
        {"jwks": {"keys": []}, "jwks_uri": "https://app.example/jwks"},
        {"contacts": "a@b.example"},
        {"contacts": [1]},
        {"contacts": ["x"] * 33},
        {"software_id": "a" * 2049},
        {"software_version": True},
    ],
)
def test_a_member_of_the_wrong_type_or_value_is_refused(members: dict[str, Any]) -> None:
    """REG-003, RFC 7591 §2.1: grants and response types agree."""
    assert refusal(**members) == "invalid_client_metadata"


@pytest.mark.parametrize("name", ["client_name", "client_uri", "logo_uri", "scope", "token_endpoint_auth_method"])
@pytest.mark.parametrize("value", ["", None])
def test_an_empty_member_counts_as_absent(name: str, value: object) -> None:
    assert parse(**{name: value}).members() == parse().members()


def test_keys_and_links_that_are_sound_are_taken_and_not_registered() -> None:
    members = parse(
        jwks={"keys": [{"kty": "x"}]}, logo_uri="http://169.254.169.254/", tos_uri="https://a.example/t", contacts=["x"]
    ).members()
    assert members == parse().members()


# dcr-08
@pytest.mark.parametrize(
    "character",
    ["\u202e", "\u200b", "\u2066", "\ufeff", "\n", "\t", "\0", "\x7f", "\u2028", "\u2029", "\ue000", "\u200d"],
)
def test_a_name_with_a_character_nobody_sees_is_refused(character: str) -> None:
    assert refusal(client_name=f"My{character}app") == "invalid_client_metadata"
    assert not is_displayable(character)


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", "\u0421laude", "日本語アプリ", "Ünïcode ✓", "🙂"])
def test_a_name_that_can_be_seen_is_taken(name: str) -> None:
    assert parse(client_name=name).members()["client_name"] == name


def test_a_uri_or_grant_that_is_named_twice_is_registered_once() -> None:
    metadata = parse(redirect_uris=[URI, URI], grant_types=["authorization_code", "authorization_code"])
    assert metadata.redirect_uris == (URI,)
    assert metadata.grant_types == ("authorization_code",)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=8), children, max_size=4),
    max_leaves=8,
)
MEMBERS = st.sampled_from(
    [
        "redirect_uris",
        "grant_types",
        "response_types",
        "client_name",
        "scope",
        "jwks",
        "jwks_uri",
        "contacts",
        "client_uri",
    ]
)


@given(st.dictionaries(MEMBERS, JSON, max_size=5))
def test_any_document_is_taken_or_refused_with_a_code_of_rfc_7591(document: dict[str, Any]) -> None:
    try:
        outcome = parse_client_metadata({"redirect_uris": [URI], **document}).auth_method
    except RegistrationError as fault:
        outcome = fault.error
    assert outcome in {"none", "client_secret_basic", "invalid_redirect_uri", "invalid_client_metadata"}
