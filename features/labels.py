"""The questions that the models answer: about a household at the start of a day, and about a basket at the till."""

from datetime import date, timedelta

import polars as pl

from features.category import category
from features.sources import household, store, trips
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


def rung_up(trips: pl.LazyFrame, day: date) -> pl.LazyFrame:
    """Return the baskets of `day` as the till asks about them, money in cents; of households known by then."""
    known, today = trips.filter(pl.col("event_day") < day), trips.filter(event_day=day)
    return today.join(known, on="household_id", how="semi").select(
        "household_id", "store_id", "product_category", "basket_id", "at", pl.col("value").alias("basket_value"),
        pl.col("discount").alias("basket_discount"), pl.col("fuel_value").alias("basket_fuel"),
        pl.col("departments").alias("basket_departments"),
    )  # fmt: skip


def came_back(baskets: pl.LazyFrame, ahead: pl.LazyFrame) -> pl.LazyFrame:
    """Return 1 for baskets whose household makes a trip on one of the 7 days after, 0 for the others."""
    last = ahead.group_by("household_id").agg(pl.col("event_day").max().alias("_last"))
    again = (pl.col("_last") > pl.col("cutoff")).fill_null(False).cast(pl.Int8)
    return baskets.join(last, on="household_id", how="left").with_columns(again.alias("label"))


back = Question(
    name="back",
    entities=[household, store, category],
    source=trips,
    horizon_days=8,  # the day of the basket, which does not count, and the 7 after it
    population=rung_up,
    label=came_back,
    moment="event",
    description="Another trip within the 7 days after the one of this basket.",
)
