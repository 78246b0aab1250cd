"""Every guard has been seen to stop the fault that it is there for, on the real rows; docs/faults.md says which."""

import re

import pytest

from lockstep.errors import GuaranteeError
from lockstep.plant import faults, plant, table
from lockstep.project import project
from tests.conftest import ROOT, lockstep

DOCS = ROOT / "docs/faults.md"
WITHOUT = {
    "null-to-mend", "beyond-the-cap", "value-shared", "wrong-sum", "wrong-total", "one-of-many", "values-lost",
    "day-too-small",
}  # fmt: skip
"""Faults of which the example's contracts have no rule, or (one-of-many) one household in twenty does not hold."""


@pytest.fixture(scope="module")
def outcomes(built_slice):
    return list(plant(project(built_slice), []))


def test_every_fault_is_stopped_by_the_guard_that_is_there_for_it(outcomes):
    assert [o for o in outcomes if o.guard and not o.stopped] == []
    assert [o.fault for o in outcomes] == [*faults()]
    without = {o.fault for o in outcomes if not o.guard}
    assert without == WITHOUT, "tests/code/test_plant.py plants these"


def test_the_table_in_the_docs_is_what_was_seen(outcomes):
    shown = re.search(r"<!-- faults -->\n(.*)<!-- /faults -->", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    assert shown[1].strip() == table(outcomes), "paste what `lockstep plant --table` prints"


def test_a_guard_that_is_too_wide_misses_its_fault(built_slice, copy):
    folder = copy(built_slice)
    contract = folder / "features/contracts/transactions.yaml"
    text = contract.read_text(encoding="utf-8")
    contract.write_text(
        text.replace(
            "sales_value: {type: int64, unit: cents, range: [0, 1000000]",
            "sales_value: {type: int64, unit: cents, range: [0, 1000000000000]",
        ),
        encoding="utf-8",
    )
    done = lockstep(folder, "plant", "unit-times-1000", "renamed-column")
    assert done.returncode == 1
    assert "missed    unit-times-1000" in done.stdout
    assert "stopped   renamed-column: refused: column renamed" in done.stdout
    assert "no guard stopped" in done.stderr
    assert "unit-times-1000" in done.stderr


def test_nothing_is_told_of_faults_where_the_honest_rows_do_not_pass(built_slice, copy):
    folder = copy(built_slice)
    contract = folder / "features/contracts/transactions.yaml"
    text = contract.read_text(encoding="utf-8")
    contract.write_text(
        text.replace("week: {type: int64, range: [1, 53]", "week: {type: int64, range: {between: [1, 40], then: fail}"),
        encoding="utf-8",
    )
    with pytest.raises(GuaranteeError, match="the honest rows do not pass"):
        list(plant(project(folder), ["null"]))
