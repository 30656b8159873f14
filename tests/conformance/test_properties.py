from __future__ import annotations

import pytest
from hypothesis import strategies as st

from pytest_mcp_conformance import Finding, Inconclusive
from pytest_mcp_conformance.failures import BudgetExhausted
from pytest_mcp_conformance.options import LoginMode, Profile, Settings
from pytest_mcp_conformance.probe import Probe
from pytest_mcp_conformance.properties import SHRINKING_REQUESTS, Space
from tests.conformance.answers import answered
from tests.conformance.test_probe import make_probe


def settings(seed: int = 0, profile: Profile = Profile.STANDARD) -> Settings:
    return Settings(
        target="http://127.0.0.1:1/mcp",
        login=LoginMode.NONE,
        profile=profile,
        seed=seed,
        max_requests=1500,
        requests_per_second=1000.0,
        revision="",
        only=frozenset(),
        authorized_hosts=frozenset(),
        report=None,
        waivers=None,
        token_files={},
        token_commands={},
    )


class TooBig(Finding):
    """A number of a thousand or more."""


class AlsoNegative(Finding):
    """A number below zero."""


def too_big(number: int) -> TooBig:
    return TooBig("too big", evidence=answered(200), expected="less", got="more", counterexample=str(number))


def asked(probe: Probe) -> None:
    probe.ledger.requests += 1


def test_the_smallest_input_is_reported() -> None:
    def judge(number: int) -> None:
        if number >= 1000:
            raise too_big(number)

    with pytest.raises(TooBig) as caught:
        Space(settings(), make_probe(), "X-001").search(judge, st.integers(0, 10**6))
    assert caught.value.counterexample == "1000"


def test_classics_are_tried_before_anything_is_drawn() -> None:
    seen: list[int] = []

    def judge(number: int) -> None:
        seen.append(number)
        if number == 7:
            raise too_big(number)

    with pytest.raises(TooBig):
        Space(settings(), make_probe(), "X-001").search(judge, st.integers(), classics=[3, 7, 9])
    assert seen == [3, 7]


def test_the_same_seed_draws_the_same_inputs_and_another_seed_others() -> None:
    def drawn(seed: int, check: str = "X-001") -> list[int]:
        seen: list[int] = []
        Space(settings(seed), make_probe(), check).search(seen.append, st.integers())
        return seen

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)
    assert drawn(1) != drawn(1, "X-002")


@pytest.mark.parametrize(("profile", "most"), [(Profile.QUICK, 15), (Profile.STANDARD, 30)])
def test_the_profile_says_how_many_inputs_are_drawn(profile: Profile, most: int) -> None:
    seen: list[int] = []
    Space(settings(profile=profile), make_probe(), "X-001").search(seen.append, st.integers())
    assert most // 2 <= len(seen) <= most


def test_no_input_is_asked_twice() -> None:
    seen: list[bool] = []
    Space(settings(), make_probe(), "X-001").search(seen.append, st.booleans())
    assert sorted(seen) == [False, True]


def test_one_bug_stays_one_bug_while_shrinking() -> None:
    def judge(number: int) -> None:
        if number <= -1:
            raise AlsoNegative("negative", evidence=answered(200), expected="0", got="-", counterexample=str(number))
        if number >= 1000:
            raise too_big(number)

    with pytest.raises((TooBig, AlsoNegative)) as caught:
        Space(settings(), make_probe(), "X-001").search(judge, st.integers(-(10**6), 10**6))
    assert caught.value.counterexample in {"-1", "1000"}


def test_a_finding_that_does_not_come_again_is_inconclusive() -> None:
    answers = iter([False, False, True, *[False] * 1000])

    def judge(number: int) -> None:
        if next(answers):
            raise too_big(number)

    with pytest.raises(Inconclusive, match="did not show the same twice"):
        Space(settings(), make_probe(), "X-001").search(judge, st.integers())


def test_a_check_that_cannot_decide_stops_asking() -> None:
    seen: list[int] = []

    def judge(number: int) -> None:
        seen.append(number)
        raise BudgetExhausted("spent")

    with pytest.raises(BudgetExhausted):
        Space(settings(), make_probe(), "X-001").search(judge, st.integers())
    assert len(seen) == 1


def test_shrinking_keeps_to_its_share_of_the_requests() -> None:
    probe = make_probe(max_requests=10**6)

    def judge(text: str) -> None:
        asked(probe)
        if len(text) >= 3:
            raise too_big(len(text))

    with pytest.raises(TooBig):
        Space(settings(), probe, "X-001").search(judge, st.text(min_size=3, max_size=400))
    assert probe.ledger.requests <= SHRINKING_REQUESTS + 3


@pytest.mark.parametrize(("profile", "tried"), [(Profile.QUICK, 3), (Profile.STANDARD, 6), (Profile.DEEP, 40)])
def test_a_check_with_a_number_of_its_own_still_heeds_the_profile(profile: Profile, tried: int) -> None:
    seen: list[int] = []
    space = Space(settings(profile=profile), make_probe(), "X-001")
    space.search(seen.append, st.integers(0, 10**6), max_examples=6)
    assert len(seen) == tried
