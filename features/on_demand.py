"""Features of the moment of the request: the same Polars expressions in training and in service."""

from features.household import household_trips
from lockstep.clock import INSTANT
from lockstep.define import Feature, OnDemandView
from lockstep.exact import elapsed_days, ratio

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
