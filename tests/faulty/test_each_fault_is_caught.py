"""The certifier has teeth: one fault gives one finding, under its own id, and no fault gives none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future

import pytest

from tests.support.certifier import BAD, Certificate, Run, certifiers, certify, checks
from tests.support.model_server import FAULTS, Fault

WITHIN_SECONDS = 120
TOGETHER = frozenset(
    {"audience_prefix", "alg_none_in_odd_case", "expiry_ignored", "code_reusable", "old_refresh_token_valid"}
)
"""Five serious faults that fixed test vectors are known to miss."""

MAY_NOT_RUN = {"ORIG-006"}
"""Requirements whose check needs more of the machine than a loopback interface."""


def visible() -> list[Fault]:
    """The faults whose requirement has a check, in the order of the ids."""
    return sorted((one for one in FAULTS.values() if one.requirement in checks()), key=lambda one: one.requirement)


def run_with(fault: Fault) -> Run:
    return Run(frozenset({fault.name}), fault.endpoint, (fault.requirement,))


@pytest.fixture(scope="module")
def results(request: pytest.FixtureRequest) -> Iterator[Callable[[Run], Certificate]]:
    """Certificates by run. Those of all selected tests are on their way at once, two at a time."""
    with certifiers() as pool:
        promised: dict[Run, Future[Certificate]] = {}

        def promise(run: Run) -> Future[Certificate]:
            if run not in promised:
                promised[run] = pool.submit(certify, run)
            return promised[run]

        for run in (Run(), Run(endpoint="/sse"), Run(TOGETHER)):
            promise(run)
        for item in request.session.items:
            fault = (
                item.callspec.params.get("fault")
                if isinstance(item, pytest.Function) and hasattr(item, "callspec")
                else None
            )
            if isinstance(fault, Fault) and item.path == request.path:
                promise(run_with(fault))
        yield lambda run: promise(run).result(WITHIN_SECONDS)


@pytest.mark.parametrize("endpoint", ["/mcp", "/sse"])
def test_nothing_is_found_on_the_sound_server(endpoint: str, results: Callable[[Run], Certificate]) -> None:
    certificate = results(Run(endpoint=endpoint))
    assert certificate.found == {}, certificate.output
    assert certificate.exit_code == 0, certificate.output


@pytest.mark.parametrize("fault", visible(), ids=lambda one: one.name)
def test_the_fault_is_caught_under_its_requirement(fault: Fault, results: Callable[[Run], Certificate]) -> None:
    sound = results(Run(endpoint=fault.endpoint))
    good = {"pass", "not-run"} if fault.requirement in MAY_NOT_RUN else {"pass"}
    assert sound.outcomes.get(fault.requirement) in good, sound.reasons.get(fault.requirement)
    certificate = results(run_with(fault))
    assert certificate.outcomes.get(fault.requirement) in BAD, certificate.output


def test_several_faults_in_one_server_are_told_apart(results: Callable[[Run], Certificate]) -> None:
    certificate = results(Run(TOGETHER))
    assert {FAULTS[name].requirement for name in TOGETHER} & checks().keys() <= set(certificate.found), (
        certificate.output
    )


def test_every_checked_requirement_has_a_fault() -> None:
    assert checks().keys() - {fault.requirement for fault in FAULTS.values()} == set()
