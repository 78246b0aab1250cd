"""Peers of the benchmark ``snapshots``: the same days without Lockstep, as one writes them in Polars, pandas or DuckDB.

They read, derive trips once and loop over days. They know nothing of late rows, corrections or deletions.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta
from functools import partial
from pathlib import Path

import duckdb
import pandas as pd
import polars as pl

from benchmarks.snapshots import COLUMNS, SUMS, WINDOWS
from lockstep.clock import days, parse_day

ZONE = "America/New_York"
DISCOUNTS = ["retail_disc", "coupon_disc", "coupon_match_disc"]
LINES = ["household_id", "basket_id", "store_id", "product_id", "transaction_timestamp", "sales_value", *DISCOUNTS]


def _wanted(first: str, last: str) -> list[date]:
    return list(days(parse_day(first), parse_day(last)))


def _polars(
    features: Callable[[pl.DataFrame, date], pl.DataFrame], clean: str, out: str, first: str, last: str
) -> Callable[[], Path]:
    folder = Path(out)
    folder.mkdir(exist_ok=True)

    def work() -> Path:
        trips = _polars_trips(Path(clean))
        for day in _wanted(first, last):
            known = trips.filter(pl.col("day") < day)
            features(known, day).sort("household_id").write_parquet(folder / f"{day}.parquet")
        return folder

    return work


def _polars_all(known: pl.DataFrame, day: date) -> pl.DataFrame:
    """Group all trips known by a day."""
    return known.group_by("household_id").agg(pl.len().alias("trips_total"), *_polars_features(day))


def _polars_90(known: pl.DataFrame, day: date) -> pl.DataFrame:
    """Group the recent trips apart, as somebody does who knows that no window is longer than 90 days."""
    total = known.group_by("household_id").agg(pl.len().alias("trips_total"))
    recent = known.filter(pl.col("day") >= day - timedelta(days=max(WINDOWS)))
    windows = recent.group_by("household_id").agg(_polars_features(day))
    return total.join(windows, on="household_id", how="left").fill_null(0)


polars_loop = partial(_polars, _polars_all)
polars_loop_90 = partial(_polars, _polars_90)


def _polars_trips(clean: Path) -> pl.DataFrame:
    products = pl.scan_parquet(clean / "products/*.parquet").select("product_id", "brand")
    lines = pl.scan_parquet(clean / "transactions/*.parquet").join(products, on="product_id", how="left")
    value, at = pl.col("sales_value"), pl.col("transaction_timestamp").min()
    trips = lines.group_by("household_id", "basket_id").agg(
        at.dt.convert_time_zone(ZONE).dt.date().alias("day"),
        pl.col("store_id").min(),
        value.sum().alias("value"),
        value.filter(pl.col("brand") == "Private").sum().alias("private_value"),
        pl.sum_horizontal(DISCOUNTS).sum().alias("discount"),
    )
    return trips.collect()


def _polars_features(day: date) -> list[pl.Expr]:
    within = {n: pl.col("day") >= day - timedelta(days=n) for n in WINDOWS}
    return [
        *(within[n].sum().alias(f"trips_{n}d") for n in WINDOWS),
        *(pl.col(c).filter(within[n]).sum().alias(f"{name}_{n}d") for name, c in SUMS.items() for n in WINDOWS),
        *(pl.col("store_id").filter(within[n]).n_unique().alias(f"stores_{n}d") for n in WINDOWS[1:]),
    ]


def pandas_loop(clean: str, out: str, first: str, last: str) -> Callable[[], Path]:
    """Return a loop in pandas: each day groups the trips of each window."""
    folder = Path(out)
    folder.mkdir(exist_ok=True)

    def work() -> Path:
        trips = _pandas_trips(Path(clean))
        for day in _wanted(first, last):
            _pandas_features(trips, pd.Timestamp(day)).reset_index().to_parquet(folder / f"{day}.parquet")
        return folder

    return work


def _pandas_trips(clean: Path) -> pd.DataFrame:
    products = pd.read_parquet(clean / "products", columns=["product_id", "brand"])
    lines = pd.read_parquet(clean / "transactions", columns=LINES).merge(products, on="product_id", how="left")
    lines["private_value"] = lines["sales_value"].where(lines["brand"] == "Private", 0)
    lines["discount"] = lines[DISCOUNTS].sum(axis=1)
    named = {"at": ("transaction_timestamp", "min"), "store_id": ("store_id", "min"), "value": ("sales_value", "sum")}
    sums = {name: (name, "sum") for name in ("private_value", "discount")}
    trips = lines.groupby(["household_id", "basket_id"], as_index=False).agg(**named, **sums)
    trips["day"] = trips["at"].dt.tz_convert(ZONE).dt.tz_localize(None).dt.normalize()
    return trips


def _pandas_features(trips: pd.DataFrame, day: pd.Timestamp) -> pd.DataFrame:
    known = trips[trips["day"] < day]
    parts = [known.groupby("household_id").agg(trips_total=("value", "size"))]
    for n in WINDOWS:
        recent = known[known["day"] >= day - pd.Timedelta(days=n)]
        named = {f"trips_{n}d": ("value", "size")} | {f"{name}_{n}d": (c, "sum") for name, c in SUMS.items()}
        if n in WINDOWS[1:]:
            named |= {f"stores_{n}d": ("store_id", "nunique")}
        parts.append(recent.groupby("household_id").agg(**named))
    return pd.concat(parts, axis=1).fillna(0).astype("int64")[COLUMNS[1:]].sort_index()


def duckdb_loop(clean: str, out: str, first: str, last: str) -> Callable[[], Path]:
    """Return a loop in DuckDB's SQL: each day groups all trips known by then."""
    folder = Path(out)
    folder.mkdir(exist_ok=True)

    def work() -> Path:
        with duckdb.connect() as db:
            db.execute(_DUCKDB_TRIPS.format(clean=clean, discount=" + ".join(DISCOUNTS)))
            for day in _wanted(first, last):
                within = {n: f"FILTER (day >= DATE '{day - timedelta(days=n)}')" for n in WINDOWS}
                columns = [f"count(*) {within[n]} AS trips_{n}d" for n in WINDOWS]
                columns += [
                    f"coalesce(sum({c}) {within[n]}, 0)::BIGINT AS {name}_{n}d"
                    for name, c in SUMS.items()
                    for n in WINDOWS
                ]
                columns += [f"count(DISTINCT store_id) {within[n]} AS stores_{n}d" for n in WINDOWS[1:]]
                db.execute(_DUCKDB_DAY.format(columns=", ".join(columns), day=day, file=folder / f"{day}.parquet"))
        return folder

    return work


_DUCKDB_TRIPS = """
SET TimeZone = 'America/New_York';
CREATE TABLE trips AS SELECT household_id, basket_id,
  min(transaction_timestamp)::DATE AS day, min(store_id) AS store_id,
  sum(sales_value) AS value, coalesce(sum(sales_value) FILTER (brand = 'Private'), 0) AS private_value,
  sum({discount}) AS discount
FROM '{clean}/transactions/*.parquet' LEFT JOIN '{clean}/products/*.parquet' USING (product_id)
GROUP BY household_id, basket_id
"""

_DUCKDB_DAY = """
COPY (
  SELECT household_id, count(*) AS trips_total, {columns}
  FROM trips WHERE day < DATE '{day}' GROUP BY household_id ORDER BY household_id
) TO '{file}' (COMPRESSION zstd)
"""
