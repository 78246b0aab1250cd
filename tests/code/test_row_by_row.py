"""A row's bits are its own: not those of the rows beside it, nor of the number of threads.

Polars keeps what is the same in all of a thread's rows as a single value, and divides by such otherwise.
"""

import os
import random
import subprocess
import sys
from datetime import UTC, date, datetime

import polars as pl
import pytest

from lockstep import agg
from lockstep.agg import EVENT_DAY
from lockstep.clock import INSTANT
from lockstep.define import Feature, OnDemandView
from lockstep.exact import ratio, weekday
from lockstep.snapshot import snapshot
from tests.code.definitions import visits
from tests.code.test_snapshots import ZONE
from tests.conftest import ROOT

ROWS = 3000
SOME = range(0, ROWS, 30)
EVERY = pytest.mark.parametrize("every", [1, 2, 1000, ROWS])  # so often a row is another than the ones around it


@EVERY
def test_request_time_features_of_many_rows_are_those_of_each_alone(every):
    draw = random.Random(every)
    view = visits(Feature("gap", agg.mean("value"), default=7.0), missing="default")
    features = [
        Feature("over_gap", ratio("cents", "gap")),
        Feature("over_days", ratio("cents", pl.when(pl.col("gap") > 5).then(30).otherwise(90.0))),
        Feature("three", pl.lit(3.0)),
        Feature("over_three", ratio("over_gap", "three")),
    ]
    now = OnDemandView("now", [view], {"at": INSTANT, "cents": pl.Float64()}, features)
    types = {"gap": pl.Float64(), "visits_known": pl.Boolean(), "cents": pl.Float64()}
    known = [True if n % every == 0 else None for n in range(ROWS)]
    gap = [draw.choice([3.3, 49.0, None]) if k else None for k in known]
    rows = {"gap": gap, "visits_known": known, "cents": [draw.random() * 1000 for _ in range(ROWS)]}
    many = now.compute(rows, types)
    filled = [g if k else 7.0 for g, k in zip(gap, known, strict=True)]
    assert many["over_gap"] == [c / g if g else None for c, g in zip(rows["cents"], filled, strict=True)]
    for n in SOME:
        alone = now.compute({name: column[n : n + 1] for name, column in rows.items()}, types)
        assert {name: column[n] for name, column in many.items()} == {name: column[0] for name, column in alone.items()}


@EVERY
def test_stored_formulas_of_many_entities_are_those_of_each_alone(every):
    draw, day = random.Random(every), date(2017, 3, 12)  # a Sunday, 7
    often = [n for n in range(ROWS) for _ in range(9 if n % every == 0 else 1)]
    events = pl.DataFrame(
        {"household_id": often, "value": [draw.randrange(10**6) for _ in often]},
        schema_overrides={"household_id": pl.Int64},
    ).with_columns(
        pl.lit(datetime(2017, 3, 5, tzinfo=UTC), INSTANT).alias("at"), pl.lit(date(2017, 3, 4)).alias(EVENT_DAY)
    )
    view = visits(
        Feature("spend", agg.sum("value")),
        Feature("trips", agg.count()),
        Feature("of_days", ratio("spend", pl.when(pl.col("trips") > 5).then(30.0).otherwise(90.0))),
        Feature("of_weekday", ratio("spend", weekday("event_timestamp", "America/New_York"))),
    )
    who = events.select("household_id").unique().sort("household_id")
    many = snapshot(view, events, who, day, ZONE)
    assert many["of_weekday"].to_list() == [spend / 7 for spend in many["spend"]]
    for n in SOME:
        assert snapshot(view, events.filter(household_id=n), who[n], day, ZONE).equals(many[n])


@pytest.mark.parametrize("threads", ["1", "4"])
def test_they_are_on_any_number_of_threads(threads):
    words = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "each_alone", __file__]
    env = {**os.environ, "POLARS_MAX_THREADS": threads}
    done = subprocess.run([sys.executable, *words], env=env, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "8 passed" in done.stdout
