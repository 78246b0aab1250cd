"""The events of entities in order of time, on which many snapshots cost little more than their rows.

Sorted by entity and time, the events of an entity in a window stand side by side: from place `low` to before `high`. A
sum over them is the difference of a running sum at the two places, and every other aggregation is a look-up too. So a
snapshot costs its entities, whatever the length of its windows and of the history, and needs nothing of the one before.
Running sums may wrap around; differences are right nevertheless, since what does not fit 64 bits is summed in pieces.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date
from functools import cached_property, partial, reduce
from operator import add
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from lockstep.agg import EVENT_DAY, Aggregation, reduced
from lockstep.exact import is_row_level

__all__ = ["Timeline", "fits"]

Numbers = NDArray[Any]
Look = Callable[[Numbers, Numbers, Numbers], list[Numbers]]
"""Given where windows begin, where they end and where their entities begin, return the numbers that are found there."""
Finish = Callable[[list[pl.Expr]], pl.Expr]
"""Given the columns of these numbers, return the value."""

INTEGERS = (pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.UInt8, pl.UInt16, pl.UInt32)
PIECE = 32
"""Bits of a piece of a large integer: 2**31 of them fit a 64-bit sum."""
EPOCH = date(1970, 1, 1).toordinal()


def fits(aggregations: Sequence[tuple[str, Aggregation]], events: pl.Schema) -> bool:
    """Tell whether a timeline gives the same bits as the definition: for all but floats, wide integers and odd wheres.

    A condition that looks at other rows means each entity's known rows, which differ from day to day.
    """
    ordered = (*INTEGERS, pl.Boolean, pl.String, pl.Date, pl.Datetime, pl.Duration, pl.Time)
    wanted = {"sum": INTEGERS, "mean": INTEGERS, "std": INTEGERS, "min": ordered, "max": ordered, "distinct": ordered}
    return all(
        (a.where is None or is_row_level(a.where))
        and (a.column is None or a.kind not in wanted or isinstance(events[a.column], wanted[a.kind]))
        for _, a in aggregations
    )


class Timeline:
    """Events laid out by entity and time.

    Parameters
    ----------
    events
        All events with EVENT_DAY, in order of time and key.
    entities
        One column of different keys, sorted. Events of others are left out.
    aggregations
        What will be asked, by name.
    """

    def __init__(
        self, events: pl.DataFrame, entities: pl.DataFrame, aggregations: Sequence[tuple[str, Aggregation]]
    ) -> None:
        (key,) = entities.columns
        columns = {c for _, a in aggregations for c in (a.column, *_roots(a)) if c is not None} - {EVENT_DAY}
        numbered = entities.select(key, pl.int_range(pl.len(), dtype=pl.Int32).alias("_entity"))
        rows = (
            events.select(EVENT_DAY, key, *sorted(columns - {key}))
            .drop_nulls(EVENT_DAY)
            .join(numbered, on=key, how="inner", maintain_order="left")
            .sort("_entity", maintain_order=True)
        )
        self._entity = rows["_entity"].to_numpy()
        day = rows[EVENT_DAY].to_physical().to_numpy()
        self._first = np.searchsorted(self._entity, np.arange(entities.height))  # of each entity
        by_day = np.argsort(day, kind="stable")
        self._day, self._entity_by_day = day[by_day], self._entity[by_day]
        self._marks: dict[int, tuple[int, Numbers]] = {}
        values: dict[object, _Values] = {}
        self._asked: list[tuple[str, Aggregation, Look, Finish]] = []
        for name, a in aggregations:
            of = (a.column, None if a.where is None else a.where.meta.serialize())
            if of not in values:
                values[of] = _Values(rows, self._first, a.column, a.where)
            self._asked.append((name, a, *_LOOKS[a.kind](values[of], a)))

    def aggregates(self, days: Sequence[tuple[date, Numbers]]) -> pl.DataFrame:
        """Return the aggregations on some days, in order, for the entities whose numbers are given with each day."""
        found: dict[str, list[Numbers]] = {}
        for day, entities in days:
            first = self._first[entities]
            places: dict[int, Numbers] = {}
            for name, a, look, _ in self._asked:
                for lag in (a.offset, a.offset + (a.days or 0)):
                    if lag not in places:
                        places[lag] = self._before(day.toordinal() - EPOCH - lag, lag)[entities]
                low = first if a.days is None else places[a.offset + a.days]
                for n, numbers in enumerate(look(low, places[a.offset], first)):
                    found.setdefault(f"{name} {n}", []).append(numbers)
        looked_up = pl.DataFrame({name: np.concatenate(parts) for name, parts in found.items()})
        columns = {name: [pl.col(c) for c in found if c.rpartition(" ")[0] == name] for name, *_ in self._asked}
        return looked_up.select(finish(columns[name]).alias(name) for name, _, _, finish in self._asked)

    def _before(self, day: int, lag: int) -> Numbers:
        """Return, by entity, the place behind its last event before `day`; cheap when days are asked in order."""
        at, places = self._marks.get(lag, (day + 1, self._first))
        if at > day:
            at, places = -(2**31), self._first
        begin, end = np.searchsorted(self._day, [at, day])
        moved = places + np.bincount(self._entity_by_day[begin:end], minlength=len(places))
        self._marks[lag] = day, moved
        return moved


class _Values:
    """The values that an aggregation may look at: of one column, not null, where a condition holds."""

    def __init__(self, rows: pl.DataFrame, first: Numbers, column: str | None, where: pl.Expr | None) -> None:
        keep = pl.lit(True) if where is None else where.fill_null(False)
        kept = keep if column is None else keep & pl.col(column).is_not_null()
        mask = rows.select(pl.repeat(True, pl.len()) & kept).to_series()
        self._rank = None if mask.all() else _running(mask.to_numpy().astype(np.int32))
        own = rows if mask.all() else rows.filter(mask)
        self.values = own[column] if column is not None else pl.Series([], dtype=pl.Null)
        self._rows = own
        self.most = int(np.diff(self.places(np.append(first, rows.height))).max(initial=0))

    def places(self, places: Numbers) -> Numbers:
        """Return where places among all events are among these values."""
        return places if self._rank is None else self._rank[places]

    @cached_property
    def sums(self) -> list[Numbers]:
        """Return running sums, in pieces where 64 bits might not do."""
        v = self.values.cast(pl.Int64).to_numpy()
        if self._largest() * self.most < 2**63:
            return [_running(v)]
        return [_running(v & (2**PIECE - 1)), _running(v >> PIECE)]

    @cached_property
    def squares(self) -> list[Numbers]:
        """Return running sums of squares, in pieces where 64 bits might not do."""
        v = self.values.cast(pl.Int64).to_numpy()
        if self._largest() ** 2 * self.most < 2**63:
            return [_running(v * v)]
        size = np.abs(v).view(np.uint64)  # the smallest integer has no positive twin but the right bits
        b, a = _halves(size)
        (aa0, aa1), (ab0, ab1), (bb0, bb1) = _halves(a * a), _halves(a * b), _halves(b * b)
        two = np.uint64(2)
        return [_running(p.view(np.int64)) for p in (bb0, bb1 + two * ab0, aa0 + two * ab1, aa1)]

    def _largest(self) -> int:
        low, high = self.values.min(), self.values.max()
        return max(abs(int(low)), abs(int(high))) if low is not None else 0  # type: ignore[arg-type]

    def runs(self, days: int | None) -> tuple[Numbers, Numbers]:
        """Return running counts of values that enter a window of `days` as new ones, and that leave it as last ones."""
        same, day = ("_entity", "value"), pl.col("day")
        rows = self._rows.select("_entity", pl.col(EVENT_DAY).to_physical().alias("day"), self.values.alias("value"))
        since = day - day.shift(1).over(same)
        until = day.shift(-1).over(same) - day
        new, last = rows.select(since.alias("new"), until.alias("last")).with_columns(
            pl.col(c).is_null() | (pl.col(c) > (days or 2**31 - 1)) for c in ("new", "last")
        )
        return _running(new.to_numpy().astype(np.int32)), _running(last.to_numpy().astype(np.int32))

    def extremes(self, pick: np.ufunc) -> Callable[[Numbers, Numbers], Numbers]:
        """Return a function that gives the rank of the least or greatest value between places; -1 where is none.

        Level k holds the answer for each stretch of 2**k values: two of them cover any stretch.
        """
        levels = [self.values.rank("dense").to_numpy().astype(np.int32) - 1]
        while 2 ** len(levels) <= self.most:
            half = 2 ** (len(levels) - 1)
            levels.append(pick(levels[-1][:-half], levels[-1][half:]))

        def between(low: Numbers, high: Numbers) -> Numbers:
            found = np.full(len(low), -1, np.int32)
            level_of = np.frexp(high - low)[1] - 1
            for k, level in enumerate(levels):
                at = np.flatnonzero(level_of == k)
                found[at] = pick(level[low[at]], level[high[at] - 2**k])
            return found

        return between


def _count(values: _Values, _: Aggregation) -> tuple[Look, Finish]:
    def look(low: Numbers, high: Numbers, _: Numbers) -> list[Numbers]:
        return [values.places(high) - values.places(low)]

    return look, lambda found: found[0].cast(pl.Int64)


def _sums(values: _Values, a: Aggregation) -> tuple[Look, Finish]:
    sums, squares = values.sums, values.squares if a.kind == "std" else []

    def look(low: Numbers, high: Numbers, _: Numbers) -> list[Numbers]:
        low, high = values.places(low), values.places(high)
        return [high - low, *(running[high] - running[low] for running in (*sums, *squares))]

    def finish(found: list[pl.Expr]) -> pl.Expr:
        n, *pieces = found
        return reduced(a.kind, n.cast(pl.Int64), _whole(pieces[: len(sums)]), _whole(pieces[len(sums) :]))

    return look, finish


def _distinct(values: _Values, a: Aggregation) -> tuple[Look, Finish]:
    new, last = values.runs(a.days)

    def look(low: Numbers, high: Numbers, first: Numbers) -> list[Numbers]:
        low, high, first = values.places(low), values.places(high), values.places(first)
        return [(new[high] - new[first]) - (last[low] - last[first])]

    return look, lambda found: found[0].cast(pl.Int64)


def _end(values: _Values, a: Aggregation) -> tuple[Look, Finish]:
    def look(low: Numbers, high: Numbers, _: Numbers) -> list[Numbers]:
        low, high = values.places(low), values.places(high)
        return [np.where(low < high, low if a.kind == "first" else high - 1, -1)]

    return look, partial(_gather, values.values)


def _extreme(values: _Values, a: Aggregation) -> tuple[Look, Finish]:
    between = values.extremes(np.minimum if a.kind == "min" else np.maximum)

    def look(low: Numbers, high: Numbers, _: Numbers) -> list[Numbers]:
        return [between(values.places(low), values.places(high))]

    return look, partial(_gather, values.values.unique().sort())


_LOOKS: dict[str, Callable[[_Values, Aggregation], tuple[Look, Finish]]] = {
    "count": _count, "sum": _sums, "mean": _sums, "std": _sums, "distinct": _distinct,
    "first": _end, "last": _end, "min": _extreme, "max": _extreme,
}  # fmt: skip


def _gather(values: pl.Series, found: list[pl.Expr]) -> pl.Expr:
    """Return the values at the places in the one column, null at -1."""
    return pl.lit(values.extend_constant(None, 1)).gather(found[0])


def _whole(pieces: list[pl.Expr]) -> pl.Expr:
    """Put the pieces of large integers together."""
    weighed = (piece.cast(pl.Int128) * pl.lit(2 ** (PIECE * n), pl.Int128) for n, piece in enumerate(pieces))
    return reduce(add, weighed, pl.lit(0, pl.Int128))


def _running(values: Numbers) -> Numbers:
    """Return the running sum of integers, from zero on: one longer than `values`."""
    out = np.zeros(len(values) + 1, values.dtype)
    np.cumsum(values, out=out[1:])
    return out


def _halves(values: Numbers) -> tuple[Numbers, Numbers]:
    return values & np.uint64(2**PIECE - 1), values >> np.uint64(PIECE)


def _roots(a: Aggregation) -> list[str]:
    return a.where.meta.root_names() if a.where is not None else []
