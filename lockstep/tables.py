"""Clean rows of raw tables, one partition a landing day."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from functools import cached_property
from pathlib import Path

import polars as pl

from lockstep.clock import Zone
from lockstep.contract import Contract
from lockstep.errors import DataError
from lockstep.versions import event_day, known

__all__ = ["LANDED", "Table", "read_tables"]

LANDED = "_landing_day"
"""The column that says on which day a row landed."""


class Table:
    """The clean rows of one table, all versions, each with its ``_landing_day``; read from `files` when asked for."""

    def __init__(
        self, contract: Contract, rows: pl.DataFrame | None, zone: Zone, files: Mapping[date, Path] | None = None
    ) -> None:
        self.contract, self.zone, self.files = contract, zone, files or {}
        self._given = rows

    @property
    def is_dimension(self) -> bool:
        """Tell whether its rows have no event time of their own."""
        return self.contract.event_time is None

    def scan(self, some: Sequence[date] | None = None) -> pl.LazyFrame:
        """Return the rows that landed on some days, all by default, to read some columns of."""
        chosen = pl.lit(True) if some is None else pl.col(LANDED).is_in(some)
        if self._given is not None:
            return self._given.lazy().filter(chosen)
        files = [f for day, f in self.files.items() if some is None or day in some]
        return pl.scan_parquet(files or [*self.files.values()], glob=False, hive_partitioning=False).filter(chosen)

    @cached_property
    def rows(self) -> pl.DataFrame:
        """Return all rows."""
        return self.scan().collect()

    def days(self) -> list[date]:
        """Return the days on which rows landed, in order."""
        if self._given is None:
            return sorted(self.files)
        return self._given[LANDED].unique().sort().to_list()

    def landed(self, some: Sequence[date], columns: list[str] | None = None) -> pl.DataFrame:
        """Return the rows that landed on some days, by day and key; all columns by default."""
        if self._given is None:
            paths = [self.files[d] for d in some if d in self.files]
            if paths:  # each in order, as it was written
                return pl.read_parquet(paths, columns=columns, glob=False, hive_partitioning=False)
            return self.scan().select(columns or pl.all()).clear().collect()
        rows = self._given.filter(pl.col(LANDED).is_in(some)).sort(LANDED, *self.contract.key)
        return rows.select(columns or pl.all())

    def known(self, day: date) -> pl.DataFrame:
        """Return the rows known on `day`: landed before it, latest version, not deleted, event day before it."""
        return known(self.rows, self.contract, day, self.zone)

    def unsettled(self, first: date, key: Sequence[str]) -> set[date]:
        """Return the days on which a row landed that changes what was true of days before it.

        It came late, landed again, deletes another, or belongs to an event (one `key` of the source, where the table
        carries it) of which a row landed before: an event that grows after its day has two truths. A row of a dimension
        tells of all days, so none but those before `first`, the first snapshot, are settled.
        """
        found = self.untimely(self.rows, first)
        event = () if self.is_dimension or not set(key) <= set(self.rows.columns) else tuple(key)
        for same in {self.contract.key, event} - {()} if len(self.days()) > 1 else ():
            again = pl.col(LANDED) > pl.col(LANDED).min().over(same)
            found.update(self.rows.lazy().filter(again).select(pl.col(LANDED).unique()).collect().to_series())
        return found

    def untimely(self, rows: pl.DataFrame, first: date) -> set[date]:
        """Return the days on which one of `rows` came late (of a dimension: not before `first`) or deletes another."""
        time = [pl.col(self.contract.event_time).min()] if self.contract.event_time else []
        # the earliest event of a landing day tells for all: fewer instants to find the day of
        days = rows.group_by(LANDED).agg(*time, pl.col("_deleted").any())
        since = pl.lit(first) if self.is_dimension else event_day(self.contract, self.zone) + pl.duration(days=1)
        return set(days.filter((pl.col(LANDED) >= since) | pl.col("_deleted"))[LANDED])


def read_tables(clean: Path, contracts: Mapping[str, Contract], zone: Zone, names: tuple[str, ...]) -> dict[str, Table]:
    """Return the tables in `names`, to be read from their clean partitions; without any, nothing is known of a table.

    Raises
    ------
    DataError
        There are no clean rows at all.
    """
    if not clean.is_dir():
        raise DataError("no clean rows", where=str(clean), do="Land some days, then run `lockstep run`.")
    tables = {}
    for name in names:
        files = {date.fromisoformat(p.stem): p for p in sorted((clean / name).glob("*.parquet"))}
        empty = None if files else pl.DataFrame(schema=contracts[name].clean_schema())
        tables[name] = Table(contracts[name], empty, zone, files)
    return tables
