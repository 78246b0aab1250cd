"""Events of the example, derived from raw tables by pure functions, and the entities they are about."""

import polars as pl

from lockstep.define import Entity, source

UNKNOWN = "UNKNOWN"
"""The category of a product that has none."""

household = Entity("household", key="household_id", description="A household of the panel.")
store = Entity("store", key="store_id", description="A store in which a household shops.")


@source(event_time="at", key="basket_id", within_day=True, gap_of="household_id")
def trips(transactions: pl.LazyFrame, products: pl.LazyFrame) -> pl.LazyFrame:
    """Return one row a basket: a trip of a household to a store.

    Columns: household_id, basket_id, at, store_id, departments (different ones in the basket), product_category (of its
    dearest line), and money in cents (value, discount, coupon, private_value, fuel_value). Lines whose product is not
    known yet count in value alone.
    """
    value, brand, department = pl.col("sales_value"), pl.col("brand"), pl.col("department")
    return (
        transactions.join(
            products.select("product_id", "department", "brand", "product_category"), on="product_id", how="left"
        )
        .group_by("household_id", "basket_id")
        .agg(
            pl.col("transaction_timestamp").min().alias("at"),
            pl.col("store_id").min(),
            department.n_unique().sub(department.null_count() > 0).cast(pl.Int64).alias("departments"),
            pl.col("product_category").sort_by("sales_value", "product_id").last().fill_null(UNKNOWN),
            value.sum().alias("value"),
            (pl.col("retail_disc") + pl.col("coupon_disc") + pl.col("coupon_match_disc")).sum().alias("discount"),
            pl.col("coupon_disc").sum().alias("coupon"),
            value.filter(brand == "Private").sum().alias("private_value"),
            value.filter(department == "FUEL").sum().alias("fuel_value"),
        )
    )


REDEMPTION = ("household_id", "coupon_upc", "campaign_id", "redemption_date")


@source(event_time="redemption_date", key=REDEMPTION, within_day=True)
def redemptions(coupon_redemptions: pl.LazyFrame) -> pl.LazyFrame:
    """Return one row a coupon that a household used: household_id, coupon_upc, campaign_id, redemption_date."""
    return coupon_redemptions.select("household_id", "coupon_upc", "campaign_id", "redemption_date")


@source(event_time="start_date", key=("household_id", "campaign_id"))
def offers(campaigns: pl.LazyFrame, campaign_descriptions: pl.LazyFrame) -> pl.LazyFrame:
    """Return one row a household and campaign: household_id, campaign_id, and the days from start_date to end_date.

    A campaign is announced before it starts; whose description is not known yet does not run.
    """
    runs = campaign_descriptions.select("campaign_id", "start_date", "end_date")
    return campaigns.select("household_id", "campaign_id").join(runs, on="campaign_id", how="inner")
