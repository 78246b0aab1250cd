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

__all__ = ["Table", "read_tables"]


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
        chosen = pl.lit(True) if some is None else pl.col("_landing_day").is_in(some)
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
        return self._given["_landing_day"].unique().sort().to_list()

    def landed(self, some: Sequence[date], columns: list[str] | None = None) -> pl.DataFrame:
        """Return the rows that landed on some days, by day and key; all columns by default."""
        if self._given is None:
            paths = [self.files[d] for d in some if d in self.files]
            if paths:  # each in order, as it was written
                return pl.read_parquet(paths, columns=columns, glob=False, hive_partitioning=False)
            return self.scan().select(columns or pl.all()).clear().collect()
        rows = self._given.filter(pl.col("_landing_day").is_in(some)).sort("_landing_day", *self.contract.key)
        return rows.select(columns or pl.all())

    def known(self, day: date) -> pl.DataFrame:
        """Return the rows known on `day`: landed before it, latest version, not deleted, event day before it."""
        return known(self.rows, self.contract, day, self.zone)

    def is_settled(self, first: date, key: tuple[str, ...]) -> bool:
        """Tell whether no row ever came late, changed or went: events on their own day, dimensions before `first`.

        Nor may the rows of one event (one `key` of the source, where the table carries it) lie on several days: an
        event that grows after its day has two truths.
        """
        day = event_day(self.contract, self.zone)
        whole = not self.is_dimension and set(key) <= set(self.rows.columns)
        one_day = day.n_unique().over(*key) == 1 if whole else pl.lit(True)
        facts = self.rows.lazy().select(
            (pl.struct(self.contract.key).n_unique() == pl.len()).alias("one_version"),
            one_day.all().alias("one_day"),
        )
        row = facts.collect().row(0, named=True)
        return self.is_on_time(self.rows, first) and row["one_version"] and row["one_day"]

    def is_on_time(self, rows: pl.DataFrame, first: date) -> bool:
        """Tell whether `rows` landed on their own day (of a dimension: before `first`), and none deletes another."""
        landed = pl.col("_landing_day")
        if self.is_dimension:
            on_time = rows.select((landed < pl.lit(first)).all()).item()
        else:  # the earliest event of a landing day tells for all: fewer instants to find the day of
            earliest = rows.group_by(landed).agg(pl.col(str(self.contract.event_time)).min())
            on_time = earliest.select((landed <= event_day(self.contract, self.zone)).all()).item()
        return bool(on_time and not rows["_deleted"].any())


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
