"""What the Polars offline store hands back: a retrieval that runs when its result is asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pandas as pd
import polars as pl
import pyarrow as pa
from feast import FileSource, OnDemandFeatureView
from feast.data_format import DeltaFormat, ParquetFormat
from feast.dqm.errors import ValidationFailed
from feast.errors import SavedDatasetLocationAlreadyExists
from feast.infra.offline_stores.file_source import SavedDatasetFileStorage
from feast.infra.offline_stores.offline_store import RetrievalJob, RetrievalMetadata
from feast.types import from_feast_to_pyarrow_type

from lockstep.errors import DefinitionError, UserError
from lockstep.polars_delta import DeltaTable
from lockstep.polars_parquet import S3_OPTIONS, ParquetFiles
from lockstep.polars_types import arrow, pandas

__all__ = ["PolarsRetrievalJob", "table_of"]

_VERSION_TAG = "delta_version"


def table_of(source: Any, repo_path: Path | None, label: str = "") -> ParquetFiles | DeltaTable:
    """Return the table of a Feast file source; raise DefinitionError for other kinds of sources.

    The version of a Delta table is that of the source's tag ``delta_version``, or the latest.
    """
    style = (source.file_format or ParquetFormat()) if isinstance(source, FileSource) else None
    path = str(source.path).removeprefix("file://") if style else ""
    if not isinstance(style, ParquetFormat | DeltaFormat) or ("://" in path and not path.startswith("s3://")):
        expected = "a FileSource of parquet files or a Delta table, local or s3://"
        where, found = getattr(source, "name", ""), path or type(source).__name__
        raise DefinitionError("not a source for this store", where=where, expected=expected, found=found)
    local = not path.startswith("s3://")
    path = Path(FileSource.get_uri_for_file_path(repo_path, path)).as_posix() if local else path.rstrip("/")
    secrets = {n.lower().replace("default_", ""): v for n, v in (source.resolve_credentials() or {}).items()}
    options = {name: secrets[name] for name in S3_OPTIONS if name in secrets}
    if source.s3_endpoint_override:
        options["aws_endpoint_url"] = source.s3_endpoint_override
    if isinstance(style, ParquetFormat):
        return ParquetFiles(path, options, label)
    version = source.tags.get(_VERSION_TAG)
    if version is not None and not version.isdigit():
        raise DefinitionError(
            f"tag {_VERSION_TAG} is no version", where=source.name, expected="a number", found=version
        )
    return DeltaTable(path, options, label, None if version is None else int(version))


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
        """Return the result as one Arrow chunk; on-demand features have their declared types, also when all null.

        What is validated is what `to_df` returns: a reference was profiled on that, with its integers beside nulls.
        """
        table = super().to_arrow(timeout=timeout)
        for view in self._on_demand_feature_views:
            for field in view.features:
                name = f"{view.projection.name_to_use()}__{field.name}" if self._full_feature_names else field.name
                if name in table.column_names:
                    table = _declared(table, name, field.dtype, view.name)
        if validation_reference:
            report = validation_reference.profile.validate(pandas(table))
            if not report.is_success:
                raise ValidationFailed(report)
        return table.combine_chunks()

    def to_df(self, validation_reference: Any = None, timeout: int | None = None) -> pd.DataFrame:
        """Return the result as pandas; integers beside nulls are of a nullable integer type instead of floats."""
        return pandas(self.to_arrow(validation_reference=validation_reference, timeout=timeout))

    def persist(self, storage: Any, allow_overwrite: bool = False, timeout: int | None = None) -> None:
        """Write the result to a parquet file, as the only one of a folder, or as a Delta table: whole or not at all."""
        if not isinstance(storage, SavedDatasetFileStorage):
            raise UserError("cannot persist", expected="SavedDatasetFileStorage", found=type(storage).__name__)
        place = table_of(storage.to_data_source(), self._repo_path)
        if not allow_overwrite and place.exists():
            raise SavedDatasetLocationAlreadyExists(location=place.path)
        place.replace(self.to_arrow(timeout=timeout))

    def to_sql(self) -> NoReturn:
        """Refuse: there is no SQL behind a retrieval."""
        raise UserError(
            "a retrieval of the Polars store is no SQL query", do="Take to_polars(), to_arrow() or to_df()."
        )

    def to_remote_storage(self) -> NoReturn:
        """Refuse: one retrieval is one file, which `persist` writes to S3 as well."""
        raise UserError(
            "the Polars store does not export in parts", do="Use persist() with SavedDatasetFileStorage('s3://...')."
        )

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:  # noqa: ARG002 - Feast's signature
        return arrow(self._evaluate())

    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:
        return pandas(self._to_arrow_internal(timeout))


def _declared(table: pa.Table, name: str, dtype: Any, view: str) -> pa.Table:
    """Return the table with an on-demand feature in its declared type, which its values alone do not always tell.

    Text is never read as a number nor written as one, and no digit is cut off: such a feature raises DefinitionError.
    """
    try:
        declared = from_feast_to_pyarrow_type(dtype)
    except ValueError:  # a Feast type without an Arrow counterpart
        return table
    column = table[name]
    plain = {pa.types.is_primitive(column.type) or pa.types.is_null(column.type), pa.types.is_primitive(declared)}
    if plain == {False}:  # text, lists: as they came
        return table
    try:
        if plain != {True} and not pa.types.is_null(column.type):
            raise pa.ArrowInvalid("another kind")
        return table.set_column(table.column_names.index(name), name, column.cast(declared))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        what, found = f"on-demand feature {name} is not of its declared type", f"{column.type} ({error})"
        do = "Change the schema or the function."
        raise DefinitionError(what, where=f"view {view}", expected=declared, found=found, do=do) from error
