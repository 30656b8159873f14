"""INP, bounds: the size and depth of bodies, compression, and clients that are slow."""

from __future__ import annotations

import gzip
from dataclasses import replace

from hypothesis import strategies as st

from conformance_suites.bodies import HandWriter, is_unanswered
from conformance_suites.calls import Caller
from pytest_mcp_conformance import Finding, requirement
from pytest_mcp_conformance.eras import result_of
from pytest_mcp_conformance.exchange import Request
from pytest_mcp_conformance.probe import Probe
from pytest_mcp_conformance.properties import Space
from pytest_mcp_conformance.target import Target

MEBIBYTE = 1 << 20
BLANKS = b" " * MEBIBYTE
LARGE = 16
DEPTHS = (1_000, 100_000)
SLOW_CLIENTS = 8


class LargeBodyServed(Finding):
    """A message of many mebibytes is read and served."""


class DeepMessageUnanswered(Finding):
    """Deeply nested JSON is answered with a server error, or not at all."""


class ExpandedWithoutBound(Finding):
    """A compressed body is expanded to many mebibytes and served."""


class SlowClientsBlock(Finding):
    """While a few bodies are slow to come, others are not served."""


def _writer(target: Target) -> HandWriter:
    return HandWriter(Caller(target, target.require_credential()))


@requirement("INP-003")
def test_the_size_of_bodies_is_bounded(target: Target) -> None:
    """RFC 9110 §15.5.14. Sends the list of tools with blanks behind it, 16 MiB in all: once with a length, once in
    chunks.
    """
    writer = _writer(target)
    message = writer.with_body(writer.text)
    padded = {
        "with Content-Length": replace(message, body=writer.text + BLANKS * LARGE),
        "in chunks": replace(message, body=None, chunks=(writer.text, *[BLANKS] * LARGE)),
    }
    with target.controlled(target.require_credential()):
        for how, request in padded.items():
            exchange = writer.send(request)
            if result_of(exchange) is not None:
                raise LargeBodyServed(
                    "a message of many mebibytes is read and served",
                    evidence=exchange,
                    expected="413",
                    got=exchange.summary,
                    counterexample=f"{LARGE} MiB of blanks behind the message, {how}",
                )


@requirement("INP-003")
def test_the_depth_of_messages_is_bounded(target: Target, space: Space) -> None:
    """RFC 8259 §9: a parser has a limit, and says so."""
    writer = _writer(target)

    def judge(depth: int) -> None:
        marked = writer.with_members(params={**writer.payload.get("params", {}), "conformance": "deep"})
        nested = b"[" * depth + b"]" * depth
        exchange = writer.send(writer.with_body((marked.body or b"").replace(b'"deep"', nested)))
        if is_unanswered(exchange):
            raise DeepMessageUnanswered(
                "deeply nested JSON is answered with a server error, or not at all",
                evidence=exchange,
                expected="400, or a result",
                got=exchange.summary,
                counterexample=f"{depth} arrays in one another in params",
            )

    with target.controlled(target.require_credential()):
        space.search(judge, st.integers(500, 20_000), classics=DEPTHS, max_examples=2)


@requirement("INP-006")
def test_compressed_bodies_are_bounded(target: Target) -> None:
    """RFC 9110 §15.5.16: refused, or expanded up to the bound of other bodies. Sends 16 MiB in about 16 KiB."""
    writer = _writer(target)
    plain = writer.send(writer.with_body(writer.text + BLANKS * LARGE))
    packed = gzip.compress(writer.text + BLANKS * LARGE)
    with target.controlled(target.require_credential()):
        exchange = writer.send(writer.with_body(packed).adding(("Content-Encoding", "gzip")))
        if result_of(exchange) is not None and result_of(plain) is None:
            raise ExpandedWithoutBound(
                "a compressed body is expanded to many mebibytes and served, which plain is refused",
                evidence=exchange,
                expected="415 or 413",
                got=exchange.summary,
                counterexample=f"{LARGE} MiB in {len(packed)} bytes of gzip",
            )


@requirement("INP-006")
def test_slow_bodies_hold_nobody_up(target: Target, probe: Probe) -> None:
    """OWASP API4:2023. Opens eight connections that send half of a message and wait, then a good request."""
    writer = _writer(target)
    credential = target.require_credential()
    whole = writer.with_body(writer.text)
    headers = (("Content-Length", str(len(writer.text))), *(() if credential is None else (credential.header,)))
    half: Request = replace(whole, body=writer.text[: len(writer.text) // 2]).with_headers(*headers)
    target.control(credential, "before")
    with probe.unfinished(half, SLOW_CLIENTS):
        exchange = writer.send(whole)
    if result_of(exchange) is None:
        target.control(credential, "after")
        raise SlowClientsBlock(
            "while a few bodies are slow to come, others are not served",
            evidence=exchange,
            expected="a result",
            got=exchange.summary,
            counterexample=f"{SLOW_CLIENTS} connections with {len(half.body or b'')} bytes of a message each",
        )
