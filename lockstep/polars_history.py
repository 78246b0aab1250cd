"""The versions of one feature view in parquet files, read with Polars: asked as of an instant, or pulled whole.

Nothing here knows Feast. A file that is missing, broken, or lacks a column is an error with its name; nothing is ever
filled in, and no key is compared with a key of another kind.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import NoReturn

import polars as pl

from lockstep.errors import DataError, UserError, did_you_mean
from lockstep.polars_join import LIMIT, PER_SECOND, Unit, common_unit, epoch, expiry, in_order, latest_rows

__all__ = ["TEXT", "History", "instant_type", "parquet_files"]

TEXT = (pl.String, pl.Categorical, pl.Enum)
"""Types that hold the same thing: text."""


def parquet_files(path: str) -> tuple[Path, ...]:
    """Return the files that a path names, sorted: one file, a pattern, or all ``*.parquet`` of a folder and below.

    In folders and patterns, names that begin with ``.`` or ``_`` are skipped, as every parquet reader does.
    """
    place = Path(path)
    if place.is_file():
        return (place,)
    root, pattern = (
        (place, "**/*.parquet") if place.is_dir() else (Path(place.anchor), str(place.relative_to(place.anchor)))
    )
    found = [file for file in root.glob(pattern) if file.is_file()]
    files = tuple(sorted(f for f in found if not any(p.startswith((".", "_")) for p in _below(f, place))))
    if not files:
        raise DataError("no parquet file", where=path, do="Build it first, or mend the path of the source.")
    return files


def _below(file: Path, place: Path) -> tuple[str, ...]:
    """Return the parts of a file's path that its source does not spell out."""
    return file.relative_to(place).parts if place.is_dir() else (file.name,)


@dataclass(frozen=True)
class History:
    """The versions of one view in parquet files. Names are columns of the files unless said otherwise."""

    view: str
    files: tuple[Path, ...]
    keys: dict[str, str]
    """Key column -> column of the asking frame."""
    features: dict[str, str]
    """Column of the answer -> feature column."""
    time: str
    created: str | None = None

    @cached_property
    def schema(self) -> pl.Schema:
        """The type of every column; a needed one that is missing raises DataError."""
        try:
            schema = self._scan().collect_schema()
        except (pl.exceptions.PolarsError, OSError) as error:
            self._blame(error)
        if not set(self._needed) <= set(schema):
            self._blame(KeyError("a column"))
        return schema

    def as_of(
        self,
        asking: pl.DataFrame,
        at: str,
        *,
        ttl: timedelta | None = None,
        zone: str | None = None,
        known: bool = False,
    ) -> pl.DataFrame:
        """Return the features of the latest version for each row of `asking`, in its order.

        Parameters
        ----------
        asking
            The key columns and the datetime column `at`; naive times are UTC.
        ttl, zone
            How long a version counts, see `expiry`; None for ever.
        known
            Whether a version counts only from its created time on.
        """
        asked_at, time = instant_type(asking.schema, at, "entity_df"), self.instants(self.time)
        late = {self.created: self.instants(self.created)} if known and self.created else {}
        unit = common_unit(asked_at, time, *late.values())
        names, left, right = self._key_columns(asking.schema)
        asked = asking.select(*left, epoch(pl.col(at), asked_at, unit).alias("at"))
        if ttl:
            asked = asked.with_columns(expiry(pl.col("at"), ttl, unit, zone).alias("since"))
        low, high = (asked.select("since").min().item() if ttl else None), asked.select("at").max().item()
        rows = self._read(
            [
                *right,
                *(pl.col(name).alias(f"feature_{n}") for n, name in enumerate(self.features.values())),
                epoch(pl.col(self.time), time, unit).alias("time"),
                *(epoch(pl.col(name), dtype, unit).alias("known") for name, dtype in late.items()),
            ],
            self._between(low, high, unit) if high is not None else pl.lit(value=False),
            asked.select(names).unique() if names else None,
        )
        clocks = [c for c in rows.columns if c in ("time", "created", "known") or c.startswith("tie_")]
        found = latest_rows(asked, rows.select(*names, *clocks).with_row_index("row"), names)
        return rows.select(pl.col(f"feature_{n}").gather(found).alias(name) for n, name in enumerate(self.features))

    def pull(self, start: datetime | None, end: datetime | None, *, latest: bool) -> pl.DataFrame:
        """Return the stored rows from `start` to `end`, both included: all as they lie, or the latest of each key.

        Event and created times come back in UTC. Without keys the rows are sorted, so that who writes them one by one
        ends with the latest.
        """
        clocks = [name for name in (self.time, self.created) if name]
        answer = [
            _in_utc(pl.col(name), self.schema[name]) if name in clocks else pl.col(name)
            for name in dict.fromkeys([*self.keys, *self.features.values(), *clocks])
        ]
        span = self._between(_since_1970(start) if start else None, _since_1970(end) if end else None)
        if self.keys and not latest:
            return self._collect(self._scan().filter(span).select(answer))
        names = [f"key_{n}" for n in range(len(self.keys))]
        keys = [pl.col(column).alias(name) for name, column in zip(names, self.keys, strict=True)]
        rows = in_order(self._read([pl.struct(answer).alias("row"), *keys, pl.col(self.time).alias("time")], span))
        if latest:
            rows = rows.unique(names, keep="last", maintain_order=True) if names else rows.tail(1)
        return rows.select("row").unnest("row")

    def instants(self, column: str) -> pl.Datetime:
        """Return the type of a datetime column, or raise DataError."""
        return instant_type(self.schema, column, f"{self.files[0]} (view {self.view})")

    def _scan(self) -> pl.LazyFrame:
        # Hive partitions are not parsed: a column must be in the file. missing_columns stays "raise".
        return pl.scan_parquet(list(self.files), glob=False, hive_partitioning=False, extra_columns="ignore")

    def _between(self, low: int | None, high: int | None, unit: Unit = "us") -> pl.Expr:
        """Return an exact filter on the event time as it is stored, so that files and row groups can be skipped."""
        dtype = self.instants(self.time)
        more, less = PER_SECOND[dtype.time_unit], PER_SECOND[unit]
        kept = pl.col(self.time).is_not_null() if low is not None or high is not None else pl.lit(value=True)
        if low is not None:
            kept &= pl.col(self.time) >= _stored(-(-low * more // less), dtype)
        if high is not None:
            kept &= pl.col(self.time) <= _stored(high * more // less, dtype)
        return kept

    def _key_columns(self, asking: pl.Schema) -> tuple[list[str], list[pl.Expr], list[pl.Expr]]:
        """Return names of the key columns and what computes them on either side; raise UserError for other types."""
        names = [f"key_{n}" for n in range(len(self.keys))]
        left, right = [], []
        for name, (stored, column) in zip(names, self.keys.items(), strict=True):
            common = common_key(asking[column], self.schema[stored])
            if common is None:
                raise UserError(
                    f"key {column} has another type than its column in view {self.view}",
                    where=f"entity_df and {self.files[0]}",
                    expected=self.schema[stored],
                    found=f"{asking[column]} in entity_df",
                    do="Cast one of them: nothing is cast silently.",
                )
            left.append(pl.col(column).cast(common).alias(name))
            right.append(pl.col(stored).cast(common).alias(name))
        return names, left, right

    def _read(self, columns: list[pl.Expr], span: pl.Expr, only: pl.DataFrame | None = None) -> pl.DataFrame:
        """Read versions with their created time, and with tie-breaking columns where that does not decide."""

        def read(more: list[pl.Expr]) -> pl.DataFrame:
            rows = self._scan().filter(span).select(*columns, *more)
            return self._collect(rows if only is None else rows.join(only.lazy(), on=only.columns, how="semi"))

        created = [pl.col(self.created).alias("created")] if self.created else []
        rows = read(created)
        clock = [name for name in rows.columns if name.startswith("key_") or name in ("time", "created")]
        return read(created + self._ties()) if rows.select(clock).is_duplicated().any() else rows

    def _ties(self) -> list[pl.Expr]:
        """Return every column that all files share, so that the winner does not depend on which features are asked."""
        schemas = [pl.read_parquet_schema(file) for file in self.files]
        shared = [name for name in sorted(schemas[0]) if all(s.get(name) == schemas[0][name] for s in schemas)]
        text = [pl.col(c).cast(pl.String) if isinstance(schemas[0][c], TEXT) else pl.col(c) for c in shared]
        return [column.alias(f"tie_{n}") for n, column in enumerate(text)]

    def _collect(self, rows: pl.LazyFrame) -> pl.DataFrame:
        try:
            return rows.collect()
        except (pl.exceptions.PolarsError, OSError) as error:
            self._blame(error)

    @property
    def _needed(self) -> list[str]:
        return [*self.keys, *self.features.values(), self.time, *([self.created] if self.created else [])]

    def _blame(self, error: Exception) -> NoReturn:
        """Raise DataError with the file and the column at fault, which Polars does not name."""
        types: dict[str, pl.DataType] = {}
        for file in self.files:
            where = f"{file} (view {self.view})"
            try:
                schema = pl.read_parquet_schema(file)
                if set(self._needed) <= set(schema):
                    pl.scan_parquet(file, glob=False, hive_partitioning=False).select(self._needed).collect()
            except (pl.exceptions.PolarsError, OSError) as fault:
                raise DataError(
                    "cannot read parquet",
                    where=where,
                    found=str(fault).splitlines()[0],
                    do="Restore or rebuild the file.",
                ) from error
            for name in self._needed:
                if name not in schema:
                    raise DataError(f"no column {name}", where=where, do=did_you_mean(name, schema)) from error
                if types.setdefault(name, schema[name]) != schema[name]:
                    raise DataError(
                        f"column {name} changes its type",
                        where=where,
                        expected=f"{types[name]} as in {self.files[0]}",
                        found=schema[name],
                        do="Rebuild the file.",
                    ) from error
        raise error


def instant_type(schema: pl.Schema, column: str, where: str) -> pl.Datetime:
    """Return the type of a datetime column; raise UserError for any other type (all null counts as a datetime)."""
    dtype = schema[column]
    if isinstance(dtype, pl.Null):
        return pl.Datetime("us", "UTC")
    if not isinstance(dtype, pl.Datetime):
        raise UserError(
            f"column {column} is no instant", where=where, expected="a Datetime", found=dtype, do="Cast it to Datetime."
        )
    return dtype


def common_key(asking: pl.DataType, stored: pl.DataType) -> pl.DataType | None:
    """Return the type in which two key columns can be compared without changing a value, or None."""
    if asking == stored and not isinstance(stored, TEXT):
        return stored
    if isinstance(asking, pl.Null):
        return stored
    if isinstance(asking, TEXT) and isinstance(stored, TEXT):
        return pl.String()
    if asking.is_integer() and stored.is_integer():
        wide = {pl.UInt64, pl.Int128, pl.UInt128} & {type(asking), type(stored)}
        return None if pl.UInt128 in wide else pl.Int128() if wide else pl.Int64()
    return None


def _since_1970(instant: datetime) -> int:
    """Return microseconds since 1970; a naive time is UTC."""
    aware = instant if instant.tzinfo else instant.replace(tzinfo=UTC)
    return (aware - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def _stored(instant: int, dtype: pl.Datetime) -> pl.Expr:
    """Return an instant, counted in the unit of `dtype`, as a literal of that type."""
    return pl.lit(max(-LIMIT, min(LIMIT, instant)), dtype=pl.Int64).cast(dtype)


def _in_utc(column: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """Return a datetime column in UTC, a naive one taken as UTC, and any other column as it is."""
    if not isinstance(dtype, pl.Datetime):
        return column
    return column.dt.convert_time_zone("UTC") if dtype.time_zone else column.dt.replace_time_zone("UTC")
