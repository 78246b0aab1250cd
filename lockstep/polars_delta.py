"""A Delta table on disk or in S3, at its latest version or at a given one.

Nothing here knows Feast. The library ``deltalake`` is imported when the first such table is met.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NoReturn

import polars as pl
import pyarrow as pa

from lockstep.errors import DataError, EnvironmentFault, UserError, did_you_mean

__all__ = ["DeltaTable", "read_delta"]


@dataclass(frozen=True)
class DeltaTable:
    """A Delta table, and how to read and write it.

    Parameters
    ----------
    path
        Its folder; local, or ``s3://bucket/key``.
    options, label
        As of `ParquetFiles`.
    version
        The version to read; None for the latest. A table with a version is never written.
    """

    path: str
    options: Mapping[str, str] = field(default_factory=dict)
    label: str = ""
    version: int | None = None

    @cached_property
    def schema(self) -> pl.Schema:
        """The type of every column."""
        return self.scan().collect_schema()

    @property
    def where(self) -> str:
        """What messages call this place."""
        return self.path + ("" if self.version is None else f" version {self.version}") + self.label

    def scan(self) -> pl.LazyFrame:
        """Return all rows of the version."""
        return pl.scan_delta(self._table, storage_options=self._options)

    def shared(self) -> list[str]:
        """Return all columns, sorted by name."""
        return sorted(self.schema)

    def blame(self, error: BaseException, needed: Sequence[str]) -> NoReturn:
        """Raise DataError with the table and the column at fault."""
        for name in needed:
            if name not in self.schema:
                raise DataError(f"no column {name}", where=self.where, do=did_you_mean(name, self.schema))
        found = str(error).split("\n", 1)[0]
        raise DataError("cannot read Delta table", where=self.where, found=found) from error

    @property
    def read_version(self) -> int:
        """The version that is read: the one asked for, or the latest when the table was first looked at."""
        return int(self._table.version())

    def exists(self) -> bool:
        """Return whether there is a Delta table under the path."""
        return bool(_library().DeltaTable.is_deltatable(self.path, self._options))

    def append(self, table: pa.Table) -> None:
        """Add rows as a new version."""
        if self.version is not None:
            raise UserError("a source of one version cannot be written", where=self.where, do="Leave the version out.")
        _library().write_deltalake(self._table, table, mode="append")

    def replace(self, table: pa.Table) -> None:
        """Write rows as the only ones of a new version."""
        _library().write_deltalake(
            self.path, table, mode="overwrite", schema_mode="overwrite", storage_options=self._options
        )

    @property
    def _options(self) -> dict[str, str] | None:
        return {"aws_allow_http": "true", **self.options} if self.path.startswith("s3://") else None

    @cached_property
    def _table(self) -> Any:
        try:
            return _library().DeltaTable(self.path, version=self.version, storage_options=self._options)
        except (_library().exceptions.DeltaError, OSError) as error:
            self.blame(error, [])


def read_delta(path: str, version: int | None = None, options: Mapping[str, str] | None = None) -> pl.DataFrame:
    """Return all rows of a Delta table for a landing module, and in ``_source`` which version they are.

    Parameters
    ----------
    path
        Its folder; local, or ``s3://bucket/key``.
    version
        The version to read; None for the latest.
    options
        Storage options of S3, where its usual environment does not say them.

    Returns
    -------
    DataFrame
        The table's columns, and ``_source``: ``delta <version>`` in every row, which `lockstep land` notes in
        ``landings.csv`` and the model card repeats. It is no content of a row: a new version of the same rows seals the
        same bytes.

    Raises
    ------
    DataError
        There is no such table or version, or it cannot be read.
    """
    table = DeltaTable(path, options or {}, version=version)
    source = pl.lit(f"delta {table.read_version}").alias("_source")
    try:
        return table.scan().with_columns(source).collect()
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        table.blame(error, [])


def _library() -> Any:
    try:
        import deltalake
        import deltalake.exceptions
    except ImportError as error:
        raise EnvironmentFault(
            "Delta tables need a library", found="no deltalake", do="pip install deltalake"
        ) from error
    return deltalake
