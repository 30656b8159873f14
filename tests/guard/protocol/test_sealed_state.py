"""A seal opens for what it was made for, as it was made, and for nothing else."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_guard.facts import MessageKind, Principal, Resource, RpcMessage
from mcp_guard.keyring import KeyRing
from mcp_guard.protocol import b64url
from mcp_guard.protocol.sealed_state import (
    MAX_STATE_BYTES,
    Opened,
    StateError,
    binding,
    presented,
    seal,
    splice,
    unseal,
)
from tests.guard.stubs import ALICE, MCP, SSE, principal

RING = KeyRing.generate()
NOW = 1_800_000_000.0
STATE = "order 7, confirmed: no"


def asks(method: str = "tools/call", name: str | None = "pay", /, **params: Any) -> RpcMessage:
    """A request as intake reads it."""
    named = {} if name is None else {"name": name}
    return RpcMessage(MessageKind.REQUEST, method, 1, name, {**named, **params})


ASKED = asks(arguments={"amount": 3, "to": "Eve"})
BOUND = binding(ALICE, MCP, ASKED)


def sealed(state: str = STATE, bound: tuple[bytes, ...] = BOUND, ring: KeyRing = RING) -> str:
    return seal(ring, state, bound, issued=NOW, expires=NOW + 600)


def opened(text: str, bound: tuple[bytes, ...] = BOUND, now: float = NOW, ring: KeyRing = RING) -> Opened:
    return unseal(ring, text, bound, now=now)


def refused(text: str, bound: tuple[bytes, ...] = BOUND, now: float = NOW, ring: KeyRing = RING) -> str:
    with pytest.raises(StateError) as caught:
        opened(text, bound, now, ring)
    return caught.value.reason


SEALED = sealed()


@given(state=st.text(st.characters(codec=None)))
def test_a_state_comes_back_as_it_was(state: str) -> None:
    found = opened(sealed(state))
    assert (found.state, found.issued, found.expires, len(found.identifier)) == (state, NOW, NOW + 600, 16)


def test_each_seal_has_an_identifier_of_its_own() -> None:
    assert len({opened(sealed()).identifier for _ in range(100)}) == 100


def test_a_seal_is_header_safe_text_that_shows_nothing_of_the_state() -> None:
    state = "a password: hunter2"
    text = sealed(state)
    assert set(text) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
    shown = b64url.decode(text)
    for part in (b"hunter2", b"password", b"alice", MCP.url.encode()):
        assert part not in shown
    assert sealed(state) != sealed(state)


def test_every_single_bit_counts() -> None:
    data = b64url.decode(SEALED)
    for position in range(len(data) * 8):
        changed = bytearray(data)
        changed[position // 8] ^= 1 << position % 8
        assert "sealed by another key" in refused(b64url.encode(bytes(changed)))


@given(end=st.integers(0, len(SEALED) - 1))
def test_a_shortened_seal_is_refused(end: int) -> None:
    refused(SEALED[:end])


@given(more=st.text("ABCabc019-_", min_size=1, max_size=90), front=st.booleans())
def test_a_lengthened_seal_is_refused(more: str, front: bool) -> None:
    refused(more + SEALED if front else SEALED + more)


@given(cut=st.integers(1, len(SEALED) - 1))
def test_a_splice_of_two_seals_is_refused(cut: int) -> None:
    other = sealed()
    assert len(other) == len(SEALED)
    spliced = SEALED[:cut] + other[cut:]
    # A cut behind the nonce's shared beginning can give one of the two themselves.
    if spliced not in (SEALED, other):
        refused(spliced)


@given(text=st.text(st.characters(codec=None), max_size=200))
def test_an_invented_seal_is_refused(text: str) -> None:
    refused(text)


@pytest.mark.parametrize(
    "text", ["", "=", SEALED + "=", SEALED + "\n", " " + SEALED, "\u00e9" * 80, "AAAA", "A" * 1_000_000]
)
def test_what_is_no_seal_is_refused(text: str) -> None:
    refused(text)


OTHERS = {
    "issuer": principal("alice", issuer="https://other.example"),
    "subject": principal("bob"),
    "client": principal("alice", client="client-2"),
    "tenant": principal("alice", tenant="acme"),
    "empty tenant": principal("alice", tenant=""),
    "shifted": principal("alic", client="eclient-1"),
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_a_principal_that_differs_in_one_component_is_refused(other: Principal) -> None:
    assert "another key, principal or request" in refused(SEALED, binding(other, MCP, ASKED))


def test_the_same_principal_with_another_token_is_served() -> None:
    later = principal("alice", token="c" * 16, scopes=frozenset({"more"}), expires_at=2_000_000_000.0)
    assert opened(SEALED, binding(later, MCP, ASKED)).state == STATE


@pytest.mark.parametrize("other", [SSE, Resource("https://mcp.example/mcp/", "/mcp")], ids=["sse", "slash"])
def test_another_audience_is_refused(other: Resource) -> None:
    refused(SEALED, binding(ALICE, other, ASKED))


LEAVES = (
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=False, width=16) | st.text("ab1é", max_size=3)
)
ARGUMENTS = st.dictionaries(
    st.text("ab", max_size=2),
    st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text("ab", max_size=2), inner)),
    max_size=3,
)
REQUESTS = st.builds(
    lambda method, name, arguments: asks(method, name, arguments=arguments),
    st.sampled_from(["tools/call", "prompts/get", "resources/read"]),
    st.sampled_from([None, "", "pay", "pay2"]),
    ARGUMENTS,
)


def spelled(message: RpcMessage) -> str:
    return json.dumps([message.method, message.name, message.params], sort_keys=True)


@given(one=REQUESTS, other=REQUESTS)
def test_a_state_is_for_one_request(one: RpcMessage, other: RpcMessage) -> None:
    same = spelled(one) == spelled(other)
    assert (binding(ALICE, MCP, one) == binding(ALICE, MCP, other)) == same


@given(asked=REQUESTS, order=st.randoms(use_true_random=False))
def test_the_order_of_members_does_not_matter(asked: RpcMessage, order: Any) -> None:
    def shuffled(value: Any) -> Any:
        if isinstance(value, dict):
            members = [(name, shuffled(inner)) for name, inner in value.items()]
            order.shuffle(members)
            return dict(members)
        return [shuffled(inner) for inner in value] if isinstance(value, list) else value

    assert binding(ALICE, MCP, asked._replace(params=shuffled(asked.params))) == binding(ALICE, MCP, asked)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("1.0", "1e0", True),
        ("1.50", "1.5", True),
        ('"a"', '"\\u0061"', True),
        ("1", "1.0", False),
        ("0", "false", False),
        ("0", "-0.0", False),
        ("[1,2]", "[2,1]", False),
        ("null", '"null"', False),
        ("{}", "[]", False),
    ],
)
def test_values_are_the_same_when_their_json_is(one: str, other: str, same: bool) -> None:
    pair = [binding(ALICE, MCP, asks(arguments={"x": json.loads(text)})) for text in (one, other)]
    assert (pair[0] == pair[1]) == same


@pytest.mark.parametrize("member", ["_meta", "inputResponses", "requestState"])
def test_what_changes_with_a_retry_is_not_bound(member: str) -> None:
    assert binding(ALICE, MCP, asks(**{member: {"x": 1}})) == binding(ALICE, MCP, asks())


@pytest.mark.parametrize("member", ["cursor", "uri", "arguments", "meta", "input_responses"])
def test_every_other_member_is_bound(member: str) -> None:
    assert binding(ALICE, MCP, asks(**{member: {"x": 1}})) != binding(ALICE, MCP, asks())


@pytest.mark.parametrize(("later", "good"), [(0, True), (599.999, True), (600, False), (600.001, False), (1e9, False)])
def test_a_seal_ends_with_its_time(later: float, good: bool) -> None:
    if good:
        assert opened(SEALED, now=NOW + later).state == STATE
    else:
        assert "expired" in refused(SEALED, now=NOW + later)


def test_a_key_in_the_ring_opens_and_one_that_left_it_does_not() -> None:
    old, new = KeyRing.generate(), KeyRing.generate()
    text = sealed(ring=old)
    assert opened(text, ring=KeyRing(new.keys + old.keys)).state == STATE
    assert "another key" in refused(text, ring=new)
    assert opened(sealed(ring=KeyRing(new.keys + old.keys)), ring=new).state == STATE


@pytest.mark.parametrize("size", [MAX_STATE_BYTES - 1, MAX_STATE_BYTES])
def test_the_longest_state_is_sealed_and_opened(size: int) -> None:
    assert opened(sealed("x" * size)).state == "x" * size


def test_what_is_longer_than_any_seal_is_not_decoded() -> None:
    longest = len(sealed("x" * MAX_STATE_BYTES))
    assert "longer than any seal" not in refused("A" * longest)
    assert "longer than any seal" in refused("A" * (longest + 1))


@pytest.mark.parametrize("state", ["x" * (MAX_STATE_BYTES + 1), "é" * (MAX_STATE_BYTES // 2 + 1)])
def test_a_longer_state_is_not_sealed(state: str) -> None:
    with pytest.raises(StateError, match="longer than 65536 bytes"):
        sealed(state)


def test_a_state_without_a_member_is_none() -> None:
    assert presented({"name": "pay", "_meta": {}}) is None
    assert presented({"requestState": "x"}) == "x"


@pytest.mark.parametrize("value", [None, True, 7, 1.5, ["x"], {"x": "y"}])
def test_a_state_that_is_no_text_is_refused(value: object) -> None:
    with pytest.raises(StateError, match="no text"):
        presented({"requestState": value})


@pytest.mark.parametrize(
    "name", ["requeststate", "RequestState", "request_state", "REQUEST_STATE", "request__State", "reque\u017ftState"]
)
def test_a_name_that_lenient_readers_take_for_it_is_refused(name: str) -> None:
    with pytest.raises(StateError, match="another spelling"):
        presented({name: "x"})


BODY = f'{{"jsonrpc": "2.0", "params" : {{"x": 1.50, "requestState": "{SEALED}"}} }}'.encode()


@given(state=st.text(st.characters(codec=None)))
def test_the_state_takes_the_place_of_the_seal_and_nothing_else_changes(state: str) -> None:
    spliced = splice(BODY, SEALED, state)
    before, after = BODY.split(f'"{SEALED}"'.encode())
    assert spliced.startswith(before)
    assert spliced.endswith(after)
    assert json.loads(spliced)["params"] == {"x": 1.5, "requestState": state}


ESCAPED = f"\\u{ord(SEALED[0]):04x}{SEALED[1:]}"


@pytest.mark.parametrize(
    "params",
    [
        f'{{"requestState": "{ESCAPED}"}}',
        f'{{"requestState": "{SEALED}", "inputResponses": {{"a": "{SEALED}"}}}}',
        f'{{"requestState": "{ESCAPED}", "inputResponses": {{"a": "{SEALED}"}}}}',
        f'{{"requestState": "{ESCAPED}", "inputResponses": {{"{SEALED}": 1}}}}',
        f'{{"request\\u0053tate": "{ESCAPED}", "_meta": "{SEALED}"}}',
    ],
)
def test_a_state_whose_place_cannot_be_told_is_refused(params: str) -> None:
    with pytest.raises(StateError, match="escapes"):
        splice(f'{{"params": {params}}}'.encode(), SEALED, STATE)


def test_the_members_name_may_be_written_with_escapes() -> None:
    body = f'{{"params": {{"request\\u0053tate": "{SEALED}"}}}}'.encode()
    assert json.loads(splice(body, SEALED, STATE)) == {"params": {"requestState": STATE}}
