"""A Feast offline store in Polars: point-in-time joins that keep every row, its order and its types.

One line in any ``feature_store.yaml``, for parquet file sources::

    offline_store: {type: lockstep.polars_store.PolarsOfflineStore}

What it promises beyond Feast's own file stores: the later created of two versions wins, always; an entity row is never
dropped, merged or moved; an integer stays an integer beside nulls; and what cannot be joined as it is declared (a text
key against numbers, a file without the column, half a file) is an error that names it, never a smaller frame.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from feast import FileSource, OnDemandFeatureView
from feast.data_format import ParquetFormat
from feast.errors import (
    EntityTimestampInferenceException,
    FeastEntityDFMissingColumnsError,
    RequestDataNotFoundInEntityDfException,
    SavedDatasetLocationAlreadyExists,
)
from feast.feature_view import DUMMY_ENTITY_ID, DUMMY_ENTITY_VAL
from feast.infra.offline_stores.file_source import SavedDatasetFileStorage
from feast.infra.offline_stores.offline_store import OfflineStore, RetrievalJob, RetrievalMetadata
from feast.repo_config import FeastConfigBaseModel
from feast.types import from_feast_to_pyarrow_type
from feast.utils import _parse_feature_ref, compute_non_entity_date_range
from pydantic import StrictStr, field_validator

from lockstep.errors import DataError, DefinitionError, UserError
from lockstep.polars_join import History

__all__ = ["PolarsOfflineStore", "PolarsOfflineStoreConfig", "PolarsRetrievalJob", "parquet_files"]

_INTS = {"INT32": ("Int8", "Int16", "Int32", "UInt8", "UInt16")}
_TEXT = ("String", "Categorical", "Enum")
_STORED_AS = {
    **_INTS,
    "INT64": (*_INTS["INT32"], "Int64", "UInt32", "UInt64"),
    "FLOAT32": ("Float32",),
    "FLOAT64": ("Float32", "Float64"),
    "BOOL": ("Boolean",),
    "STRING": _TEXT,
    "BYTES": ("Binary",),
    "UNIX_TIMESTAMP": ("Datetime",),
    **dict.fromkeys(("JSON", "UUID", "TIME_UUID", "DECIMAL"), _TEXT),
}
"""Feast type -> Polars types whose every value it holds; types not listed here are not judged."""


class PolarsOfflineStoreConfig(FeastConfigBaseModel):  # type: ignore[misc]  # Feast ships no types
    """Settings of the store.

    Parameters
    ----------
    ttl_zone
        An IANA zone such as ``America/New_York``. When set, a TTL of whole days counts that zone's calendar days,
        which have 23 or 25 hours when clocks change: a value counts from the same wall clock `n` days earlier on.
        Without it, and for any other TTL, time is plainly elapsed time.
    """

    type: StrictStr = "lockstep.polars_store.PolarsOfflineStore"
    ttl_zone: StrictStr | None = None

    @field_validator("ttl_zone")
    @classmethod
    def _known(cls, zone: str | None) -> str | None:
        try:
            return zone and ZoneInfo(zone).key
        except (KeyError, OSError):
            raise ValueError(f"{zone!r} is no IANA time zone") from None


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
        return frame.hstack(_polars(table.select(table.column_names[frame.width :])))

    def to_arrow(self, validation_reference: Any = None, timeout: int | None = None) -> pa.Table:
        """Return the result as one Arrow chunk; on-demand features have their declared types, also when all null."""
        table = super().to_arrow(validation_reference=validation_reference, timeout=timeout)
        for view in self._on_demand_feature_views:
            for field in view.features:
                name = _column(view, field.name, self._full_feature_names)
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
        return _arrow(self._evaluate())

    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:
        return _pandas(self._to_arrow_internal(timeout))


class PolarsOfflineStore(OfflineStore):  # type: ignore[misc]  # Feast ships no types
    """Point-in-time joins over parquet file sources, in Polars. Feast's base class says what each method is for."""

    supports_filter_by_created_timestamp = True

    @staticmethod
    def get_historical_features(
        config: Any,
        feature_views: list[Any],
        feature_refs: list[str],
        entity_df: pd.DataFrame | pl.DataFrame | pl.LazyFrame | None,
        registry: Any,
        project: str,
        full_feature_names: bool = False,
        filter_by_created_timestamp: bool = False,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> PolarsRetrievalJob:
        """Join the latest values as of each row's timestamp to `entity_df`, which keeps its rows, order and types.

        Without an `entity_df`, the rows are the entities seen from `start_date` to `end_date`, asked at `end_date`.
        """
        on_demand = OnDemandFeatureView.get_requested_odfvs(feature_refs, project, registry)
        wanted = _wanted(feature_refs, feature_views, on_demand, full_feature_names)
        looks = [(view, _history(view, outputs, config.repo_path)) for view, outputs in wanted.values()]
        if entity_df is None:
            dates = compute_non_entity_date_range(feature_views, start_date=start_date, end_date=end_date)
            asking = _everyone([history for _, history in looks], *dates)
        else:
            asking = _frame(entity_df)
        at = _timestamp_column(asking.schema)
        order = _output_order(feature_refs, feature_views, on_demand, full_feature_names)
        _check(asking, at, [history for _, history in looks], order, on_demand)
        return PolarsRetrievalJob(
            partial(
                _retrieve, asking, at, looks, order, zone=config.offline_store.ttl_zone, known=filter_by_created_timestamp
            ),
            config.repo_path,
            full_feature_names,
            on_demand,
            _metadata(asking, at, feature_refs),
        )
