"""Two clocks: the training set as known on an old day is the same bytes before and after late rows land."""

import polars as pl
import pytest

from tests.conftest import lockstep
from tests.data.test_run import plant, unseal

LATE = """
some = f.filter(pl.col('_landing_day').is_between(date(2017, 7, 3), date(2017, 7, 20))).head(300)
late = some[:100].with_columns(pl.col('basket_id') + 1, pl.lit(date(2017, 10, 20)).alias('_landing_day'))
corrected = some[100:200].with_columns(pl.col('sales_value') + 500, pl.lit(date(2017, 10, 21)).alias('_landing_day'))
gone = some[200:].with_columns(pl.lit(date(2017, 10, 22)).alias('_landing_day'), pl.lit(True).alias('_deleted'))
kept = [x.with_columns(pl.lit(False).alias('_deleted')) for x in (f, late, corrected)]
f = pl.concat([*kept, gone.select(kept[0].columns)])
"""


def built(folder, until):
    for command in (("land", "--until", until), ("lockstep.validate",), ("lockstep.snapshots",)):
        module, *words = command if command[0].startswith("lockstep.") else ("lockstep", *command)
        done = lockstep(folder, *words, module=module)
        assert done.returncode == 0, done.stdout + done.stderr
    return folder


def training(folder, known):
    done = lockstep(folder, "dataset", "--known", known, "--to", "out")
    assert done.returncode == 0, done.stderr
    assert f"rows as known on {known}" in done.stdout
    return (folder / "out/training.parquet").read_bytes()


def test_the_training_set_as_known_on_a_day_is_the_same_before_and_after_late_rows_land(landed_slice, copy):
    before, after = copy(landed_slice, "before"), copy(landed_slice, "after")
    for folder in (before, after):
        unseal(folder)
    plant(after, LATE)
    built(before, "2017-10-15")
    built(after, "2017-12-31")
    assert training(before, "2017-09-18") == training(after, "2017-09-18")
    rows = pl.read_parquet(after / "out/training.parquet")
    assert rows["cutoff"].n_unique() == 21
    assert rows["part"].unique().to_list() == ["train"]
    built(before, "2017-12-31")  # without the late rows: what became known in October makes a difference from then on
    assert training(before, "2017-12-04") != training(after, "2017-12-04")


@pytest.mark.parametrize("day", ["2017-04-30", "2018-01-02"])
def test_a_day_without_closed_labels_or_before_its_days_are_sealed_is_told(built_slice, day):
    done = lockstep(built_slice, "dataset", "--known", day, "--to", "state/out")
    assert done.returncode == 2
    assert done.stderr == (
        f"error: no training set as known on that day: expected 2017-05-01 .. 2018-01-01, found {day}.\n"
    )
