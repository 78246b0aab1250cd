"""Peers of the benchmark ``snapshots``: what one writes for the same month without Lockstep, in Polars and in pandas.

They read, derive trips once and loop over days. They know nothing of late rows, corrections or deletions.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path

import pandas as pd
import polars as pl

from benchmarks.snapshots import COLUMNS, MONTH, WINDOWS

ZONE = "America/New_York"
DISCOUNTS = ["retail_disc", "coupon_disc", "coupon_match_disc"]
LINES = ["household_id", "basket_id", "product_id", "transaction_timestamp", "sales_value", *DISCOUNTS]


def polars_loop(root: str, out: str) -> Callable[[], Path]:
    """Return the building of the month by a loop in Polars."""
    clean, folder = Path(root) / "artifacts/clean", Path(out)
    folder.mkdir(exist_ok=True)

    def work() -> Path:
        trips = _polars_trips(clean)
        for day in MONTH:
            known = trips.filter(pl.col("day") < day).group_by("household_id").agg(_polars_features(day))
            known.sort("household_id").write_parquet(folder / f"{day}.parquet")
        return folder

    return work


def _polars_trips(clean: Path) -> pl.DataFrame:
    products = pl.scan_parquet(clean / "products/*.parquet").select("product_id", "brand")
    lines = pl.scan_parquet(clean / "transactions/*.parquet").join(products, on="product_id", how="left")
    value, at = pl.col("sales_value"), pl.col("transaction_timestamp").min()
    trips = lines.group_by("household_id", "basket_id").agg(
        at.dt.convert_time_zone(ZONE).dt.date().alias("day"),
        value.sum().alias("value"),
        value.filter(pl.col("brand") == "Private").sum().alias("private_value"),
        pl.sum_horizontal(DISCOUNTS).sum().alias("discount"),
    )
    return trips.collect()


def _polars_features(day: date) -> list[pl.Expr]:
    within = {n: pl.col("day") >= day - timedelta(days=n) for n in WINDOWS}
    return [
        pl.len().alias("trips_total"),
        pl.col("value").sum().alias("lifetime_value"),
        *(within[n].sum().alias(f"trips_{n}d") for n in WINDOWS),
        *(pl.col("value").filter(within[n]).sum().alias(f"spend_{n}d") for n in WINDOWS),
        pl.col("private_value").filter(within[90]).sum().alias("private_spend_90d"),
        pl.col("discount").filter(within[90]).sum().alias("discount_90d"),
    ]


def pandas_loop(root: str, out: str) -> Callable[[], Path]:
    """Return the building of the month by a loop in pandas."""
    clean, folder = Path(root) / "artifacts/clean", Path(out)
    folder.mkdir(exist_ok=True)

    def work() -> Path:
        trips = _pandas_trips(clean)
        for day in MONTH:
            _pandas_features(trips, pd.Timestamp(day)).reset_index().to_parquet(folder / f"{day}.parquet")
        return folder

    return work


def _pandas_trips(clean: Path) -> pd.DataFrame:
    products = pd.read_parquet(clean / "products", columns=["product_id", "brand"])
    lines = pd.read_parquet(clean / "transactions", columns=LINES).merge(products, on="product_id", how="left")
    lines["private_value"] = lines["sales_value"].where(lines["brand"] == "Private", 0)
    lines["discount"] = lines[DISCOUNTS].sum(axis=1)
    named = {"at": ("transaction_timestamp", "min"), "value": ("sales_value", "sum")}
    sums = {name: (name, "sum") for name in ("private_value", "discount")}
    trips = lines.groupby(["household_id", "basket_id"], as_index=False).agg(**named, **sums)
    trips["day"] = trips["at"].dt.tz_convert(ZONE).dt.tz_localize(None).dt.normalize()
    return trips


def _pandas_features(trips: pd.DataFrame, day: pd.Timestamp) -> pd.DataFrame:
    known = trips[trips["day"] < day]
    parts = [known.groupby("household_id").agg(trips_total=("value", "size"), lifetime_value=("value", "sum"))]
    for n in WINDOWS:
        recent = known[known["day"] >= day - pd.Timedelta(days=n)]
        named = {f"trips_{n}d": ("value", "size"), f"spend_{n}d": ("value", "sum")}
        if n == 90:
            named |= {"private_spend_90d": ("private_value", "sum"), "discount_90d": ("discount", "sum")}
        parts.append(recent.groupby("household_id").agg(**named))
    return pd.concat(parts, axis=1).fillna(0).astype("int64")[COLUMNS[1:]].sort_index()
