"""Aggregations over the events of an entity: the first half of a feature's definition.

Each reads the known events of one entity whose event day lies in its window: the `days` calendar days that end `offset`
days before the snapshot's day, or all events before it (lifetime) where `days` is None. Or, `during` two dates, each
event that is under way on the snapshot's day, such as a campaign. Nulls are not values: every aggregation skips them.
Integers stay integers until the last step, so that no thread count or row order can change a bit.

>>> count(days=30)
count(days=30)
>>> sum("value", days=28, offset=28)
sum('value', days=28, offset=28)
>>> std("gap")
std('gap')
>>> count(during=("start_date", "end_date"))
count(during=('start_date', 'end_date'))
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Literal, TypedDict, Unpack

import polars as pl

from lockstep.errors import DefinitionError, did_you_mean

__all__ = [
    "EVENT_DAY", "Aggregation", "count", "distinct", "first", "last", "max", "mean", "min", "reduced", "std", "sum"
]  # fmt: skip

EVENT_DAY = "event_day"
"""The column, Date, that holds the calendar day of an event in the zone."""

NEVER_NULL = ("count", "sum", "distinct")
"""What is 0 where there are no events."""

Kind = Literal["count", "sum", "mean", "std", "min", "max", "distinct", "first", "last"]


class Window(TypedDict, total=False):
    """Which events count: see Aggregation."""

    days: int | None
    where: pl.Expr | None
    offset: int
    during: tuple[str, str] | None


@dataclass(frozen=True, eq=False, repr=False)
class Aggregation:
    """One aggregation of one event column over one window.

    Parameters
    ----------
    kind
        What is computed.
    column
        The event column; None counts events.
    days
        The window in calendar days; None is the lifetime.
    where
        A plain Polars condition on the event columns; only events that meet it count.
    offset
        How many days before the snapshot's day the window ends: it covers the event days S-offset-days .. S-offset-1.
    during
        The Date columns of an event's first and last day, instead of a window: it counts from the one to the other,
        both included; without an end for good. An event may be known before it begins, if its table has no event time:
        rows of one that has are known from the day after it.
    """

    kind: Kind
    column: str | None
    days: int | None = None
    where: pl.Expr | None = None
    offset: int = 0
    during: tuple[str, str] | None = None

    def __repr__(self) -> str:
        parts = [repr(self.column)] if self.column is not None else []
        parts += [f"days={self.days}"] if self.days is not None else []
        parts += [f"offset={self.offset}"] if self.offset else []
        parts += [f"during={self.during}"] if self.during else []
        parts += [f"where={self.where}"] if self.where is not None else []
        return f"{self.kind}({', '.join(parts)})"

    def check_window(self, feature: str) -> None:
        """Raise DefinitionError for days that are no window."""
        where = f"{self!r} of {feature}"
        if self.days is not None and self.days < 1:
            raise DefinitionError("a window without days", where=where, expected="days >= 1", found=self.days)
        if self.offset < 0:
            raise DefinitionError("an offset below zero", where=where, expected="days >= 0", found=self.offset)
        if self.offset and self.days is None:
            raise DefinitionError("an offset without a window", where=where, do="Give it days.")
        if self.during and self.days is not None:
            raise DefinitionError("two windows", where=where, do="Give it days or during, not both.")

    def check(self, events: pl.Schema, feature: str) -> None:
        """Raise DefinitionError for a column that the events lack, or of a type that does not do, or no condition."""
        roots = self.where.meta.root_names() if self.where is not None else []
        for name in [self.column, *roots, *(self.during or ())]:
            if name is not None and name not in events:
                raise DefinitionError(
                    f"unknown event column {name!r}", where=f"feature {feature}", do=did_you_mean(name, events)
                )
        if self.where is not None:
            try:
                kinds: list[object] = [*pl.LazyFrame(schema=events).select(self.where).collect().dtypes]
            except pl.exceptions.PolarsError as e:
                kinds = [str(e).splitlines()[0]]
            if kinds != [pl.Boolean]:
                raise DefinitionError(
                    "not a condition", where=f"where= of feature {feature}", expected="Boolean, true of what counts",
                    found=", ".join(map(str, kinds)), do="Compare: pl.col('value') > 0.",
                )  # fmt: skip
        for name in self.during or ():
            if events[name] != pl.Date:
                raise DefinitionError(
                    "an interval of other than days", where=f"feature {feature}", expected=f"{name} as Date",
                    found=str(events[name]), do="Give the source a column with the day in the zone.",
                )  # fmt: skip
        if self.column is None or self.kind not in ("sum", "mean", "std"):
            return
        if not events[self.column].is_integer():
            raise DefinitionError(
                f"{self.kind} of a column that is not an integer", where=f"feature {feature}",
                expected=f"{self.column} as an integer (money as cents, durations as microseconds)",
                found=str(events[self.column]), do="Float sums depend on their order: convert in the source.",
            )  # fmt: skip

    def expr(self, day: date) -> pl.Expr:
        """Return the expression that computes it for snapshot `day`, inside a group of events in time order."""
        if self.during:
            start, end = map(pl.col, self.during)
            mask = (start <= day).fill_null(False) & (end >= day).fill_null(True)
        else:
            mask = (pl.col(EVENT_DAY) < day - timedelta(days=self.offset)).fill_null(False)
        if self.days is not None:
            mask = mask & (pl.col(EVENT_DAY) >= day - timedelta(days=self.offset + self.days))
        if self.where is not None:
            mask = mask & self.where.fill_null(False)
        if self.column is None:
            return mask.sum().cast(pl.Int64)
        values = pl.col(self.column).filter(mask & pl.col(self.column).is_not_null())
        return _reduce(values, self.kind)


def _reduce(values: pl.Expr, kind: Kind) -> pl.Expr:
    """Reduce the values of a group; mean, std, min, max, first and last of nothing are null."""
    n = values.len().cast(pl.Int64)
    if kind in ("sum", "mean", "std"):  # 128 bits: microseconds squared need them
        wide = values.cast(pl.Int128)
        return reduced(kind, n, wide.sum(), (wide * wide).sum())
    return {
        "count": n,
        "min": values.min(),
        "max": values.max(),
        "distinct": values.n_unique().cast(pl.Int64),
        "first": values.first(),
        "last": values.last(),
    }[kind]


def reduced(kind: Kind, n: pl.Expr, total: pl.Expr, squares: pl.Expr) -> pl.Expr:
    """Return a sum, mean or std from exact integers: how many values there are, their sum and that of their squares."""
    if kind == "sum":  # a strict cast: a sum that does not fit is an error, not a wrong number
        return total.cast(pl.Int64, strict=True)
    if kind == "mean":
        return pl.when(n > 0).then(total.cast(pl.Float64) / n.cast(pl.Float64))
    spread = n.cast(pl.Int128) * squares - total * total  # ddof 1; integers under the root
    return pl.when(n > 1).then((spread.cast(pl.Float64) / (n * (n - 1)).cast(pl.Float64)).sqrt())


def count(column: str | None = None, **window: Unpack[Window]) -> Aggregation:
    """Count events, or the values of a column. Int64, 0 where there are none."""
    return Aggregation("count", column, **window)


def sum(column: str, **window: Unpack[Window]) -> Aggregation:  # noqa: A001
    """Sum an integer column. Int64, 0 where there are no values; a sum that does not fit is an error."""
    return Aggregation("sum", column, **window)


def mean(column: str, **window: Unpack[Window]) -> Aggregation:
    """Average an integer column. Float64: the exact sum and count, each rounded once, then divided."""
    return Aggregation("mean", column, **window)


def std(column: str, **window: Unpack[Window]) -> Aggregation:
    """Take the sample standard deviation (ddof 1) of an integer column. Float64, null below two values."""
    return Aggregation("std", column, **window)


def min(column: str, **window: Unpack[Window]) -> Aggregation:  # noqa: A001
    """Take the smallest value of a column."""
    return Aggregation("min", column, **window)


def max(column: str, **window: Unpack[Window]) -> Aggregation:  # noqa: A001
    """Take the largest value of a column."""
    return Aggregation("max", column, **window)


def distinct(column: str, **window: Unpack[Window]) -> Aggregation:
    """Count the different values of a column. Int64, 0 where there are none."""
    return Aggregation("distinct", column, **window)


def first(column: str, **window: Unpack[Window]) -> Aggregation:
    """Take the value of the earliest event; ties in time are broken by the source's key."""
    return Aggregation("first", column, **window)


def last(column: str, **window: Unpack[Window]) -> Aggregation:
    """Take the value of the latest event; ties in time are broken by the source's key."""
    return Aggregation("last", column, **window)
