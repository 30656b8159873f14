"""A server that is told to stop refuses what is new, finishes what it does, ends its streams and is gone in time."""

import time
from contextlib import closing
from pathlib import Path

import pytest

from tests.guard.load.clients import ANSWERED, allow_open_files, read_all, report, running
from tests.guard.load.server import SLOW_SECONDS
from tests.guard.stubs import rpc

GONE_WITHIN_SECONDS = 10.0
LAST_CHUNK = b"0\r\n\r\n"


@pytest.mark.parametrize(("count", "calls"), [pytest.param(100, 10), pytest.param(1000, 50, marks=pytest.mark.load)])
def test_a_terminated_server_loses_nothing_and_is_gone_in_time(tmp_path: Path, count: int, calls: int) -> None:
    """dos-10"""
    allow_open_files(2 * (count + calls))
    with running("guarded", tmp_path / "guarded", count // 20) as target, closing(target.streams(count)) as streams:
        before = len(target.audit())
        answers = [target.connect() for _ in range(calls)]
        for number, one in enumerate(answers):
            one.sendall(target.request("POST", number, data=rpc("tools/call", "slow")))
        time.sleep(SLOW_SECONDS / 3)
        began = time.monotonic()
        target.terminate()
        ended = [read_all(one) for one in streams.sockets]
        ended_after = time.monotonic() - began
        answered = [read_all(one) for one in answers]
        target.process.wait(GONE_WITHIN_SECONDS)
        gone_after = time.monotonic() - began
        for one in answers:
            one.close()
        recorded = len(target.audit()) - before
    lost = calls - sum(ANSWERED in one for one in answered)
    report(
        f"SIGTERM with {count:,} streams open and {calls} calls in flight",
        {
            "streams ended after, s": ended_after,
            "gone after, s": gone_after,
            "calls lost": lost,
            "streams that were not ended cleanly": sum(not one.endswith(LAST_CHUNK) for one in ended),
            "calls without a record": calls - recorded,
        },
    )
    assert lost == 0
    assert all(one.endswith(LAST_CHUNK) for one in ended)
    assert all(b"connection: close" in one.lower() for one in answered)
    assert recorded == calls
    assert ended_after < gone_after <= GONE_WITHIN_SECONDS


def test_a_terminated_server_answers_nothing_new(tmp_path: Path) -> None:
    """dos-10"""
    with running("guarded", tmp_path / "guarded", 1) as target:
        with closing(target.connect()) as kept, closing(target.connect()) as slow:
            target.call(kept)
            slow.sendall(target.request("POST", 0, data=rpc("tools/call", "slow")))
            time.sleep(SLOW_SECONDS / 3)
            target.terminate()
            assert read_all(kept) == b"", "an idle connection is closed"
            with pytest.raises(ConnectionRefusedError):
                target.connect()
            assert ANSWERED in read_all(slow)
        target.process.wait(GONE_WITHIN_SECONDS)
