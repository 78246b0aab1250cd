"""Odd rows asked of the real snapshots through Feast: each keeps its place, or one sentence says no."""

import datetime as dt
import shutil
import warnings

import polars as pl
import pytest

from lockstep.feast_objects import feature_store
from lockstep.files import write_parquet
from lockstep.project import project
from tests.conftest import lockstep

# Feast 0.67 imports modules that warn of their own future.
pytestmark = pytest.mark.filterwarnings("ignore:::feast", "ignore::DeprecationWarning", "ignore::RuntimeWarning")

MIDNIGHT = dt.datetime(2017, 6, 12, 4, tzinfo=dt.UTC)  # of New York
REFS = ["household_trips:trips_total", "household_trips:avg_gap_days", "household_store:trips_here_90d"]
SNAPSHOT = "artifacts/features/household_trips/v1/2017-06-12.parquet"


@pytest.fixture(scope="module")
def ask(built_slice, tmp_path_factory):
    """Ask the slice for features of rows; return them as Polars."""
    with warnings.catch_warnings(record=True):  # Feast calls on-demand views an experiment, and resets our filters
        store = feature_store(project(built_slice), str(tmp_path_factory.mktemp("registry") / "registry.db"))
    return lambda rows, refs=REFS: store.get_historical_features(entity_df=rows, features=refs).to_polars()


@pytest.fixture(scope="module")
def someone(built_slice):
    """A household and one of its stores, with the features of 12 June."""
    here = pl.read_parquet(built_slice / "artifacts/features/household_store/v1/2017-06-12.parquet")
    row = here.sort("trips_here_90d", descending=True).row(0, named=True)
    trips = pl.read_parquet(built_slice / SNAPSHOT).row(
        by_predicate=pl.col("household_id") == row["household_id"], named=True
    )
    return row["household_id"], row["store_id"], (trips["trips_total"], trips["avg_gap_days"], row["trips_here_90d"])


def rows(*lines):
    schema = {"household_id": pl.Int64, "store_id": pl.Int64, "event_timestamp": pl.Datetime("us", "UTC")}
    return pl.DataFrame(lines, schema=schema, orient="row")


def test_null_unknown_repeated_and_timeless_rows_keep_their_place_and_the_others_their_values(ask, someone):
    who, shop, values = someone
    nothing = (None, None, None)
    asked = {
        (who, shop, MIDNIGHT): values,
        (None, shop, MIDNIGHT): nothing,
        (who, None, MIDNIGHT): (*values[:2], None),
        (-1, shop, MIDNIGHT): nothing,
        (who, -1, MIDNIGHT): (*values[:2], None),
        (who, shop, None): nothing,
        (who, shop, MIDNIGHT.replace(year=2016)): nothing,  # before the first snapshot
        (who, shop, MIDNIGHT.replace(year=2019)): nothing,  # past the TTL
    }
    lines = [*asked, (who, shop, MIDNIGHT)]
    frame = rows(*lines).with_columns(note=pl.int_range(len(lines)))
    found = ask(frame)
    assert found.select(frame.columns).equals(frame)
    assert found.select(r.split(":")[1] for r in REFS).rows() == [*asked.values(), values]
    backwards = ask(frame.reverse())
    assert backwards.equals(found.reverse())


def test_an_instant_is_the_same_in_any_zone_and_a_naive_one_is_utc(ask, someone):
    who, shop, values = someone
    frame = rows((who, shop, MIDNIGHT), (who, shop, MIDNIGHT - dt.timedelta(microseconds=1)))
    at = pl.col("event_timestamp")
    expected = ask(frame).drop("event_timestamp")
    assert expected.select(r.split(":")[1] for r in REFS).row(0) == values
    for other in (
        at.dt.convert_time_zone("Asia/Tokyo"),
        at.dt.replace_time_zone(None),
        at.cast(pl.Datetime("ns", "UTC")),
    ):
        assert ask(frame.with_columns(other)).drop("event_timestamp").equals(expected)


def test_no_rows_are_no_rows_of_the_right_types(ask):
    found = ask(rows())
    assert found.is_empty()
    assert found.schema == {
        **rows().schema, "trips_total": pl.Int64, "avg_gap_days": pl.Float64, "trips_here_90d": pl.Int64,
    }  # fmt: skip


def damaged(path):
    path.write_bytes(path.read_bytes()[:200])


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (damaged, r"cannot read parquet in "),
        (lambda path: path.write_bytes(b""), r"cannot read parquet in "),
        (lambda path: write_parquet(pl.read_parquet(path).drop("trips_total"), path), r"no column trips_total in "),
    ],
)
def test_a_damaged_snapshot_stops_the_training_set_by_name_and_leaves_the_one_before(built_slice, copy, spoil, said):
    folder = copy(built_slice)
    path, published = folder / SNAPSHOT, folder / "artifacts/dataset/lapse/training.parquet"
    path.chmod(0o644)
    before = published.read_bytes()
    spoil(path)
    done = lockstep(folder, "lapse", module="lockstep.dataset")
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1].startswith(f"error: {said}")
    assert "household_trips/v1/2017-06-12.parquet" in done.stderr
    assert "Traceback" not in done.stderr
    assert published.read_bytes() == before


def test_a_view_without_snapshots_stops_the_training_set_by_name(built_slice, copy):
    folder = copy(built_slice)
    shutil.rmtree(folder / "artifacts/features/household_coupons")
    done = lockstep(folder, "lapse", module="lockstep.dataset")
    assert done.returncode == 2, done.stderr
    assert "no parquet file in " in done.stderr
    assert "household_coupons" in done.stderr
    assert "Traceback" not in done.stderr
