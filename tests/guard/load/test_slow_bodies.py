"""Clients that send a body byte by byte are answered 408, and others do not notice them (dos-01)."""

import contextlib
import select
import socket
import time
from pathlib import Path

import pytest

from tests.guard.load.clients import Target, allow_open_files, percentile, report, running
from tests.guard.stubs import rpc

WITHIN_SECONDS = 35.0
"""The guard's 30 s for a body, and a slow machine."""
EVERY_SECONDS = 0.5
BYTES_EACH_TIME = 5


def half_open(target: Target, count: int) -> list[socket.socket]:
    """Connections with the complete head of a call, and nothing of its body."""
    data = rpc("tools/call", "add") + b" " * 4000
    connections = []
    for number in range(count):
        one = target.connect()
        one.sendall(target.request("POST", number, data=data)[: -len(data)])
        connections.append(one)
    return connections


def trickle(connections: list[socket.socket]) -> tuple[list[bytes], float]:
    """Send ten bytes a second on each until all are answered; the answers, and when the last of them came."""
    began, answers = time.monotonic(), list[bytes]()
    waiting = {one.fileno(): one for one in connections}
    while waiting and time.monotonic() < began + WITHIN_SECONDS + 5:
        readable, _, _ = select.select(list(waiting), [], [], EVERY_SECONDS)
        for number in readable:
            one = waiting.pop(number)
            with contextlib.suppress(ConnectionError):
                answers.append(one.recv(65536))
        for one in waiting.values():
            with contextlib.suppress(ConnectionError):
                one.sendall(b" " * BYTES_EACH_TIME)
    return answers, time.monotonic() - began


@pytest.mark.load
def test_bodies_that_do_not_come_are_given_up_and_nobody_else_is(tmp_path: Path) -> None:
    """dos-01"""
    count = 500
    allow_open_files(2000)
    with running("guarded", tmp_path / "guarded", count) as target:
        alone = target.call_seconds(3.0)
        before, sockets = target.settled_memory_kib(), target.sockets()
        connections = half_open(target, count)
        beside = target.call_seconds(3.0)
        growth = (target.memory_kib() - before) / 1024
        answers, took = trickle(connections)
        for one in connections:
            one.close()
        again = target.call_seconds(1.0)
        left = target.sockets_left(sockets)
    report(
        f"{count} clients that send ten bytes of a body a second",
        {
            "answered 408": sum(answer.startswith(b"HTTP/1.1 408 ") for answer in answers),
            "the last after, s": took,
            "memory grows by, MiB": growth,
            "a call without them, p99 in ms": 1000 * percentile(alone, 0.99),
            "a call beside them, p99 in ms": 1000 * percentile(beside, 0.99),
            "a call after them, p99 in ms": 1000 * percentile(again, 0.99),
        },
    )
    assert len(answers) == count
    assert all(answer.startswith(b"HTTP/1.1 408 ") for answer in answers)
    assert took <= WITHIN_SECONDS
    assert left == 0
