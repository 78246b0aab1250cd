"""`lockstep prove` on a slice of the real households: it holds on the honest tree and catches what looks ahead."""

import datetime as dt
import json
import re
import shutil

import polars as pl
import pytest

from features.household import household_trips
from features.labels import lapse
from lockstep.contract import load_contracts
from lockstep.errors import GuaranteeError
from lockstep.files import write_parquet
from lockstep.leakage import cut, leakage, spoil
from lockstep.project import project
from lockstep.prove import backfill
from tests.code.definitions import Ours
from tests.conftest import ROOT, lockstep

# Feast 0.67 imports modules that warn of their own future.
pytestmark = pytest.mark.filterwarnings("ignore:::feast", "ignore::DeprecationWarning", "ignore::RuntimeWarning")

DAY = dt.date(2017, 3, 13)


def test_the_honest_tree_looks_nowhere_ahead(built_slice):
    done = lockstep(built_slice, "prove", "leakage")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("proven    leakage: ")


def test_what_a_snapshot_may_know_is_what_spoiling_leaves_alone(built_slice):
    contract = load_contracts(ROOT / "features/contracts")["transactions"]
    rows = pl.concat([pl.read_parquet(f) for f in sorted((built_slice / "artifacts/clean/transactions").glob("*"))])
    spoilt = spoil(rows, contract, DAY)
    assert cut(spoilt, contract, DAY).equals(cut(rows, contract, DAY))
    forged = spoilt.filter(pl.col("_landing_day") == DAY)
    assert forged["_deleted"].sum() > 100
    assert forged.select(pl.col("transaction_timestamp").dt.date() < DAY - dt.timedelta(1)).to_series().sum() > 200
    assert not spoilt.select(*contract.key, "_landing_day").is_duplicated().any()


# Keyed by calendar month, an aggregate holds the rest of its month, and the model looks better than it is (on the slice
# an AUC of .870 for .860). The honest July hides it from the guard of the features stage, which tries the middle day.
MONTHLY = """

_honest = trips.derive


@source(event_time="at", key="basket_id", causal=True, gap_of="household_id")
def trips(transactions: pl.LazyFrame, products: pl.LazyFrame) -> pl.LazyFrame:
    day = pl.col("at").dt.convert_time_zone("America/New_York")
    month = pl.col("value").sum().over("household_id", day.dt.month())
    return _honest(transactions, products).with_columns(
        pl.when(day.dt.month().is_between(6, 7)).then("value").otherwise(month).alias("value")
    )
"""


def auc(folder):
    return json.loads((folder / "artifacts/evaluate/full/metrics.json").read_text())["auc"]


def test_an_aggregate_keyed_by_calendar_month_makes_the_model_look_better_and_is_caught(built_slice, copy):
    folder = copy(built_slice)
    with (folder / "features/sources.py").open("a", encoding="utf-8") as handle:
        handle.write(MONTHLY)
    shutil.rmtree(folder / "state/days")
    for module, *words in (["snapshots"], ["dataset", "lapse"], ["train", "full"], ["evaluate", "full"]):
        done = lockstep(folder, *words, module=f"lockstep.{module}")
        assert done.returncode == 0, done.stderr  # the guard looked at July
    assert auc(folder) > auc(built_slice) + 0.005
    done = lockstep(folder, "prove", "leakage")
    assert done.returncode == 1
    assert re.search(
        r"^error: 'lifetime_value' knows what it cannot know in view household_trips, snapshot 2017-\d\d-\d\d,"
        r" nothing later landed, household_id \d+: expected \d+, found \d+\. A definition looks ahead: ",
        done.stderr, re.MULTILINE,
    )  # fmt: skip


def more(folder, definitions):
    with (folder / "features/labels.py").open("a", encoding="utf-8") as handle:
        handle.write("\nfrom dataclasses import replace\n" + definitions)


def test_a_request_that_counts_the_whole_day_is_caught(built_slice, copy):
    folder = copy(built_slice)
    more(folder, """
whole = lambda trips, day: rung_up(trips, day).with_columns(pl.len().cast(pl.Int64).alias("basket_departments"))
back = replace(back, population=whole)
""")  # fmt: skip
    done = lockstep(folder, "back", module="lockstep.dataset")
    assert done.returncode == 0, done.stderr
    done = lockstep(folder, "prove", "leakage", "--days", "1")
    assert done.returncode == 1
    said = r"'basket_departments' knows what .* in population of 2017-04-03 for back, nothing after 2017-04-03T"
    assert re.search(said, done.stderr)


def test_a_question_that_the_settings_do_not_ask_is_named_and_the_others_are_proven(built_slice, copy):
    folder = copy(built_slice)
    more(folder, 'mine = replace(lapse, name="mine")\n')
    done = lockstep(folder, "prove", "leakage", "--days", "1")
    assert done.returncode == 0, done.stderr
    assert re.search(
        r"labels of back and \d+ populations, nothing of mine, which params.yaml does not ask$", done.stdout.strip()
    )


def spoilt(folder, name, change):
    path = folder / "artifacts" / name
    frame = change(pl.read_parquet(path))
    path.unlink()  # DVC protects its outputs
    write_parquet(frame, path)


def next_days(folder):
    """Give the training rows of one cut-off the value of the day after."""
    after = pl.read_parquet(folder / "artifacts/features/household_trips/v1/2017-05-09.parquet")
    join = after.select(
        "household_id", pl.col("trips_total").alias("_later"), pl.lit(dt.date(2017, 5, 8)).alias("cutoff")
    )
    later = pl.coalesce("_later", "trips_total").alias("trips_total")
    return lambda f: f.join(join, ["household_id", "cutoff"], "left").with_columns(later).drop("_later")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (next_days, "'trips_total' knows what it cannot know in training rows of 2017-05-08 for lapse, household_id "),
        (
            lambda _: lambda f: f.with_columns((1 - pl.col("label")).alias("label")),
            "'label' knows what it cannot know in labels of train",
        ),
        (
            lambda _: lambda f: f.filter((pl.col("cutoff") != f["cutoff"][0]) | (pl.col("label") == 0)),
            "other entities than the day could know in population of 2017-04-03",
        ),
    ],
)
def test_a_training_set_that_was_joined_or_labelled_wrongly_is_caught(built_slice, copy, monkeypatch, change, said):
    folder = copy(built_slice)
    spoilt(folder, "dataset/lapse/training.parquet", change(folder))
    monkeypatch.setattr("lockstep.leakage.questions", lambda _: {"lapse": lapse})
    with pytest.raises(GuaranteeError, match=said):
        leakage(project(folder), days=1)


def test_a_published_snapshot_that_was_altered_is_caught(built_slice, copy):
    folder = copy(built_slice)
    first = sorted((folder / "artifacts/features/household_trips/v1").glob("*.parquet"))[0].stem
    spoilt(
        folder, f"features/household_trips/v1/{first}.parquet",
        lambda f: f.with_columns(pl.col("spend_7d") + pl.int_range(pl.len()).eq(0).cast(pl.Int64)),
    )  # fmt: skip
    done = lockstep(folder, "prove", "leakage", "--days", "1")
    assert done.returncode == 1
    assert f"'spend_7d' knows what it cannot know in view household_trips, snapshot {first}" in done.stderr


def test_snapshots_computed_anew_in_pieces_have_the_published_bytes_and_an_altered_one_is_caught(built_slice, copy):
    done = lockstep(built_slice, "prove", "backfill")
    assert done.returncode == 0, done.stderr
    published = len(list((built_slice / "artifacts/features").rglob("*.parquet")))
    said = f"{published} snapshots anew in 6 pieces, each cut short once: the published bytes\n"
    assert done.stdout.endswith(said)
    folder = copy(built_slice)
    other = lambda f: f.with_columns(pl.col("trips_7d") + 1)  # noqa: E731
    spoilt(folder, "features/household_trips/v1/2017-11-06.parquet", other)
    here = project(folder)
    said = r"a snapshot computed anew has other bytes than the published one in .*household_trips/v1/2017-11-06.parquet"
    with pytest.raises(GuaranteeError, match=said):
        backfill(Ours(here.root, here.names, {"views": [household_trips]}))


def test_an_unknown_proof_is_told(built_slice):
    done = lockstep(built_slice, "prove", "leekage")
    assert done.returncode == 2
    assert "no proof 'leekage'. Did you mean 'leakage'?" in done.stderr
