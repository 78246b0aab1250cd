"""The events of entities in order of time, on which many snapshots cost little more than their rows.

Sorted by entity and time, the events of an entity in a window stand side by side: from place `low` to before `high`. A
sum over them is the difference of a running sum at the two places, and every other aggregation is a look-up too. So a
snapshot costs its entities, whatever the length of its windows and of the history, and needs nothing of the one before.
Running sums may wrap around; differences are right nevertheless, since what does not fit 64 bits is summed in pieces.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date
from functools import partial, reduce
from operator import add
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from lockstep.agg import EVENT_DAY, Aggregation, reduced
from lockstep.exact import is_row_level

__all__ = ["Timeline", "fits"]

Numbers = NDArray[Any]


class At(NamedTuple):
    """For some entities: a place among the values of each, and the running sums there."""

    place: Numbers
    sums: Numbers


Look = Callable[[At, At, At], list[Numbers]]
"""Given where windows begin, where they end and where their entities begin, return the numbers that are found there."""
Finish = Callable[[list[pl.Expr]], pl.Expr]
"""Given the columns of these numbers, return the value."""

INTEGERS = (pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.UInt8, pl.UInt16, pl.UInt32)
PIECE = 32
"""Bits of a piece of a large integer: 2**31 of them fit a 64-bit sum."""
FOREVER = 2**31 - 1
EPOCH = date(1970, 1, 1).toordinal()


def fits(aggregations: Sequence[tuple[str, Aggregation]], events: pl.Schema) -> bool:
    """Tell whether a timeline gives the same bits as the definition: for all but floats, wide integers and odd wheres.

    Intervals may be known before they begin. A condition that looks at other rows means each entity's known rows, which
    differ from day to day.
    """
    ordered = (*INTEGERS, pl.Boolean, pl.String, pl.Date, pl.Datetime, pl.Duration, pl.Time)
    wanted = {"sum": INTEGERS, "mean": INTEGERS, "std": INTEGERS, "min": ordered, "max": ordered, "distinct": ordered}
    return all(
        a.during is None
        and (a.where is None or is_row_level(a.where))
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
        Different keys, in one column or more, sorted. Events of others are left out.
    aggregations
        What will be asked, by name.
    """

    def __init__(
        self, events: pl.DataFrame, entities: pl.DataFrame, aggregations: Sequence[tuple[str, Aggregation]]
    ) -> None:
        keys = entities.columns
        columns = {c for _, a in aggregations for c in (a.column, *_roots(a)) if c is not None} - {EVENT_DAY}
        numbered = entities.select(*keys, pl.int_range(pl.len(), dtype=pl.Int32).alias("_entity"))
        rows = (
            events.select(EVENT_DAY, *keys, *sorted(columns - {*keys}))
            .drop_nulls(EVENT_DAY)
            .join(numbered, on=keys, how="inner", maintain_order="left")
            .sort("_entity", maintain_order=True)
        )
        self._entity = rows["_entity"].to_numpy()
        day = rows[EVENT_DAY].to_physical().to_numpy()
        self._first = np.searchsorted(self._entity, np.arange(entities.height))  # of each entity
        by_day = np.argsort(day, kind="stable")
        self._day, self._entity_by_day = day[by_day], self._entity[by_day]
        self._marks: dict[int, tuple[int, Numbers]] = {}
        values: dict[object, _Chosen] = {}
        self._asked: list[tuple[str, Aggregation, _Chosen, Look, Finish]] = []
        for name, a in aggregations:
            column = a.column if a.column is not None and rows[a.column].null_count() else None
            of = (column, None if a.where is None else a.where.meta.serialize())
            if of not in values:
                values[of] = _Chosen(rows, self._first, column, a.where)
            self._asked.append((name, a, values[of], *_LOOKS[a.kind](values[of], a)))
        for found in values.values():
            found.sum_up()

    def aggregates(self, days: Sequence[tuple[date, Numbers]]) -> pl.DataFrame:
        """Return the aggregations on some days, in order, for the entities whose numbers are given with each day."""
        found: dict[str, list[Numbers]] = {}
        needed = {(v, lag) for _, a, v, *_ in self._asked for lag in (None, a.offset, a.offset + (a.days or 0))}
        for day, entities in days:
            at = {(v, lag): v.at(self._places(day, lag)[entities]) for v, lag in needed}
            for name, a, values, look, _ in self._asked:
                first, high = at[values, None], at[values, a.offset]
                low = first if a.days is None else at[values, a.offset + a.days]
                for n, numbers in enumerate(look(low, high, first)):
                    found.setdefault(f"{name} {n}", []).append(numbers)
        looked_up = pl.DataFrame({name: np.concatenate(parts) for name, parts in found.items()})
        columns = {name: [pl.col(c) for c in found if c.rpartition(" ")[0] == name] for name, *_ in self._asked}
        return looked_up.select(finish(columns[name]).alias(name) for name, *_, finish in self._asked)

    def _places(self, day: date, lag: int | None) -> Numbers:
        """Return, by entity, the place behind its last event before `day` less `lag` days; without a lag its first."""
        return self._first if lag is None else self._before(day.toordinal() - EPOCH - lag, lag)

    def _before(self, day: int, lag: int) -> Numbers:
        """Return, by entity, the place behind its last event before `day`; cheap when days are asked in order."""
        at, places = self._marks.get(lag, (day + 1, self._first))
        if at != day:
            at, places = (at, places) if at < day else (-(2**31), self._first)
            begin, end = np.searchsorted(self._day, np.array([at, day], self._day.dtype))
            places = places + np.bincount(self._entity_by_day[begin:end], minlength=len(places))
            self._marks[lag] = day, places
        return places


class _Chosen:
    """The rows that an aggregation may look at: where a condition holds, and one column is not null.

    Columns without nulls share one.
    """

    def __init__(self, rows: pl.DataFrame, first: Numbers, column: str | None, where: pl.Expr | None) -> None:
        keep = pl.lit(True) if where is None else where.fill_null(False)
        kept = keep if column is None else keep & pl.col(column).is_not_null()
        mask = rows.select(pl.repeat(True, pl.len()) & kept).to_series()
        self._rank = None if mask.all() else _running(mask.to_numpy().astype(np.int32))
        self.rows = rows if mask.all() else rows.filter(mask)
        self.most = int(np.diff(self.places(np.append(first, rows.height))).max(initial=0))
        self._pieces: list[Numbers] = []
        self._columns: dict[tuple[str, str], list[int]] = {}
        self._runs: dict[str, pl.DataFrame] = {}

    def places(self, places: Numbers) -> Numbers:
        """Return where places among all events are among these values."""
        return places if self._rank is None else self._rank[places]

    def at(self, places: Numbers) -> At:
        """Return where places among all events are among these values, and what has summed up by then."""
        own = self.places(places)
        return At(own, self._sums.take(own, axis=0))

    def summed(self, name: str, column: str, of: Callable[[Numbers], list[Numbers]]) -> list[int]:
        """Ask for the running sums of the integers that `of` makes of a column; return where they will be."""
        if (name, column) not in self._columns:
            pieces = of(self.rows[column].cast(pl.Int64).to_numpy())
            self._columns[name, column] = self._add(pieces)
        return self._columns[name, column]

    def _add(self, pieces: list[Numbers]) -> list[int]:
        self._pieces += pieces
        return list(range(len(self._pieces) - len(pieces), len(self._pieces)))

    def sum_up(self) -> None:
        """Add everything up that was asked for, side by side: one look-up finds all sums at a place."""
        self._sums = np.zeros((len(self.rows) + 1, len(self._pieces)), np.int64)
        for n, piece in enumerate(self._pieces):
            np.cumsum(piece, out=self._sums[1:, n])
        self._pieces, self._runs = [], {}

    def values(self, v: Numbers) -> list[Numbers]:
        """Return integers to sum, in pieces where 64 bits might not do."""
        return [v] if _largest(v) * self.most < 2**63 else [v & (2**PIECE - 1), v >> PIECE]

    def squares(self, v: Numbers) -> list[Numbers]:
        """Return squares to sum, in pieces where 64 bits might not do."""
        if _largest(v) ** 2 * self.most < 2**63:
            return [v * v]
        size = np.abs(v).view(np.uint64)  # the smallest integer has no positive twin but the right bits
        b, a = _halves(size)
        (aa0, aa1), (ab0, ab1), (bb0, bb1) = _halves(a * a), _halves(a * b), _halves(b * b)
        two = np.uint64(2)
        return [p.view(np.int64) for p in (bb0, bb1 + two * ab0, aa0 + two * ab1, aa1)]

    def runs(self, column: str, days: int | None) -> list[int]:
        """Ask for how many values enter a window of `days` as new ones, and how many leave it as last ones."""
        if column not in self._runs:
            same, day = ("_entity", column), pl.col(EVENT_DAY).to_physical()
            since, until = day - day.shift(1).over(same), day.shift(-1).over(same) - day
            self._runs[column] = self.rows.select(since.alias("since"), until.alias("until"))
        longer = self._runs[column].select((pl.all() > (days or FOREVER)).fill_null(True).cast(pl.Int64))
        return self._add([longer[c].to_numpy() for c in longer.columns])

    def extremes(self, column: str, pick: np.ufunc) -> Callable[[Numbers, Numbers], Numbers]:
        """Return a function that gives the rank of the least or greatest value between places; -1 where is none.

        Level k holds the answer for each stretch of 2**k values: two of them cover any stretch.
        """
        levels = [self.rows[column].rank("dense").to_numpy().astype(np.int32) - 1]
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


def _count(_: _Chosen, __: Aggregation) -> tuple[Look, Finish]:
    def look(low: At, high: At, _: At) -> list[Numbers]:
        return [high.place - low.place]

    return look, lambda found: found[0].cast(pl.Int64)


def _sums(values: _Chosen, a: Aggregation) -> tuple[Look, Finish]:
    sums = values.summed("values", str(a.column), values.values)
    squares = values.summed("squares", str(a.column), values.squares) if a.kind == "std" else []

    def look(low: At, high: At, _: At) -> list[Numbers]:
        return [high.place - low.place, *(high.sums[:, n] - low.sums[:, n] for n in (*sums, *squares))]

    def finish(found: list[pl.Expr]) -> pl.Expr:
        n, *pieces = found
        total, squared = _whole(pieces[: len(sums)]), _whole(pieces[len(sums) :])
        if a.kind == "std":  # a product of two totals may be larger than either
            total, squared = total.cast(pl.Int128), squared.cast(pl.Int128)
        return reduced(a.kind, n.cast(pl.Int64), total, squared)

    return look, finish


def _distinct(values: _Chosen, a: Aggregation) -> tuple[Look, Finish]:
    new, last = values.runs(str(a.column), a.days)

    def look(low: At, high: At, first: At) -> list[Numbers]:
        entered, left = high.sums[:, new] - first.sums[:, new], low.sums[:, last] - first.sums[:, last]
        return [entered - left]

    return look, lambda found: found[0].cast(pl.Int64)


def _end(values: _Chosen, a: Aggregation) -> tuple[Look, Finish]:
    def look(low: At, high: At, _: At) -> list[Numbers]:
        return [np.where(low.place < high.place, low.place if a.kind == "first" else high.place - 1, -1)]

    return look, partial(_gather, values.rows[str(a.column)])


def _extreme(values: _Chosen, a: Aggregation) -> tuple[Look, Finish]:
    between = values.extremes(str(a.column), np.minimum if a.kind == "min" else np.maximum)

    def look(low: At, high: At, _: At) -> list[Numbers]:
        return [between(low.place, high.place)]

    return look, partial(_gather, values.rows[str(a.column)].unique().sort())


_LOOKS: dict[str, Callable[[_Chosen, Aggregation], tuple[Look, Finish]]] = {
    "count": _count, "sum": _sums, "mean": _sums, "std": _sums, "distinct": _distinct,
    "first": _end, "last": _end, "min": _extreme, "max": _extreme,
}  # fmt: skip


def _gather(values: pl.Series, found: list[pl.Expr]) -> pl.Expr:
    """Return the values at the places in the one column, null at -1."""
    return pl.lit(values.extend_constant(None, 1)).gather(found[0])


def _whole(pieces: list[pl.Expr]) -> pl.Expr:
    """Put the pieces of integers together; a single piece fits 64 bits and stays what it is."""
    weighed = (piece.cast(pl.Int128) * pl.lit(2 ** (PIECE * n), pl.Int128) for n, piece in enumerate(pieces))
    return pieces[0] if len(pieces) == 1 else reduce(add, weighed, pl.lit(0, pl.Int128))


def _running(values: Numbers) -> Numbers:
    """Return the running sum of integers, from zero on: one longer than `values`."""
    out = np.zeros(len(values) + 1, values.dtype)
    np.cumsum(values, out=out[1:])
    return out


def _largest(values: Numbers) -> int:
    return max(abs(int(values.min())), abs(int(values.max()))) if len(values) else 0


def _halves(values: Numbers) -> tuple[Numbers, Numbers]:
    return values & np.uint64(2**PIECE - 1), values >> np.uint64(PIECE)


def _roots(a: Aggregation) -> list[str]:
    return a.where.meta.root_names() if a.where is not None else []
