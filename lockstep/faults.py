"""Faults as they happen to sources, each a function that spoils raw rows: what `lockstep plant` plants.

They are made for whatever tables the contracts describe: each looks for a column or rule that it can break. Nothing
here reads or writes a file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from typing import Any, NamedTuple

import polars as pl

from lockstep.clock import Zone
from lockstep.contract import Contract, Rule
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

    def rule(self, kind: str, *then: str) -> tuple[Contract, Rule]:
        """Return a rule of `kind`, with its contract: of an action, or one that stops rows rather than flags them."""
        every = [
            (c, r) for c in (self.main, *self.contracts.values()) for r in c.rules
            if r.kind == kind and (not then or r.then in then)
            and self.tables[c.table].height and c.columns.keys() >= set(r.columns)
        ]  # fmt: skip
        if not every:
            raise UserError(f"no rule of kind {kind!r}{' that says ' if then else ''}{' or '.join(then)}",
                            where="contracts", do="There is nothing to break.")  # fmt: skip
        return min(every, key=lambda found: found[1].then not in ("fail", "quarantine"))

    def statistic(self, kind: str) -> str:
        """Return a column of numbers of the main table, the measure if it may be, that a statistic of `kind` judges."""
        judged = self.main.statistics.rules if self.main.statistics else ()
        columns = [self.main.columns[r.column] for r in judged if r.kind == kind]
        names = [c.name for c in columns if c.type in NUMBERS and c.name not in self.main.key]
        if not names:
            raise UserError(f"no statistic of kind {kind!r}", where=f"contract {self.main.table}", do="None can move.")
        return min(names, key=lambda name: name != self.measure())

    @property
    def last(self) -> date:
        """Return the last landing day with rows of the main table."""
        return self.tables[self.main.table]["_landing_day"].max()  # type: ignore[return-value]  # a column of days

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

    def change(
        self, contract: Contract, *exprs: pl.Expr, few: int | None = None, since: date | None = None,
        where: pl.Expr | None = None,
    ) -> Sample:  # fmt: skip
        """Return the sample with values of the last landing day changed, or of all since a day; in a `few` rows."""
        rows = self.tables[contract.table].sort("_landing_day", *contract.key)
        may = pl.lit(value=True) if where is None else where
        last = rows.filter(may)["_landing_day"].max() if since is None else since
        chosen = (pl.col("_landing_day") >= last) & may
        chosen &= (chosen.cum_sum() <= few) if few else pl.lit(value=True)
        changed = [pl.when(chosen).then(e).otherwise(pl.col(e.meta.output_name())) for e in exprs]
        names = [e.meta.output_name() for e in exprs]
        return self.put(contract.table, rows.with_columns(e.alias(n) for e, n in zip(changed, names, strict=True)))

    def recent(self, days: int) -> date:
        """Return the first of the last so many landing days."""
        return self.day - timedelta(days=days - 1)


class Fault(NamedTuple):
    """A fault by its name: what happens, which guard is there for it, and how it spoils a sample.

    A guard is the kind of a rule or statistic, a repair, or what is said at the door.
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
    contract, rule = s.rule("not_null", "fail", "quarantine")
    measured = any(r.columns == (s.measure(),) and r.kind == "not_null" for r in s.main.rules)
    name = s.measure() if contract is s.main and measured else rule.columns[0]
    return s.change(contract, pl.lit(None).alias(name), few=3)


@_fault("impute")
def null_to_mend(s: Sample) -> Sample:
    """A value that the contract imputes is missing in three rows."""
    contract, rule = s.rule("not_null", "impute")
    return s.change(contract, pl.lit(None).alias(rule.columns[0]), few=3, where=pl.col(rule.columns[0]).is_not_null())


@_fault("not_null")
def all_null_column(s: Sample) -> Sample:
    """A column that may be null is null in every row."""
    contract, rule = s.rule("not_null", "flag", "impute")
    name = rule.columns[0]
    empty = pl.lit(None, contract.columns[name].dtype).alias(name)
    return s.put(contract.table, s.tables[contract.table].with_columns(empty))


@_fault("range")
def out_of_range(s: Sample) -> Sample:
    """Three values lie outside of what the contract allows."""
    contract, rule = s.rule("range", "fail", "quarantine", "flag")
    return s.change(contract, _outside(contract, rule), few=3)


@_fault("cap")
def beyond_the_cap(s: Sample) -> Sample:
    """Three values lie outside of the range that the contract caps them to."""
    contract, rule = s.rule("range", "cap")
    return s.change(contract, _outside(contract, rule), few=3)


@_fault("set")
def unknown_word(s: Sample) -> Sample:
    """Three values are none of those that the contract knows."""
    contract, rule = s.rule("set")
    of, kind = rule.params["of"], contract.columns[rule.columns[0]].type
    if kind == "bool":
        raise UserError("a set of truths", where=f"rule {rule.name}", do="There is no third.")
    alien = "no such word" if kind == "string" else max(of) + _step(kind)
    return s.change(contract, pl.lit(alien, contract.columns[rule.columns[0]].dtype).alias(rule.columns[0]), few=3)


@_fault("regex")
def bad_pattern(s: Sample) -> Sample:
    """Three texts do not match the contract's pattern."""
    contract, rule = s.rule("regex")
    return s.change(contract, pl.lit("\u00a1?\u0000 1").alias(rule.columns[0]), few=3)


@_fault("unique")
def value_shared(s: Sample) -> Sample:
    """Three rows of one day share values that the contract asks to be unique."""
    contract, rule = s.rule("unique")
    shared = [pl.col(name).drop_nulls().first().alias(name) for name in rule.columns]
    return s.change(contract, *shared, few=3)


@_fault("at_most")
def unordered_pair(s: Sample) -> Sample:
    """Of two columns the one that is never the greater is."""
    contract, rule = s.rule("at_most")
    low, high = rule.columns
    greater = (pl.col(high) + pl.lit(_step(contract.columns[low].type))).alias(low)
    return s.change(contract, greater, few=3, where=pl.col(high).is_not_null())


@_fault("sum_of")
def wrong_sum(s: Sample) -> Sample:
    """Three sums are one more than their parts."""
    contract, rule = s.rule("sum_of")
    return s.change(contract, pl.col(rule.columns[0]) + 1, few=3, where=_complete(rule.columns))


@_fault("totals")
def wrong_total(s: Sample) -> Sample:
    """Three amounts are one more than what the other table's total has of them."""
    contract, rule = s.rule("totals")
    return s.change(contract, pl.col(rule.columns[-1]) + 1, few=3, where=_complete(rule.columns) & ~pl.col("_deleted"))


@_fault("references")
def unknown_reference(s: Sample) -> Sample:
    """Three rows name what no row of the other table has."""
    contract, rule = s.rule("references")
    name, *others = rule.columns
    kind = contract.columns[name].type
    if kind == "bool":
        raise UserError("a reference by a truth", where=f"rule {rule.name}", do="There is no third.")
    known = [
        x for x in (
            s.tables[rule.table or ""][rule.params["columns"][0]].max(), s.tables[contract.table][name].max()
        ) if x is not None
    ]  # fmt: skip
    alien: Any = "no such name" if kind == "string" else max([*known, *known[:1]]) + 1000 * _step(kind)
    return s.change(contract, pl.lit(alien, contract.columns[name].dtype).alias(name), few=3, where=_complete(others))


@_fault("duplicates")
def rows_twice(s: Sample) -> Sample:
    """One in ten of the last day's rows is sent twice."""
    rows = s.tables[s.main.table]
    again = rows.filter(pl.col("_landing_day") == s.last).sort(s.main.key).gather_every(10)
    return s.put(s.main.table, pl.concat([rows, again]))


@_fault("conflict")
def two_contents(s: Sample) -> Sample:
    """Three rows come twice on one day, with different values."""
    rows, name = s.tables[s.main.table], s.measure()
    again = rows.filter(pl.col("_landing_day") == s.last).sort(s.main.key).head(3)
    return s.put(s.main.table, pl.concat([rows, again.with_columns(pl.col(name).fill_null(0) + 1)]))


@_fault("future")
def future_time(s: Sample) -> Sample:
    """Three rows are dated three days after they landed."""
    return s.change(s.main, _moved(s, "3d"), few=3)


@_fault("future")
def wrong_zone(s: Sample) -> Sample:
    """Instants of the last day come in a zone eight hours away, as though in ours."""
    _instant(s)
    return s.change(s.main, _moved(s, "8h"))


@_fault("future")
def daylight_saving(s: Sample) -> Sample:
    """The source forgets daylight saving time: instants of four weeks are an hour too late."""
    _instant(s)
    return s.change(s.main, _moved(s, "1h"), since=s.recent(28))


@_fault("late")
def late_rows(s: Sample) -> Sample:
    """Rows that happened long ago land today."""
    allowed = s.main.lateness.days
    if allowed is None:
        raise UserError("rows may be late", where=f"contract {s.main.table}", do="It bounds no lateness.")
    return s.change(s.main, _moved(s, f"-{max(30, allowed + 2)}d"), few=3)


@_fault("range")
def unit_times_1000(s: Sample) -> Sample:
    """A measure comes in another unit on the last day, a thousand times as large."""
    name = s.measure()
    if _bounds(s, name)[1] is None:
        raise UserError("no upper bound", where=f"column {name} of {s.main.table}", do="Any value may come.")
    return s.change(s.main, (pl.col(name) * 1000).alias(name))


@_fault("mean")
def mean_shift(s: Sample) -> Sample:
    """A measure grows by half within four weeks, each value as the contract allows it."""
    name = s.statistic("mean")
    return s.change(s.main, _within(s, name, pl.col(name) * 3 // 2), since=s.recent(28))


@_fault("ks")
def values_halved(s: Sample) -> Sample:
    """A measure is half of what it was within four weeks, each value as the contract allows it."""
    name = s.statistic("ks")
    return s.change(s.main, _within(s, name, pl.col(name) // 2), since=s.recent(28))


@_fault("psi")
def spread_shift(s: Sample) -> Sample:
    """A measure's values draw near to their mean within four weeks; the mean stays."""
    column = pl.col(name := s.statistic("psi"))
    return s.change(s.main, _within(s, name, (column + 2 * column.mean()) // 3), since=s.recent(28))


@_fault("psi")
def shift_behind_an_outlier(s: Sample) -> Sample:
    """A measure grows by half, and one huge value hides it from a comparison that cuts equal widths."""
    name = s.statistic("psi")
    shifted = s.change(s.main, _within(s, name, pl.col(name) * 3 // 2), since=s.recent(28))
    high = _bounds(s, name)[1]
    return shifted.change(s.main, pl.lit(10**6 if high is None else high).alias(name), few=1)


@_fault("std")
def one_value(s: Sample) -> Sample:
    """A measure is the same value in every row of four weeks."""
    name = s.statistic("std")
    return s.change(s.main, pl.col(name).drop_nulls().first().alias(name), since=s.recent(28))


@_fault("distinct")
def one_of_many(s: Sample) -> Sample:
    """Of all that a column names, four weeks name one."""
    name = s.statistic("distinct")
    return s.change(s.main, pl.col(name).drop_nulls().first().alias(name), since=s.recent(28))


@_fault("null_share")
def values_lost(s: Sample) -> Sample:
    """Every second value of a column that may be null is missing in four weeks."""
    name = s.statistic("null_share")
    if any(r.kind == "not_null" and r.columns == (name,) and r.then in ("fail", "quarantine") for r in s.main.rules):
        raise UserError("a column without nulls", where=f"column {name} of {s.main.table}", do="not_null is first.")
    lost = pl.when(pl.int_range(pl.len()) % 2 == 0).then(pl.col(name)).alias(name)
    return s.change(s.main, lost, since=s.recent(28))


@_fault("volume")
def day_too_small(s: Sample) -> Sample:
    """The last day but one has one row less than the contract's volume asks."""
    volume, day = s.main.volume, s.last - timedelta(days=1)
    if volume is None or volume.rows[0] < 1:
        raise UserError("no volume", where=f"contract {s.main.table}", do="A day may have any number of rows.")
    rows = s.tables[s.main.table].sort("_landing_day", *s.main.key)
    number = (pl.col("_landing_day") == day).cum_sum()
    return s.put(s.main.table, rows.filter((pl.col("_landing_day") != day) | (number < volume.rows[0])))


@_fault("health")
def day_twice(s: Sample) -> Sample:
    """The last day holds everything twice, the second time under new keys."""
    _healthy(s)
    rows = s.tables[s.main.table]
    again = rows.filter(pl.col("_landing_day") == s.last)
    return s.put(s.main.table, pl.concat([rows, again.with_columns(_new_key(s))]))


@_fault("health")
def day_missing(s: Sample) -> Sample:
    """The last day but one has no rows."""
    _healthy(s)
    return s.put(s.main.table, s.tables[s.main.table].filter(pl.col("_landing_day") != s.last - timedelta(days=1)))


@_fault("health")
def day_half_empty(s: Sample) -> Sample:
    """The last day lacks three of four rows."""
    _healthy(s)
    rows = s.tables[s.main.table].sort("_landing_day", *s.main.key)
    kept = (pl.col("_landing_day") != s.last) | (pl.int_range(pl.len()) % 4 == 0)
    return s.put(s.main.table, rows.filter(kept))


@_fault("health")
def source_silent(s: Sample) -> Sample:
    """A source sends nothing for a fortnight, then goes on."""
    _healthy(s)
    silent = pl.col("_landing_day").is_between(s.last - timedelta(days=13), s.last, closed="left")
    return s.put(s.main.table, s.tables[s.main.table].filter(~silent))


def _step(kind: str) -> Any:
    """Return by how much a value of a contract type is another."""
    return timedelta(days=1) if kind in ("date", "instant") else 1


def _outside(contract: Contract, rule: Rule) -> pl.Expr:
    """Return a value below, or where there is no lowest one above, what a range allows."""
    name, (low, high) = rule.columns[0], rule.params["between"]
    step = _step(contract.columns[name].type)
    value: int | float | date | datetime = high + step if low is None else low - step
    return pl.lit(value, contract.columns[name].dtype).alias(name)


def _complete(columns: Iterable[str]) -> pl.Expr:
    return pl.all_horizontal(pl.lit(value=True), *(pl.col(c).is_not_null() for c in columns))


def _bounds(s: Sample, name: str) -> tuple[Any, Any]:
    """Return what the contract allows of a column of the main table."""
    for rule in s.main.rules:
        if rule.kind == "range" and rule.columns == (name,) and rule.then in ("fail", "quarantine"):
            low, high = rule.params["between"]
            return low, high
    return None, None


def _within(s: Sample, name: str, value: pl.Expr) -> pl.Expr:
    return value.cast(s.main.columns[name].dtype).clip(*_bounds(s, name)).alias(name)


def _instant(s: Sample) -> str:
    at = s.main.event_time or ""
    if s.main.columns[at].type != "instant":
        raise UserError("no instant", where=f"contract {s.main.table}", do="Days have no zone to lose.")
    return at


def _moved(s: Sample, by: str) -> pl.Expr:
    return pl.col(s.main.event_time or "").dt.offset_by(by)


def _healthy(s: Sample) -> None:
    """Refuse faults of whole days where nothing judges them, or too little has landed to tell what is usual."""
    if s.main.health is None:
        raise UserError("no health", where=f"contract {s.main.table}", do="Its days are not compared.")
    if s.tables[s.main.table]["_landing_day"].n_unique() < 35:
        raise UserError("too few days", where=f"landings of {s.main.table}", do="Five weeks tell what is usual.")


def _new_key(s: Sample) -> pl.Expr:
    """Return a column of the key moved to where no row has been."""
    moves: dict[str, Callable[[pl.Expr], pl.Expr]] = {
        "int64": lambda c: c + 10**12, "float64": lambda c: c + 1e12, "string": lambda c: c + " again",
        "instant": lambda c: c + pl.duration(microseconds=1),
    }  # fmt: skip
    kinds = {s.main.columns[name].type: name for name in reversed(s.main.key)}
    for kind, move in moves.items():
        if kind in kinds:
            return move(pl.col(kinds[kind])).alias(kinds[kind])
    raise UserError("a key of days alone", where=f"contract {s.main.table}", do="Another key is another day.")
