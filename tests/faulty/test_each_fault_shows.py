"""Each fault changes what a client sees, and nothing that it sees differs from one sound server to the next."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

import anyio
import pytest

from tests.faulty.scenarios import gate, grants, sessions
from tests.faulty.scenarios.actor import BASE, Seen
from tests.faulty.test_token_faults import ACCEPTED_WITH, ELSEWHERE
from tests.support.model_server import FAULTS, Fault, ModelServer

Scenario = Callable[[ModelServer], Awaitable[Seen]]
BY_AREA: Mapping[str, tuple[Scenario, ...]] = {
    "ASM": (grants.observe,),
    "AUD": (grants.observe,),
    "AUTHZ": (gate.observe,),
    "PKCE": (grants.observe,),
    "REF": (grants.observe,),
    "SESS": (sessions.observe,),
    "TOK": (gate.observe, grants.observe),
}
BY_NAME: Mapping[str, tuple[Scenario, ...]] = {
    "token_forwarded": (gate.observe_outbound,),
    "sessions_unlimited": (sessions.observe_crowd,),
    "token_in_log_message": (sessions.observe,),
}
ALL = (gate.observe, gate.observe_outbound, grants.observe, sessions.observe, sessions.observe_crowd)


def scenarios(fault: Fault) -> tuple[Scenario, ...]:
    """Those that can show a fault. The ones of minted tokens and of PRM and ORIG are shown in other tests."""
    if fault.name in ACCEPTED_WITH or fault.name in ELSEWHERE:
        return ()
    return BY_NAME.get(fault.name, BY_AREA.get(fault.requirement.partition("-")[0], ()))


def watch(scenario: Scenario, *faults: str) -> Seen:
    return anyio.run(scenario, ModelServer(BASE, faults))


@pytest.fixture(scope="module")
def sound() -> Mapping[Scenario, Seen]:
    return {one: watch(one) for one in ALL}


def test_two_sound_servers_look_alike(sound: Mapping[Scenario, Seen]) -> None:
    assert [label for seen in sound.values() for label in seen if label.endswith("broke off")] == []
    assert {one: watch(one) for one in sound} == sound


@pytest.mark.parametrize("name", [name for name, fault in FAULTS.items() if scenarios(fault)])
def test_the_fault_shows(name: str, sound: Mapping[Scenario, Seen]) -> None:
    shown = (watch(scenario, name) != sound[scenario] for scenario in scenarios(FAULTS[name]))
    assert any(shown), "nothing that the scenarios note is different"
