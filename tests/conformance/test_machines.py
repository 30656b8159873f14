"""The sequences that properties about order draw from, and what their models say."""

from hypothesis import given

from pytest_mcp_conformance.machines.sessions import KINDS, LONGEST, Attempt, classic_sequences, sequences


def test_a_stranger_is_who_uses_the_session_of_another() -> None:
    assert Attempt("B", "GET", "A").is_strange
    assert not Attempt("A", "GET", "A").is_strange


def test_every_kind_of_attempt_is_among_the_classics_and_followed_by_the_owner() -> None:
    first, then = zip(*classic_sequences(), strict=True)
    assert {attempt.kind for attempt in first} == set(KINDS)
    assert all(attempt.is_strange for attempt in first)
    assert not any(attempt.is_strange for attempt in then)


@given(sequences())
def test_a_sequence_is_short_and_can_be_told(attempts: list[Attempt]) -> None:
    assert 2 <= len(attempts) <= LONGEST
    assert all(str(attempt).startswith(attempt.kind) for attempt in attempts)
