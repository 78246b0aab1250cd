"""Features of the moment of the request: the same Polars expressions in training and in service."""

import polars as pl

from features.household import household_trips
from features.store import household_store
from lockstep.clock import INSTANT
from lockstep.define import Feature, OnDemandView
from lockstep.exact import elapsed_days, hour, ratio, weekday

ZONE = "America/New_York"  # of the clock on the shop's wall

household_now = OnDemandView(
    name="household_now",
    views=[household_trips],
    request={"at": INSTANT},
    owner="growth",
    description="How long ago things happened, seen from the request.",
    features=[
        Feature(
            "days_since_last_trip",
            elapsed_days("last_trip_at", "at"),
            "days of 86400 s since the latest trip",
            range=(0, None),
        ),
        Feature(
            "tenure_days", elapsed_days("first_trip_at", "at"), "days of 86400 s since the first trip", range=(0, None)
        ),
        Feature("recency_over_cadence", ratio("days_since_last_trip", "avg_gap_days"), "waiting time in usual gaps"),
    ],
)

basket_now = OnDemandView(
    name="basket_now",
    views=[household_trips, household_store],
    request={
        "at": INSTANT,
        "basket_value": pl.Int64(),
        "basket_discount": pl.Int64(),
        "basket_fuel": pl.Int64(),
        "basket_departments": pl.Int64(),
    },
    owner="growth",
    description="The basket at the till, beside what its household usually buys.",
    features=[
        Feature("basket_cents", pl.col("basket_value"), "cents of the basket"),
        Feature(
            "basket_over_mean", ratio("basket_value", "avg_basket_90d"), "1 where it is worth what they usually are"
        ),
        Feature(
            "basket_discount_share", ratio("basket_discount", "basket_value"), "discounts as a share of the basket"
        ),
        Feature("basket_fuel_share", ratio("basket_fuel", "basket_value"), "share of fuel in the basket"),
        Feature("basket_depts", pl.col("basket_departments"), "departments in the basket"),
        Feature(
            "share_here_90d",
            ratio("trips_here_90d", "trips_90d"),
            "share of the household's trips made in this store",
            range=(0, 1),
        ),
        Feature("days_since_here", elapsed_days("last_here_at", "at"), "days of 86400 s since its latest trip here"),
        Feature("hour_of_day", hour("at", ZONE), "hour on the shop's clock", range=(0, 23)),
        Feature("day_of_week", weekday("at", ZONE), "1 is Monday", range=(1, 7)),
    ],
)
