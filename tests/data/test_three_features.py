"""The shape of a feature, end to end on real rows: definition, snapshot, Feast, and a naive oracle over a DST day."""

import math
from collections import defaultdict
from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest

from features.landing import rows as raw_rows
from lockstep.clock import Zone
from lockstep.feast_objects import feature_store
from lockstep.project import project
from lockstep.settings import Land
from tests.code import oracle

# Feast 0.67 imports modules that warn of their own future.
pytestmark = pytest.mark.filterwarnings("ignore:::feast", "ignore::DeprecationWarning", "ignore::RuntimeWarning")

NEW_YORK = "America/New_York"
DAYS = [date(2017, 3, 12), date(2017, 3, 13), date(2017, 7, 1), date(2017, 11, 5), date(2017, 11, 6), date(2018, 1, 1)]


@pytest.fixture(scope="module")
def trips():
    """Trips of the slice, basket by basket, in plain Python from the installed raw rows."""
    land = Land(first="2017-01-01", until="2017-12-31", keep_one_in=20)
    baskets = defaultdict(lambda: {"value": 0})
    for row in raw_rows("transactions", land, Zone(NEW_YORK)).iter_rows(named=True):
        trip = baskets[row["household_id"], row["basket_id"]]
        trip["value"] += row["sales_value"]
        trip["at"] = min(trip.get("at", row["transaction_timestamp"]), row["transaction_timestamp"])
        trip["id"] = row["basket_id"]
    found = defaultdict(list)
    for (household, _), trip in sorted(baskets.items(), key=lambda b: (b[1]["at"], b[0][1])):
        mine = found[household]
        microseconds = (trip["at"] - mine[-1]["at"]) // timedelta(microseconds=1) if mine else None
        mine.append({**trip, "gap": microseconds})
    return found


def test_a_sum_a_deviation_and_a_request_time_feature_equal_the_oracle_over_dst_days(built_slice, trips, tmp_path):
    store = feature_store(project(built_slice), str(tmp_path / "registry.db"))
    asked = [(h, oracle.start(d, NEW_YORK), d) for d in DAYS for h in sorted(trips)]
    entity_df = pl.DataFrame(
        {"household_id": [a[0] for a in asked], "event_timestamp": [a[1] for a in asked], "at": [a[1] for a in asked]},
        schema_overrides={"event_timestamp": pl.Datetime("us", "UTC"), "at": pl.Datetime("us", "UTC")},
    )
    names = ["household_trips:spend_30d", "household_trips:std_gap", "household_now:days_since_last_trip"]
    got = pl.DataFrame(store.get_historical_features(entity_df=entity_df, features=names).to_arrow())
    assert got.height == len(asked)
    assert got["household_id"].to_list() == [a[0] for a in asked]
    seen = 0
    for (household, at, day), row in zip(asked, got.iter_rows(named=True), strict=True):
        events = trips[household]
        known = oracle.values(events, None, day, None, NEW_YORK)
        if not known:  # not a household of the panel yet
            assert (row["spend_30d"], row["std_gap"], row["days_since_last_trip"]) == (None, None, None)
            continue
        seen += 1
        assert row["spend_30d"] == oracle.aggregate("sum", oracle.values(events, "value", day, 30, NEW_YORK))
        assert row["std_gap"] == oracle.aggregate("std", oracle.values(events, "gap", day, None, NEW_YORK))
        assert row["days_since_last_trip"] == (at - known[-1]["at"]).total_seconds() / 86400.0
    assert seen > 600


def test_a_request_between_snapshots_reads_the_latest_one_and_its_own_clock(built_slice, trips, tmp_path):
    store = feature_store(project(built_slice), str(tmp_path / "registry.db"))
    household = min(trips)
    snapshot_day = date(2017, 11, 6)
    at = datetime(2017, 11, 6, 18, 30, 15, 123457, tzinfo=UTC)
    entity_df = pl.DataFrame({"household_id": [household], "event_timestamp": [at], "at": [at]})
    names = ["household_trips:trips_7d", "household_now:days_since_last_trip", "household_now:recency_over_cadence"]
    row = pl.DataFrame(store.get_historical_features(entity_df=entity_df, features=names).to_arrow()).row(0, named=True)
    known = oracle.values(trips[household], None, snapshot_day, None, NEW_YORK)
    assert row["trips_7d"] == len(oracle.values(trips[household], None, snapshot_day, 7, NEW_YORK))
    waited = (at - known[-1]["at"]).total_seconds() / 86400.0
    assert row["days_since_last_trip"] == waited
    gap = oracle.aggregate("mean", oracle.values(trips[household], "gap", snapshot_day, None, NEW_YORK))
    assert row["recency_over_cadence"] == waited / (gap / 86_400_000_000)
    assert math.isfinite(row["recency_over_cadence"])
