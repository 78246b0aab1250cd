"""The question that the models answer: will this household lapse, that is, make no trip in the next 28 days."""

from datetime import date, timedelta

import polars as pl

from features.sources import household, trips
from lockstep.define import Question


def active(events: pl.LazyFrame, day: date) -> pl.LazyFrame:
    """Return the households with a trip in the 56 days before `day`."""
    return events.filter(pl.col("event_day") >= day - timedelta(days=56)).select("household_id").unique()


def lapsed(population: pl.LazyFrame, ahead: pl.LazyFrame) -> pl.LazyFrame:
    """Return 1 for households without a trip `ahead`, 0 for the others."""
    shops = ahead.select("household_id").unique().with_columns(pl.lit(0, pl.Int8).alias("label"))
    return population.join(shops, on="household_id", how="left").with_columns(pl.col("label").fill_null(1))


lapse = Question(
    name="lapse",
    entities=[household],
    source=trips,
    horizon_days=28,
    population=active,
    label=lapsed,
    description="No trip in the next 28 days.",
)
