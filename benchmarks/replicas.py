"""Data of any size with the shape of the example: its households replicated, re-keyed and shaken.

A replica keeps weekdays, hours, baskets, products and stores. It moves each household by up to two whole weeks and each
basket by up to 20 minutes, scales prices by up to 5 %, and drops one basket in twenty; what falls outside the year is
cut off. The rows are for throughput alone: no quality of a model may be read from them.
"""

from __future__ import annotations

import shutil
from datetime import date
from pathlib import Path

import numpy as np
import polars as pl

from lockstep.clock import Zone

KEY = ["basket_id", "product_id"]
FIRST, LAST = date(2017, 1, 1), date(2017, 12, 31)


def replicate(clean: Path, to: Path, replicas: int, zone: Zone) -> None:
    """Write `replicas` of the clean transactions in `clean`, one partition a landing day, and the products as they are.

    The rows of a month are held in memory at once; `to` is complete when it exists.
    """
    beside = to.with_name(f"{to.name}.part")
    shutil.rmtree(beside, ignore_errors=True)
    shutil.copytree(clean / "products", beside / "products")
    lines = pl.read_parquet(clean / "transactions/*.parquet", hive_partitioning=False)
    (beside / "replicas").mkdir()
    for k in range(replicas):
        _replica(lines, k, zone).write_parquet(beside / f"replicas/{k}.parquet", row_group_size=50_000)
    (beside / "transactions").mkdir()
    scan = pl.scan_parquet(beside / "replicas/*.parquet")
    for month in range(1, 13):
        rows = scan.filter(pl.col("_landing_day").dt.month() == month).collect(engine="streaming")
        for (day,), part in rows.partition_by("_landing_day", as_dict=True).items():
            part.sort(KEY).write_parquet(beside / f"transactions/{day}.parquet")
    shutil.rmtree(beside / "replicas")
    beside.rename(to)


def _replica(lines: pl.DataFrame, k: int, zone: Zone) -> pl.DataFrame:
    """Return replica `k` of the lines, of which each day's rows stand together."""
    rng = np.random.default_rng(k)
    households = lines.select("household_id").unique().sort("household_id")
    weeks = pl.Series("_weeks", rng.integers(-2, 3, households.height))
    baskets = lines.select("basket_id").unique().sort("basket_id")
    span = baskets["basket_id"].max() - baskets["basket_id"].min() + 1  # type: ignore[operator]
    shaken = baskets.with_columns(
        pl.Series("_seconds", rng.integers(-1200, 1201, baskets.height)),
        pl.Series("_percent", rng.integers(95, 106, baskets.height)),
        pl.Series("_kept", rng.random(baskets.height) >= 0.05),
    )
    moved = pl.duration(weeks="_weeks", seconds="_seconds")
    cents = pl.col("sales_value", "retail_disc", "coupon_disc", "coupon_match_disc")
    return (
        lines.lazy()
        .join(shaken.lazy(), on="basket_id")
        .join(households.with_columns(weeks).lazy(), on="household_id")
        .filter("_kept")
        .with_columns(
            pl.col("household_id") + 2500 * k,
            pl.col("basket_id") + span * k,
            pl.col("transaction_timestamp") + moved,
            cents * pl.col("_percent") // 100,
        )
        .with_columns(zone.day(pl.col("transaction_timestamp")).alias("_landing_day"))
        .filter(pl.col("_landing_day").is_between(FIRST, LAST))
        .select(lines.columns)
        .sort("_landing_day")
        .collect()
    )
