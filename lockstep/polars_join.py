"""As-of look-ups in Polars: which version of a row was the latest at an instant.

Nothing here knows Feast or files. Instants are integers since 1970 in one unit, so that no comparison rounds, and the
answer is a row number, so that features are gathered as they are stored and the asking rows are never touched.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

import polars as pl

__all__ = ["LIMIT", "PER_SECOND", "Unit", "Versions", "common_unit", "epoch", "expiry"]

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


class Versions:
    """The versions of rows in the order in which they win: by key and time, then ``created``, then the ties.

    Key and time are one integer, `code`, so that one sort and one merge answer for all keys at once. It has 128 bits,
    unless 64 are enough.

    Parameters
    ----------
    history
        ``key`` (small integers from 0 on), ``time``, ``row`` (what is returned), and optionally ``created`` and any
        number of ``tie_<n>``, of which a null loses. With a column ``known``, a version counts only from that instant
        on, and never where it is null.
    """

    def __init__(self, history: pl.DataFrame) -> None:
        if late := "known" in history.columns:
            history = history.drop_nulls("known")
        clocks = [history["time"], history["known"]] if late else [history["time"]]
        edges = [edge for clock in clocks for edge in (clock.min(), clock.max()) if isinstance(edge, int)]
        self._first, self._last = min(edges, default=0), max(edges, default=0)
        self._width = self._last - self._first + 2
        highest = history["key"].max()
        wide = isinstance(highest, int) and (highest + 1) * self._width > LIMIT
        self._type: pl.DataType = pl.Int128() if wide else pl.Int64()
        self._by = ["code", *(c for c in history.columns if c == "created" or c.startswith("tie_"))]
        visible = [self._code(pl.max_horizontal("time", "known")).alias("visible")] if late else []
        coded = history.with_columns(self._code(pl.col("time")).alias("code"), *visible)
        self._ordered = coded.select(*self._by, "row", *(["visible"] if late else [])).sort(self._by, nulls_last=False)

    @property
    def tied(self) -> bool:
        """Whether two versions of one key are equal in all that decides between them."""
        same = [pl.col(name).eq_missing(pl.col(name).shift(-1)) for name in self._by]
        return bool(self._ordered.select(pl.all_horizontal(same).any()).item())

    def latest(self, asked: pl.DataFrame) -> pl.Series:
        """Find for every asked row the version that was the latest at its instant.

        Parameters
        ----------
        asked
            ``key``, ``at``, and ``since`` where versions expire (inclusive). A row without a key or an instant finds
            nothing.

        Returns
        -------
        pl.Series
            One `row` or null per asked row, in their order.
        """
        first, last = self._first, self._last
        at, since = pl.col("at"), pl.col("since") if "since" in asked.columns else pl.lit(first, dtype=pl.Int64)
        wanted = asked.with_row_index("asked").drop_nulls(["key", "at"])
        wanted = wanted.select(
            "asked",
            (self._code(at.clip(first, last)) - (at < first)).alias("code"),
            # Below lie versions that have expired, and those of the key before.
            (self._code(since.clip(first, last)) + (since > last)).alias("floor"),
        ).sort("code")
        found = wanted.join_asof(self._winners(), on="code").filter(pl.col("won") >= pl.col("floor"))
        rows = pl.Series("row", [None], dtype=self._ordered["row"].dtype).new_from_index(0, asked.height)
        return rows.scatter(found["asked"], found["row"])

    def _code(self, instant: pl.Expr) -> pl.Expr:
        first, width = pl.lit(self._first, dtype=self._type), pl.lit(self._width, dtype=self._type)
        return pl.col("key").cast(self._type) * width + (instant.cast(self._type) - first)

    def _winners(self) -> pl.DataFrame:
        """Return one row for each key and instant at which something became visible: the winner from then on."""
        last_of_its_code = pl.col("code").ne_missing(pl.col("code").shift(-1))
        if "visible" not in self._ordered.columns:
            return self._ordered.filter(last_of_its_code).select("code", "row", won="code")
        # An old event that becomes known late must not push out a newer one that was known before. Ranks of a key
        # are above all ranks of the keys before it.
        ranked = self._ordered.select(code="visible").with_row_index("rank").sort("code")
        best = ranked.with_columns(pl.col("rank").cum_max()).filter(last_of_its_code)
        return best.select(
            "code", self._ordered["row"].gather(best["rank"]), won=self._ordered["code"].gather(best["rank"])
        )
