"""The statistics of the example's transactions: honest days hold, and each rule sees a fault that is planted for it."""

import polars as pl
import pytest

from lockstep.contract import load_contracts
from lockstep.landings import read_landings, read_sealed
from lockstep.statistics import judge_statistics
from lockstep.table_profile import TableProfile
from tests.conftest import ROOT

CONTRACT = load_contracts(ROOT / "features/contracts")["transactions"]
PROFILE = TableProfile.read(CONTRACT, ROOT / "features/contracts")
PLANTED = {
    "sales_value_mean": pl.col("sales_value") + 150,
    "sales_value_std": pl.col("sales_value") * 3,
    "sales_value_ks": (pl.col("sales_value") * 0.8).cast(pl.Int64),  # as after a currency conversion
    "sales_value_psi": pl.col("sales_value").clip(100),
    "sales_value_nulls": pl.when(pl.col("basket_id") % 100 > 0).then("sales_value"),
    "retail_disc_mean": pl.col("retail_disc") + 50,
    "retail_disc_psi": pl.when(pl.col("basket_id") % 2 > 0).then("retail_disc").otherwise(0),
    "quantity_psi": pl.col("quantity") * 10,
    "product_id_psi": pl.col("product_id") + 500_000,
}


@pytest.fixture(scope="module")
def recent(landed_slice):
    lines = [x for x in read_landings(landed_slice / "landings.csv") if x.table == "transactions" and x.rows]
    return pl.concat([read_sealed(landed_slice / "data", x, CONTRACT) for x in lines[-28:]])


def broken(rows):
    return {one.rule.name for one in judge_statistics(CONTRACT, rows, PROFILE) if not one.held}


def test_honest_days_hold_but_for_the_number_of_households_of_a_slice(recent):
    assert broken(recent) == {"households"}


def test_every_rule_has_its_fault():
    assert CONTRACT.statistics
    assert {rule.name for rule in CONTRACT.statistics.rules} == {*PLANTED, "households"}


@pytest.mark.parametrize("rule", PLANTED)
def test_a_planted_fault_is_seen_by_its_rule(recent, rule):
    column = next(r.column for r in CONTRACT.statistics.rules if r.name == rule)
    assert rule in broken(recent.with_columns(PLANTED[rule].alias(column)))
