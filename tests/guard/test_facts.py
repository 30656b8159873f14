"""The facts that layers hand inward."""

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_guard.facts import (
    FACTS_KEY,
    Call,
    ClientAddress,
    MessageKind,
    Principal,
    RequestId,
    Resource,
    RpcMessage,
    SessionHandle,
    Transport,
    fact,
    facts_of,
)
from tests.guard.stubs import principal

TEXTS = st.text(max_size=12)


def test_a_fact_is_found_by_its_type_and_its_absence_is_said() -> None:
    scope = {"type": "http", FACTS_KEY: {RequestId: RequestId("r1")}}
    assert fact(scope, RequestId) == RequestId("r1")
    with pytest.raises(LookupError, match="no layer added Principal"):
        fact(scope, Principal)
    assert facts_of({"type": "http"}) == {}


@pytest.mark.parametrize(
    ("address", "bucket"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.8", "192.0.2.8"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff:ffff:ffff:ffff", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::1", "2001:db8:1:3::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
    ],
)
def test_the_bucket_of_an_address_is_itself_or_its_64(address: str, bucket: str) -> None:
    assert ClientAddress(ip_address(address)).bucket == bucket
    assert str(ClientAddress(ip_address(address))) == str(ip_address(address))


def test_an_unknown_address_has_a_bucket_too() -> None:
    assert (ClientAddress(None).bucket, str(ClientAddress(None))) == ("unknown", "unknown")


@given(st.ip_addresses(v=6), st.integers(0, 2**64 - 1))
def test_all_addresses_of_a_64_share_a_bucket(address: object, host: int) -> None:
    network = int(ip_address(str(address))) >> 64
    if network == 0:
        network = 1
    one, two = ip_address((network << 64) | host), ip_address(network << 64)
    assert ClientAddress(one).bucket == ClientAddress(two).bucket
    assert ClientAddress(one).bucket != ClientAddress(ip_address((network ^ 1) << 64 | 1 << 63)).bucket


def test_a_transport_is_secure_over_https_alone() -> None:
    assert Transport("https", "x").is_secure
    assert not Transport("http", "x").is_secure
    assert not Transport("HTTPS", "x").is_secure


def test_the_audiences_of_a_resource_are_its_url_and_its_aliases() -> None:
    resource = Resource("https://a.example/mcp", "/mcp", aliases=frozenset({"urn:a"}))
    assert resource.audiences == {"https://a.example/mcp", "urn:a"}


@pytest.mark.parametrize(
    "change", [{"issuer": "https://other"}, {"subject": "other"}, {"client": "other"}, {"tenant": "other"}]
)
def test_a_principal_is_another_when_issuer_subject_client_or_tenant_is(change: dict[str, str]) -> None:
    one = principal("alice")
    other = principal(**{"subject": "alice", **change})
    assert one.identity != other.identity
    assert one.owner != other.owner
    assert one.key != other.key


def test_a_principal_stays_itself_with_a_new_token() -> None:
    old = principal("alice", token="1" * 16)
    new = principal("alice", token="2" * 16, scopes=frozenset({"more"}), expires_at=2.0, claims={})
    assert old.identity == new.identity
    assert (old.owner, old.key) == (new.owner, new.key)


@given(st.tuples(TEXTS, TEXTS, TEXTS, st.none() | TEXTS), st.tuples(TEXTS, TEXTS, TEXTS, st.none() | TEXTS))
def test_no_two_identities_share_an_owner(
    one: tuple[str, str, str, str | None], two: tuple[str, str, str, str | None]
) -> None:
    def of(identity: tuple[str, str, str, str | None]) -> Principal:
        issuer, subject, client, tenant = identity
        return principal(subject, client=client, issuer=issuer, tenant=tenant)

    assert (of(one).owner == of(two).owner) is (one == two)
    assert (of(one).key == of(two).key) is (one == two)
    assert of(one).owner.isascii()


def test_a_principal_shows_no_claims_in_its_repr() -> None:
    assert "canary" not in repr(principal("alice", claims={"secret": "canary"}))


def test_a_session_handle_does_not_show_itself() -> None:
    assert "canary" not in repr(SessionHandle("canary", "fp"))


REQUEST = RpcMessage(MessageKind.REQUEST, "tools/call", 7, "add")


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (Call((REQUEST,), None, False), 7),
        (Call((), None, False), None),
        (Call((REQUEST,), None, False, batch=True), None),
        (Call((REQUEST, REQUEST), None, False, batch=True), None),
    ],
)
def test_the_id_to_echo_is_that_of_the_one_request(call: Call, expected: int | None) -> None:
    assert call.request_id == expected
