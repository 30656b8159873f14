"""The checks that are taken out are there; `make ablation` takes out all."""

import pytest

from tests.guard.ablation.catalogue import CATALOGUE, Ablation
from tests.guard.ablation.run import ROOT, without


@pytest.mark.parametrize("one", CATALOGUE, ids=lambda one: one.id)
def test_a_check_that_can_be_taken_out_stands_in_its_module_once(one: Ablation) -> None:
    source = (ROOT / one.module).read_text()
    assert without(one, source) != source
    assert all((ROOT / test).is_file() for test in one.tests)


def test_each_check_has_an_id_of_its_own() -> None:
    assert len({one.id for one in CATALOGUE}) == len(CATALOGUE)
