"""Many requests, some of them bad and some given up, leave nothing behind (dos-11, in a run of minutes)."""

import contextlib
import json
import random
import socket
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.guard.load.clients import Target, allow_open_files, read_until, report, running
from tests.guard.stubs import rpc

REQUESTS = 200_000
SETTLE = 50_000
"""Requests after which what the server keeps on purpose is there."""
CONNECTIONS = 16
SOCKETS = 3
"""What an idle server has: the one it listens on, and the pair by which its event loop is woken."""
LARGEST_GROWTH_SHARE = 0.02


def good(target: Target, connection: socket.socket, number: int) -> socket.socket:
    target.call(connection, number)
    return connection


def invalid(target: Target, connection: socket.socket, number: int) -> socket.socket:
    """A call with a token that nobody issued."""
    data = rpc("tools/call", "add")
    request = target.request("POST", number, data=data)
    token = target.tokens[number % len(target.tokens)].encode()
    connection.sendall(request.replace(token, token[:-10] + f"{number:010}".encode()))
    assert read_until(connection, b'"}').startswith(b"HTTP/1.1 401 ")
    return connection


def aborted(target: Target, connection: socket.socket, number: int) -> socket.socket:
    """A call whose client leaves at once."""
    connection.sendall(target.request("POST", number, data=rpc("tools/call", "add")))
    connection.close()
    return target.connect()


def close_all(connections: list[socket.socket]) -> None:
    for one in connections:
        one.close()


def run(target: Target, requests: int, chance: random.Random) -> Counter[str]:
    """So many requests: 5 % aborted, 5 % invalid."""
    done: Counter[str] = Counter()
    with contextlib.ExitStack() as until_closed:
        connections = [target.connect() for _ in range(CONNECTIONS)]
        until_closed.callback(close_all, connections)
        for number in range(requests):
            act = chance.choices((good, invalid, aborted), (90, 5, 5))[0]
            place = number % CONNECTIONS
            connections[place] = act(target, connections[place], number)
            done[act.__name__] += 1
    return done


@pytest.mark.load
def test_many_requests_leave_nothing_behind(tmp_path: Path) -> None:
    """dos-11"""
    allow_open_files(1000)
    chance = random.Random(11)
    with running("guarded", tmp_path / "guarded", 100) as target:
        run(target, SETTLE, chance)
        assert target.sockets_left(SOCKETS) == 0
        settled, began = target.settled_memory_kib(), time.monotonic()
        done = run(target, REQUESTS, chance)
        seconds = time.monotonic() - began
        growth = (target.settled_memory_kib() - settled) / settled
        left = target.sockets_left(SOCKETS)
        with (target.folder / "audit.jsonl").open() as lines:
            records = sum(json.loads(line)["seq"] > 0 for line in lines)
    report(
        f"{REQUESTS:,} requests after {SETTLE:,}",
        {
            **dict(done),
            "requests a second": REQUESTS / seconds,
            "memory after the first, MiB": settled / 1024,
            "it grows by, %": 100 * growth,
            "sockets left": left,
            "audit records": records,
        },
    )
    assert left == 0
    assert growth <= LARGEST_GROWTH_SHARE
