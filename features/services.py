"""What each model version reads: named sets of features."""

from lockstep.define import Service

RFM = [
    "days_since_last_trip", "tenure_days", "trips_total", "lifetime_value", "trips_30d", "trips_90d", "spend_30d",
    "spend_90d", "avg_gap_days",
]  # fmt: skip

rfm = Service("rfm", RFM, "recency, frequency, money")

full = Service(
    "full",
    [
        *RFM, "std_gap_days", "trips_7d", "spend_7d", "avg_basket_90d", "avg_depts_90d", "stores_90d",
        "private_share_90d", "discount_share_90d", "coupon_disc_90d", "fuel_share_90d", "recency_over_cadence",
        "spend_trend_30_90", "active_campaigns", "redemptions_90d",
    ],
    "all that is known of a household",
)  # fmt: skip

baselines = Service(
    "baselines", ["days_since_last_trip", "trips_total", "first_trip_at", "last_trip_at"], "what the baselines read"
)

till = Service(
    "till",
    [
        "days_since_last_trip", "tenure_days", "avg_gap_days", "std_gap_days", "recency_over_cadence", "trips_total",
        "trips_7d", "trips_30d", "trips_90d", "spend_30d", "avg_basket_90d", "stores_90d", "fuel_share_90d",
        "active_campaigns", "store_trips_28d", "store_basket_28d", "trips_here_90d", "share_here_90d",
        "days_since_here", "basket_cents", "basket_over_mean", "basket_discount_share", "basket_fuel_share",
        "basket_depts", "hour_of_day", "day_of_week", "category_vector",
    ],
    "a basket at the till, its household, its store, the two together, and its category",
)  # fmt: skip
