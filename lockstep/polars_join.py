"""As-of look-ups in Polars: which version of a row was the latest at an instant.

Nothing here knows Feast or files. Instants are integers since 1970 in one unit, so that no comparison rounds, and the
answer is a row number, so that features are gathered as they are stored and the asking rows are never touched.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Literal

import polars as pl

__all__ = ["LIMIT", "PER_SECOND", "Unit", "common_unit", "epoch", "expiry", "in_order", "latest_rows"]

Unit = Literal["us", "ns"]

PER_SECOND = {"ms": 10**3, "us": 10**6, "ns": 10**9}
LIMIT = 2**63 - 1
_MOST_DAYS = 10**7  # 27,000 years: further back the calendar itself overflows


def common_unit(*dtypes: pl.DataType) -> Unit:
    """Return the coarsest unit in which no column of these types loses a digit (milliseconds count as microseconds)."""
    return "ns" if any(isinstance(d, pl.Datetime) and d.time_unit == "ns" for d in dtypes) else "us"


def epoch(column: pl.Expr, dtype: pl.Datetime, unit: Unit) -> pl.Expr:
    """Return a datetime column as integers since 1970; naive times are UTC, and what does not fit is cut at the end."""
    factor = PER_SECOND[unit] // PER_SECOND[dtype.time_unit]
    return column.cast(dtype).to_physical().clip(-(LIMIT // factor), LIMIT // factor) * factor


def expiry(at: pl.Expr, ttl: timedelta, unit: Unit, zone: str | None = None) -> pl.Expr:
    """Return the earliest event time that still counts at `at`, that instant included.

    With a `zone`, a whole number of days is counted on that zone's calendar: the same wall clock so many days before,
    however long those days were. A wall clock that was skipped counts as if the change had not yet happened; of one
    that came twice, the first counts. Any other `ttl` is plain elapsed time.
    """
    if zone is None or ttl % timedelta(days=1):
        return _minus(at, ttl // timedelta(microseconds=1) * (PER_SECOND[unit] // 10**6))
    day = 86_400 * PER_SECOND[unit]
    local = at.cast(pl.Datetime(unit, "UTC")).dt.convert_time_zone(zone).dt.replace_time_zone(None).to_physical()
    wall = _minus(local, min(ttl.days, _MOST_DAYS) * day)
    return pl.coalesce(_instant(wall, unit, zone), _instant(wall - day, unit, zone) + day)


def _minus(value: pl.Expr, amount: int) -> pl.Expr:
    """Return `value - amount`, cut at the end of the integers instead of wrapping around into the future."""
    amount = min(amount, LIMIT)
    return value.clip(lower_bound=amount - LIMIT) - amount


def _instant(wall: pl.Expr, unit: Unit, zone: str) -> pl.Expr:
    """Return the instant at which clocks in `zone` showed `wall`, or null when they skipped it."""
    naive = wall.cast(pl.Datetime(unit))
    return naive.dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null").to_physical()


def in_order(history: pl.DataFrame) -> pl.DataFrame:
    """Sort versions so that of two rows of a key the later one in the frame wins.

    `history` has `time`, and may have `created` and any number of `tie_<n>` columns; they decide in that order, and a
    null loses. What is equal in all of them stays in the order it had.
    """
    ties = [name for name in history.columns if name.startswith("tie_")]
    by = ["time", *(["created"] if "created" in history.columns else []), *ties]
    return history.sort(by, nulls_last=False, maintain_order=True)


def latest_rows(asked: pl.DataFrame, history: pl.DataFrame, keys: Sequence[str]) -> pl.Series:
    """Find for every asked row the version that was the latest at its instant.

    Parameters
    ----------
    asked
        `keys`, `at`, and `since` where versions expire (inclusive). A row with a null key or instant finds nothing.
    history
        `keys`, `row` (what is returned), `time`, and optionally `created` and `tie_<n>` as in `in_order`. With a
        column `known`, a version counts only from that instant on, and never where it is null.
    keys
        Names of the key columns, of the same types on both sides; may be empty.

    Returns
    -------
    pl.Series
        One `row` or null per asked row, in the order of `asked`.
    """
    versions = in_order(history).with_row_index("rank")
    best = _best(versions, list(keys))
    wanted = asked.with_row_index("asked").drop_nulls([*keys, "at"]).sort("at")
    # `best` has one row for a key and an instant: of several, join_asof picks one that depends on the thread count.
    # Both sides are sorted, but Polars cannot see that within groups and would warn.
    found = wanted.join_asof(
        best, left_on="at", right_on="visible", by=list(keys) or None, check_sortedness=False
    ).drop_nulls("rank")
    found = found.with_columns(versions.select("row", "time")[found["rank"]])
    if "since" in found.columns:
        found = found.filter(pl.col("time") >= pl.col("since"))
    rows = pl.Series("row", [None], dtype=found["row"].dtype).new_from_index(0, asked.height)
    return rows.scatter(found["asked"], found["row"])


def _best(versions: pl.DataFrame, keys: list[str]) -> pl.DataFrame:
    """Return for each key and instant at which something became visible the rank of the winner from then on."""
    late = "known" in versions.columns
    visible = pl.max_horizontal("time", "known") if late else pl.col("time")
    if late:
        versions = versions.drop_nulls("known")
    best = versions.with_columns(visible.alias("visible")).group_by(*keys, "visible").agg(pl.col("rank").max())
    best = best.sort("visible")
    if late:  # an old event that becomes known late must not push out a newer one that was known before
        running = pl.col("rank").cum_max()
        best = best.with_columns(running.over(keys) if keys else running)
    return best
