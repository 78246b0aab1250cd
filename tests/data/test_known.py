"""Two clocks: the training set as known on an old day is the same bytes whatever has landed since."""

import datetime as dt
import json

import polars as pl
import pytest

from lockstep.clock import parse_day
from lockstep.dataset import as_known
from lockstep.files import file_hash, write_parquet
from lockstep.project import project
from tests.conftest import lockstep
from tests.data.copies import plant, unseal

# Feast 0.67 imports modules that warn of their own future.
pytestmark = pytest.mark.filterwarnings("ignore:::feast", "ignore::DeprecationWarning", "ignore::RuntimeWarning")

# Lines of July that come late, change, go, and change to and fro (A, B, A), and four weeks of one household in seven
# that are taken back. Each is known from the day after its landing on.
UNSETTLED = """
some = f.filter(pl.col('_landing_day').is_between(date(2017, 7, 3), date(2017, 7, 20))).sort(pl.all()).head(400)

def landed(rows, month, day, *change, gone=False):
    return rows.with_columns(*change, pl.lit(date(2017, month, day)).alias('_landing_day'), _deleted=pl.lit(gone))

weeks = f.filter(pl.col('_landing_day').is_between(date(2017, 9, 18), date(2017, 10, 15)))
dearer = pl.col('sales_value') + 500
f = pl.concat([
    f.filter(pl.col('_landing_day') != date(2017, 10, 18)).with_columns(_deleted=pl.lit(False)),
    landed(some[:100], 10, 20, pl.col('basket_id') + 1), landed(some[100:200], 10, 21, dearer),
    landed(some[200:300], 10, 22, gone=True), landed(weeks.filter(pl.col('household_id') % 7 == 0), 10, 25, gone=True),
    landed(some[300:], 8, 1, dearer), landed(some[300:], 8, 20),
    landed(some[300:], 12, 1, dearer), landed(some[300:], 12, 2), landed(some[100:200], 12, 3, gone=True),
])
"""


def built(folder, until):
    """Land up to a day and build what a training set reads."""
    done = lockstep(folder, "land", "--until", until)
    assert done.returncode == 0, done.stderr
    for module in ("validate", "snapshots"):
        done = lockstep(folder, module=f"lockstep.{module}")
        assert done.returncode == 0, done.stdout + done.stderr


def training(folder, known, question="lapse"):
    """Write the training set as the command does, and return its bytes."""
    write_parquet(as_known(project(folder), parse_day(known), question), folder / "state/out/training.parquet")
    return (folder / "state/out/training.parquet").read_bytes()


def test_the_training_set_as_known_on_a_day_is_the_same_bytes_before_and_after_further_landings(
    landed_slice, built_slice, copy
):
    folder = copy(landed_slice)
    unseal(folder)
    plant(folder, UNSETTLED)
    params = (folder / "params.yaml").read_text()
    assert "keep_one_in: 20 " in params
    fewer = params.replace("keep_one_in: 20 ", "keep_one_in: 100 ")  # what comes late is derived day by day
    (folder / "params.yaml").write_text(fewer)
    built(folder, "2017-10-15")
    early = training(folder, "2017-09-18")
    assert training(folder, "2017-09-18") == early
    rows = pl.read_parquet(early)
    assert rows["cutoff"].n_unique() == 21
    assert rows["part"].unique().to_list() == ["train"]
    baskets = training(folder, "2017-09-18", "back")
    requests = pl.read_parquet(baskets)

    built(folder, "2017-11-20")  # a day without rows, late rows, corrections and deletions
    assert "transactions,2017-10-18,0,-,-," in (folder / "landings.csv").read_text()
    assert training(folder, "2017-09-18") == early
    late = training(folder, "2017-11-13")
    values = pl.read_parquet(late)

    built(folder, "2017-12-31")  # what changed to and fro once more, and rows deleted that had been corrected
    assert training(folder, "2017-11-13") == late
    assert training(folder, "2017-09-18") == early

    # Lines of July were corrected and deleted in October, and baskets of July came: no request of July knows.
    assert training(folder, "2017-09-18", "back") == baskets
    again = pl.read_parquet(training(folder, "2017-11-13", "back"))
    assert again["cutoff"].max() > requests["cutoff"].max() > dt.date(2017, 9, 1)
    again = again.filter(pl.col("cutoff") <= requests["cutoff"].max())
    assert again.drop("label").equals(requests.drop("label"))

    done = lockstep(built_slice, "dataset", "--known", "2017-11-13", "--to", "state/out")  # a year without all this
    assert done.returncode == 0, done.stderr
    assert "rows of lapse as known on 2017-11-13" in done.stdout
    out = built_slice / "state/out/lapse/2017-11-13"
    about = json.loads((out / "dataset.json").read_text())
    assert (about["question"], about["known"]) == ("lapse", "2017-11-13")
    assert about["hashes"]["dataset"] == file_hash(out / "training.parquet")
    honest = pl.read_parquet(out / "training.parquet").filter(pl.col("household_id") % 100 == 0)
    both = honest.join(values, on=["household_id", "cutoff"], suffix="_now", validate="1:1")
    assert both.height == honest.height == values.height
    moved = both.filter(pl.col("lifetime_value") != pl.col("lifetime_value_now"))["cutoff"]
    assert [str(d) for d in moved.unique().sort()] == ["2017-08-07", "2017-08-14"]  # dearer from 1 to 20 August
    gone = (pl.col("household_id") % 7 == 0) & (pl.col("cutoff") == dt.date(2017, 9, 18))
    assert both.filter(gone)["label_now"].unique().to_list() == [1]  # features of October did not know it, labels do
    assert set(both.filter(gone)["label"]) == {0, 1}
    weeks = pl.col("cutoff").is_between(dt.date(2017, 7, 24), dt.date(2017, 9, 18))  # whose labels see no other change
    assert set(both.filter(weeks & (pl.col("label") != pl.col("label_now")))["household_id"] % 7) == {0}


@pytest.mark.parametrize(
    ("lost", "stages"),
    [
        ("artifacts/clean/transactions/2017-05-06.parquet", "features, validate"),
        ("artifacts/features/household_trips/v1/2017-05-08.parquet", "features"),
        ("data/transactions/2017-05-06.parquet", "validate"),
    ],
)
def test_a_training_set_of_the_past_is_never_made_of_what_is_left(built_slice, copy, lost, stages):
    """Without the guard the first gives too few trips and the second the features of the day before."""
    folder = copy(built_slice)
    (folder / lost).unlink()
    done = lockstep(folder, "dataset", "--known", "2017-09-18", "--to", "out")
    assert done.returncode == 2
    assert done.stderr == (
        f"error: artifacts are not those of the present data and definitions in stage {stages}."
        " Build them with `lockstep run`.\n"
    )
    assert not (folder / "out").exists()


@pytest.mark.parametrize("day", ["2017-04-30", "2018-01-02"])
def test_a_day_without_closed_labels_or_before_its_days_are_sealed_is_told(built_slice, day):
    done = lockstep(built_slice, "dataset", "--known", day, "--to", "state/out")
    assert done.returncode == 2
    assert done.stderr == (
        f"error: no training set as known on that day: expected 2017-05-01 .. 2018-01-01, found {day}.\n"
    )
