"""For every request, whatever it looks like: the guard refuses it, or everybody reads it as the guard did."""

import hashlib
import secrets
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.guard.attacks.raw import send
from tests.guard.fuzz.inprocess import READERS, Reader
from tests.guard.fuzz.requests import hostile
from tests.guard.fuzz.views import Views
from tests.guard.servers import SERVERS
from tests.support.serving import Serving

CASES = 50_000
MANY_CASES = 2_000_000
LIVE_CASES = 300
HOST = b"127.0.0.1:8000"
ORIGIN = "http://127.0.0.1:8000"
CRASHERS = Path(__file__).parent / "crashers"
KEPT = {path.stem: path.read_bytes() for path in sorted(CRASHERS.glob("*.http"))}
"""Each was once read in two ways, or by a server alone; `make fuzz` adds what it finds."""


class Disagreement(AssertionError):
    """A request that two readers read differently; it can be replayed from its bytes."""


async def shoot(reader: Reader, views: Views, data: bytes) -> str:
    """One request. Answers what became of it: `reached`, `refused` by the guard or the server, or `unanswered`.

    Raises:
        Disagreement: it was let through with two readings, or was answered with a fault of the server.
    """
    try:
        status = await reader.send(data)
        reached = views.compare()
        assert reached <= 1, f"one request reached the app {reached} times"
        assert not status.startswith(b"HTTP/1.1 5"), status
    except Exception as fault:
        raise Disagreement(f"{type(fault).__name__}: {fault}\n{data!r}") from fault
    return "reached" if reached else "refused" if status else "unanswered"


async def run(name: str, seed: int, cases: int, keep: Path | None = None) -> Counter[str]:
    """Shoot `cases` requests at one reader. Those that fail are written to `keep`."""
    views, random, outcomes = Views.of(ORIGIN), Random(seed), Counter[str]()
    with closing(READERS[name](views.guarded)) as reader:
        for case in range(cases):
            data = hostile(random, HOST)
            try:
                outcomes[await shoot(reader, views, data)] += 1
            except Disagreement as found:
                if keep is not None:
                    (keep / f"{hashlib.sha256(data).hexdigest()[:16]}.http").write_bytes(data)
                raise AssertionError(f"{name}, seed {seed}, case {case}: {found}") from found
    print(f"{name}, seed {seed}: {dict(outcomes)}")
    return outcomes


@pytest.mark.parametrize(("seed", "name"), list(enumerate(READERS)))
async def test_what_is_not_refused_has_one_reading(seed: int, name: str) -> None:
    cases = CASES // len(READERS)
    outcomes = await run(name, seed, cases)
    # A guard that refuses everything, or a generator that only makes good requests, would show nothing.
    assert outcomes["reached"] > cases / 10
    assert outcomes["refused"] > cases / 4


@pytest.mark.load
@pytest.mark.parametrize("name", READERS)
async def test_what_is_not_refused_has_one_reading_among_millions(name: str) -> None:
    await run(name, secrets.randbits(32), MANY_CASES // len(READERS), keep=CRASHERS)


@pytest.mark.parametrize("crasher", KEPT)
@pytest.mark.parametrize("name", READERS)
async def test_what_was_read_in_two_ways_is_not_any_more(name: str, crasher: str) -> None:
    views = Views.of(ORIGIN)
    with closing(READERS[name](views.guarded)) as reader:
        await shoot(reader, views, KEPT[crasher])


@pytest.fixture(params=SERVERS)
def served(request: pytest.FixtureRequest) -> Iterator[tuple[Serving, Views]]:
    made: list[Views] = []

    def build(url: str) -> Any:
        made.append(Views.of(url))
        return made[0].guarded

    with SERVERS[request.param](build) as running:
        yield running, made[0]


def test_what_real_servers_make_of_it_has_one_reading_too(served: tuple[Serving, Views]) -> None:
    running, views = served
    port = int(running.url.rpartition(":")[2])
    random, reached = Random(4), 0
    replayed = [data.replace(HOST, b"127.0.0.1:%d" % port) for data in KEPT.values()]
    generated = [hostile(random, b"127.0.0.1:%d" % port) for _ in range(LIVE_CASES)]
    for data in replayed + generated:
        # The end of what is sent is told too, so that no server waits for more.
        answer = send(port, data, ended=True)
        try:
            reached += views.compare()
        except AssertionError as fault:
            raise Disagreement(f"{fault}\n{data!r}") from fault
        # granian says 500 by itself where the client ended within its body; hypercorn says 501 of codings.
        assert answer.status < 500 or answer.status == 501 or answer.value("server") == "granian", data
    assert reached > LIVE_CASES / 10
