"""Every attack of the corpus is fired at a live deployment; those that are not covered yet are named."""

import logging
from collections.abc import Iterator

import pytest

from mcp_guard.serving import http_protocol
from tests.guard.attacks import (  # noqa: F401 - they register attacks
    csrf_attacks,
    discovery_attacks,
    http_attacks,
    jwt_attacks,
    resource_attacks,
    session_attacks,
)
from tests.guard.attacks.corpus import CORPUS
from tests.guard.attacks.deployment import Capture, Deployment, deployed
from tests.guard.attacks.oracle import judge
from tests.guard.attacks.pending import PENDING


@pytest.fixture(scope="module")
def log() -> Iterator[Capture]:
    capture, root = Capture(), logging.getLogger()
    level = root.level
    root.addHandler(capture)
    root.setLevel(logging.DEBUG)
    yield capture
    root.setLevel(level)
    root.removeHandler(capture)


@pytest.fixture(scope="module")
def live(log: Capture) -> Iterator[Deployment]:
    with deployed(http=http_protocol()) as deployment:
        yield deployment


@pytest.mark.parametrize("identifier", sorted(CORPUS))
def test_the_attack_has_no_effect(identifier: str, live: Deployment, log: Capture) -> None:
    judge(CORPUS[identifier], live, log)


def test_an_attack_is_either_covered_or_named_as_pending() -> None:
    assert not CORPUS.keys() & PENDING.keys()
