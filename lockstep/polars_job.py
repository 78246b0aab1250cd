"""What the Polars offline store hands back: a retrieval that runs when its result is asked for."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from feast import FileSource, OnDemandFeatureView
from feast.errors import SavedDatasetLocationAlreadyExists
from feast.infra.offline_stores.file_source import SavedDatasetFileStorage
from feast.infra.offline_stores.offline_store import RetrievalJob, RetrievalMetadata
from feast.types import from_feast_to_pyarrow_type

from lockstep.errors import DefinitionError, UserError

__all__ = ["PolarsRetrievalJob", "arrow"]

_NULLABLE = {
    pa.int8(): pd.Int8Dtype(),
    pa.int16(): pd.Int16Dtype(),
    pa.int32(): pd.Int32Dtype(),
    pa.int64(): pd.Int64Dtype(),
    pa.uint8(): pd.UInt8Dtype(),
    pa.uint16(): pd.UInt16Dtype(),
    pa.uint32(): pd.UInt32Dtype(),
    pa.uint64(): pd.UInt64Dtype(),
}


class PolarsRetrievalJob(RetrievalJob):  # type: ignore[misc]  # Feast ships no types
    """A retrieval that runs when its result is asked for."""

    def __init__(
        self,
        evaluate: Callable[[], pl.DataFrame],
        repo_path: Path | None,
        full_feature_names: bool = False,
        on_demand_feature_views: list[OnDemandFeatureView] | None = None,
        metadata: RetrievalMetadata | None = None,
    ) -> None:
        self._evaluate, self._repo_path = evaluate, repo_path
        self._full_feature_names, self._metadata = full_feature_names, metadata
        self._on_demand_feature_views = on_demand_feature_views or []

    @property
    def full_feature_names(self) -> bool:
        """Whether features are named ``view__feature``."""
        return self._full_feature_names

    @property
    def on_demand_feature_views(self) -> list[OnDemandFeatureView]:
        """The views computed from the retrieved columns."""
        return self._on_demand_feature_views

    @property
    def metadata(self) -> RetrievalMetadata | None:
        """What was asked for."""
        return self._metadata

    def to_polars(self, timeout: int | None = None) -> pl.DataFrame:
        """Return the result, on-demand features included, as Polars; stored columns have exactly their stored types."""
        frame = self._evaluate()
        if not self._on_demand_feature_views:
            return frame
        rest = (lambda: frame, self._repo_path, self._full_feature_names, self._on_demand_feature_views, self._metadata)
        table = PolarsRetrievalJob(*rest).to_arrow(timeout=timeout)
        computed = pl.DataFrame(table.select(table.column_names[frame.width :]))
        return frame.hstack(computed)

    def to_arrow(self, validation_reference: Any = None, timeout: int | None = None) -> pa.Table:
        """Return the result as one Arrow chunk; on-demand features have their declared types, also when all null."""
        table = super().to_arrow(validation_reference=validation_reference, timeout=timeout)
        for view in self._on_demand_feature_views:
            for field in view.features:
                name = f"{view.projection.name_to_use()}__{field.name}" if self._full_feature_names else field.name
                if name in table.column_names:
                    table = _declared(table, name, field.dtype, view.name)
        return table.combine_chunks()

    def to_df(self, validation_reference: Any = None, timeout: int | None = None) -> pd.DataFrame:
        """Return the result as pandas; integers beside nulls are of a nullable integer type instead of floats."""
        return _pandas(self.to_arrow(validation_reference=validation_reference, timeout=timeout))

    def persist(self, storage: Any, allow_overwrite: bool = False, timeout: int | None = None) -> None:
        """Write the result to one parquet file, whole or not at all."""
        if not isinstance(storage, SavedDatasetFileStorage) or not storage.file_options.uri.endswith(".parquet"):
            raise UserError(
                "cannot persist", expected="SavedDatasetFileStorage with a path that ends in .parquet", found=storage
            )
        path = Path(FileSource.get_uri_for_file_path(self._repo_path, storage.file_options.uri))
        if path.exists() and not allow_overwrite:
            raise SavedDatasetLocationAlreadyExists(location=str(path))
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            pq.write_table(self.to_arrow(timeout=timeout), beside)
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:  # noqa: ARG002 - Feast's signature
        return arrow(self._evaluate())

    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:
        return _pandas(self._to_arrow_internal(timeout))


def arrow(frame: pl.DataFrame) -> pa.Table:
    """Return a frame as one Arrow chunk of plain types: to Feast, a ``large_string`` is not text but JSON."""
    table = frame.rechunk().to_arrow()
    plain = pa.schema([field.with_type(_plain(field.type)) for field in table.schema])
    return table.cast(plain).combine_chunks()


def _plain(dtype: Any) -> Any:
    """Return the Arrow type with 32-bit offsets, inside lists too."""
    if pa.types.is_large_list(dtype):
        return pa.list_(_plain(dtype.value_type))
    return {pa.large_string(): pa.string(), pa.large_binary(): pa.binary()}.get(dtype, dtype)


def _pandas(table: pa.Table) -> pd.DataFrame:
    """Return a table as pandas, where only integer columns with nulls are of a nullable type."""
    frame: pd.DataFrame = table.to_pandas()
    for field, column in zip(table.schema, table.columns, strict=True):
        if pa.types.is_integer(field.type) and column.null_count:
            frame[field.name] = column.to_pandas(types_mapper=_NULLABLE.get)
    return frame


def _declared(table: pa.Table, name: str, dtype: Any, view: str) -> pa.Table:
    """Return the table with an on-demand feature in its declared type, which its values alone do not always tell."""
    try:
        declared = from_feast_to_pyarrow_type(dtype)
    except ValueError:  # a Feast type without an Arrow counterpart
        return table
    column = table[name]
    if not (pa.types.is_null(column.type) or pa.types.is_primitive(column.type)):
        return table
    try:
        return table.set_column(table.column_names.index(name), name, column.cast(declared))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DefinitionError(
            f"on-demand feature {name} is not of its declared type",
            where=view,
            expected=declared,
            found=f"{column.type} ({error})",
            do="Change the schema or the function.",
        ) from error
