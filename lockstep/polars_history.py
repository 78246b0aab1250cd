"""The versions of one feature view in a table, read with Polars: asked as of an instant, or pulled whole.

Nothing here knows Feast. No key is compared with a key of another kind.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property

import polars as pl

from lockstep.errors import UserError
from lockstep.polars_delta import DeltaTable
from lockstep.polars_join import LIMIT, PER_SECOND, Unit, Versions, common_unit, epoch, expiry
from lockstep.polars_parquet import ParquetFiles

__all__ = ["TEXT", "History", "instant_type"]

TEXT = (pl.String, pl.Categorical, pl.Enum)
"""Types that hold the same thing: text."""


@dataclass(frozen=True)
class History:
    """The versions of one view. Names are columns of the table unless said otherwise."""

    view: str
    table: ParquetFiles | DeltaTable
    keys: dict[str, str]
    """Key column -> column of the asking frame."""
    features: dict[str, str]
    """Column of the answer -> feature column."""
    time: str
    created: str | None = None
    ttl: timedelta | None = None
    """How long a version counts, see `expiry`; None for ever."""

    @cached_property
    def schema(self) -> pl.Schema:
        """The type of every column; a needed one that is missing raises DataError."""
        schema = self.table.schema
        if not set(self._needed) <= set(schema):
            self.table.blame(KeyError("a column"), self._needed)
        return schema

    def as_of(
        self,
        asking: pl.DataFrame,
        at: str,
        *,
        zone: str | None = None,
        known: bool = False,
    ) -> pl.DataFrame:
        """Return the features of the latest version for each row of `asking`, in its order.

        Parameters
        ----------
        asking
            The key columns and the datetime column `at`; naive times are UTC.
        zone
            The calendar whose days a TTL counts, see `expiry`.
        known
            Whether a version counts only from its created time on.
        """
        asked_at, time = instant_type(asking.schema, at, "entity_df"), self.instants(self.time)
        late = [self.instants(self.created)] if known and self.created else []
        unit = common_unit(asked_at, time, *late)
        names, left, right = self._key_columns(asking.schema)
        asked = asking.select(*left, epoch(pl.col(at), asked_at, unit).alias("at"))
        ids = asked.select(names).drop_nulls().unique().with_row_index("key") if names else pl.DataFrame({"key": [0]})
        asked = asked.join(ids, on=names or None, how="left" if names else "cross", maintain_order="left")
        if self.ttl:
            asked = asked.with_columns(expiry(pl.col("at"), self.ttl, unit, zone).alias("since"))
        edges = asked.select(pl.col("since").min() if self.ttl else pl.lit(None).alias("since"), pl.col("at").max())
        low, high = edges.row(0)
        clocks = {"time": epoch(pl.col(self.time), time, unit)}
        if known and self.created:
            clocks["known"] = epoch(pl.col(self.created), self.instants(self.created), unit)
        features = {f"feature_{n}": pl.col(name) for n, name in enumerate(self.features.values())}
        span = self._between(low, high, unit) if high is not None else pl.lit(value=False)

        def read(more: dict[str, pl.Expr]) -> tuple[pl.DataFrame, Versions]:
            rows = self.table.scan().filter(span).select(*right, **clocks, **more, **features)
            rows = rows.join(ids.lazy(), on=names or None, how="inner" if names else "cross")
            found = self._collect(rows)
            return found, Versions(found.select("key", *clocks, *more).with_row_index("row"))

        rows, versions = read(self._created)
        if versions.tied:
            rows, versions = read(self._created | self._ties())
        found = versions.latest(asked)
        return rows.select(pl.col(f"feature_{n}").gather(found).alias(name) for n, name in enumerate(self.features))

    def pull(self, start: datetime | None, end: datetime | None, *, latest: bool) -> pl.DataFrame:
        """Return the stored rows from `start` to `end`, both included: all as they lie, or the latest of each key.

        Event and created times come back in UTC. Without keys the rows are sorted, so that who writes them one by one
        ends with the latest.
        """
        stamps = [name for name in (self.time, self.created) if name]
        answer = [
            _in_utc(pl.col(name), self.schema[name]) if name in stamps else pl.col(name)
            for name in dict.fromkeys([*self.keys, *self.features.values(), *stamps])
        ]
        span = self._between(_since_1970(start) if start else None, _since_1970(end) if end else None)
        if self.keys and not latest:
            return self._collect(self.table.scan().filter(span).select(answer))
        keys = {f"key_{n}": pl.col(name) for n, name in enumerate(self.keys)}
        clocks = {"time": pl.col(self.time), **self._created}
        whole = {"row": pl.struct(answer)}
        rows = self._collect(self.table.scan().filter(span).select(**whole, **keys, **clocks))
        if rows.select(*keys, *clocks).is_duplicated().any():
            clocks |= self._ties()
            rows = self._collect(self.table.scan().filter(span).select(**whole, **keys, **clocks))
        rows = rows.sort(*clocks, nulls_last=False, maintain_order=True)
        if latest:
            rows = rows.unique(list(keys), keep="last", maintain_order=True) if keys else rows.tail(1)
        return rows.select("row").unnest("row")

    def instants(self, column: str) -> pl.Datetime:
        """Return the type of a datetime column, or raise DataError."""
        return instant_type(self.schema, column, self.table.where)

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
                what, where = f"key {column} has another type than in view {self.view}", self.table.where
                expected, found = self.schema[stored], f"{asking[column]} in entity_df"
                do = "Cast one of them, nothing is cast silently; integers beside nulls are 'Int64' in pandas."
                raise UserError(what, where=where, expected=expected, found=found, do=do)
            left.append(pl.col(column).cast(common).alias(name))
            right.append(pl.col(stored).cast(common).alias(name))
        return names, left, right

    @property
    def _created(self) -> dict[str, pl.Expr]:
        return {"created": pl.col(self.created)} if self.created else {}

    def _ties(self) -> dict[str, pl.Expr]:
        """Return every column, so that the winner does not depend on which features are asked."""
        text = {name for name, dtype in self.schema.items() if isinstance(dtype, TEXT)}
        columns = [pl.col(c).cast(pl.String) if c in text else pl.col(c) for c in self.table.shared()]
        return {f"tie_{n}": column for n, column in enumerate(columns)}

    def _collect(self, rows: pl.LazyFrame) -> pl.DataFrame:
        try:
            return rows.collect()
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
            self.table.blame(error, self._needed)

    @property
    def _needed(self) -> list[str]:
        return [*self.keys, *self.features.values(), self.time, *([self.created] if self.created else [])]


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
