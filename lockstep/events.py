"""What was known on a day: the known rows of clean tables, and the events derived from them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from functools import cached_property
from pathlib import Path

import polars as pl
from polars.testing import assert_frame_equal

from lockstep.agg import EVENT_DAY
from lockstep.clock import Zone
from lockstep.contract import Contract
from lockstep.define import Source
from lockstep.errors import DataError, DefinitionError, did_you_mean
from lockstep.versions import event_day, known

__all__ = ["Events", "Table", "event_schema", "read_tables"]


class Table:
    """The clean rows of one table, all versions, each with its ``_landing_day``."""

    def __init__(self, contract: Contract, rows: pl.DataFrame, zone: Zone) -> None:
        self.contract, self.rows, self.zone = contract, rows, zone

    def known(self, day: date) -> pl.DataFrame:
        """Return the rows known on `day`: landed before it, latest version, not deleted, event day before it."""
        return known(self.rows, self.contract, day, self.zone)

    def is_settled(self, first: date, key: tuple[str, ...]) -> bool:
        """Tell whether no row ever came late, changed or went: events on their own day, dimensions before `first`.

        Nor may the rows of one event (one `key` of the source, where the table carries it) lie on several days: an
        event that grows after its day has two truths.
        """
        day = event_day(self.contract, self.zone)
        dimension = self.contract.event_time is None
        on_time = pl.col("_landing_day") < pl.lit(first) if dimension else pl.col("_landing_day") <= day
        whole = not dimension and set(key) <= set(self.rows.columns)
        one_day = day.n_unique().over(*key) == 1 if whole else pl.lit(True)
        facts = self.rows.lazy().select(
            on_time.all().alias("on_time"),
            pl.col("_deleted").any().alias("deleted"),
            (pl.struct(self.contract.key).n_unique() == pl.len()).alias("one_version"),
            one_day.all().alias("one_day"),
        )
        row = facts.collect().row(0, named=True)
        return row["on_time"] and not row["deleted"] and row["one_version"] and row["one_day"]


def read_tables(clean: Path, contracts: Mapping[str, Contract], zone: Zone, names: tuple[str, ...]) -> dict[str, Table]:
    """Read the clean partitions of the tables in `names`."""
    tables = {}
    for name in names:
        files = sorted((clean / name).glob("*.parquet"))
        if not files:
            raise DataError("no clean rows", where=f"table {name}", do="Land some days, then run `lockstep run`.")
        tables[name] = Table(contracts[name], pl.read_parquet(files, hive_partitioning=False), zone)
    return tables


def event_schema(source: Source, contracts: Mapping[str, Contract], zone: Zone) -> pl.Schema:
    """Return the columns and types of a source's events, from the contracts of its tables alone.

    Raises
    ------
    DefinitionError
        The source reads an unknown table or column, or lacks its own event time or key.
    """
    for name in source.tables:
        if name not in contracts:
            raise DefinitionError(
                f"unknown table {name!r}", where=f"source {source.name}", do=did_you_mean(name, contracts)
            )
    empty = {name: pl.LazyFrame(schema=contracts[name].schema()) for name in source.tables}
    try:
        return _ordered(source, source(empty), zone).collect_schema()
    except pl.exceptions.ColumnNotFoundError as e:
        raise DefinitionError("unknown column", where=f"source {source.name}", found=str(e).splitlines()[0]) from e


def _ordered(source: Source, events: pl.LazyFrame, zone: Zone) -> pl.LazyFrame:
    """Add EVENT_DAY and sort by time and key."""
    schema = events.collect_schema()
    for name in (source.event_time, *source.key):
        if name not in schema:
            raise DefinitionError(
                f"unknown column {name!r}", where=f"source {source.name}", do=did_you_mean(name, schema)
            )
    time = pl.col(source.event_time)
    day = time if schema[source.event_time] == pl.Date else zone.day(time)
    return events.with_columns(day.alias(EVENT_DAY)).sort(source.event_time, *source.key)


class Events:
    """The events of a source, as known on any day.

    Where every table is settled (nothing late, corrected or deleted) and the source is causal, events are derived once
    and cut; else they are derived from the known rows of each day. Both ways give the same events: the first use of the
    short way proves it on one day, and raises DefinitionError when it does not hold.
    """

    def __init__(self, source: Source, tables: Mapping[str, Table], first: date, last: date) -> None:
        self.source, self.tables, self.last = source, {t: tables[t] for t in source.tables}, last
        self.zone = next(iter(self.tables.values())).zone
        self.short = source.causal and all(t.is_settled(first, source.key) for t in self.tables.values())
        if self.short:
            middle = first + (last - first) // 2
            self._prove(middle)

    def known(self, day: date) -> pl.DataFrame:
        """Return the events known on `day` with EVENT_DAY, in order of time and key."""
        if self.short and day <= self.last:
            return self._all.filter(pl.col(EVENT_DAY) < day)
        return self.derived(day)

    def derived(self, day: date) -> pl.DataFrame:
        """Return the events of the known rows of `day`, by the definition itself."""
        events = self.source({name: t.known(day).lazy() for name, t in self.tables.items()})
        return _ordered(self.source, events, self.zone).collect()

    @cached_property
    def _all(self) -> pl.DataFrame:
        return self.derived(self.last)

    def seen(self, key: str) -> pl.DataFrame:
        """Return each entity in the source's tables with the first day it landed: columns `key`, ``_seen`` (Date)."""
        frames = [
            t.rows.lazy().group_by(key).agg(pl.col("_landing_day").min().alias("_seen"))
            for t in self.tables.values()
            if key in t.rows.columns
        ]
        if not frames:
            raise DefinitionError(
                f"no table of source {self.source.name} has the key {key!r}", where="an entity",
                do="Name a key that the raw tables carry.",
            )  # fmt: skip
        both = pl.concat([f.filter(pl.col(key).is_not_null()) for f in frames])
        return both.group_by(key).agg(pl.col("_seen").min()).sort(key).collect()

    def _prove(self, day: date) -> None:
        cut_after, cut_before = self._all.filter(pl.col(EVENT_DAY) < day), self.derived(day)
        try:
            assert_frame_equal(cut_after, cut_before, check_exact=True, check_row_order=True)
        except AssertionError as e:
            raise DefinitionError(
                "a source that is not causal", where=f"source {self.source.name}, known on {day}",
                expected="the same events whether rows or events are cut at a day",
                found=" ".join(str(e).split()), do="Remove causal=True, or make each event depend on its past alone.",
            ) from None  # fmt: skip
