"""The corpus on each server that the guard must be sound on, with its state in memory and in Valkey.

Each run of the tests fires what a server can make a difference to; `make attacks` fires everything everywhere.
"""

from collections.abc import Iterator

import pytest

from tests.guard.attacks import test_corpus
from tests.guard.attacks.corpus import CORPUS
from tests.guard.attacks.deployment import Capture, Deployment, deployed
from tests.guard.attacks.oracle import judge
from tests.guard.attacks.state import KINDS
from tests.guard.servers import SERVERS

OF_THE_SERVER = ("dpop-", "http-", "jwt-", "res-", "tls-", "wire-", "ws-")
"""Areas whose requests servers read differently."""

PLACES = [(server, store) for server in SERVERS for store in KINDS]
OTHER_PLACES = [("h11", "memory"), ("hypercorn", "valkey"), ("granian", "memory")]
"""httptools on both stores is where `test_corpus` fires everything."""


@pytest.fixture(scope="module")
def log() -> Iterator[Capture]:
    yield from test_corpus.captured()


@pytest.fixture(scope="module")
def live(request: pytest.FixtureRequest, log: Capture) -> Iterator[Deployment]:
    server, store = request.param
    with deployed(KINDS[store], server=server) as deployment:
        yield deployment


def named(place: object) -> str:
    return "-".join(place) if isinstance(place, tuple) else str(place)


def fired(places: list[tuple[str, str]], areas: tuple[str, ...]) -> list[tuple[tuple[str, str], str]]:
    """Attacks and where they are fired. granian is served without WebSockets."""
    chosen = sorted(one for one in CORPUS if one.startswith(areas))
    return [(place, one) for place in places for one in chosen if place[0] != "granian" or not one.startswith("ws-")]


@pytest.mark.parametrize(("live", "identifier"), fired(OTHER_PLACES, OF_THE_SERVER), indirect=["live"], ids=named)
def test_the_attack_has_no_effect_on_another_server(identifier: str, live: Deployment, log: Capture) -> None:
    judge(CORPUS[identifier], live, log)


@pytest.mark.load
@pytest.mark.parametrize(("live", "identifier"), fired(PLACES, ("",)), indirect=["live"], ids=named)
def test_the_attack_has_no_effect_anywhere(identifier: str, live: Deployment, log: Capture) -> None:
    judge(CORPUS[identifier], live, log)


def test_the_corpus_is_fired_at_all_servers() -> None:
    assert {server for server, _ in OTHER_PLACES} | {"httptools"} == set(SERVERS)
