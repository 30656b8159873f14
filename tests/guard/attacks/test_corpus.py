"""Every attack of the corpus is fired at a live deployment; those that are not covered yet are named."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from mcp_guard.serving import http_protocol
from tests.guard.attacks import (  # noqa: F401 - they register attacks
    authorization_attacks,
    bound_code_attacks,
    csrf_attacks,
    discovery_attacks,
    dpop_attacks,
    http2_attacks,
    http_attacks,
    jwt_attacks,
    resource_attacks,
    session_attacks,
    websocket_attacks,
    wire_attacks,
)
from tests.guard.attacks.corpus import CORPUS
from tests.guard.attacks.deployment import Capture, Deployment, deployed
from tests.guard.attacks.oracle import judge
from tests.guard.attacks.pending import ELSEWHERE, IDS, PENDING
from tests.guard.attacks.state import in_valkey

ROOT = Path(__file__).parents[3]


def captured() -> Iterator[Capture]:
    """Every log line from here on."""
    capture, root = Capture(), logging.getLogger()
    level = root.level
    root.addHandler(capture)
    root.setLevel(logging.DEBUG)
    yield capture
    root.setLevel(level)
    root.removeHandler(capture)


@pytest.fixture(scope="module")
def log() -> Iterator[Capture]:
    yield from captured()


@pytest.fixture(scope="module")
def live(log: Capture) -> Iterator[Deployment]:
    with deployed(http=http_protocol()) as deployment:
        yield deployment


@pytest.fixture(scope="module")
def live_on_valkey(log: Capture) -> Iterator[Deployment]:
    with deployed(in_valkey, http=http_protocol()) as deployment:
        yield deployment


@pytest.mark.parametrize("identifier", sorted(CORPUS))
def test_the_attack_has_no_effect(identifier: str, live: Deployment, log: Capture) -> None:
    judge(CORPUS[identifier], live, log)


WITH_STATE = sorted(identifier for identifier in CORPUS if identifier.startswith(("dpop-", "ses-", "wire-")))
"""What the outcome of these depends on is in the store."""


@pytest.mark.parametrize("identifier", WITH_STATE)
def test_the_attack_has_no_effect_with_the_state_in_valkey(
    identifier: str, live_on_valkey: Deployment, log: Capture
) -> None:
    judge(CORPUS[identifier], live_on_valkey, log)


def test_every_attack_of_these_areas_is_accounted_for() -> None:
    places = [CORPUS.keys(), ELSEWHERE.keys(), PENDING.keys()]
    assert set().union(*places) == IDS
    assert sum(len(place) for place in places) == len(IDS), "an attack has two places"


@pytest.mark.parametrize("identifier", sorted(ELSEWHERE))
def test_an_attack_that_is_decided_elsewhere_is(identifier: str) -> None:
    file, name = ELSEWHERE[identifier]
    assert name in (ROOT / file).read_text()
