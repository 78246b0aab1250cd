"""Stored features of a store, and of a household in a store: one row each and day."""

from features.sources import household, store, trips
from lockstep import agg
from lockstep.define import Feature, View

store_trips = View(
    name="store_trips",
    entities=[store],
    source=trips,
    ttl_days=7,
    owner="operations",
    description="How much goes on in a store.",
    features=[
        Feature("store_trips_28d", agg.count(days=28), "trips of all households in the last 28 days"),
        Feature("store_basket_28d", agg.mean("value", days=28), "cents a trip in the last 28 days"),
    ],
)

household_store = View(
    name="household_store",
    entities=[household, store],
    source=trips,
    ttl_days=7,
    owner="growth",
    description="How a household uses one of its stores.",
    missing="default",
    features=[
        Feature("trips_here_90d", agg.count(days=90), "trips to this store in the last 90 days", default=0),
        Feature("last_here_at", agg.last("at"), "latest trip to this store", default=None),
    ],
)
