"""INP, the text of a message: what is no JSON-RPC, ids, encodings, and odd values."""

from __future__ import annotations

import json

from hypothesis import strategies as st

from conformance_suites.bodies import HandWriter, is_unanswered
from conformance_suites.calls import Caller
from pytest_mcp_conformance import Advice, Finding, requirement
from pytest_mcp_conformance.eras import result_of
from pytest_mcp_conformance.exchange import Exchange
from pytest_mcp_conformance.properties import Space
from pytest_mcp_conformance.target import Target

LARGEST_SAFE = 2**53 - 1
GOOD_IDS = ("", "1", 0, -1, LARGEST_SAFE, "é漢😀")
BAD_IDS: tuple[object, ...] = (True, None, 1.5, {}, [1])
MEMBERS = ("jsonrpc", "method", "id", "params")
BROKEN_TEXTS = (b'"a\xc0\xafb"', b'"\xed\xa0\x80"', b'"\xff"')
ODD_IDS = (r'"\ud800"', r'"a\u0000b"', r'"\u2028\ufeff\uffff"', "9" * 400)
ODD_NUMBERS = ("NaN", "1e999", "-Infinity", "1e-999")


class InvalidMessageUnanswered(Finding):
    """What is no JSON-RPC message is answered with a server error, or not at all."""


class InvalidMessageServed(Finding):
    """What is no JSON-RPC message is served."""


class RefusedWithSuccess(Advice):
    """What is no JSON-RPC message is refused with a status of success."""


class IdMadeUp(Finding):
    """The answer to a body that cannot be read has an id."""


class IdChanged(Finding):
    """A request id does not come back with its value and type."""


class BadIdServed(Finding):
    """A request whose id is neither text nor an integer is served."""


class OtherEncodingServed(Finding):
    """A message in another encoding than UTF-8 is served."""


class OddValueUnanswered(Finding):
    """An odd number or text is answered with a server error, or not at all."""


class OddValueChanged(Finding):
    """An odd number or text comes back as another."""


def _writer(target: Target) -> HandWriter:
    return HandWriter(Caller(target, target.require_credential()))


@requirement("INP-001")
def test_what_is_no_json_is_refused_cleanly(target: Target, space: Space) -> None:
    """JSON-RPC 2.0 §5.1: -32700 without an id, 400 of HTTP."""
    writer = _writer(target)

    def judge(body: bytes) -> None:
        exchange = writer.send(writer.with_body(body))
        _judge_refusal(exchange, f"a body of {len(body)} bytes, {body[-12:]!a} at its end")
        members = exchange.json()
        if isinstance(members, dict) and "error" in members and members.get("id") is not None:
            raise IdMadeUp(
                "the answer to a body that cannot be read has an id",
                evidence=exchange,
                expected='"id": null, or none',
                got=f'"id": {json.dumps(members["id"])[:40]}',
                counterexample=ascii(body[:60]),
            )

    with target.controlled(target.require_credential()):
        whole = writer.text
        classics = [b"", b"\x00\xff", whole[:-1], whole + b"}", whole + b"\n" + whole]
        space.search(judge, st.binary(max_size=20).filter(_is_no_json), classics=classics, max_examples=3)


@requirement("INP-001")
def test_what_is_no_json_rpc_is_refused_cleanly(target: Target, space: Space) -> None:
    """JSON-RPC 2.0 §4: JSON of other shapes, and messages that lack something."""
    writer = _writer(target)
    near = [
        writer.with_members(jsonrpc=...),
        writer.with_members(jsonrpc="1.0"),
        writer.with_members(method=7),
        writer.with_members(method=...),
        writer.with_members(params="x"),
    ]

    def judge(value: object) -> None:
        exchange = writer.send(writer.with_body(json.dumps(value).encode()))
        _judge_refusal(exchange, f"the body {ascii(json.dumps(value))[:60]}")

    for request in near:
        _judge_refusal(writer.send(request), f"the body {(request.body or b'')[:90]!a}")
    scalars = st.none() | st.booleans() | st.integers() | st.text(max_size=5)
    shapeless = scalars | st.dictionaries(st.text(max_size=5).filter(lambda name: name not in MEMBERS), scalars)
    space.search(judge, shapeless, classics=[None, {}], max_examples=2)
    target.control(target.require_credential(), "after")


def _is_no_json(body: bytes) -> bool:
    try:
        json.loads(body)
    except ValueError:
        return True
    return False


def _judge_refusal(exchange: Exchange, what: str) -> None:
    if is_unanswered(exchange):
        raise InvalidMessageUnanswered(
            "what is no JSON-RPC message is answered with a server error, or not at all",
            evidence=exchange,
            expected="400, JSON-RPC error -32700 or -32600",
            got=exchange.summary,
            counterexample=what,
        )
    if exchange.succeeded and exchange.rpc_error is None:
        raise InvalidMessageServed(
            "what is no JSON-RPC message is served",
            evidence=exchange,
            expected="400, JSON-RPC error -32700 or -32600",
            got=exchange.summary,
            counterexample=what,
        )
    if exchange.succeeded:
        raise RefusedWithSuccess(
            "what is no JSON-RPC message is refused with a status of success",
            evidence=exchange,
            expected="400",
            got=exchange.summary,
            counterexample=what,
        )


@requirement("INP-002")
def test_ids_come_back_unchanged(target: Target, space: Space) -> None:
    """MCP basic, Requests: text or an integer, in results and in errors."""
    writer = _writer(target)

    def judge(request_id: str | int) -> None:
        _judge_echo(writer, request_id)

    ids = st.integers(-LARGEST_SAFE, LARGEST_SAFE) | st.text("aB9 -_/é😀", max_size=40)
    space.search(judge, ids, classics=GOOD_IDS, max_examples=2)
    _judge_echo(HandWriter(Caller(target, target.require_credential()), "conformance/nothing"), 7)
    for bad in BAD_IDS:
        exchange = writer.send(writer.with_members(id=bad))
        if result_of(exchange) is not None:
            raise BadIdServed(
                "a request whose id is neither text nor an integer is served",
                evidence=exchange,
                expected="400, JSON-RPC error -32600",
                got=exchange.summary,
                counterexample=f'"id": {json.dumps(bad)}',
            )


def _judge_echo(writer: HandWriter, request_id: str | int) -> None:
    exchange = writer.send(writer.with_members(id=request_id))
    message = exchange.message()
    if message is None or (result_of(exchange) is None and message.get("id") is None):
        return
    back = message.get("id")
    if type(back) is not type(request_id) or back != request_id:
        raise IdChanged(
            "a request id does not come back with its value and type",
            evidence=exchange,
            expected=f'"id": {json.dumps(request_id)}',
            got=f'"id": {json.dumps(back)[:60]}',
            counterexample=f'"id": {json.dumps(request_id)}',
        )


@requirement("INP-005")
def test_only_utf_8_is_read(target: Target) -> None:
    """RFC 8259 §8.1: neither another encoding nor bytes that are none."""
    writer = _writer(target)
    text = writer.text.decode()
    bodies = [(f"the message in {name}", text.encode(name)) for name in ("utf-16", "utf-16-be", "utf-32")]
    for broken in BROKEN_TEXTS:
        body = writer.with_id('"conformance"').body or b""
        bodies.append((f"the bytes {broken[1:-1]!r} in the id", body.replace(b'"conformance"', broken)))
    with target.controlled(target.require_credential()):
        for what, body in bodies:
            exchange = writer.send(writer.with_body(body))
            _judge_answered(exchange, what)
            if result_of(exchange) is not None:
                raise OtherEncodingServed(
                    "a message that is not UTF-8 is served",
                    evidence=exchange,
                    expected="400, JSON-RPC error -32700",
                    got=exchange.summary,
                    counterexample=what,
                )


@requirement("INP-005")
def test_odd_numbers_and_texts_are_safe(target: Target, space: Space) -> None:
    """RFC 8259 §6, §8.2: refused, or carried through unchanged."""
    writer = _writer(target)

    def judge(text: str) -> None:
        exchange = writer.send(writer.with_id(text))
        _judge_answered(exchange, f'"id": {text[:40]}')
        back = (exchange.message() or {}).get("id")
        if result_of(exchange) is not None and back != json.loads(text):
            raise OddValueChanged(
                "an odd number or text comes back as another",
                evidence=exchange,
                expected="400, or the same value",
                got=f'"id": {json.dumps(back)[:40]}',
                counterexample=f'"id": {text[:40]}',
            )

    characters = st.characters(codec="utf-8") | st.characters(categories=["Cc", "Cf", "Co"])
    texts = st.text(characters, max_size=8).map(json.dumps)
    space.search(judge, texts, classics=ODD_IDS, max_examples=3)
    for number in ODD_NUMBERS:
        marked = writer.with_members(params={**writer.payload.get("params", {}), "conformance": "number"})
        body = (marked.body or b"").replace(b'"number"', number.encode())
        _judge_answered(writer.send(writer.with_body(body)), f"{number} in params")


def _judge_answered(exchange: Exchange, what: str) -> None:
    if is_unanswered(exchange):
        raise OddValueUnanswered(
            "an odd number or text is answered with a server error, or not at all",
            evidence=exchange,
            expected="a result, or 400",
            got=exchange.summary,
            counterexample=what,
        )
