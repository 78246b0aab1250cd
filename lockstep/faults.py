"""Faults as they happen to sources, each a function that spoils raw rows: what `lockstep plant` plants.

They are made for whatever tables the contracts describe: each looks for a column or rule that it can break. Nothing
here reads or writes a file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import NamedTuple

import polars as pl

from lockstep.clock import Zone
from lockstep.contract import Column, Contract, Rule
from lockstep.errors import UserError

__all__ = ["FAULTS", "Fault", "Sample"]

NUMBERS = ("int64", "float64")


@dataclass(frozen=True)
class Sample:
    """Raw rows of every table with ``_landing_day``, the last days of a project's; `day` is the last of them."""

    tables: Mapping[str, pl.DataFrame]
    contracts: Mapping[str, Contract]
    zone: Zone
    day: date

    @property
    def main(self) -> Contract:
        """Return the contract of the daily table with the most rows."""
        daily = [c for c in self.contracts.values() if c.calendar == "daily" and c.event_time]
        if not daily:
            raise UserError("no daily table with an event time", where="contracts", do="There is nothing to plant in.")
        return max(daily, key=lambda c: self.tables[c.table].height)

    def rule(self, kind: str) -> tuple[Contract, Rule]:
        """Return a rule of `kind`, with its contract: one that stops rows rather than one that flags them."""
        every = [(c, r) for c in (self.main, *self.contracts.values()) for r in c.rules if r.kind == kind]
        stopping = [found for found in every if found[1].then in ("fail", "quarantine")]
        if not every:
            raise UserError(f"no rule of kind {kind!r}", where="contracts", do="There is nothing to break.")
        return (stopping or every)[0]

    def measure(self) -> str:
        """Return the column of the main table that holds a measure: one with a unit, that is no key."""
        columns = [c for c in self.main.columns.values() if c.type in NUMBERS and c.name not in self.main.key]
        with_unit = [c.name for c in columns if c.unit] or [c.name for c in columns]
        if not with_unit:
            raise UserError("no measure", where=f"contract {self.main.table}", do="There is nothing to shift.")
        return with_unit[0]

    def put(self, table: str, rows: pl.DataFrame) -> Sample:
        """Return the sample with other rows of one table."""
        return replace(self, tables={**self.tables, table: rows})

    def change(self, contract: Contract, *exprs: pl.Expr, few: int | None = None, since: date | None = None) -> Sample:
        """Return the sample with values of the last landing day changed, or of all since a day; in a `few` rows."""
        rows = self.tables[contract.table].sort("_landing_day", *contract.key)
        last = rows["_landing_day"].max() if since is None else since
        chosen = pl.col("_landing_day") >= last
        chosen &= (chosen.cum_sum() <= few) if few else pl.lit(value=True)
        changed = [pl.when(chosen).then(e).otherwise(pl.col(e.meta.output_name())) for e in exprs]
        names = [e.meta.output_name() for e in exprs]
        return self.put(contract.table, rows.with_columns(e.alias(n) for e, n in zip(changed, names, strict=True)))

    def recent(self, days: int) -> date:
        """Return the first of the last so many landing days."""
        return self.day - timedelta(days=days - 1)


class Fault(NamedTuple):
    """A fault by its name: what happens, which guard is there for it, and how it spoils a sample.

    A guard is the kind of a rule or statistic, or what is said at the door.
    """

    name: str
    about: str
    guard: str
    plant: Callable[[Sample], Sample]


FAULTS: dict[str, Fault] = {}
"""Every fault that happens to raw rows, by name."""


def _fault(guard: str) -> Callable[[Callable[[Sample], Sample]], Callable[[Sample], Sample]]:
    def keep(plant: Callable[[Sample], Sample]) -> Callable[[Sample], Sample]:
        name = plant.__name__.replace("_", "-")
        FAULTS[name] = Fault(name, (plant.__doc__ or "").strip().rstrip("."), guard, plant)
        return plant

    return keep


@_fault("column renamed")
def renamed_column(s: Sample) -> Sample:
    """The source renames a column."""
    name = s.measure()
    return s.put(s.main.table, s.tables[s.main.table].rename({name: f"{name}_new"}))


@_fault("column missing")
def missing_column(s: Sample) -> Sample:
    """The source stops sending a column."""
    return s.put(s.main.table, s.tables[s.main.table].drop(s.measure()))


@_fault("column retyped")
def ids_as_text(s: Sample) -> Sample:
    """The source sends identifiers as text."""
    key = next((k for k in s.main.key if s.main.columns[k].type in NUMBERS), s.measure())
    return s.put(s.main.table, s.tables[s.main.table].with_columns(pl.col(key).cast(pl.String)))


@_fault("column retyped")
def zone_dropped(s: Sample) -> Sample:
    """The source drops the zone of its instants."""
    at = _instant(s)
    return s.put(s.main.table, s.tables[s.main.table].with_columns(pl.col(at).dt.replace_time_zone(None)))


@_fault("not_null")
def null(s: Sample) -> Sample:
    """A value that is always there is missing in three rows."""
    return s.change(s.main, pl.lit(None).alias(s.measure()), few=3)


@_fault("not_null")
def all_null_column(s: Sample) -> Sample:
    """A column that may be null is null in every row."""
    contract, column = _nullable(s)
    return s.put(contract.table, s.tables[contract.table].with_columns(pl.lit(None, column.dtype).alias(column.name)))


@_fault("range")
def out_of_range(s: Sample) -> Sample:
    """Three values lie below what the contract allows."""
    contract, rule = s.rule("range")
    return s.change(contract, pl.lit(rule.params["between"][0] - 1).alias(rule.columns[0]), few=3)


@_fault("set")
def unknown_word(s: Sample) -> Sample:
    """Three values are none of the words that the contract knows."""
    contract, rule = s.rule("set")
    return s.change(contract, pl.lit("no such word").alias(rule.columns[0]), few=3)


@_fault("regex")
def bad_pattern(s: Sample) -> Sample:
    """Three texts do not match the contract's pattern."""
    contract, rule = s.rule("regex")
    return s.change(contract, pl.lit("\u00a1?\u0000 1").alias(rule.columns[0]), few=3)


@_fault("at_most")
def unordered_pair(s: Sample) -> Sample:
    """Of two columns the one that is never the greater is."""
    contract, rule = s.rule("at_most")
    low, high = rule.columns
    step = pl.duration(days=1) if contract.columns[low].type in ("date", "instant") else pl.lit(1)
    return s.change(contract, (pl.col(high) + step).alias(low), few=3)


@_fault("references")
def unknown_reference(s: Sample) -> Sample:
    """Three rows name what no row of the other table has."""
    contract, rule = s.rule("references")
    name = rule.columns[0]
    alien = pl.lit("no such name") if contract.columns[name].type == "string" else pl.col(name).max() + 10**9
    return s.change(contract, alien.alias(name), few=3)


@_fault("duplicates")
def rows_twice(s: Sample) -> Sample:
    """The last day's rows are sent twice."""
    rows = s.tables[s.main.table]
    return s.put(s.main.table, pl.concat([rows, rows.filter(pl.col("_landing_day") == s.day)]))


@_fault("conflict")
def two_contents(s: Sample) -> Sample:
    """Three rows come twice on one day, with different values."""
    rows, name = s.tables[s.main.table], s.measure()
    again = rows.filter(pl.col("_landing_day") == s.day).sort(s.main.key).head(3)
    return s.put(s.main.table, pl.concat([rows, again.with_columns(pl.col(name) + 1)]))


@_fault("future")
def future_time(s: Sample) -> Sample:
    """Three rows are dated three days after they landed."""
    return s.change(s.main, _moved(s, pl.duration(days=3)), few=3)


@_fault("future")
def wrong_zone(s: Sample) -> Sample:
    """Instants of the last day come in a zone eight hours away, as though in ours."""
    return s.change(s.main, _moved(s, pl.duration(hours=8)))


@_fault("future")
def daylight_saving(s: Sample) -> Sample:
    """The source forgets daylight saving time: instants of four weeks are an hour too late."""
    return s.change(s.main, _moved(s, pl.duration(hours=1)), since=s.recent(28))


@_fault("late")
def late_rows(s: Sample) -> Sample:
    """Rows that happened thirty days ago land today."""
    return s.change(s.main, _moved(s, -pl.duration(days=30)), few=3)


@_fault("range")
def unit_times_1000(s: Sample) -> Sample:
    """A measure comes in another unit on the last day, a thousand times as large."""
    name = s.measure()
    return s.change(s.main, (pl.col(name) * 1000).alias(name))


@_fault("mean")
def mean_shift(s: Sample) -> Sample:
    """A measure grows by half within four weeks, each value as the contract allows it."""
    return s.change(s.main, _within(s, pl.col(s.measure()) * 3 // 2), since=s.recent(28))


@_fault("psi")
def spread_shift(s: Sample) -> Sample:
    """A measure's values draw near to their mean within four weeks; the mean stays."""
    column = pl.col(s.measure())
    return s.change(s.main, _within(s, (column + 2 * column.mean()) // 3), since=s.recent(28))


@_fault("psi")
def shift_behind_an_outlier(s: Sample) -> Sample:
    """A measure grows by half, and one huge value hides it from a comparison that cuts equal widths."""
    shifted = mean_shift(s)
    _, high = _bounds(s)
    return shifted.change(s.main, pl.lit(10**6 if high is None else high).alias(s.measure()), few=1)


@_fault("std")
def one_value(s: Sample) -> Sample:
    """A measure is the same value in every row of four weeks."""
    return s.change(s.main, pl.lit(1).alias(s.measure()), since=s.recent(28))


@_fault("health")
def day_twice(s: Sample) -> Sample:
    """The last day holds everything twice, the second time under new keys."""
    rows = s.tables[s.main.table]
    again = rows.filter(pl.col("_landing_day") == s.day)
    return s.put(s.main.table, pl.concat([rows, again.with_columns(_new_key(s))]))


@_fault("health")
def day_missing(s: Sample) -> Sample:
    """The last day but one has no rows."""
    return s.put(s.main.table, s.tables[s.main.table].filter(pl.col("_landing_day") != s.day - timedelta(days=1)))


@_fault("health")
def day_half_empty(s: Sample) -> Sample:
    """The last day lacks three of four rows."""
    rows = s.tables[s.main.table].sort("_landing_day", *s.main.key)
    kept = (pl.col("_landing_day") != s.day) | (pl.int_range(pl.len()) % 4 == 0)
    return s.put(s.main.table, rows.filter(kept))


@_fault("health")
def source_silent(s: Sample) -> Sample:
    """A source sends nothing for a fortnight, then goes on."""
    silent = pl.col("_landing_day").is_between(s.recent(14), s.day, closed="left")
    return s.put(s.main.table, s.tables[s.main.table].filter(~silent))


def _bounds(s: Sample) -> tuple[int | None, int | None]:
    """Return what the contract allows of the measure."""
    for rule in s.main.rules:
        if rule.kind == "range" and rule.columns == (s.measure(),):
            low, high = rule.params["between"]
            return low, high
    return None, None


def _within(s: Sample, value: pl.Expr) -> pl.Expr:
    return value.cast(s.main.columns[s.measure()].dtype).clip(*_bounds(s)).alias(s.measure())


def _instant(s: Sample) -> str:
    at = s.main.event_time or ""
    if s.main.columns[at].type != "instant":
        raise UserError("no instant", where=f"contract {s.main.table}", do="Days have no zone to lose.")
    return at


def _moved(s: Sample, by: pl.Expr) -> pl.Expr:
    at = s.main.event_time or ""
    return (pl.col(at) + by).alias(at)


def _new_key(s: Sample) -> pl.Expr:
    for name in s.main.key:
        if s.main.columns[name].type == "int64":
            return (pl.col(name) + 10**12).alias(name)
    name = next(k for k in s.main.key if s.main.columns[k].type == "string")
    return (pl.col(name) + " again").alias(name)


def _nullable(s: Sample) -> tuple[Contract, Column]:
    for contract in (s.main, *s.contracts.values()):
        needed = {r.columns[0] for r in contract.rules if r.kind == "not_null" and r.then in ("fail", "quarantine")}
        for column in contract.columns.values():
            if column.name not in needed:
                return contract, column
    raise UserError("no column that may be null", where="contracts", do="There is nothing to empty.")
