"""Stored features of a household: one row a household and day."""

from features.sources import household, offers, redemptions, trips
from lockstep import agg
from lockstep.define import Feature, View
from lockstep.exact import ratio

DAY = 86_400_000_000  # microseconds

household_trips = View(
    name="household_trips",
    entities=[household],
    source=trips,
    ttl_days=7,
    owner="growth",
    description="How often, how lately and for how much a household shops.",
    missing="refuse",
    features=[
        Feature("first_trip_at", agg.first("at"), "first trip of the panel"),
        Feature("last_trip_at", agg.last("at"), "latest trip"),
        Feature("trips_total", agg.count(), "trips so far"),
        Feature("lifetime_value", agg.sum("value"), "cents spent so far"),
        Feature("avg_gap", agg.mean("gap"), "mean microseconds between trips"),
        Feature("std_gap", agg.std("gap"), "standard deviation of the microseconds between trips"),
        Feature("avg_gap_days", ratio("avg_gap", DAY), "mean days between trips", range=(0, None)),
        Feature("std_gap_days", ratio("std_gap", DAY), "standard deviation of the days between trips"),
        Feature("trips_7d", agg.count(days=7), "trips in the last 7 days"),
        Feature("trips_30d", agg.count(days=30), "trips in the last 30 days"),
        Feature("trips_90d", agg.count(days=90), "trips in the last 90 days"),
        Feature("spend_7d", agg.sum("value", days=7), "cents spent in the last 7 days"),
        Feature("spend_30d", agg.sum("value", days=30), "cents spent in the last 30 days"),
        Feature("spend_90d", agg.sum("value", days=90), "cents spent in the last 90 days"),
        Feature("avg_basket_90d", agg.mean("value", days=90), "cents a trip in the last 90 days"),
        Feature("avg_depts_90d", agg.mean("departments", days=90), "departments a trip in the last 90 days"),
        Feature("stores_90d", agg.distinct("store_id", days=90), "different stores in the last 90 days"),
        Feature("private_spend_90d", agg.sum("private_value", days=90), "cents on private labels in the last 90 days"),
        Feature("discount_90d", agg.sum("discount", days=90), "cents of all discounts in the last 90 days"),
        Feature("coupon_disc_90d", agg.sum("coupon", days=90), "cents of coupons in the last 90 days"),
        Feature("fuel_spend_90d", agg.sum("fuel_value", days=90), "cents on fuel in the last 90 days"),
        Feature(
            "private_share_90d",
            ratio("private_spend_90d", "spend_90d"),
            "share of private labels in the spend",
            range=(0, 1),
        ),
        Feature(
            "discount_share_90d",
            ratio("discount_90d", "spend_90d"),
            "discounts for each cent of the spend",
            range=(0, None),
        ),
        Feature("fuel_share_90d", ratio("fuel_spend_90d", "spend_90d"), "share of fuel in the spend", range=(0, 1)),
        Feature(
            "spend_trend_30_90",
            ratio("spend_30d", "spend_90d") * 3,
            "1 where the last 30 days are as the last 90",
            range=(0, 3),
        ),
    ],
)

household_offers = View(
    name="household_offers",
    entities=[household],
    source=offers,
    ttl_days=7,
    owner="marketing",
    description="Which campaigns address a household.",
    missing="default",
    features=[
        Feature(
            "active_campaigns", agg.count(during=("start_date", "end_date")), "campaigns that run on the day", default=0
        ),
    ],
)

household_coupons = View(
    name="household_coupons",
    entities=[household],
    source=redemptions,
    ttl_days=7,
    owner="marketing",
    description="How a household answers campaigns.",
    missing="default",
    features=[
        Feature("redemptions_90d", agg.count(days=90), "coupons used in the last 90 days", default=0),
    ],
)
