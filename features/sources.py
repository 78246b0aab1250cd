"""Events of the example, derived from raw tables by pure functions, and the entities they are about."""

import polars as pl

from lockstep.define import Entity, source

household = Entity("household", key="household_id", description="A household of the panel.")


@source(event_time="at", key="basket_id", within_day=True, gap_of="household_id")
def trips(transactions: pl.LazyFrame, products: pl.LazyFrame) -> pl.LazyFrame:
    """Return one row a basket: a trip of a household to a store.

    Columns: household_id, basket_id, at, store_id, departments (different ones in the basket), and money in cents
    (value, discount, coupon, private_value, fuel_value). Lines whose product is not known yet count in value alone.
    """
    value, brand, department = pl.col("sales_value"), pl.col("brand"), pl.col("department")
    return (
        transactions.join(products.select("product_id", "department", "brand"), on="product_id", how="left")
        .group_by("household_id", "basket_id")
        .agg(
            pl.col("transaction_timestamp").min().alias("at"),
            pl.col("store_id").min(),
            department.n_unique().sub(department.null_count() > 0).cast(pl.Int64).alias("departments"),
            value.sum().alias("value"),
            (pl.col("retail_disc") + pl.col("coupon_disc") + pl.col("coupon_match_disc")).sum().alias("discount"),
            pl.col("coupon_disc").sum().alias("coupon"),
            value.filter(brand == "Private").sum().alias("private_value"),
            value.filter(department == "FUEL").sum().alias("fuel_value"),
        )
    )
